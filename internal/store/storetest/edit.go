package storetest

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var editTests = []conformance{
	{"rules that allow more let those start that waited", testLoosen},
	{"stricter rules hold what has not started", testTighten},
	{"rules of a task that has ended stay", testEditEnded},
	{"rules whose fields are missing are refused", testEditWithoutField},
	{"lists the tasks whose rules are to change", testToEdit},
}

// edited is the outcome that gives t the rules of the options.
func edited(t *task.Task, options ...func(*task.Task)) task.Outcome {
	return task.Outcome{ID: t.ID, Kind: task.EditRules, Rules: newTask(options...).Rules}
}

func allEdited(tasks []*task.Task, options ...func(*task.Task)) []task.Outcome {
	outcomes := make([]task.Outcome, len(tasks))
	for i, t := range tasks {
		outcomes[i] = edited(t, options...)
	}
	return outcomes
}

func testLoosen(t *testing.T, e *env) {
	tasks := newTasks(size(1000), limit(1))
	e.create(tasks...)
	e.wantClaims(tasks[0])
	if settled := e.settle(allEdited(tasks)...); !settled.Pump {
		t.Error("nobody wakes the pump")
	}
	e.wantClaims(tasks[1:]...)
	e.finish(task.Success, tasks...)
	e.claim()
	e.wantNoDrift()
}

func testTighten(_ *testing.T, e *env) {
	tasks := newTasks(6, limit(3), metadata(`{"x":1}`))
	e.create(tasks...)
	e.wantClaims(tasks[:3]...)
	e.settle(allEdited(tasks, limit(1))...)
	e.wantClaims()
	e.finish(task.Success, tasks[0], tasks[1])
	e.wantClaims() // one still runs
	e.finish(task.Success, tasks[2])
	e.wantClaims(tasks[3])
	e.settle(allEdited(tasks, limit(1, "x"))...) // of a new shape, which counts what runs already
	e.wantClaims()
	e.settle(allEdited(tasks, limit(2, "x"))...)
	e.wantClaims(tasks[4])
	e.wantNoDrift()
}

func testEditEnded(t *testing.T, e *env) {
	k := newTask(limit(1))
	e.create(k)
	e.wantClaims(k)
	e.finish(task.Success, k)
	before := e.detail(k.ID)
	for _, rules := range []task.Outcome{edited(k), edited(k, limit(1, "nowhere"))} {
		if r := e.settle(rules).Results[0]; r.From != task.Success || r.Err != nil {
			t.Errorf("from %s: %v", r.From, r.Err)
		}
	}
	if diff := cmp.Diff(before, e.detail(k.ID)); diff != "" {
		t.Errorf("the edit changed it:\n%s", diff)
	}
}

func testEditWithoutField(_ *testing.T, e *env) {
	k := newTask(limit(1))
	e.create(k)
	e.refuse(task.Invalid, edited(k, limit(1, "tenant")))
}

func testToEdit(t *testing.T, e *env) {
	a, b, other := newTask(metadata(`{"x":1}`)), newTask(), newTask(kind("other"))
	ended := newTask()
	batch := e.create(a, b, other, ended)
	e.create(newTask()) // of another batch
	e.claim()
	e.finish(task.Success, ended)
	got, err := e.ToEdit(e.ctx, batch.ID, a.Kind, newTask(limit(1, "x")).Rules)
	want := store.ToEdit{IDs: []task.ID{a.ID, b.ID}, Lacking: []store.Lacking{{ID: b.ID, Field: "x"}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := e.ToEdit(e.ctx, a.ID, a.Kind, nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of an unknown batch: %v", err)
	}
}
