package storetest

import (
	"slices"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var waiterTests = []conformance{
	{"a waiter is canceled", testCancelWaiter},
	{"a waiter is paused and resumed", testPauseWaiter},
	{"a waiter's priority is edited", testPriorityOfWaiter},
	{"a waiter's metadata is edited", testMetadataOfWaiter},
	{"a ready task's priority and metadata are edited", testEditReady},
	{"a waiter goes from one gate to the next", testWaiterMoves},
	{"freed slots go to waiters before newcomers", testFreedSlots},
	{"many slots are freed at once", testManyFreed},
	{"many gates are freed at once", testManyGates},
	{"many leave the queue before a slot is freed", testManyLeave},
	{"waiters cost the others nothing", testWaitersCostNothing},
	{"those held back do not hide those behind them", testBlockedHead},
}

// oneGate is a running task and n that wait for its slot.
func (e *env) oneGate(n int) (*task.Task, []*task.Task) {
	e.Helper()
	holder := newTask(limit(1, "v"), metadata(`{"v":1}`))
	waiters := newTasks(n, limit(1, "v"), metadata(`{"v":1}`))
	e.create(append([]*task.Task{holder}, waiters...)...)
	e.wantClaims(holder)
	return holder, waiters
}

func testCancelWaiter(_ *testing.T, e *env) {
	holder, w := e.oneGate(4)
	e.settle(cancel(w[0]), cancel(w[2]))
	e.wantClaims()
	e.finish(task.Success, holder)
	e.wantClaims(w[1])
	e.settle(cancel(w[1]), cancel(w[3]))
	e.wantClaims()
	late := newTask(limit(1, "v"), metadata(`{"v":1}`))
	e.create(late)
	e.wantClaims(late)
}

func testPauseWaiter(_ *testing.T, e *env) {
	holder, w := e.oneGate(3)
	e.settle(pause(w[0]))
	e.finish(task.Success, holder)
	e.wantClaims(w[1])
	e.settle(pause(w[2]), resume(w[0]))
	e.wantClaims()
	e.finish(task.Success, w[1])
	e.wantClaims(w[0])
	e.settle(resume(w[2]), pause(w[2]), resume(w[2]))
	e.finish(task.Success, w[0])
	e.wantClaims(w[2])
}

func testPriorityOfWaiter(_ *testing.T, e *env) {
	holder, w := e.oneGate(4)
	e.settle(setPriority(w[3], 10))
	e.settle(setPriority(w[0], -10))
	for _, next := range []*task.Task{w[3], w[1], w[2], w[0]} {
		e.finish(task.Success, holder)
		e.wantClaims(next)
		holder = next
	}
}

func testMetadataOfWaiter(t *testing.T, e *env) {
	holder, w := e.oneGate(3)
	e.settle(setMetadata(w[1], `{"v":2}`))
	e.wantClaims(w[1]) // nobody is in its way there
	e.settle(setMetadata(w[0], `{"v":2}`))
	e.wantClaims()
	e.finish(task.Success, holder)
	e.wantClaims(w[2])
	e.finish(task.Success, w[1])
	e.wantClaims(w[0])
	e.refuse(task.Invalid, setMetadata(w[0], `{"w":2}`))

	// Several edits in one call: the last counts.
	x := newTask(limit(1, "v"), metadata(`{"v":1}`))
	e.create(x)
	e.wantClaims()
	e.settle(setMetadata(x, `{"v":7}`), setPriority(x, 4), setMetadata(x, `{"v":2}`))
	e.wantClaims()
	e.finish(task.Success, w[0])
	e.wantClaims(x)
	if d := e.detail(x.ID); d.Task.Priority != 4 || string(d.Task.Metadata) != `{"v":2}` {
		t.Errorf("%d, %s", d.Task.Priority, d.Task.Metadata)
	}
}

func testEditReady(t *testing.T, e *env) {
	a, b, c := newTask(limit(1, "v"), metadata(`{"v":1}`)), newTask(limit(1, "v"), metadata(`{"v":1}`)), newTask()
	e.create(a, b, c)
	e.settle(setPriority(b, 5), setPriority(c, 7), setPriority(c, -7), setMetadata(c, `{"any":1}`))
	e.wantClaims(b, c)
	if got := e.tick(ample()); len(got.Claims) > 0 || got.More || got.Starved {
		t.Errorf("the next tick: %+v", got)
	}
	e.settle(end(b.ID, task.Success))
	e.wantClaims(a)
}

func testWaiterMoves(_ *testing.T, e *env) {
	two := func(x, y int) *task.Task {
		return newTask(limit(1, "x"), limit(1, "y"), metadata(`{"x":%d,"y":%d}`, x, y))
	}
	holdsX, holdsY := two(1, 2), two(2, 1)
	both := two(1, 1)
	e.create(holdsX, holdsY, both)
	e.wantClaims(holdsX, holdsY)
	e.finish(task.Success, holdsX)
	e.wantClaims() // moves from x to y
	onlyX := two(1, 3)
	e.create(onlyX)
	e.wantClaims(onlyX) // x is free although somebody once waited there
	e.finish(task.Success, holdsY)
	e.wantClaims() // moves back to x
	e.finish(task.Success, onlyX)
	e.wantClaims(both)
}

func testFreedSlots(_ *testing.T, e *env) {
	holder, w := e.oneGate(2)
	young := newTask(limit(1, "v"), metadata(`{"v":1}`))
	e.create(young)
	e.finish(task.Success, holder)
	e.wantClaims(w[0])
	urgent := newTask(limit(1, "v"), metadata(`{"v":1}`), priority(1))
	e.create(urgent)
	e.finish(task.Success, w[0])
	e.wantClaims(urgent)
	e.finish(task.Success, urgent)
	e.wantClaims(w[1])
	e.finish(task.Success, w[1])
	e.wantClaims(young)
}

func testManyFreed(t *testing.T, e *env) {
	const n = 1050 // more than a tick wakes
	tasks := newTasks(2*n+10, limit(n))
	b := e.create(tasks...)
	if got := len(e.run()); got != n {
		t.Fatalf("%d started, the limit is %d", got, n)
	}
	e.finish(task.Success, tasks[:n]...)
	e.wantClaims(tasks[n : 2*n]...)
	e.wantCounts(b, map[task.Status]int{task.Success: n, task.Claimed: n, task.Pending: 10})
}

// testManyGates frees more gates than a tick visits, while there is no room, so that all are left to be visited.
func testManyGates(t *testing.T, e *env) {
	const n = store.MaxDirty + 100
	var holders, waiters []*task.Task
	for v := range n {
		holders = append(holders, newTask(limit(1, "v"), metadata(`{"v":%d}`, v)))
	}
	for v := range n {
		waiters = append(waiters, newTask(limit(1, "v"), metadata(`{"v":%d}`, v)))
	}
	e.create(slices.Concat(holders, waiters)...)
	e.wantClaims(holders...)
	e.finish(task.Success, holders...)
	for range 3 {
		if got := e.tick(task.Room{}); len(got.Claims) > 0 {
			t.Fatalf("claimed %d without room", len(got.Claims))
		}
	}
	e.wantClaims(waiters...)
}

func testManyLeave(_ *testing.T, e *env) {
	holder, w := e.oneGate(1)
	rules := []func(*task.Task){metadata(`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1}`)}
	for _, field := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		rules = append(rules, limit(1, field))
	}
	crowd := newTasks(1000, rules...)
	e.create(crowd...)
	var outcomes []task.Outcome
	for _, k := range crowd {
		outcomes = append(outcomes, cancel(k))
	}
	e.settle(outcomes...)
	e.finish(task.Success, holder)
	e.wantClaims(w[0])
}

func testWaitersCostNothing(t *testing.T, e *env) {
	const fetch = 100
	n := size(5000)
	waiters := newTasks(n, limit(1, "v"), metadata(`{"v":1}`), priority(10))
	b := e.create(waiters...)
	p := store.PumpParams{Owner: e.owner, Room: ample(), Fetch: fetch}
	parked := 0
	for {
		pumped := e.pump(p)
		parked += pumped.Parked
		if !pumped.More {
			break
		}
	}
	if parked != n-1 {
		t.Errorf("%d were parked, want %d", parked, n-1)
	}
	// From now on a tick that looks at few tasks finds those that can start at once, and parks nobody again.
	p.Fetch = 10
	p.Room = task.Room{Total: 10, PerHost: 10}
	for range 3 {
		free := newTasks(8, metadata(`{"v":2}`))
		e.create(free...)
		pumped := e.pump(p)
		e.sameTasks("claimed in one tick", claimIDs(pumped.Claims), free)
		if pumped.Parked != 0 || pumped.More || pumped.Blocked {
			t.Errorf("a tick beside parked tasks: %+v", pumped)
		}
	}
	// One freed slot moves one of them.
	e.finish(task.Success, waiters[0])
	pumped := e.pump(p)
	e.sameTasks("claimed", claimIDs(pumped.Claims), waiters[1:2])
	if pumped.Parked != 0 || pumped.More {
		t.Errorf("the tick after a freed slot: %+v", pumped)
	}
	e.wantCounts(b, map[task.Status]int{task.Success: 1, task.Claimed: 1, task.Pending: n - 2})
}

func testBlockedHead(t *testing.T, e *env) {
	holder, _ := e.oneGate(0)
	held := newTasks(40, limit(1, "v"), metadata(`{"v":1}`), priority(1))
	free := newTask()
	e.create(append(held, free)...)
	p := store.PumpParams{Owner: e.owner, Room: task.Room{Total: 2, PerHost: 2}, Fetch: 10}
	first := e.pump(p)
	if len(first.Claims) > 0 || !first.Blocked || !first.More || first.Starved {
		t.Errorf("ten looked at, all held back: %+v", first)
	}
	e.sameTasks("claimed", claimIDs(e.claimWith(p)), []*task.Task{free})

	// A tick that is told to look further than its room finds at once who may start; by default several do.
	e.settle(end(holder.ID, task.Success), end(free.ID, task.Success))
	e.wantClaims(held[0])
	again, last := newTasks(40, limit(1, "v"), metadata(`{"v":1}`), priority(1)), newTasks(2)
	e.create(append(again, last...)...)
	p = store.PumpParams{Owner: e.owner, Room: task.Room{Total: 1, PerHost: 1}}
	e.sameTasks("claimed", claimIDs(e.claimWith(p)), last[:1])
	e.create(newTasks(40, limit(1, "v"), metadata(`{"v":1}`), priority(1))...)
	p.Fetch = 50
	e.sameTasks("claimed", claimIDs(e.pump(p).Claims), last[1:])
}
