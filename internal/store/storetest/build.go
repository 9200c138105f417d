package storetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

func newID() task.ID { return uuid.Must(uuid.NewV7()) }

func compareIDs(a, b task.ID) int { return bytes.Compare(a[:], b[:]) }

// serial numbers the tasks of all tests, so that messages name them.
var serial atomic.Int64

const (
	hostA = "a.test"
	hostB = "b.test:8080"
)

// newTask makes a task of the kind "work" for hostA. Later ones have greater ids.
func newTask(options ...func(*task.Task)) *task.Task {
	t := &task.Task{
		ID: newID(), LocalID: "task-" + strconv.FormatInt(serial.Add(1), 10), Name: "a task", Kind: "work",
		Timeout: task.DefaultTimeout, Metadata: json.RawMessage(`{}`), OnStart: webhook(hostA, "/run"),
	}
	for _, o := range options {
		o(t)
	}
	return t
}

func newTasks(n int, options ...func(*task.Task)) []*task.Task {
	tasks := make([]*task.Task, n)
	for i := range tasks {
		tasks[i] = newTask(options...)
	}
	return tasks
}

func batchOf(tasks ...*task.Task) *task.Batch {
	b := &task.Batch{ID: newID(), Requester: "storetest", Metadata: json.RawMessage(`{}`), Tasks: tasks}
	for _, t := range tasks {
		t.BatchID = b.ID
	}
	return b
}

func webhook(host, path string) task.Action {
	return task.Action{Verb: "Post", URL: "http://" + host + path}
}

func kind(name string) func(*task.Task) { return func(t *task.Task) { t.Kind = name } }

func host(name string) func(*task.Task) {
	return func(t *task.Task) { t.OnStart = webhook(name, "/run") }
}

func priority(n int) func(*task.Task) { return func(t *task.Task) { t.Priority = n } }

func timeout(d time.Duration) func(*task.Task) { return func(t *task.Task) { t.Timeout = d } }

func metadata(format string, args ...any) func(*task.Task) {
	return func(t *task.Task) { t.Metadata = json.RawMessage(fmt.Sprintf(format, args...)) }
}

// after lets a task wait for the success of its parents, afterAny for their end.
func after(parents ...*task.Task) func(*task.Task)    { return depends(true, parents) }
func afterAny(parents ...*task.Task) func(*task.Task) { return depends(false, parents) }

func depends(requiresSuccess bool, parents []*task.Task) func(*task.Task) {
	return func(t *task.Task) {
		for _, p := range parents {
			t.Dependencies = append(t.Dependencies, task.Dependency{Parent: p.ID, RequiresSuccess: requiresSuccess})
		}
	}
}

// limit is a rule for the kind "work".
func limit(n int, fields ...string) func(*task.Task) { return limitKind("work", n, fields...) }

func limitKind(kind string, n int, fields ...string) func(*task.Task) {
	return func(t *task.Task) {
		t.Rules = append(t.Rules, task.Rule{Max: n, Matcher: task.Matcher{Kind: kind, Status: task.Running, Fields: fields}})
	}
}

// inStatus is a rule for tasks of a kind in a status.
func inStatus(status task.Status, kind string, n int, fields ...string) func(*task.Task) {
	return func(t *task.Task) {
		t.Rules = append(t.Rules, task.Rule{Max: n, Matcher: task.Matcher{Kind: kind, Status: status, Fields: fields}})
	}
}

// capacity is a rule of Capacity for tasks of a kind.
func capacity(kind string, n int, fields ...string) func(*task.Task) {
	return func(t *task.Task) {
		matcher := task.Matcher{Kind: kind, Status: task.Running, Fields: fields}
		t.Rules = append(t.Rules, task.Rule{Type: task.Capacity, Max: n, Matcher: matcher})
	}
}

func expects(n int64) func(*task.Task) { return func(t *task.Task) { t.ExpectedCount = &n } }

func setExpected(t *task.Task, n int64) task.Outcome {
	return task.Outcome{ID: t.ID, Kind: task.Update, ExpectedCount: &n}
}

// endActions gives a task n on_success and n on_failure actions.
func endActions(n int) func(*task.Task) {
	return func(t *task.Task) {
		for i := range n {
			t.OnSuccess = append(t.OnSuccess, webhook(hostB, fmt.Sprintf("/success/%d", i)))
			t.OnFailure = append(t.OnFailure, webhook(hostB, fmt.Sprintf("/failure/%d", i)))
		}
	}
}

func started(id task.ID) task.Outcome {
	return task.Outcome{ID: id, Kind: task.Started, Attempt: 1, StartStatus: 202}
}

func startFailed(id task.ID, attempt int) task.Outcome {
	return task.Outcome{
		ID: id, Kind: task.StartFailed, Attempt: attempt, StartFailures: 3, StartStatus: 503, StartError: "refused",
		FailureReason: "on_start failed",
	}
}

// startedWithCancel is an answer to on_start that brings a cancel action.
func startedWithCancel(id task.ID) task.Outcome {
	o := started(id)
	o.OnCancel = []task.Action{webhook(hostB, "/cancel")}
	return o
}

func end(id task.ID, status task.Status) task.Outcome {
	o := task.Outcome{ID: id, Kind: task.Update, Status: status}
	if status == task.Failure {
		o.FailureReason = "broken"
	}
	return o
}

func count(id task.ID, success, failures int64) task.Outcome {
	return task.Outcome{ID: id, Kind: task.Count, NewSuccess: success, NewFailures: failures}
}

func cancel(t *task.Task) task.Outcome { return task.Outcome{ID: t.ID, Kind: task.Cancel} }
func pause(t *task.Task) task.Outcome  { return task.Outcome{ID: t.ID, Kind: task.Pause} }
func resume(t *task.Task) task.Outcome { return task.Outcome{ID: t.ID, Kind: task.Resume} }
func expire(t *task.Task) task.Outcome { return task.Outcome{ID: t.ID, Kind: task.Expire} }

func setPriority(t *task.Task, n int) task.Outcome {
	return task.Outcome{ID: t.ID, Kind: task.Update, Priority: new(n)}
}

func setMetadata(t *task.Task, format string, args ...any) task.Outcome {
	return task.Outcome{ID: t.ID, Kind: task.Update, Metadata: fmt.Appendf(nil, format, args...)}
}

func claimIDs(claims []store.Claim) []task.ID {
	var ids []task.ID
	for _, c := range claims {
		ids = append(ids, c.ID)
	}
	return ids
}

func idsOf(tasks ...*task.Task) []task.ID {
	var ids []task.ID
	for _, t := range tasks {
		ids = append(ids, t.ID)
	}
	return ids
}
