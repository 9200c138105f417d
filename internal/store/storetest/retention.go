package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var retentionTests = []conformance{
	{"everything of an old batch goes, and nothing else", testRetentionRows},
	{"the age is that of the last end", testRetentionAge},
	{"a batch with a task that has not ended stays whole", testRetentionUnfinished},
	{"a delivery that is to come keeps its batch", testRetentionDeliveries},
	{"one that is retried by hand, too", testRetentionRetried},
	{"a batch whose end is not told yet stays", testRetentionUntold},
	{"a task of another batch keeps its parents", testRetentionDependents},
	{"no reader sees a part of a batch", testRetentionReaders},
	{"a task with very many dependencies", testRetentionManyLinks},
	{"tasks with very many dependencies between them", testRetentionDenseLinks},
	{"what was counted is no more", testRetentionTallies},
	{"shapes that find nothing", testRetentionLookups},
	{"a key goes with its batch", testRetentionKey},
	{"what is to be deleted is no duplicate", testRetentionNoDuplicate},
	{"what is to be deleted takes no reports", testRetentionReports},
	{"duplicates of what is being deleted", testRetentionDuplicates},
	{"by several processes at once", testRetentionProcesses},
}

// kept is how long the tests keep batches.
const kept = 24 * time.Hour

// Rows is implemented by stores that can count the rows of all tables.
type Rows interface {
	Rows(ctx context.Context) (map[string]int, error)
}

// rows are those of all tables but those that grow with everything that is done.
func (e *env) rows() map[string]int {
	e.Helper()
	rows, err := e.Store.(Rows).Rows(e.ctx)
	if err != nil {
		e.Fatalf("Rows: %v", err)
	}
	for _, table := range []string{"mark", "migration", "process", "pump", "shape"} {
		delete(rows, table)
	}
	return rows
}

func (e *env) expire() store.Removed {
	e.Helper()
	removed, err := e.Expire(e.ctx, kept, 1000)
	if err != nil {
		e.Fatalf("Expire: %v", err)
	}
	return removed
}

func (e *env) purge(limit int) store.Removed {
	e.Helper()
	removed, err := e.Purge(e.ctx, limit)
	if err != nil {
		e.Fatalf("Purge: %v", err)
	}
	return removed
}

// retain removes what is old, has the pump hear of it, and wants that many batches to be gone.
func (e *env) retain(batches int) {
	e.Helper()
	if removed := e.expire(); removed.Batches != batches || removed.Busy || removed.More {
		e.Fatalf("Expire: %+v, want %d batches", removed, batches)
	}
	for e.purge(1000).More {
	}
	e.claim()
}

func (e *env) wantGone(batches ...*task.Batch) {
	e.Helper()
	for _, b := range batches {
		if _, err := e.Batch(e.ctx, b.ID); !errors.Is(err, store.ErrNotFound) {
			e.Errorf("the batch is there: %v", err)
		}
		for _, k := range b.Tasks {
			if _, err := e.Task(e.ctx, k.ID); !errors.Is(err, store.ErrNotFound) {
				e.Errorf("task %s is there: %v", k.LocalID, err)
			}
		}
	}
}

// deliver claims what is due, and finishes it in that state.
func (e *env) deliver(state store.DeliveryState) []task.ID {
	e.Helper()
	var ids []task.ID
	for _, d := range e.claimDeliveries(ample()).Deliveries {
		a := store.Attempt{Delivery: d.ID, State: state, AttemptRecord: store.AttemptRecord{At: e.clock.Now(), Status: 200}}
		if state != store.DeliveryDone {
			a.Status, a.Error, a.Retry = 500, "broken", time.Hour
		}
		e.finishDeliveries(a)
		ids = append(ids, d.ID)
	}
	return ids
}

// everything creates a batch with all that a batch may have, and ends it.
func (e *env) everything(suffix string) *task.Batch {
	e.Helper()
	first := newTask(kind("first"+suffix), endActions(2), limitKind("first"+suffix, 1), expects(7), capacity("first"+suffix, 100))
	failing := newTask(kind("failing"+suffix), endActions(1), after(first), inStatus(task.Failure, "failing"+suffix, 100))
	doomed := newTask(endActions(1), after(failing))
	canceled, unique := newTask(after(first)), newTask(kind("unique"+suffix), afterAny(failing))
	unique.Dedupe = []task.Matcher{{Kind: "unique" + suffix, Status: task.Success}, {Kind: "unique" + suffix, Status: task.Pending}}
	b := telling([]*task.Task{first, failing, doomed, canceled, unique}, `{"a":1}`, `{}`)
	if _, err := e.Create(e.ctx, b, keyed("everything"+suffix, "body")); err != nil {
		e.Fatalf("Create: %v", err)
	}
	e.run()
	e.settle(pause(canceled), count(first.ID, 3, 1))
	e.finish(task.Success, first)
	e.claim()
	e.settle(startedWithCancel(failing.ID), resume(canceled))
	e.finish(task.Failure, failing)
	e.run()
	e.finish(task.Success, unique)
	e.settle(cancel(canceled))
	e.claim()
	e.deliver(store.DeliveryPending)
	e.clock.Advance(2 * time.Hour)
	e.deliver(store.DeliveryDead)
	e.lookForDeadEnds()
	e.claim()
	return b
}

func (e *env) lookForDeadEnds() {
	e.Helper()
	for more := true; more; {
		var err error
		if _, more, err = e.DeadEnds(e.ctx, 1000); err != nil {
			e.Fatalf("DeadEnds: %v", err)
		}
	}
}

func testRetentionRows(t *testing.T, e *env) {
	first, second := e.everything("1"), e.everything("2")
	for table, n := range e.rows() {
		used := n > 0
		switch table {
		case "ready", "parked", "running", "gate_delta", "dep_event", "batch_delta", "tally_event", "dead_end", "expired":
			used = true // of those that have not ended, or not for long
		}
		if !used {
			t.Errorf("this test puts nothing into %s", table)
		}
	}
	e.clock.Advance(kept)
	before := e.rows()
	recent, live := e.everything("3"), telling(newTasks(3, endActions(1)))
	e.createBatch(live)
	e.run()
	e.finish(task.Failure, live.Tasks[0])
	e.claim()
	want := e.rows()
	maps.DeleteFunc(want, func(table string, n int) bool {
		want[table] -= before[table]
		return false
	})
	e.retain(2)
	e.wantGone(first, second)
	if diff := cmp.Diff(want, e.rows()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, b := range []*task.Batch{recent, live} {
		if summary, err := e.Batch(e.ctx, b.ID); err != nil || summary.Tasks != len(b.Tasks) {
			t.Errorf("a batch that was to stay: %+v, %v", summary, err)
		}
	}
	e.retain(0)
	e.finish(task.Success, live.Tasks[1:]...)
	e.deliver(store.DeliveryDone)
	e.claim()
	e.deliver(store.DeliveryDone)
	e.clock.Advance(kept)
	e.retain(2)
	for table, n := range e.rows() {
		if n > 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
}

func testRetentionAge(_ *testing.T, e *env) {
	tasks := newTasks(2)
	b := e.create(tasks...)
	e.run()
	e.finish(task.Success, tasks[0])
	e.clock.Advance(10 * kept)
	e.retain(0)
	e.finish(task.Success, tasks[1])
	e.clock.Advance(kept - time.Minute)
	e.retain(0)
	e.wantCounts(b, map[task.Status]int{task.Success: 2})
	e.clock.Advance(2 * time.Minute)
	e.retain(1)
	e.wantGone(b)
}

func testRetentionUnfinished(_ *testing.T, e *env) {
	first, paused, waiting := newTask(), newTask(), newTask()
	waiting.Dependencies = []task.Dependency{{Parent: paused.ID}}
	b := e.create(first, paused, waiting)
	e.run()
	e.settle(pause(paused))
	e.finish(task.Failure, first)
	for range 5 {
		e.clock.Advance(2 * kept)
		e.retain(0)
	}
	e.wantCounts(b, map[task.Status]int{task.Failure: 1, task.Paused: 1, task.Waiting: 1})
	e.finish(task.Success, paused)
	e.settle(cancel(waiting))
	e.clock.Advance(kept)
	e.retain(1)
	e.wantGone(b)
}

func testRetentionDeliveries(t *testing.T, e *env) {
	ofTask := e.running(1, endActions(1))[0]
	e.finish(task.Success, ofTask)
	ofBatch := e.createTelling(1)
	e.run()
	e.finish(task.Success, ofBatch.Tasks...)
	e.claim()
	e.deliver(store.DeliveryPending)
	e.clock.Advance(kept)
	e.retain(0)
	if ids := e.deliver(store.DeliveryDead); len(ids) != 2 {
		t.Fatalf("%d deliveries are due", len(ids))
	}
	e.clock.Advance(kept)
	e.retain(2)
	e.wantGone(ofBatch)
}

func testRetentionRetried(t *testing.T, e *env) {
	k := e.running(1, endActions(1))[0]
	b := e.createTelling(1)
	e.run()
	e.settle(end(k.ID, task.Success), end(b.Tasks[0].ID, task.Success))
	e.claim()
	dead := e.deliver(store.DeliveryDead)
	e.clock.Advance(kept - time.Minute)
	e.retry(dead...)
	e.deliver(store.DeliveryDone)
	e.clock.Advance(2 * time.Minute)
	e.retain(0)
	e.clock.Advance(kept)
	if removed := e.expire(); removed.Batches != 2 {
		t.Fatalf("%+v", removed)
	}
	for i, state := range e.retry(dead...) {
		if state != 0 {
			t.Errorf("delivery %d of a batch that is gone was in state %d", i, state)
		}
	}
	for e.purge(1).More {
	}
	if rows := e.rows(); rows["delivery"]+rows["delivery_attempt"] > 0 {
		t.Errorf("%v", rows)
	}
}

// What the pump has not done yet is done, however late.
func testRetentionUntold(t *testing.T, e *env) {
	b := e.createTelling(2)
	e.run()
	e.finish(task.Success, b.Tasks...)
	e.clock.Advance(2 * kept)
	e.retain(0)
	e.wantComplete(b)
	parent := newTask()
	e.create(parent)
	e.run()
	dup, child := newTask(unless(task.Running)), newTask(kind("child"))
	child.Dependencies = []task.Dependency{{Parent: dup.ID}}
	e.keep([]*task.Task{dup, child}, child)
	e.finish(task.Success, parent)
	e.clock.Advance(2 * kept)
	if removed := e.expire(); removed.Batches != 0 {
		t.Fatalf("%+v", removed)
	}
	e.wantClaims(child)
}

func testRetentionDependents(t *testing.T, e *env) {
	parent := newTask()
	old := e.create(parent)
	e.run()
	e.finish(task.Success, parent)
	hold := newTask(kind("hold"))
	dup, child := newTask(unless(task.Success)), newTask(kind("child"))
	child.Dependencies = []task.Dependency{{Parent: dup.ID}, {Parent: hold.ID}}
	e.keep([]*task.Task{dup, hold, child}, hold, child)
	e.claim()
	e.clock.Advance(kept)
	e.retain(0)
	if d := e.detail(child.ID); len(d.Task.Dependencies) != 2 || len(d.Parents) != 2 {
		t.Fatalf("%+v", d)
	}
	e.clock.Advance(time.Hour)
	e.finish(task.Success, hold)
	e.wantClaims(child)
	e.finish(task.Success, child)
	e.clock.Advance(kept - 2*time.Hour)
	e.retain(0) // it is not looked at again yet
	e.clock.Advance(time.Hour)
	e.retain(1)
	e.wantGone(old)
	if d := e.detail(child.ID); len(d.Task.Dependencies) != 1 || d.Task.Dependencies[0].Parent != hold.ID {
		t.Errorf("%+v", d)
	}
	if dag, err := e.DAG(e.ctx, child.BatchID); err != nil || len(dag.Links) != 1 {
		t.Errorf("%+v, %v", dag, err)
	}
}

func testRetentionReaders(t *testing.T, e *env) {
	tasks := newTasks(4, endActions(1))
	tasks[3].Dependencies = []task.Dependency{{Parent: tasks[0].ID, RequiresSuccess: true}}
	b := telling(tasks)
	b.Scope = "old"
	e.createBatch(b)
	e.run()
	e.finish(task.Failure, tasks[:3]...)
	e.claim()
	e.deliver(store.DeliveryDone)
	e.clock.Advance(kept)
	if removed := e.expire(); removed.Batches != 1 {
		t.Fatalf("%+v", removed)
	}
	for purged := 0; ; {
		e.wantGone(b)
		readers := map[string]func() error{
			"DAG":    func() error { _, err := e.DAG(e.ctx, b.ID); return err },
			"ToStop": func() error { _, err := e.ToStop(e.ctx, b.ID); return err },
			"ToEdit": func() error { _, err := e.ToEdit(e.ctx, b.ID, "work", nil); return err },
		}
		for _, k := range tasks {
			readers["History of "+k.LocalID] = func() error { _, err := e.History(e.ctx, k.ID); return err }
			readers["Explain of "+k.LocalID] = func() error { _, err := e.Explain(e.ctx, k.ID); return err }
		}
		for name, read := range readers {
			if err := read(); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, f := range []store.Filter{{Batch: b.ID}, {Batch: b.ID, Statuses: []task.Status{task.Failure}}, {Batch: b.ID, Kind: "work"}} {
			if items := e.list(f); len(items) > 0 {
				t.Errorf("%+v lists %d tasks", f, len(items))
			}
		}
		for _, f := range []store.Filter{{}, {Scope: "old"}, {Kind: "work"}, {Statuses: []task.Status{task.Failure}}, {NamePart: "a"}} {
			if items := e.batches(f); len(items) > 0 {
				t.Errorf("%+v lists %d batches", f, len(items))
			}
		}
		if items := e.deliveryPage(store.Filter{Batch: b.ID}).Items; len(items) > 0 {
			t.Errorf("%d deliveries", len(items))
		}
		if purged == len(tasks) {
			break
		}
		removed := e.purge(1)
		if purged += removed.Tasks; removed.Tasks != 1 || !removed.More {
			t.Fatalf("%+v after %d tasks", removed, purged)
		}
	}
	if removed := e.purge(1); removed != (store.Removed{}) {
		t.Errorf("%+v", removed)
	}
}

func testRetentionManyLinks(t *testing.T, e *env) {
	root := newTask()
	children := newTasks(store.MaxPurgedLinks+1, after(root))
	b := e.create(append([]*task.Task{root}, children...)...)
	e.run()
	e.finish(task.Failure, root)
	e.claim()
	e.lookForDeadEnds()
	e.clock.Advance(kept)
	if removed := e.expire(); removed.Batches != 1 {
		t.Fatalf("%+v", removed)
	}
	if removed := e.purge(1000); removed.Tasks != 0 || !removed.More {
		t.Errorf("%+v, want links only", removed)
	}
	for e.purge(1000).More {
	}
	for table, n := range e.rows() {
		if n > 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	e.wantGone(&task.Batch{ID: b.ID})
}

// Each depends on some before it, which go in the same step, and on some that go in a later one. Who goes leaves no link.
func testRetentionDenseLinks(t *testing.T, e *env) {
	const tasks, links = 250, 24
	children, parents := newTasks(tasks), newTasks(links)
	for i, k := range children {
		after(parents...)(k)
		after(children[max(0, i-links):i]...)(k)
	}
	b := e.create(append(children, parents...)...)
	e.run()
	e.finish(task.Failure, parents...)
	e.claim()
	e.lookForDeadEnds()
	e.clock.Advance(kept)
	if removed := e.expire(); removed.Batches != 1 {
		t.Fatalf("%+v", removed)
	}
	removed := e.purge(tasks)
	for removed.Tasks == 0 && removed.More {
		removed = e.purge(tasks)
	}
	if n := e.rows()["link"]; removed.Tasks != tasks || n > 0 {
		t.Errorf("%d links are left of the %d tasks that are gone", n, removed.Tasks)
	}
	for e.purge(tasks).More {
	}
	for table, n := range e.rows() {
		if n > 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	e.wantGone(&task.Batch{ID: b.ID})
}

// A rule about tasks that failed counts those that are there.
func testRetentionTallies(t *testing.T, e *env) {
	failed := e.running(2, kind("flaky"))
	e.finish(task.Failure, failed...)
	held := newTask(kind("other"), inStatus(task.Failure, "flaky", 1))
	e.create(held)
	e.wantClaims()
	if limits, err := e.Limits(e.ctx, store.LimitFilter{After: store.FirstGate, Limit: 10}); err != nil || len(limits.Gates) != 1 || limits.Gates[0].Used != 2 {
		t.Fatalf("%+v, %v", limits, err)
	}
	e.clock.Advance(kept)
	if removed := e.expire(); removed.Batches != 1 {
		t.Fatalf("%+v", removed)
	}
	e.wantClaims()
	for e.purge(1).More {
	}
	e.wantClaims(held)
}

// Kinds that come and go leave no shapes, and duplicates of those that come again are found, whichever process pumps.
func testRetentionLookups(t *testing.T, e *env) {
	lookups := func() int {
		t.Helper()
		rows, err := e.Store.(Rows).Rows(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return rows["shape"]
	}
	other, owner := e.another(), e.process()
	pumpOther := func() {
		t.Helper()
		for more := true; more; {
			pumped, err := other.Pump(e.ctx, store.PumpParams{Owner: owner})
			if err != nil {
				t.Fatal(err)
			}
			more = pumped.More || pumped.Uncounted
		}
	}
	for range 3 {
		there := newTask(unless(task.Success), unless(task.Running), unless(task.Pending))
		e.keep([]*task.Task{there}, there)
		stays := newTask(kind("stays"))
		stays.Dedupe = []task.Matcher{{Kind: "stays", Status: task.Waiting}}
		e.keep([]*task.Task{stays}, stays)
		e.run()
		pumpOther()
		e.keep([]*task.Task{newTask(unless(task.Running))})
		if got := lookups(); got != 4 {
			t.Fatalf("%d shapes", got)
		}
		e.finish(task.Success, there)
		e.claim()
		e.keep([]*task.Task{newTask(unless(task.Success))})
		e.clock.Advance(kept)
		e.retain(1)
		if got := lookups(); got != 1 {
			t.Fatalf("%d shapes are left", got)
		}
		for _, pump := range []func(){func() { e.claim() }, pumpOther} { // neither tallies by what it remembers
			parent, child := newTask(kind("parent")), newTask()
			child.Dependencies = []task.Dependency{{Parent: parent.ID}}
			e.create(parent, child)
			e.run()
			e.finish(task.Success, parent)
			pump()
			if n := e.rows()["tally"]; n != 0 {
				t.Fatalf("%d tallies of shapes that are not there", n)
			}
			e.settle(cancel(child))
		}
		e.settle(cancel(stays))
		e.clock.Advance(kept)
		e.retain(3)
		if rows := e.rows(); lookups() != 0 || rows["tally"]+rows["tally_event"] != 0 {
			t.Fatalf("%d shapes are left, and %v", lookups(), rows)
		}
	}
}

func testRetentionKey(t *testing.T, e *env) {
	first := batchOf(newTask())
	if _, err := e.Create(e.ctx, first, keyed("key", "body")); err != nil {
		t.Fatal(err)
	}
	e.run()
	e.finish(task.Success, first.Tasks...)
	if _, err := e.Expire(e.ctx, 0, 10); err != nil { // looked at
		t.Fatal(err)
	}
	e.wantGone(first)
	second := batchOf(newTask())
	created, err := e.Create(e.ctx, second, keyed("key", "body"))
	if err != nil || created.Replayed || created.Batch != second.ID {
		t.Errorf("%+v, %v", created, err)
	}
	for e.purge(10).More {
	}
	again, err := e.Create(e.ctx, batchOf(newTask()), keyed("key", "body"))
	if err != nil || !again.Replayed || again.Batch != second.ID {
		t.Errorf("%+v, %v", again, err)
	}
}

// A batch that is removed is not there any more, though its tasks still are: by their tallies, by an event that is not folded, and by
// a walk, for a shape that nobody has counted.
func testRetentionNoDuplicate(t *testing.T, e *env) {
	look := func(field string) *task.Task {
		return newTask(unless(task.Success, field), metadata(`{"x":1,"y":1,"z":1}`))
	}
	for _, folded := range []bool{true, false} {
		old := newTask(metadata(`{"x":1,"y":1,"z":1}`))
		b := e.create(old)
		e.run()
		e.finish(task.Success, old)
		e.keep([]*task.Task{look("x")})
		if folded {
			for range 3 {
				e.claim()
			}
			e.keep([]*task.Task{look("x")})
		}
		e.clock.Advance(kept)
		e.expire()
		e.wantGone(b)
		fields := map[bool][]string{true: {"x", "y"}, false: {"x", "z"}}[folded]
		for _, field := range fields {
			fresh := look(field)
			e.keep([]*task.Task{fresh}, fresh)
			e.settle(cancel(fresh))
		}
	}
}

// Nobody is told that a report is taken about a task that he cannot find.
func testRetentionReports(t *testing.T, e *env) {
	old, fresh := newTask(), newTask()
	b := e.create(old)
	e.run()
	e.finish(task.Success, old)
	e.clock.Advance(kept)
	other := e.create(fresh)
	e.run()
	e.finish(task.Success, fresh)
	if removed := e.expire(); removed.Batches != 1 {
		t.Fatalf("%+v", removed)
	}
	e.wantGone(b)
	asked := func(k *task.Task) []task.Outcome {
		return []task.Outcome{
			count(k.ID, 1, 0), end(k.ID, task.Success), end(k.ID, task.Failure), {ID: k.ID, Kind: task.Update, NewFailures: 1},
			cancel(k), pause(k), resume(k),
		}
	}
	there := e.settleAll(append(asked(old), asked(fresh)...)...).Results
	for i, r := range there[:len(asked(old))] {
		if refusal, is := errors.AsType[*task.Refusal](r.Err); !is || refusal.Code != task.NotFound {
			t.Errorf("outcome %d about what is gone: %v", i, r.Err)
		}
	}
	for i, r := range there[len(asked(old)):] {
		if refusal, is := errors.AsType[*task.Refusal](r.Err); is && refusal.Code == task.NotFound {
			t.Errorf("outcome %d about what is there: %v", i, r.Err)
		}
	}
	if got, err := e.Batch(e.ctx, other.ID); err != nil || got.Success != 1 || got.Failures != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	e.settle(started(old.ID)) // what the service itself comes with too late is no error
	for e.purge(1000).More {
	}
}

// Creates find tasks that Purge is about to delete. Whatever they find, nobody waits for one that is not there.
func testRetentionDuplicates(t *testing.T, e *env) {
	for round := range size(20) {
		var children []*task.Task
		var mu sync.Mutex
		old := newTasks(8, kind("work"), metadata(`{"round":%d}`, round))
		e.create(old...)
		e.run()
		e.finish(task.Success, old...)
		e.clock.Advance(kept)
		e.expire()
		var wg sync.WaitGroup
		other := e.another()
		wg.Go(func() {
			for {
				removed, err := other.Purge(e.ctx, 1)
				if err != nil {
					t.Error(err)
				}
				if err != nil || !removed.More && !removed.Busy {
					return
				}
			}
		})
		for range 2 {
			wg.Go(func() {
				for range 5 {
					dup := newTask(unless(task.Success, "round"), metadata(`{"round":%d}`, round))
					child := newTask(kind("child"))
					child.Dependencies = []task.Dependency{{Parent: dup.ID}}
					created, err := e.Create(e.ctx, batchOf(dup, child), nil)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					children = append(children, created.Kept[len(created.Kept)-1])
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for more := true; more; { // those that were created instead, and then the children
			claims := e.run()
			more = len(claims) > 0
			for _, c := range claims {
				e.settle(end(c.ID, task.Success))
			}
		}
		e.wantStatus(task.Success, children...)
	}
}

func testRetentionProcesses(t *testing.T, e *env) {
	const batches = 40
	before := e.rows()
	for range batches {
		tasks := newTasks(5, kind("flaky"))
		e.create(tasks...)
		e.run()
		e.finish(task.Failure, tasks...)
	}
	e.create(newTask(inStatus(task.Failure, "flaky", 1000)))
	e.run()
	e.clock.Advance(kept)
	live := newTask(kind("live"))
	e.create(live)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var sum store.Removed
	for range 3 {
		s := e.another()
		wg.Go(func() {
			for steps := 0; steps < 1000; steps++ {
				expired, err := s.Expire(e.ctx, kept, 3)
				purged, err2 := s.Purge(e.ctx, 7)
				if err := errors.Join(err, err2); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				sum.Batches, sum.Tasks = sum.Batches+expired.Batches, sum.Tasks+purged.Tasks
				mu.Unlock()
				if expired.Batches == 0 && purged.Tasks == 0 && !expired.Busy && !purged.Busy && !expired.More {
					return
				}
			}
			t.Error("there is no end")
		})
	}
	wg.Wait()
	if sum != (store.Removed{Batches: batches, Tasks: 5 * batches}) {
		t.Errorf("%+v, want %d batches", sum, batches)
	}
	e.claim()
	got := e.rows()
	for table, n := range before {
		if more := got[table] - n; more > 2 {
			t.Errorf("%d rows are left in %s", more, table)
		}
	}
	e.wantStatus(task.Claimed, live)
	if t.Failed() {
		t.Log(fmt.Sprint(got))
	}
}
