package httpapi

import (
	"net/http"

	"taskrunner/api"
	"taskrunner/internal/task"
)

// editRules is PATCH /batch/{id}/rules.
func (s *server) editRules(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	kind, rules, err := task.ParseRulesEdit(body)
	if err != nil {
		return err
	}
	edited, err := s.Settler.EditRules(r.Context(), id, kind, rules)
	if err != nil {
		return missing(err, "batch", id)
	}
	return writeJSON(w, http.StatusOK, &api.RulesEdited{BatchID: id.String(), Kind: kind, UpdatedCount: edited})
}
