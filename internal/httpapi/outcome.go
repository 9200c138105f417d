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
// has to. Then the object may have the token of the task's handle as well.
type readOutcome func(r *jsonread.Reader, v jsonread.Value, id task.ID) (o task.Outcome, token string)

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
	o, token, err := parseOutcome(body, id, read)
	if err != nil {
		return o, err
	}
	admitted := []task.Outcome{o}
	err = s.guard.admit(r, admitted, []string{token})
	return admitted[0], err
}

// parseOutcome reads a body that is one report. The outcome does not refer to body.
func parseOutcome(body []byte, id task.ID, read readOutcome) (o task.Outcome, token string, err error) {
	v, err := jsonread.Parse(body, "")
	if err != nil {
		return o, "", err
	}
	r := jsonread.NewReader("")
	o, token = read(r, v, id)
	return o, token, r.Err()
}

// parseOutcomes reads a body that is an array of reports. One that is wrong makes all of them wrong; the error names every
// place. Each has its token in the same place of tokens.
func parseOutcomes(body []byte, read readOutcome) (outcomes []task.Outcome, tokens []string, err error) {
	v, err := jsonread.Parse(body, "updates")
	if err != nil {
		return nil, nil, err
	}
	r := jsonread.NewReader("updates")
	if !r.Array("", v) {
		return nil, nil, r.Err()
	}
	n := v.Len()
	if n > maxElements {
		return nil, nil, &failure{code: tooLarge, message: fmt.Sprintf("more than %d updates in one request", maxElements)}
	}
	outcomes, tokens = make([]task.Outcome, n), make([]string, n)
	for i, element := range v.Elements {
		r.EnterIndex(i)
		outcomes[i], tokens[i] = read(r, element, task.ID{})
		r.Leave()
	}
	if n == 0 {
		r.Addf("", "must not be empty")
	}
	return outcomes, tokens, r.Err()
}

// readToken reads the token of a handle; left out it is empty. The error does not repeat it.
func readToken(r *jsonread.Reader, v jsonread.Value) string {
	if v.IsNull() {
		return ""
	}
	token, _ := r.String("token", v)
	return token
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
