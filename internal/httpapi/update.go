package httpapi

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/task"
)

// Limits of an update.
const (
	// maxCount bounds a count of one request, so that a slip of a client is noticed.
	maxCount = 1_000_000_000_000_000
	// maxFailureReason is in characters.
	maxFailureReason = 4096
)

// updateTask is PATCH /task/{id}.
func (s *server) updateTask(w http.ResponseWriter, r *http.Request) error {
	outcome, err := s.outcome(w, r, readUpdate)
	if err != nil {
		return err
	}
	return s.settle(w, r, outcome)
}

// updateTasks is PATCH /task: an array of updates, of which each is answered in its own place.
func (s *server) updateTasks(w http.ResponseWriter, r *http.Request) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	outcomes, tokens, err := parseOutcomes(body, readUpdate)
	if err != nil {
		return err
	}
	if err := s.guard.admit(r, outcomes, tokens); err != nil {
		return err
	}
	results, err := s.Settler.Settle(r.Context(), outcomes...)
	if err != nil {
		return err
	}
	answer := api.Updates{Results: make([]api.UpdateResult, len(results))}
	for i := range results {
		u := &answer.Results[i]
		u.ID, u.Status = outcomes[i].ID.String(), http.StatusOK
		if results[i].Err == nil {
			u.Task = new(taskState(outcomes[i].ID, &results[i].State))
			continue
		}
		f, ok := explain(r, results[i].Err)
		if !ok {
			return results[i].Err
		}
		p := f.problem()
		u.Status, u.Error, u.Details = p.Status, p.Error, p.Details
	}
	return writeJSON(w, http.StatusOK, &answer)
}

// control is the handler of what needs no body: DELETE, pause and resume. A body is not looked at.
func (s *server) control(kind task.OutcomeKind) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := pathID(r, "id")
		if err != nil {
			return err
		}
		return s.settle(w, r, task.Outcome{ID: id, Kind: kind})
	}
}

// settle hands one outcome in and answers with the task after it.
func (s *server) settle(w http.ResponseWriter, r *http.Request, outcome task.Outcome) error {
	results, err := s.Settler.Settle(r.Context(), outcome)
	if err != nil {
		return err
	}
	if err := results[0].Err; err != nil {
		return err
	}
	state := taskState(outcome.ID, &results[0].State)
	return writeJSON(w, http.StatusOK, &state)
}

func taskState(id task.ID, s *task.State) api.TaskState {
	return api.TaskState{
		ID: id.String(), Status: statusName(s.Status), Success: s.Success, Failures: s.Failures,
		FailureReason: s.FailureReason, LastUpdated: at(s.LastUpdated),
	}
}

const (
	fieldID = iota
	fieldToken
	fieldStatus
	fieldFailureReason
	fieldNewSuccess
	fieldNewFailures
	fieldMetadata
	fieldExpectedCount
	fieldPriority
	updateFieldCount
)

var (
	updateFields = [updateFieldCount]string{
		"id", "token", "status", "failure_reason", "new_success", "new_failures", "metadata", "expected_count", "priority",
	}
	updateStatuses = []string{"Success", "Failure", "Pending"}
)

// readUpdate is a [readOutcome]. A member that is null counts as left out, and an object without members is an update that
// says that the task lives. The object has an id and a token where the path has none, and nowhere else.
func readUpdate(r *jsonread.Reader, v jsonread.Value, id task.ID) (o task.Outcome, token string) {
	o = task.Outcome{ID: id, Kind: task.Update}
	known := fieldID
	if id != (task.ID{}) {
		known = fieldStatus
	}
	var f [updateFieldCount]jsonread.Value
	if !r.Fields(v, updateFields[known:], f[known:]) {
		return o, ""
	}
	if known == fieldID {
		readID(r, "id", f[fieldID], &o)
		token = readToken(r, f[fieldToken])
	}
	readStatus(r, f[fieldStatus], f[fieldFailureReason], &o)
	readCounts(r, f[fieldNewSuccess], f[fieldNewFailures], &o)
	readEdits(r, f[fieldMetadata], f[fieldExpectedCount], f[fieldPriority], &o)
	return o, token
}

func readStatus(r *jsonread.Reader, status, reason jsonread.Value, o *task.Outcome) {
	if !status.IsNull() {
		name, ok := r.String("status", status)
		if !ok {
			return
		}
		o.Status, _ = task.ParseStatus(name)
		if s := o.Status; s != task.Success && s != task.Failure && s != task.Pending {
			r.Addf("status", "must be Success, Failure or Pending, is %s%s",
				jsonread.Quote(name), jsonread.Suggest(name, updateStatuses))
			return
		}
	}
	if !reason.IsNull() {
		text, ok := r.String("failure_reason", reason)
		if !ok {
			return
		}
		o.FailureReason = text
	}
	blank := strings.TrimSpace(o.FailureReason) == ""
	switch n := utf8.RuneCountInString(o.FailureReason); {
	case o.Status == task.Failure && blank:
		r.Addf("failure_reason", "is required with the status Failure, and must not be empty")
	case o.Status != task.Failure && !blank:
		r.Addf("failure_reason", "goes with the status Failure only")
	case n > maxFailureReason:
		r.Addf("failure_reason", "must have at most %d characters, has %d", maxFailureReason, n)
	case blank:
		o.FailureReason = ""
	}
}

// readCounts reads counts; left out they are 0.
func readCounts(r *jsonread.Reader, success, failures jsonread.Value, o *task.Outcome) {
	if !success.IsNull() {
		o.NewSuccess, _ = r.IntBetween("new_success", success, 0, maxCount)
	}
	if !failures.IsNull() {
		o.NewFailures, _ = r.IntBetween("new_failures", failures, 0, maxCount)
	}
}

func readEdits(r *jsonread.Reader, metadata, expected, priority jsonread.Value, o *task.Outcome) {
	if !metadata.IsNull() && r.Object("metadata", metadata) {
		o.Metadata = metadata.AppendCompact(make([]byte, 0, len(metadata.Raw())))
		if n := len(o.Metadata); n > task.MaxMetadata {
			r.Addf("metadata", "must have at most %d bytes, has %d", task.MaxMetadata, n)
		}
	}
	if !expected.IsNull() {
		count, _ := r.IntBetween("expected_count", expected, 0, task.MaxExpectedCount)
		o.ExpectedCount = &count
	}
	if !priority.IsNull() {
		n, _ := r.IntBetween("priority", priority, task.MinPriority, task.MaxPriority)
		o.Priority = new(int(n))
	}
}
