package storetest

import (
	"errors"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// That every transition is told is seen by lifeTests.
var historyTests = []conformance{
	{"keeps the newest of what repeats", testHistoryIsBounded},
	{"of an unknown task", testNoHistory},
}

func (e *env) history(id task.ID) []task.Step {
	e.Helper()
	steps, err := e.History(e.ctx, id)
	if err != nil {
		e.Fatalf("History: %v", err)
	}
	return steps
}

// wantHistoryTo wants a history that begins with the creation, in which each step begins where the one before has ended,
// and which ends with row.
func (e *env) wantHistoryTo(id task.ID, row task.Transition) {
	e.Helper()
	steps := e.history(id)
	from, wrong := task.Status(0), false
	for i, step := range steps {
		wrong = wrong || step.From != from || step.At.IsZero() || i > 0 && step.At.Before(steps[i-1].At) ||
			(i == 0) != (step.Cause == task.Created)
		from = step.To
	}
	if wrong || len(steps) == 0 || steps[len(steps)-1].Transition != row {
		e.Errorf("history to %v: %v", row, steps)
	}
}

func testHistoryIsBounded(t *testing.T, e *env) {
	k := newTask()
	other := newTask()
	e.create(k, other)
	e.settle(pause(other))
	for range store.MaxHistory {
		e.settle(pause(k), resume(k))
	}
	e.wantClaims(k)
	steps := e.history(k.ID)
	if want := 1 + store.MaxHistory + 1; len(steps) != want { // between creation and claim
		t.Errorf("%d steps, want %d", len(steps), want)
	}
	if last := steps[len(steps)-2]; last.Cause != task.ResumedByClient || last.To != task.Pending {
		t.Errorf("before the claim: %v", last)
	}
	if n := len(e.history(other.ID)); n != 2 {
		t.Errorf("the other task has %d steps, want 2", n)
	}
}

func testNoHistory(t *testing.T, e *env) {
	if _, err := e.History(e.ctx, newTask().ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("History of an unknown task: %v", err)
	}
}
