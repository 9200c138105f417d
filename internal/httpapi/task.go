package httpapi

import (
	"errors"
	"net/http"
	"time"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// getTask is GET /task/{id}.
func (s *server) getTask(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	d, err := s.Store.Task(r.Context(), id)
	if h := by(r).handle; h != nil && (errors.Is(err, store.ErrNotFound) || err == nil && h.Dead(&d.State, time.Now())) {
		return errHandle
	}
	if err != nil {
		return missing(err, "task", id)
	}
	parent := func(i int) task.Status { return d.Parents[i] }
	return writeTagged(w, r, fullTask(&d.Task, &d.State, d.Deliveries, parent))
}

// getHistory is GET /task/{id}/history.
func (s *server) getHistory(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	history, err := s.Store.History(r.Context(), id)
	if err != nil {
		return missing(err, "task", id)
	}
	steps := make([]api.Step, len(history))
	for i, step := range history {
		steps[i] = api.Step{At: at(step.At), Cause: string(step.Cause), To: step.To.String()}
		if step.From != 0 {
			steps[i].From = new(step.From.String())
		}
	}
	return writeJSON(w, http.StatusOK, steps)
}

// pathID reads an id from the path. It is never zero, which means everywhere that there is none.
func pathID(r *http.Request, name string) (task.ID, error) {
	text := r.PathValue(name)
	id, err := task.ParseID(text)
	if err != nil || id == (task.ID{}) {
		return id, invalidf("%s: %s is not a UUID", name, jsonread.Quote(text))
	}
	return id, nil
}

// missing says what was not found, if that is the error.
func missing(err error, what string, id task.ID) error {
	if errors.Is(err, store.ErrNotFound) {
		return &failure{code: notFound, message: what + " " + id.String() + " not found"}
	}
	return err
}
