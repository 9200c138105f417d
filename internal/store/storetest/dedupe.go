package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var dedupeTests = []conformance{
	{"by every status", testDedupeStatuses},
	{"by the values of fields", testDedupeFields},
	{"the newest one that has not ended, or the newest", testDedupeNewest},
	{"within a batch", testDedupeWithin},
	{"a circle of duplicates is refused", testDedupeCircle},
	{"what was changed a moment ago", testDedupeChanged},
	{"dependents wait for the one that is there", testDedupeDependents},
	{"dependents of one that has ended", testDedupeEnded},
	{"a parent's end is not told twice", testDedupeNotTwice},
	{"many at once create one", testDedupeRace},
	{"beside creates that do not ask", testDedupeBeside},
	{"as many shapes as there may be", testDedupeManyShapes},
	{"a dead end that got a child is none", testDedupeDeadEnd},
	{"a task that would wait for itself is refused", testDedupeItself},
}

// unless is a dedupe strategy for tasks of the kind "work".
func unless(status task.Status, fields ...string) func(*task.Task) {
	return func(t *task.Task) {
		t.Dedupe = append(t.Dedupe, task.Matcher{Kind: "work", Status: status, Fields: fields})
	}
}

// keep creates tasks and wants these kept.
func (e *env) keep(tasks []*task.Task, want ...*task.Task) store.Created {
	e.Helper()
	b := batchOf(tasks...)
	created, err := e.Create(e.ctx, b, nil)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	var got []task.ID
	for i, k := range created.Kept {
		got = append(got, k.ID)
		if created.State(i).ID != k.ID || k.CreatedAt.IsZero() {
			e.Errorf("state %d is of %s, created at %s; want %s", i, created.State(i).ID, k.CreatedAt, k.ID)
		}
	}
	if !slices.Equal(got, idsOf(want...)) {
		e.Fatalf("kept %v, want %v", names(tasks, got), names(tasks, idsOf(want...)))
	}
	summary, err := e.Batch(e.ctx, b.ID)
	if none := errors.Is(err, store.ErrNotFound); none != (len(want) == 0) || !none && summary.Tasks != len(want) {
		e.Errorf("the batch: %+v, %v; want %d tasks", summary, err, len(want))
	}
	return created
}

// both runs a test before the pump has learned of what is looked for, and after.
func both(e *env, run func()) {
	run()
	e.claim()
	run()
}

func testDedupeStatuses(_ *testing.T, e *env) {
	parent := newTask(kind("parent"))
	waiting := newTask(kind("Waiting"), after(parent))
	e.create(parent, waiting)
	of := func(s task.Status) *task.Task { return newTask(kind(s.String())) }
	pending, paused, canceled := of(task.Pending), of(task.Paused), of(task.Canceled)
	claimed, running, success, failure := of(task.Claimed), of(task.Running), of(task.Success), of(task.Failure)
	e.create(claimed, running, success, failure)
	e.claim()
	e.settle(started(running.ID), end(success.ID, task.Success), end(failure.ID, task.Failure))
	e.create(pending, paused, canceled)
	e.settle(pause(paused), cancel(canceled))
	shown := []task.Status{task.Waiting, task.Pending, task.Running, task.Paused, task.Success, task.Failure, task.Canceled}
	check := func() {
		for _, there := range task.Statuses() {
			for _, asked := range shown {
				k := newTask(kind("new"))
				k.Dedupe = []task.Matcher{{Kind: there.String(), Status: asked}}
				if asked == there || asked == task.Pending && there == task.Claimed {
					e.keep([]*task.Task{k})
				} else {
					e.keep([]*task.Task{k}, k)
				}
			}
		}
	}
	check()
	for e.tick(task.Room{}).More { // the pump learns; nothing is claimed
	}
	check()
}

func testDedupeFields(_ *testing.T, e *env) {
	there := newTask(metadata(`{"a":1,"b":[2],"c":3}`))
	e.create(there)
	both(e, func() {
		dup := newTask(unless(task.Running, "a"), unless(task.Pending, "b", "a"), metadata(`{"b":[2.0],"a":1e0}`))
		other := newTask(unless(task.Pending, "a", "b"), unless(task.Running, "a", "b"), metadata(`{"b":[3],"a":1}`))
		lacking := newTask(unless(task.Pending, "a", "z"), unless(task.Running, "z"), metadata(`{"a":1}`), kind("lacking"))
		e.keep([]*task.Task{dup, other, lacking}, other, lacking)
		e.settle(cancel(other))
		e.run()
	})
}

func testDedupeNewest(t *testing.T, e *env) {
	old, done, live, later := newTask(), newTask(), newTask(), newTask()
	e.create(old, done, live, later)
	e.run()
	e.finish(task.Success, done, later)
	e.settle(pause(old))
	everything := []func(*task.Task){kind("new"), unless(task.Success), unless(task.Running), unless(task.Paused)}
	wantParent := func(want *task.Task) {
		t.Helper()
		dup := newTask(everything...)
		child := newTask(after(dup), kind("child"))
		created := e.keep([]*task.Task{dup, child}, child)
		if got := created.Kept[0].Dependencies; len(got) != 1 || got[0].Parent != want.ID {
			t.Errorf("depends on %v, want %s", got, want.ID)
		}
		if got := e.detail(child.ID); len(got.Task.Dependencies) != 1 || got.Task.Dependencies[0].Parent != want.ID || created.Parents[want.ID] != got.Parents[0] {
			t.Errorf("%+v, parents %v", got, created.Parents)
		}
	}
	wantParent(live)
	e.claim()
	wantParent(live)
	e.finish(task.Success, live, old)
	wantParent(later)
	e.claim()
	wantParent(later)
}

func testDedupeWithin(t *testing.T, e *env) {
	first := newTask(unless(task.Pending), unless(task.Waiting))
	second := newTask(unless(task.Pending))
	child := newTask(after(second), afterAny(first), unless(task.Waiting))
	again := newTask(afterAny(first), unless(task.Waiting))
	last := newTask(after(again), afterAny(child), kind("last"))
	created := e.keep([]*task.Task{first, second, child, again, last}, first, child, last)
	if got, want := created.Kept[1].Dependencies, []task.Dependency{{Parent: first.ID, RequiresSuccess: true}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := created.Kept[2].Dependencies, []task.Dependency{{Parent: child.ID, RequiresSuccess: true}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	e.wantClaims(first)
	e.finish(task.Success, first)
	e.wantClaims(child)
	e.finish(task.Success, child)
	e.wantClaims(last)
}

func testDedupeCircle(t *testing.T, e *env) {
	b := newTask()
	c := newTask(after(b))
	a := newTask(afterAny(c), unless(task.Waiting))
	b.Dependencies = []task.Dependency{{Parent: a.ID}}
	key := &store.Idempotency{Key: "circle"}
	for range 2 { // nothing is left of the first
		_, err := e.Create(e.ctx, batchOf(b, c, a), key)
		problems, ok := errors.AsType[task.Problems](err)
		want := "cycle " + b.LocalID + " → " + c.LocalID + " → " + b.LocalID + ", with duplicates replaced by what they duplicate"
		if !ok || len(problems) != 1 || problems[0].Path != "tasks[0].dependencies" || problems[0].Message != want {
			t.Fatalf("%v, want %s", err, want)
		}
	}
	if items := e.list(store.Filter{}); len(items) != 0 {
		t.Errorf("%d tasks are there", len(items))
	}
}

func testDedupeChanged(_ *testing.T, e *env) {
	dup := func() *task.Task {
		return newTask(kind("new"), unless(task.Running, "a"), unless(task.Pending, "a"), unless(task.Failure, "a"), metadata(`{"a":1}`))
	}
	there := newTask(metadata(`{"a":1}`))
	e.create(there)
	e.keep([]*task.Task{dup()})
	e.claim() // the pump knows the shapes now
	e.keep([]*task.Task{dup()})
	e.settle(setMetadata(there, `{"a":2}`))
	k := dup()
	e.keep([]*task.Task{k}, k)
	e.settle(setMetadata(there, `{"a":1}`))
	e.keep([]*task.Task{dup()})
	e.finish(task.Success, there)
	k = dup()
	e.keep([]*task.Task{k}, k)
	e.claim()
	young := newTask(metadata(`{"a":1}`))
	e.create(young)
	e.keep([]*task.Task{dup()})
	e.claim()
	e.keep([]*task.Task{dup()})
	e.finish(task.Failure, young)
	e.keep([]*task.Task{dup()})
	e.claim()
	e.keep([]*task.Task{dup()})
}

func testDedupeDependents(t *testing.T, e *env) {
	there := newTask()
	e.create(there)
	dup := newTask(unless(task.Pending), unless(task.Running))
	child := newTask(kind("child"), after(dup))
	created := e.keep([]*task.Task{dup, child}, child)
	if created.Parents[there.ID] != task.Pending || created.State(0).Status != task.Waiting || e.detail(child.ID).State.Unmet != 1 {
		t.Errorf("%+v", created)
	}
	e.wantClaims(there)
	e.finish(task.Success, there)
	e.wantClaims(child)
}

func testDedupeEnded(t *testing.T, e *env) {
	succeeded, failed := newTask(), newTask(kind("failed"))
	e.create(succeeded, failed)
	e.claim()
	e.finish(task.Success, succeeded)
	e.finish(task.Failure, failed)
	e.claim()
	good, bad := newTask(unless(task.Success)), newTask()
	bad.Dedupe = []task.Matcher{{Kind: "failed", Status: task.Failure}}
	fine := newTask(kind("child"), after(good), afterAny(bad))
	doomed := newTask(kind("child"), after(good, bad), endActions(1))
	below := newTask(kind("child"), after(doomed))
	both := newTask(kind("child"), after(good), afterAny(below))
	created := e.keep([]*task.Task{good, bad, fine, doomed, below, both}, fine, doomed, below, both)
	for i, want := range []task.Status{task.Pending, task.Failure, task.Waiting, task.Waiting} {
		if created.State(i).Status != want {
			t.Errorf("task %d is %s, want %s", i, created.State(i).Status, want)
		}
	}
	if !created.Outbox {
		t.Error("nobody wakes the outbox")
	}
	e.wantClaims(fine, both)
	e.wantStatus(task.Failure, doomed, below)
	d := e.detail(doomed.ID)
	if d.State.FailureReason != "Required parent task "+failed.ID.String()+" failed" || d.State.EndedAt.IsZero() || len(d.Deliveries) != 1 {
		t.Errorf("%+v", d)
	}
	steps, err := e.History(e.ctx, fine.ID)
	if err != nil || len(steps) < 2 || steps[0].To != task.Waiting || steps[1].Cause != task.DependenciesMet {
		t.Errorf("%+v, %v", steps, err)
	}
	if claimed := e.claimDeliveries(ample()); len(claimed.Deliveries) != 1 {
		t.Errorf("%+v", claimed)
	}
}

func testDedupeNotTwice(t *testing.T, e *env) {
	there := newTask()
	child := newTask(kind("child"), after(there))
	e.create(there, child)
	e.wantClaims(there)
	e.finish(task.Success, there) // and its end is not told to child yet
	blocker := newTask(kind("child"))
	dup := newTask(unless(task.Success))
	late := newTask(kind("late"), after(dup, blocker))
	e.keep([]*task.Task{dup, blocker, late}, blocker, late)
	if unmet := e.detail(late.ID).State.Unmet; unmet != 1 {
		t.Errorf("%d parents are unmet, want 1", unmet)
	}
	e.wantClaims(child, blocker)
	e.finish(task.Success, blocker)
	e.wantClaims(late)
}

func testDedupeRace(t *testing.T, e *env) {
	for range 2 { // before the pump knows the shapes, and after
		var wg sync.WaitGroup
		var mu sync.Mutex
		var kept []*task.Task
		for range 50 {
			k := newTask(unless(task.Pending, "a"), unless(task.Running, "a"), metadata(`{"a":1}`))
			wg.Go(func() {
				created, err := e.Create(e.ctx, batchOf(k), nil)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				kept = append(kept, created.Kept...)
			})
		}
		wg.Wait()
		if len(kept) != 1 {
			t.Fatalf("%d were created, want 1", len(kept))
		}
		e.wantClaims(kept[0])
		e.finish(task.Success, kept[0])
		e.claim()
	}
}

// testDedupeBeside creates tasks while the shapes become known: none is missed afterwards.
func testDedupeBeside(t *testing.T, e *env) {
	const n = 40
	var wg sync.WaitGroup
	tasks := make([]*task.Task, n)
	for i := range tasks {
		tasks[i] = newTask(metadata(`{"a":%d}`, i))
		wg.Go(func() {
			if _, err := e.Create(e.ctx, batchOf(tasks[i]), nil); err != nil {
				t.Error(err)
			}
		})
	}
	probe := func(i int) *task.Task {
		return newTask(kind("probe"), unless(task.Pending, "a"), unless(task.Running, "a"), metadata(`{"a":%d}`, i))
	}
	first := probe(n)
	e.keep([]*task.Task{first}, first)
	for range 3 {
		e.tick(task.Room{})
	}
	wg.Wait()
	e.claim()
	for i := range tasks {
		e.keep([]*task.Task{probe(i)})
	}
}

// testDedupeManyShapes: as many shapes as a request can name must not use up what all of the database's users share.
func testDedupeManyShapes(_ *testing.T, e *env) {
	tasks := newTasks(size(6000))
	for i, k := range tasks {
		for m := range 10 {
			k.Dedupe = append(k.Dedupe, task.Matcher{Kind: fmt.Sprintf("kind-%d-%d", i, m), Status: task.Pending})
		}
	}
	e.keep(tasks, tasks...)
}

// testDedupeDeadEnd: who was a dead end when it was looked for is none when a task waits for it that was created since.
func testDedupeDeadEnd(t *testing.T, e *env) {
	there := newTask()
	child := newTask(kind("child"), after(there))
	e.create(there, child)
	e.run()
	e.settle(cancel(child))
	ids, _, err := e.DeadEnds(e.ctx, 10)
	if err != nil || !slices.Equal(ids, idsOf(there)) {
		t.Fatalf("dead ends: %v, %v", ids, err)
	}
	dup := newTask(unless(task.Running))
	late := newTask(kind("child"), after(dup))
	e.keep([]*task.Task{dup, late}, late)
	e.settle(task.Outcome{ID: there.ID, Kind: task.DeadEnd})
	e.wantStatus(task.Running, there)
	e.wantDeadEnds()
	e.settle(cancel(late))
	e.wantDeadEnds(there)
}

// testDedupeItself: a task that comes to depend on itself.
func testDedupeItself(t *testing.T, e *env) {
	a := newTask(unless(task.Waiting))
	b := newTask(after(a))
	_, err := e.Create(e.ctx, batchOf(b, a), nil)
	problems, ok := errors.AsType[task.Problems](err)
	want := "cycle " + b.LocalID + " → " + b.LocalID + ", with duplicates replaced by what they duplicate"
	if !ok || len(problems) != 1 || problems[0].Message != want {
		t.Fatalf("%v, want %s", err, want)
	}
}
