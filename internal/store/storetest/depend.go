package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var dependencyTests = []conformance{
	{"a diamond that mixes success and end", testDiamond},
	{"failure cascades with reasons and deliveries", testCascade},
	{"a canceled parent counts as failed", testCanceledParent},
	{"a child with one failed and one good parent in a tick", testMixedParents},
	{"a big fan-in", testFanIn},
	{"a big fan-out", func(t *testing.T, e *env) { testFanOut(t, e, size(2000), 0) }},
	{"a big fan-out in chunks", func(t *testing.T, e *env) { testFanOut(t, e, size(5000), 700) }},
	{"fan-outs that fill chunks exactly", testExactChunks},
	{"a small fan-out beside big ones", testSmallFanOut},
	{"a failed fan-out cascades to all", testFailedFanOut},
	{"a paused child settles and resumes into Pending", testPausedChildSettles},
	{"a paused child of a failed parent fails at once", testPausedChildFails},
	{"a child is settled once for each parent", testSettledOnce},
	{"a child that ended before its parents", testEndedChild},
}

func testDiamond(_ *testing.T, e *env) {
	top := newTask()
	left, right := newTask(after(top)), newTask(after(top))
	strict, lenient := newTask(after(left, right)), newTask(after(left), afterAny(right))
	last := newTask(afterAny(strict, lenient))
	b := e.create(last, lenient, strict, right, left, top) // dependencies stand later in the request
	e.wantClaims(top)
	e.finish(task.Success, top)
	e.wantClaims(left, right)
	e.finish(task.Success, left)
	e.wantClaims()
	e.wantStatus(task.Waiting, strict, lenient)
	e.finish(task.Failure, right)
	e.wantClaims(lenient)
	e.wantStatus(task.Failure, strict)
	e.wantStatus(task.Waiting, last)
	e.finish(task.Failure, lenient)
	e.wantClaims(last)
	e.finish(task.Success, last)
	e.wantCounts(b, map[task.Status]int{task.Success: 3, task.Failure: 3})
}

func testCascade(t *testing.T, e *env) {
	root := newTask(endActions(1))
	var level []*task.Task
	tasks := []*task.Task{root}
	parent := root
	for i := range 3 {
		next := newTask(after(parent), endActions(2), kind(fmt.Sprintf("level-%d", i)))
		silent := newTask(after(parent))
		tasks = append(tasks, next, silent)
		level = append(level, next, silent)
		parent = next
	}
	bystander := newTask(afterAny(parent))
	e.create(append(tasks, bystander)...)
	e.run()
	e.finish(task.Failure, root)
	pumped := e.tick(ample())
	if !pumped.More || !pumped.Outbox || pumped.Propagated[task.Failure] != 2 {
		t.Errorf("the first tick of a cascade: %+v", pumped)
	}
	if n := pumped.Transitions[store.Transition{From: task.Waiting, To: task.Failure, Kind: "level-0"}]; n != 1 {
		t.Errorf("transitions: %v", pumped.Transitions)
	}
	e.wantClaims(bystander)

	parent = root
	for i, k := range level {
		d := e.detail(k.ID)
		if want := fmt.Sprintf("Required parent task %s failed", parent.ID); d.State.FailureReason != want {
			t.Errorf("%s: %q, want %q", k.LocalID, d.State.FailureReason, want)
		}
		if d.State.Status != task.Failure || d.State.EndedAt.IsZero() || !d.State.StartedAt.IsZero() {
			t.Errorf("%s: %+v", k.LocalID, d.State)
		}
		if i%2 == 1 {
			parent = level[i-1]
		}
	}
	got := map[task.ID]int{}
	for _, d := range e.claimDeliveries(ample()).Deliveries {
		if d.Trigger != task.TriggerFailure {
			t.Errorf("trigger %d", d.Trigger)
		}
		got[d.Source]++
	}
	for i, k := range append([]*task.Task{root}, level...) {
		if want := len(k.OnFailure); got[k.ID] != want {
			t.Errorf("task %d has %d deliveries, want %d", i, got[k.ID], want)
		}
	}
}

func testCanceledParent(t *testing.T, e *env) {
	parent := newTask()
	strict := newTask(after(parent), endActions(1))
	lenient := newTask(afterAny(parent))
	e.create(parent, strict, lenient)
	e.settle(cancel(parent))
	e.wantClaims(lenient)
	e.wantStatus(task.Failure, strict)
	if got := e.detail(strict.ID).Deliveries; len(got) != 1 || got[0].Trigger != task.TriggerFailure {
		t.Errorf("deliveries %+v", got)
	}
	// A waiting child that is canceled takes its own children along.
	top := newTask()
	middle := newTask(after(top))
	bottom := newTask(after(middle))
	e.create(top, middle, bottom)
	e.settle(cancel(middle))
	e.wantClaims(top)
	e.wantStatus(task.Failure, bottom)
	e.finish(task.Success, top)
	e.wantClaims()
	e.wantStatus(task.Canceled, middle)
}

func testMixedParents(t *testing.T, e *env) {
	good, bad, other := newTask(), newTask(), newTask()
	strict := newTask(after(good, bad, other))
	lenient := newTask(after(good, other), afterAny(bad))
	e.create(good, bad, other, strict, lenient)
	e.run()
	e.settle(end(good.ID, task.Success), end(bad.ID, task.Failure), end(other.ID, task.Success))
	e.wantClaims(lenient)
	if s := e.detail(strict.ID).State; s.FailureReason != fmt.Sprintf("Required parent task %s failed", bad.ID) {
		t.Errorf("%+v", s)
	}
}

func testFanIn(t *testing.T, e *env) {
	n := size(2000)
	parents := newTasks(n)
	join := newTask(after(parents...))
	e.create(append(parents, join)...)
	e.run()
	e.finish(task.Success, parents[:n/2]...)
	e.wantClaims()
	e.finish(task.Success, parents[n/2:n-1]...)
	e.wantClaims()
	if s := e.detail(join.ID).State; s.Status != task.Waiting || s.Unmet != 1 {
		t.Fatalf("with one parent left: %+v", s)
	}
	e.finish(task.Success, parents[n-1])
	e.wantClaims(join)
}

func testFanOut(t *testing.T, e *env, n, links int) {
	parent := newTask()
	children := newTasks(n, after(parent))
	b := e.create(append([]*task.Task{parent}, children...)...)
	e.run()
	e.finish(task.Success, parent)
	p := store.PumpParams{Owner: e.owner, Room: ample(), Fetch: 10_000, Links: links}
	seen := map[task.ID]bool{}
	for ticks := 1; ; ticks++ {
		pumped := e.pump(p)
		if got := pumped.Propagated[task.Success]; links > 0 && got > links {
			t.Fatalf("a tick folded %d links, allowed are %d", got, links)
		}
		for _, c := range pumped.Claims {
			if seen[c.ID] {
				t.Fatalf("%s was claimed twice", c.ID)
			}
			seen[c.ID] = true
		}
		if !pumped.More {
			break
		}
		if ticks > n {
			t.Fatal("it does not end")
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d children were claimed", len(seen), n)
	}
	e.wantCounts(b, map[task.Status]int{task.Success: 1, task.Claimed: n})
}

func testExactChunks(_ *testing.T, e *env) {
	var parents, all, children []*task.Task
	for _, n := range []int{3, 0, 6, 1, 2, 9} {
		parent := newTask()
		own := newTasks(n, after(parent))
		parents, children = append(parents, parent), append(children, own...)
		all = append(append(all, parent), own...)
	}
	join := newTask(after(parents...))
	e.create(append(all, join)...)
	e.run()
	e.finish(task.Success, parents...)
	e.sameTasks("claimed", claimIDs(e.claimWith(store.PumpParams{Owner: e.owner, Room: ample(), Links: 3})), append(children, join))
}

// One that is folded in several ticks lets those behind it have their turn after each.
func testSmallFanOut(t *testing.T, e *env) {
	const links, big = 10, 3
	var parents, all, children []*task.Task
	for range big {
		parent := newTask()
		own := newTasks(4*links, after(parent))
		parents, children = append(parents, parent), append(children, own...)
		all = append(append(all, parent), own...)
	}
	small := newTask()
	child := newTask(after(small))
	e.create(append(all, small, child)...)
	e.run()
	for _, parent := range append(parents, small) {
		e.finish(task.Success, parent)
	}
	p := store.PumpParams{Owner: e.owner, Room: ample(), Links: links}
	claimed := map[task.ID]bool{}
	for range big + 1 {
		for _, c := range e.pump(p).Claims {
			claimed[c.ID] = true
		}
	}
	if !claimed[child.ID] {
		t.Errorf("%d were claimed in %d ticks, but not the child of one", len(claimed), big+1)
	}
	rest := slices.DeleteFunc(children, func(k *task.Task) bool { return claimed[k.ID] })
	e.sameTasks("claimed", claimIDs(e.claimWith(p)), rest)
}

func testFailedFanOut(_ *testing.T, e *env) {
	const n = 300
	parent := newTask()
	children := newTasks(n, after(parent), endActions(1))
	join := newTask(after(children...))
	lenient := newTask(afterAny(children...))
	all := append(append([]*task.Task{parent}, children...), join, lenient)
	b := e.create(all...)
	e.run()
	e.finish(task.Failure, parent)
	e.sameTasks("claimed", claimIDs(e.claimWith(store.PumpParams{Owner: e.owner, Room: ample(), Links: 90})), []*task.Task{lenient})
	e.wantCounts(b, map[task.Status]int{task.Failure: n + 2, task.Claimed: 1})
}

func testPausedChildSettles(t *testing.T, e *env) {
	p1, p2 := newTask(), newTask()
	child := newTask(after(p1, p2))
	e.create(p1, p2, child)
	e.run()
	e.settle(pause(child))
	e.finish(task.Success, p1)
	e.wantClaims()
	e.settle(resume(child)) // still one to wait for
	e.wantStatus(task.Waiting, child)
	e.settle(pause(child))
	e.finish(task.Success, p2)
	e.wantClaims()
	if s := e.detail(child.ID).State; s.Status != task.Paused || s.Unmet != 0 {
		t.Errorf("all parents done, child paused: %+v", s)
	}
	e.settle(resume(child))
	e.wantStatus(task.Pending, child)
	e.wantClaims(child)
}

func testPausedChildFails(_ *testing.T, e *env) {
	parent := newTask()
	child := newTask(after(parent), endActions(1))
	grandchild := newTask(after(child))
	e.create(parent, child, grandchild)
	e.run()
	e.settle(pause(child), pause(grandchild))
	e.finish(task.Failure, parent)
	e.wantClaims()
	e.wantStatus(task.Failure, child, grandchild)
}

func testSettledOnce(t *testing.T, e *env) {
	p1, p2 := newTask(), newTask()
	child := newTask(after(p1, p2))
	e.create(p1, p2, child)
	e.run()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := e.Settle(e.ctx, []task.Outcome{end(p1.ID, task.Success), end(p1.ID, task.Success)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	e.wantClaims()
	e.finish(task.Success, p1)
	e.settle(count(p1.ID, 1, 0))
	e.wantClaims()
	if s := e.detail(child.ID).State; s.Status != task.Waiting || s.Unmet != 1 {
		t.Errorf("one of two parents ended, often: %+v", s)
	}
	e.finish(task.Success, p2)
	e.wantClaims(child)
}

func testEndedChild(_ *testing.T, e *env) {
	parents := newTasks(3)
	child := newTask(after(parents...))
	e.create(append(slices.Clone(parents), child)...)
	e.run()
	e.settle(cancel(child))
	e.settle(end(parents[0].ID, task.Success), end(parents[1].ID, task.Failure), cancel(parents[2]))
	e.wantClaims()
	e.wantStatus(task.Canceled, child)
}
