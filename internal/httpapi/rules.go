package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/task"
)

// editChunk is how many tasks are edited at once: who reports on one of them waits for all of these.
const editChunk = 500

// editRules is PATCH /batch/{id}/rules. A task that ends meanwhile is left alone.
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
	var fields []string
	for _, rule := range rules {
		fields = append(fields, rule.Matcher.Fields...)
	}
	slices.Sort(fields)
	tasks, err := s.Store.Unfinished(r.Context(), id, kind, slices.Compact(fields))
	if err != nil {
		return missing(err, "batch", id)
	}
	if len(tasks.Lacking) > 0 {
		f := &failure{code: invalid}
		for _, l := range tasks.Lacking {
			f.details = append(f.details, fmt.Sprintf("rules: the metadata of task %s has no field %s", l.ID, jsonread.Quote(l.Field)))
		}
		return f
	}
	answer := api.RulesEdited{BatchID: id.String(), Kind: kind}
	for chunk := range slices.Chunk(tasks.IDs, editChunk) {
		outcomes := make([]task.Outcome, len(chunk))
		for i, id := range chunk {
			outcomes[i] = task.Outcome{ID: id, Kind: task.EditRules, Rules: rules}
		}
		results, err := s.Settler.Settle(r.Context(), outcomes...)
		if err != nil {
			return err
		}
		for i := range results {
			switch err := results[i].Err; {
			case err == nil && !results[i].From.Terminal():
				answer.UpdatedCount++
			case err != nil && !errors.As(err, new(*task.Refusal)):
				return err
			}
		}
	}
	return writeJSON(w, http.StatusOK, &answer)
}
