package storetest

import (
	"testing"

	"taskrunner/internal/task"
)

var deadEndTests = []conformance{
	{"a task whose children can no longer succeed is one", testDeadEnd},
	{"upwards, to a barrier", testDeadEndUpwards},
	{"a child that failed with its other parent counts", testDeadEndByOtherParent},
	{"those of many children come in several rounds", testManyDeadEnds},
	{"canceling one sends its cancel action", testDeadEndCancels},
	{"one is found until it has been canceled", testDeadEndAfterCrash},
	{"children of other batches alone make none", testDeadEndOfOthers},
}

// deadEnds looks for dead ends in small steps until there are no others, and settles them. Then nothing is left to look at.
func (e *env) deadEnds() []task.ID {
	e.Helper()
	var all []task.ID
	for range 100 {
		work := e.work()
		ids, more, err := e.DeadEnds(e.ctx, 3)
		if err != nil {
			e.Fatalf("DeadEnds: %v", err)
		}
		if !work.DeadEnds && (len(ids) > 0 || more) {
			e.Errorf("dead ends %v, which no look had found", ids)
		}
		var outcomes []task.Outcome
		for _, id := range ids {
			outcomes = append(outcomes, task.Outcome{ID: id, Kind: task.DeadEnd})
		}
		if len(outcomes) > 0 {
			e.settle(outcomes...)
		}
		all = append(all, ids...)
		if len(ids) == 0 && !more {
			if ids, more, err := e.DeadEnds(e.ctx, 1); err != nil || more || len(ids) > 0 {
				e.Errorf("when there are no others: %v, and more: %t, %v", ids, more, err)
			}
			return all
		}
		e.claim()
	}
	e.Fatalf("there are always others: %v", all)
	return nil
}

func (e *env) wantDeadEnds(want ...*task.Task) {
	e.Helper()
	e.sameTasks("dead ends", e.deadEnds(), want)
	e.wantStatus(task.Canceled, want...)
}

func testDeadEnd(t *testing.T, e *env) {
	parent := newTask()
	children := []*task.Task{newTask(after(parent)), newTask(after(parent))}
	lucky := newTask()
	happy, sad := newTask(afterAny(lucky)), newTask(after(lucky))
	e.create(append(children, parent, lucky, happy, sad)...)
	e.claim()
	e.settle(cancel(children[0]), cancel(sad))
	e.wantDeadEnds()
	e.settle(cancel(children[1]))
	e.wantDeadEnds(parent)
	if got := e.detail(parent.ID).State.FailureReason; got != "Dead end" {
		t.Errorf("reason %q", got)
	}
	e.finish(task.Success, lucky)
	e.claim()
	e.finish(task.Success, happy)
	e.wantDeadEnds()
}

func testDeadEndUpwards(_ *testing.T, e *env) {
	top := newTask()
	barrier := newTask(after(top), func(t *task.Task) { t.DeadEndBarrier = true })
	middle := newTask(after(barrier))
	lower := newTask(after(middle))
	leaf := newTask(after(lower))
	e.create(top, barrier, middle, lower, leaf)
	e.settle(cancel(leaf))
	e.wantDeadEnds(lower, middle)
	e.wantStatus(task.Claimed, top)
	e.wantStatus(task.Waiting, barrier)
}

func testDeadEndByOtherParent(_ *testing.T, e *env) {
	bad, good, idle := newTask(), newTask(), newTask()
	child := newTask(after(bad, good))
	e.create(bad, good, idle, child)
	e.claim()
	e.finish(task.Failure, bad)
	e.claim() // the child fails
	e.wantDeadEnds(good)
	e.wantStatus(task.Claimed, idle)
}

// testDeadEndOfOthers: a task without children of its own batch was wanted for itself.
func testDeadEndOfOthers(_ *testing.T, e *env) {
	single, parent, own := newTask(kind("single")), newTask(), newTask(kind("own"))
	own.Dependencies = []task.Dependency{{Parent: parent.ID, RequiresSuccess: true}}
	e.create(single)
	e.create(parent, own)
	dup, child := newTask(), newTask(kind("child"))
	dup.Dedupe = []task.Matcher{{Kind: "single", Status: task.Pending}}
	dup2 := newTask(unless(task.Pending))
	child.Dependencies = []task.Dependency{{Parent: dup.ID}, {Parent: dup2.ID}}
	e.keep([]*task.Task{dup, dup2, child}, child)
	e.settle(cancel(child))
	e.wantDeadEnds()
	e.settle(cancel(own))
	e.wantDeadEnds(parent)
	e.wantStatus(task.Claimed, single)
}

func testManyDeadEnds(_ *testing.T, e *env) {
	parents := newTasks(10)
	var all []*task.Task
	for _, p := range parents {
		all = append(all, p, newTask(after(p)), newTask(after(p)))
	}
	e.create(all...)
	for _, k := range all {
		if len(k.Dependencies) > 0 {
			e.settle(cancel(k))
		}
	}
	e.wantDeadEnds(parents...)
}

func testDeadEndCancels(t *testing.T, e *env) {
	parent := newTask(endActions(1))
	child := newTask(after(parent))
	e.create(parent, child)
	e.claim()
	e.settle(startedWithCancel(parent.ID), cancel(child))
	e.wantDeadEnds(parent)
	claimed := e.claimDeliveries(ample()).Deliveries
	if len(claimed) != 1 || claimed[0].Trigger != task.TriggerCancel {
		t.Errorf("deliveries %+v, want the cancel action alone", claimed)
	}
	if r := e.settle(task.Outcome{ID: parent.ID, Kind: task.DeadEnd}).Results[0]; r.From != task.Canceled {
		t.Errorf("again, from %s", r.From)
	}
}

func testDeadEndAfterCrash(t *testing.T, e *env) {
	parent, other := newTask(), newTask()
	child, waits := newTask(after(parent)), newTask(after(other))
	e.create(parent, other, child, waits, newTask(after(other)))
	e.settle(cancel(child), cancel(waits))
	for range 2 { // whoever found it first died
		ids, _, err := e.DeadEnds(e.ctx, 10)
		if err != nil {
			t.Error(err)
		}
		e.sameTasks("dead ends", ids, []*task.Task{parent})
	}
	e.wantDeadEnds(parent)
}
