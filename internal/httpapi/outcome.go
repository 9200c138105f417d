package httpapi

import (
	"bytes"
	"fmt"
	"net/http"

	"taskrunner/internal/jsonread"
	"taskrunner/internal/task"
)

// maxElements is how many reports one request may have.
const maxElements = 10_000

// readOutcome reads the object v, a report about one task. id is the task when the path has it, and zero when the object
// has to.
type readOutcome func(r *jsonread.Reader, v jsonread.Value, id task.ID) task.Outcome

// outcome reads a request whose path names the task.
func (s *server) outcome(w http.ResponseWriter, r *http.Request, read readOutcome) (task.Outcome, error) {
	id, err := pathID(r, "id")
	if err != nil {
		return task.Outcome{}, err
	}
	body, err := s.body(w, r)
	if err != nil {
		return task.Outcome{}, err
	}
	return parseOutcome(body, id, read)
}

// parseOutcome reads a body that is one report. The outcome does not refer to body.
func parseOutcome(body []byte, id task.ID, read readOutcome) (task.Outcome, error) {
	v, err := jsonread.Parse(body, "")
	if err != nil {
		return task.Outcome{}, err
	}
	r := jsonread.NewReader("")
	return read(r, v, id), r.Err()
}

// parseOutcomes reads a body that is an array of reports. One that is wrong makes all of them wrong; the error names every
// place.
func parseOutcomes(body []byte, read readOutcome) ([]task.Outcome, error) {
	v, err := jsonread.Parse(body, "updates")
	if err != nil {
		return nil, err
	}
	r := jsonread.NewReader("updates")
	if !r.Array("", v) {
		return nil, r.Err()
	}
	var outcomes []task.Outcome
	for i, element := range v.Elements {
		if i == maxElements {
			return nil, &failure{code: tooLarge, message: fmt.Sprintf("more than %d updates in one request", maxElements)}
		}
		r.EnterIndex(i)
		outcomes = append(outcomes, read(r, element, task.ID{}))
		r.Leave()
	}
	if len(outcomes) == 0 {
		r.Addf("", "must not be empty")
	}
	return outcomes, r.Err()
}

// isArray looks at the first byte that says something.
func isArray(body []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) }

// readID reads the member name, which is the task's id: required, unless the path has it, from which it must not differ.
func readID(r *jsonread.Reader, name string, v jsonread.Value, o *task.Outcome) {
	required := o.ID == task.ID{}
	switch {
	case v.IsNull() && required:
		r.Addf(name, "is required")
	case !v.IsNull():
		text, ok := r.String(name, v)
		if !ok {
			return
		}
		id, err := task.ParseID(text)
		switch {
		case err != nil || id == task.ID{}:
			r.Addf(name, "%s is not a UUID", jsonread.Quote(text))
		case !required && id != o.ID:
			r.Addf(name, "differs from the path, which has %s", o.ID)
		}
		o.ID = id
	}
}
