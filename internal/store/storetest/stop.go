package storetest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var stopTests = []conformance{
	{"what has not ended of a batch", testToStop},
	{"canceling in order sets nothing off", testStopInOrder},
}

func (e *env) toStop(b *task.Batch) *store.ToStop {
	e.Helper()
	u, err := e.ToStop(e.ctx, b.ID)
	if err != nil {
		e.Fatalf("ToStop: %v", err)
	}
	return u
}

func testToStop(t *testing.T, e *env) {
	if _, err := e.ToStop(e.ctx, newID()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown batch: %v", err)
	}
	done, failed, running := newTask(), newTask(), newTask()
	claimed, pausedAtWork, pending, pausedPending := newTask(), newTask(), newTask(kind("other")), newTask(kind("other"))
	child, grandchild := newTask(after(running)), newTask()
	pausedChild := newTask(after(child))
	after(pausedChild, done)(grandchild)
	dead := newTask(after(failed))
	b := e.create(grandchild, dead, pausedChild, child, done, failed, running, claimed, pausedAtWork)
	e.wantClaims(done, failed, running, claimed, pausedAtWork)
	e.settle(end(done.ID, task.Success), end(failed.ID, task.Failure), started(running.ID), pause(pausedAtWork), pause(pausedChild))
	e.claim()
	e.sameTasks("not ended", e.toStop(b).IDs, []*task.Task{grandchild, pausedChild, child, running, claimed, pausedAtWork})
	if got := e.toStop(b); got.Tasks != 9 || !slices.Equal(got.IDs[:3], idsOf(grandchild, pausedChild, child)) {
		t.Errorf("%d tasks, in the order %v", got.Tasks, names(b.Tasks, got.IDs))
	}
	other := e.create(pausedPending, pending)
	e.settle(pause(pausedPending))
	e.sameTasks("not ended of the other", e.toStop(other).IDs, []*task.Task{pausedPending, pending})
	e.settle(cancel(pausedPending), cancel(pending))
	if got := e.toStop(other); got.Tasks != 2 || len(got.IDs) != 0 {
		t.Errorf("when all have ended: %+v", got)
	}
}

// Whatever the graph: with a tick of the pump after each cancel, none of the others starts or fails.
func testStopInOrder(t *testing.T, e *env) {
	var tasks []*task.Task
	for i := range 60 {
		k := newTask(endActions(1), limit(3), func(k *task.Task) { k.Kind = []string{"work", "free"}[rand.IntN(2)] })
		for _, p := range rand.Perm(i)[:min(i, rand.IntN(4))] {
			depends(rand.IntN(2) == 0, []*task.Task{tasks[p]})(k)
		}
		tasks = append(tasks, k)
	}
	shuffled := slices.Clone(tasks)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	b := e.create(shuffled...)
	for _, claim := range e.run() {
		if rand.IntN(3) == 0 {
			e.settle(end(claim.ID, task.Success))
		}
	}
	e.claim()
	for _, k := range tasks {
		if rand.IntN(5) == 0 {
			e.settleAll(pause(k))
		}
	}
	e.claimDeliveries(ample()) // what was sent so far
	holding := 0
	order := e.toStop(b)
	for _, id := range order.IDs {
		if s := e.detail(id).State; s.HoldsSlots() {
			holding++
		}
		o := task.Outcome{ID: id, Kind: task.Cancel, FailureReason: "Batch stopped"}
		if from := e.settle(o).Results[0].From; from.Terminal() {
			t.Fatalf("a task was %s", from)
		}
		if claims := e.claim(); len(claims) > 0 {
			t.Fatalf("%d tasks started in between", len(claims))
		}
	}
	for _, id := range order.IDs {
		if s := e.detail(id).State; s.Status != task.Canceled || s.FailureReason != "Batch stopped" {
			t.Errorf("a task is %s, %q", s.Status, s.FailureReason)
		}
	}
	if got := e.claimDeliveries(ample()).Deliveries; len(got) > 0 {
		t.Errorf("%d actions are sent, though no task has one for its cancel, such as %+v", len(got), got[0])
	}
	if holding == 0 || len(e.toStop(b).IDs) > 0 {
		t.Errorf("%d were at work, %d are left", holding, len(e.toStop(b).IDs))
	}
}
