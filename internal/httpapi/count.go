package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/task"
)

// maxElements is how many counts one PUT may have.
const maxElements = 10_000

// countTasks is PUT /task: an object, or an array of them.
func (s *server) countTasks(w http.ResponseWriter, r *http.Request) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	outcomes, array, err := parseCounts(body)
	if err != nil {
		return err
	}
	return s.count(w, r, outcomes, array)
}

// countTask is PUT /task/{id}.
func (s *server) countTask(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	outcome, err := parseCount(id, body)
	if err != nil {
		return err
	}
	return s.count(w, r, []task.Outcome{outcome}, false)
}

// count hands counts in. In an array unknown tasks are told beside the rest; alone it is an error.
func (s *server) count(w http.ResponseWriter, r *http.Request, outcomes []task.Outcome, array bool) error {
	results, err := s.Settler.Settle(r.Context(), outcomes...)
	if err != nil {
		return err
	}
	answer := api.Counts{Unknown: []string{}}
	var told map[task.ID]bool
	for i := range results {
		err := results[i].Err
		if err == nil {
			answer.Applied++
			continue
		}
		if refusal, is := errors.AsType[*task.Refusal](err); !array || !is || refusal.Code != task.NotFound {
			return err
		}
		if id := outcomes[i].ID; !told[id] {
			if told == nil {
				told = map[task.ID]bool{}
			}
			told[id] = true
			answer.Unknown = append(answer.Unknown, id.String())
		}
	}
	return writeJSON(w, http.StatusAccepted, &answer)
}

const (
	countTaskID = iota
	countNewSuccess
	countNewFailures
	countIgnored
	countFieldCount = countIgnored + 5
)

// countFields are those that matter, and then those of a PATCH that a PUT does not look at.
var countFields = [countFieldCount]string{
	"task_id", "new_success", "new_failures",
	"status", "failure_reason", "metadata", "expected_count", "priority",
}

// parseCounts reads the body of PUT /task.
func parseCounts(body []byte) (outcomes []task.Outcome, array bool, err error) {
	root := ""
	if array = bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")); array {
		root = "updates"
	}
	v, err := jsonread.Parse(body, root)
	if err != nil {
		return nil, array, err
	}
	r := jsonread.NewReader(root)
	if !array {
		return []task.Outcome{readCount(r, v, task.ID{})}, false, r.Err()
	}
	for i, element := range v.Elements {
		if i == maxElements {
			return nil, true, &failure{code: tooLarge, message: fmt.Sprintf("more than %d updates in one request", maxElements)}
		}
		r.EnterIndex(i)
		outcomes = append(outcomes, readCount(r, element, task.ID{}))
		r.Leave()
	}
	if len(outcomes) == 0 {
		r.Addf("", "must not be empty")
	}
	return outcomes, true, r.Err()
}

// parseCount reads the body of PUT /task/{id}, of which id is the path's.
func parseCount(id task.ID, body []byte) (task.Outcome, error) {
	v, err := jsonread.Parse(body, "")
	if err != nil {
		return task.Outcome{}, err
	}
	r := jsonread.NewReader("")
	return readCount(r, v, id), r.Err()
}

// readCount reads one object. id is zero when the object has to have it.
func readCount(r *jsonread.Reader, v jsonread.Value, id task.ID) task.Outcome {
	o := task.Outcome{ID: id, Kind: task.Count}
	var f [countFieldCount]jsonread.Value
	if !r.Fields(v, countFields[:], f[:]) {
		return o
	}
	readTaskID(r, f[countTaskID], &o)
	before := r.Count()
	readCounts(r, f[countNewSuccess], f[countNewFailures], &o)
	if o.NewSuccess == 0 && o.NewFailures == 0 && r.Count() == before {
		r.Addf("", "new_success and new_failures must not both be 0")
	}
	return o
}

func readTaskID(r *jsonread.Reader, v jsonread.Value, o *task.Outcome) {
	required := o.ID == task.ID{}
	switch {
	case v.IsNull() && required:
		r.Addf("task_id", "is required")
	case !v.IsNull():
		text, ok := r.String("task_id", v)
		if !ok {
			return
		}
		id, err := task.ParseID(text)
		switch {
		case err != nil:
			r.Addf("task_id", "%s is not a UUID", jsonread.Quote(text))
		case !required && id != o.ID:
			r.Addf("task_id", "differs from the path, which has %s", o.ID)
		}
		o.ID = id
	}
}
