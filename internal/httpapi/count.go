package httpapi

import (
	"errors"
	"net/http"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/task"
)

// countTasks is PUT /task: an object, or an array of them.
func (s *server) countTasks(w http.ResponseWriter, r *http.Request) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	outcomes, tokens, array, err := parseCounts(body)
	if err != nil {
		return err
	}
	if err := s.guard.admit(r, outcomes, tokens); err != nil {
		return err
	}
	return s.count(w, r, outcomes, array)
}

// countTask is PUT /task/{id}.
func (s *server) countTask(w http.ResponseWriter, r *http.Request) error {
	outcome, err := s.outcome(w, r, readCount)
	if err != nil {
		return err
	}
	return s.count(w, r, []task.Outcome{outcome}, false)
}

// count hands counts in. In an array unknown tasks, and those whose handle is dead, are told beside the rest; alone it is an
// error.
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
		refusal, is := errors.AsType[*task.Refusal](err)
		if !array || !is || refusal.Code != task.NotFound && refusal.Code != task.Unauthorized {
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
	countToken
	countIgnored
	countFieldCount = countIgnored + 5
)

// countFields are those that matter, and then those of a PATCH that a PUT does not look at.
var countFields = [countFieldCount]string{
	"task_id", "new_success", "new_failures", "token",
	"status", "failure_reason", "metadata", "expected_count", "priority",
}

// parseCounts reads the body of PUT /task.
func parseCounts(body []byte) (outcomes []task.Outcome, tokens []string, array bool, err error) {
	if isArray(body) {
		outcomes, tokens, err = parseOutcomes(body, readCount)
		return outcomes, tokens, true, err
	}
	outcome, token, err := parseOutcome(body, task.ID{}, readCount)
	return []task.Outcome{outcome}, []string{token}, false, err
}

// readCount is a [readOutcome]: the members that a PATCH has as well are not looked at.
func readCount(r *jsonread.Reader, v jsonread.Value, id task.ID) (o task.Outcome, token string) {
	o = task.Outcome{ID: id, Kind: task.Count}
	var f [countFieldCount]jsonread.Value
	if !r.Fields(v, countFields[:], f[:]) {
		return o, ""
	}
	readID(r, "task_id", f[countTaskID], &o)
	before := r.Count()
	readCounts(r, f[countNewSuccess], f[countNewFailures], &o)
	if o.NewSuccess == 0 && o.NewFailures == 0 && r.Count() == before {
		r.Addf("", "new_success and new_failures must not both be 0")
	}
	return o, readToken(r, f[countToken])
}
