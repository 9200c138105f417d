package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var tallyTests = []conformance{
	{"capacity: its own work does not count", testCapacity},
	{"capacity: progress makes room", testCapacityProgress},
	{"capacity: more expected work takes room", testCapacityExpectedMore},
	{"capacity: every end gives the load back", testCapacityEnds},
	{"capacity: for each value of a field", testCapacityPerValue},
	{"capacity: of another kind, lets all go", testCapacityOtherKind},
	{"capacity: a started task stays where it was", testCapacityMetadata},
	{"capacity: beside concurrency", testCapacityAndConcurrency},
	{"capacity: a lane with many waiters", testCapacityMany},
	{"failures hold back", testFailures},
	{"waiting, paused and ended tasks are counted", testStatuses},
	{"tasks that wait themselves", testPendingOfOwnKind},
	{"children that become Pending count at once", testPendingChildren},
	{"what there was before the rule", testTallyNewShape},
	{"more changes than a tick takes", testTallyMany},
	{"explained as of this moment", testTallyExplained},
	{"rules of capacity need expected_count", testCapacityEdit},
	{"changes while a shape becomes known are not missed", testTallyRace},
}

func testCapacity(_ *testing.T, e *env) {
	big, next, last := newTask(capacity("work", 5), expects(100)), newTask(capacity("work", 5), expects(1)), newTask(capacity("work", 5), expects(1))
	free := newTask() // without a rule, and without a word of how much
	e.create(big, next, last, free)
	e.wantClaims(big, free)
	e.finish(task.Success, free)
	e.wantClaims()
	e.finish(task.Success, big)
	e.wantClaims(next, last)
}

func testCapacityProgress(t *testing.T, e *env) {
	tasks := newTasks(4, capacity("work", 10), expects(10))
	e.create(tasks...)
	e.wantClaims(tasks[0])
	for i := range 3 {
		if settled := e.settle(count(tasks[i].ID, 1, 0)); !settled.Pump {
			t.Error("nobody wakes the pump")
		}
		e.wantClaims(tasks[i+1]) // 9 left
		e.settle(count(tasks[i].ID, 0, 5))
		e.wantClaims()
		e.settle(count(tasks[i].ID, 1_000_000, 1_000_000)) // more than there was: nothing is left
		e.wantClaims()
	}
}

func testCapacityExpectedMore(_ *testing.T, e *env) {
	first, second, third := newTask(capacity("work", 10), expects(5)), newTask(capacity("work", 10), expects(4)), newTask(capacity("work", 10), expects(1))
	e.create(first)
	e.wantClaims(first)
	e.settle(setExpected(first, 10))
	e.create(second)
	e.wantClaims()
	e.settle(setExpected(first, 9))
	e.wantClaims(second)
	e.settle(setExpected(second, 0))
	e.create(third)
	e.wantClaims(third)
}

func testCapacityEnds(_ *testing.T, e *env) {
	for _, finish := range []func(t *task.Task) []task.Outcome{
		func(t *task.Task) []task.Outcome { return []task.Outcome{end(t.ID, task.Failure)} },
		func(t *task.Task) []task.Outcome { return []task.Outcome{startFailed(t.ID, 1)} },
		func(t *task.Task) []task.Outcome { return []task.Outcome{cancel(t)} },
		func(t *task.Task) []task.Outcome {
			return []task.Outcome{started(t.ID), pause(t), end(t.ID, task.Success)}
		},
	} {
		first, second := newTask(capacity("work", 10), expects(10)), newTask(capacity("work", 10), expects(10))
		e.create(first, second)
		e.wantClaims(first)
		e.settle(pause(first)) // keeps its load
		e.wantClaims()
		e.settle(resume(first))
		e.settle(finish(first)...)
		e.wantClaims(second)
		e.finish(task.Success, second)
		e.claim()
	}
}

func testCapacityPerValue(_ *testing.T, e *env) {
	of := func(v int) *task.Task { return newTask(capacity("work", 3, "v"), expects(3), metadata(`{"v":%d}`, v)) }
	a, a2, b, b2 := of(1), of(1), of(2), of(2)
	e.create(a, a2, b, b2)
	e.wantClaims(a, b)
	e.settle(count(b.ID, 1, 0))
	e.wantClaims(b2)
	e.settle(setMetadata(a2, `{"v":3}`)) // moves it to another gate
	e.wantClaims(a2)
}

func testCapacityOtherKind(_ *testing.T, e *env) {
	loads := newTasks(2, kind("load"), expects(10))
	waiters := newTasks(20, capacity("load", 20), expects(0))
	e.create(append(loads, waiters...)...)
	e.wantClaims(append([]*task.Task{}, loads...)...) // 20 left of 20: nobody may
	e.settle(count(loads[1].ID, 1, 0))
	e.wantClaims(waiters...)
}

func testCapacityMetadata(_ *testing.T, e *env) {
	of := func(v int) *task.Task { return newTask(capacity("work", 3, "v"), expects(3), metadata(`{"v":%d}`, v)) }
	first, same, other := of(1), of(1), of(2)
	e.create(first)
	e.wantClaims(first)
	e.settle(setMetadata(first, `{"v":2}`))
	e.create(same, other)
	e.wantClaims(other)
	e.settle(count(first.ID, 1, 0))
	e.wantClaims(same)
}

func testCapacityAndConcurrency(_ *testing.T, e *env) {
	tasks := newTasks(3, capacity("work", 10), expects(4), limit(2))
	e.create(tasks...)
	e.wantClaims(tasks[:2]...)
	e.settle(count(tasks[0].ID, 4, 0)) // 4 left, but both slots are taken
	e.wantClaims()
	e.finish(task.Success, tasks[0])
	e.wantClaims(tasks[2])
}

func testCapacityMany(_ *testing.T, e *env) {
	tasks := newTasks(300, capacity("work", 1000), expects(100))
	e.create(tasks...)
	e.wantClaims(tasks[:10]...)
	for i := range 5 {
		e.settle(count(tasks[i].ID, 100, 0))
	}
	e.wantClaims(tasks[10:15]...)
	e.finish(task.Success, tasks[:15]...)
	e.wantClaims(tasks[15:25]...)
	free := newTasks(100, capacity("work", 1000), expects(0), priority(1)) // bring nothing: all of them, if one
	e.create(free...)
	e.wantClaims()
	e.settle(count(tasks[24].ID, 1, 0))
	e.wantClaims(append(free, tasks[25])...)
}

func testFailures(_ *testing.T, e *env) {
	guard := inStatus(task.Failure, "work", 2, "v")
	tasks := newTasks(4, guard, metadata(`{"v":1}`))
	elsewhere := newTasks(3, guard, metadata(`{"v":2}`))
	e.create(append(tasks[:3:3], elsewhere[:2]...)...)
	e.wantClaims(append(tasks[:3:3], elsewhere[:2]...)...)
	e.finish(task.Failure, tasks[0], elsewhere[0])
	e.create(tasks[3])
	e.wantClaims(tasks[3]) // one has failed
	e.finish(task.Failure, tasks[1])
	e.finish(task.Success, tasks[2], tasks[3])
	held := newTask(guard, metadata(`{"v":1}`))
	e.create(held, elsewhere[2])
	e.wantClaims(elsewhere[2])
	e.settle(edited(held, inStatus(task.Failure, "work", 3, "v")))
	e.wantClaims(held)
}

func testStatuses(_ *testing.T, e *env) {
	for _, c := range []struct {
		status       task.Status
		enter, leave func(k *task.Task) task.Outcome
	}{
		{task.Pending, nil, cancel},
		{task.Paused, pause, resume},
		{task.Canceled, cancel, nil},
		{task.Waiting, nil, cancel},
	} {
		name := fmt.Sprintf("kind-%s", c.status)
		k := newTask(kind(name), host("nowhere"))
		if c.status == task.Waiting {
			parent := newTask(host("nowhere"))
			after(parent)(k)
			e.create(parent, k)
		} else {
			e.create(k)
		}
		p := store.PumpParams{Owner: e.owner, Room: task.Room{Total: 10, PerHost: 10, Busy: map[string]int{"nowhere": 10}}}
		if c.enter != nil {
			e.settle(c.enter(k))
		}
		waiter, patient := newTask(inStatus(c.status, name, 1)), newTask(inStatus(c.status, name, 1))
		other := newTask(kind(name), host("nowhere"))
		e.create(waiter)
		e.sameTasks(c.status.String(), claimIDs(e.claimWith(p)), []*task.Task{waiter}) // one is, and one may be
		if c.status == task.Pending {
			e.create(other)
		} else if c.enter != nil {
			e.create(other)
			e.settle(c.enter(other))
		} else {
			continue
		}
		e.create(patient)
		e.sameTasks(c.status.String(), claimIDs(e.claimWith(p)), nil)
		if c.leave != nil {
			e.settle(c.leave(other))
			e.sameTasks(c.status.String(), claimIDs(e.claimWith(p)), []*task.Task{patient})
		}
	}
}

func testPendingOfOwnKind(_ *testing.T, e *env) {
	tasks := newTasks(5, inStatus(task.Pending, "work", 3))
	e.create(tasks...)
	e.wantClaims() // four others wait
	e.settle(cancel(tasks[4]))
	e.wantClaims() // three others
	e.settle(pause(tasks[0]))
	e.wantClaims(tasks[1:4]...)
	e.settle(resume(tasks[0]))
	e.wantClaims(tasks[0])
}

func testPendingChildren(_ *testing.T, e *env) {
	parent := newTask()
	children := newTasks(3, kind("child"), after(parent), host("nowhere"))
	e.create(append(children, parent)...)
	e.wantClaims(parent)
	waiter := newTask(inStatus(task.Pending, "child", 2))
	stranger := newTask(inStatus(task.Pending, "child", 5))
	e.create(stranger)
	p := store.PumpParams{Owner: e.owner, Room: task.Room{Total: 10, PerHost: 10, Busy: map[string]int{"nowhere": 10}}}
	e.sameTasks("claimed", claimIDs(e.claimWith(p)), []*task.Task{stranger}) // the shape is known now
	e.create(waiter)
	e.finish(task.Success, parent)
	e.sameTasks("claimed", claimIDs(e.claimWith(p)), nil) // in the tick that makes three of them Pending
}

func testTallyNewShape(t *testing.T, e *env) {
	const n = store.TallyChunk + 100
	old := newTasks(n, metadata(`{"v":1}`))
	e.create(old...)
	e.create(newTask(expects(7), priority(1)))
	e.claim()
	e.finish(task.Failure, old[:2]...)
	e.finish(task.Failure, old[n-2:]...)
	waiter := newTask(inStatus(task.Failure, "work", 4, "v"), metadata(`{"v":1}`))
	free := newTask(inStatus(task.Failure, "work", 5, "v"), metadata(`{"v":1}`))
	full, room := newTask(capacity("work", 7), expects(1)), newTask(capacity("work", 8), expects(0))
	e.create(waiter, free, full, room)
	e.wantClaims(free, room)
	if g := e.explain(waiter).Gates[0]; !g.Counted || g.Used != 4 || len(g.Holders) != 4 {
		t.Errorf("%+v", g)
	}
	if g := e.explain(full).Gates[0]; !g.Counted || g.Used != 7 || len(g.Holders) != 1 {
		t.Errorf("%+v", g)
	}
}

// testTallyExplained: what is used is told as it is, before a tick has folded it.
func testTallyExplained(t *testing.T, e *env) {
	busy := newTask(expects(10), metadata(`{"v":1}`))
	failed := newTask(metadata(`{"v":1}`))
	waiter := newTask(capacity("work", 3, "v"), inStatus(task.Failure, "work", 1, "v"), expects(1), metadata(`{"v":1}`))
	e.create(busy, failed)
	e.claim()
	e.create(waiter)
	e.claim()
	want := func(load, failures int) {
		t.Helper()
		s := e.explain(waiter)
		if s.Gates[0].Used != load || s.Gates[1].Used != failures || !s.Gates[0].Counted {
			t.Errorf("%d left and %d failed, want %d and %d", s.Gates[0].Used, s.Gates[1].Used, load, failures)
		}
		used := map[task.GateID]int{}
		for _, g := range e.limits(store.LimitFilter{}).Gates {
			used[g.ID] = g.Used
		}
		if used[s.Gates[0].Gate.ID] != load {
			t.Errorf("%v, want %d", used, load)
		}
	}
	want(10, 0)
	e.settle(count(busy.ID, 4, 0))
	want(6, 0)
	e.settle(setExpected(busy, 8), setMetadata(busy, `{"v":2}`)) // it keeps its place
	want(4, 0)
	e.settle(end(failed.ID, task.Failure))
	want(4, 1)
	e.tick(task.Room{})
	want(4, 1)
	e.settle(end(busy.ID, task.Success))
	want(0, 1)
}

func testTallyMany(_ *testing.T, e *env) {
	const n = store.MaxTallyEvents + 200
	tasks := newTasks(n)
	stranger := newTask(inStatus(task.Failure, "work", 1))
	e.create(append(tasks, stranger)...)
	e.wantClaims(append(tasks, stranger)...) // the shape is known now
	e.create(newTask(inStatus(task.Failure, "work", n-100)))
	e.finish(task.Failure, tasks...)
	e.wantClaims()
}

func testCapacityEdit(t *testing.T, e *env) {
	without, with := newTask(), newTask(expects(1))
	batch := e.create(without, with)
	e.refuse(task.Invalid, edited(without, capacity("work", 1)))
	e.settle(edited(with, capacity("work", 1)))
	got, err := e.ToEdit(e.ctx, batch.ID, "work", newTask(limit(1), capacity("work", 1)).Rules)
	want := []store.Lacking{{ID: without.ID, Rule: 1}}
	if err != nil || !slices.Equal(got.Lacking, want) {
		t.Errorf("%v, %v; want %v", got.Lacking, err, want)
	}
}

// testTallyRace settles while the pump learns of rules for what is settled: in the end the gates have what there is.
func testTallyRace(t *testing.T, e *env) {
	const parts = 4
	n := parts * 2 * size(48) // half of each part fails
	tasks := newTasks(n, expects(3))
	e.create(tasks...)
	e.claim()
	var wg sync.WaitGroup
	for _, part := range slices.Collect(slices.Chunk(tasks, n/parts)) {
		wg.Go(func() {
			for i, k := range part {
				o := end(k.ID, task.Failure)
				if i%2 == 0 {
					o = count(k.ID, 1, 0)
				}
				if _, err := e.Settle(e.ctx, []task.Outcome{o}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	probe := newTask(inStatus(task.Failure, "work", n), capacity("work", 10*n), expects(0))
	e.create(probe)
	e.claim()
	wg.Wait()
	e.claim()
	s := e.explain(probe)
	if failed, load := s.Gates[0].Used, s.Gates[1].Used; failed != n/2 || load != n/2*2 {
		t.Errorf("%d failed and %d left to do, want %d and %d", failed, load, n/2, n/2*2)
	}
}
