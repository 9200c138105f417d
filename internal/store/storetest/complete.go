package storetest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var completeTests = []conformance{
	{"all end in one call", testCompleteAtOnce},
	{"one after the other, and not before the last", testCompleteInTurn},
	{"tasks end in many calls at the same time", testCompleteConcurrently},
	{"by a cascade", testCompleteByCascade},
	{"by stop, cancel, time-out and a refused on_start", testCompleteByOtherEnds},
	{"a paused task keeps it open", testCompletePaused},
	{"actions for several hosts", testCompleteActions},
	{"folded in small steps", testCompleteInSteps},
	{"batches without actions are told nothing", testCompleteWithout},
	{"retried, done and dead", testCompleteRetried},
}

const hostC = "c.test"

// telling is a batch with these bodies of actions for its completion, or with one action without a body.
func telling(tasks []*task.Task, bodies ...string) *task.Batch {
	b := batchOf(tasks...)
	for i, body := range bodies {
		a := webhook([]string{hostC, hostB}[i%2], fmt.Sprintf("/complete/%d", i))
		a.Body = json.RawMessage(body)
		b.OnComplete = append(b.OnComplete, a)
	}
	if len(bodies) == 0 {
		b.OnComplete = []task.Action{webhook(hostC, "/complete")}
	}
	return b
}

// createTelling creates n tasks whose batch wants to know of their end.
func (e *env) createTelling(n int, options ...func(*task.Task)) *task.Batch {
	e.Helper()
	b := telling(newTasks(n, options...))
	e.createBatch(b)
	return b
}

// outbox pumps until there is no more to do, and claims all deliveries of batches. Those of tasks are passed over.
func (e *env) outbox() []store.Delivery {
	e.Helper()
	e.claim()
	return slices.DeleteFunc(e.claimDeliveries(ample()).Deliveries, func(d store.Delivery) bool {
		return d.Trigger != task.TriggerBatchComplete
	})
}

// completion is what the tasks of b came to.
func (e *env) completion(b *task.Batch) *task.Completion {
	e.Helper()
	c := &task.Completion{Batch: b.ID}
	for _, k := range b.Tasks {
		s := e.detail(k.ID).State
		switch s.Status {
		case task.Success:
			c.Success++
		case task.Failure:
			c.Failure++
		case task.Canceled:
			c.Canceled++
		default:
			e.Fatalf("task %s is %s", k.LocalID, s.Status)
		}
		if s.EndedAt.After(c.At) {
			c.At = s.EndedAt
		}
	}
	return c
}

// wantComplete wants what b sends to be in the outbox, and nothing else, now and later.
func (e *env) wantComplete(b *task.Batch) {
	e.Helper()
	e.wantTold(b, e.outbox())
	for range 3 {
		if pumped := e.tick(ample()); pumped.Outbox || pumped.More {
			e.Errorf("there is more to do: %+v", pumped)
		}
	}
	e.clock.Advance(time.Second)
	if again := e.outbox(); len(again) > 0 {
		e.Errorf("sent again: %+v", again)
	}
}

func (e *env) wantTold(b *task.Batch, got []store.Delivery) {
	e.Helper()
	c := e.completion(b)
	var want []store.Delivery
	for place, a := range b.OnComplete {
		a.Body = c.Body(a.Body)
		want = append(want, store.Delivery{Source: b.ID, Trigger: task.TriggerBatchComplete, Place: place, Host: store.Host(a), Action: a})
	}
	slices.SortFunc(got, func(a, b store.Delivery) int { return a.Place - b.Place })
	for i := range min(len(want), len(got)) {
		want[i].ID = got[i].ID
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("what the batch sends (-want +got):\n%s", diff)
	}
}

func (e *env) wantOpen() {
	e.Helper()
	if got := e.outbox(); len(got) > 0 {
		e.Errorf("complete too early: %+v", got)
	}
}

func testCompleteAtOnce(t *testing.T, e *env) {
	for _, n := range []int{1, 100} {
		b := e.createTelling(n)
		e.run()
		var outcomes []task.Outcome
		for i, k := range b.Tasks {
			outcomes = append(outcomes, end(k.ID, []task.Status{task.Success, task.Failure}[i%2]))
		}
		if settled := e.settle(outcomes...); !settled.Pump || settled.Outbox {
			t.Errorf("settled %+v: the pump has work, the outbox not yet", settled)
		}
		if pumped := e.tick(task.Room{}); !pumped.Outbox {
			t.Errorf("pumped %+v: the outbox has work", pumped)
		}
		e.settle(outcomes...) // workers that repeat themselves
		e.wantComplete(b)
	}
}

func testCompleteInTurn(t *testing.T, e *env) {
	b := e.createTelling(3)
	e.run()
	for i, k := range b.Tasks {
		e.wantOpen()
		e.settle(end(k.ID, []task.Status{task.Success, task.Failure, task.Success}[i]))
		e.clock.Advance(time.Minute - time.Duration(i)*2*time.Minute) // there, and back
	}
	e.wantComplete(b)
	if c := e.completion(b); c.Success != 2 || c.Failure != 1 || c.Canceled != 0 {
		t.Errorf("%+v", c)
	}
}

func testCompleteConcurrently(t *testing.T, e *env) {
	var batches []*task.Batch
	var ids []task.ID
	for range 5 {
		b := e.createTelling(size(80))
		batches, ids = append(batches, b), append(ids, idsOf(b.Tasks...)...)
	}
	e.run()
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var pump sync.WaitGroup
	pump.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := e.Pump(e.ctx, store.PumpParams{Owner: e.owner}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	const callers = 8
	for i := range callers {
		wg.Go(func() {
			for n := i; n < len(ids); n += callers {
				status := []task.Status{task.Success, task.Failure}[n%2]
				if _, err := e.Settle(e.ctx, []task.Outcome{end(ids[n], status), {ID: ids[(n+1)%len(ids)], Kind: task.Cancel}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	pump.Wait()
	got := map[task.ID][]store.Delivery{}
	for _, d := range e.outbox() {
		got[d.Source] = append(got[d.Source], d)
	}
	for _, b := range batches {
		e.wantTold(b, got[b.ID])
	}
}

func testCompleteByCascade(t *testing.T, e *env) {
	root, other := newTask(), newTask()
	child := newTask(after(root), afterAny(other))
	grandchild := newTask(after(child), endActions(1))
	b := telling([]*task.Task{root, other, child, grandchild})
	e.createBatch(b)
	late := telling([]*task.Task{newTask(), newTask(after(root))}) // the second waits for another batch
	e.createBatch(late)
	e.run()
	e.finish(task.Success, other, late.Tasks[0])
	e.wantOpen()
	e.finish(task.Failure, root)
	got := e.outbox()
	e.wantStatus(task.Failure, child, grandchild, late.Tasks[1])
	for _, b := range []*task.Batch{b, late} {
		mine := slices.DeleteFunc(slices.Clone(got), func(d store.Delivery) bool { return d.Source != b.ID })
		e.wantTold(b, mine)
	}
	if len(got) != 2 {
		t.Errorf("%d deliveries", len(got))
	}
}

func testCompleteByOtherEnds(t *testing.T, e *env) {
	b := e.createTelling(4, timeout(time.Minute))
	e.started(e.claim()[:2]...)
	stop, err := e.ToStop(e.ctx, b.ID)
	if err != nil || len(stop.IDs) != 4 {
		t.Fatalf("%v, %v", stop, err)
	}
	e.clock.Advance(time.Hour)
	var running, claimed []*task.Task
	for _, k := range b.Tasks {
		if e.detail(k.ID).State.Status == task.Running {
			running = append(running, k)
		} else {
			claimed = append(claimed, k)
		}
	}
	e.settle(expire(running[0]))
	e.settle(startFailed(claimed[0].ID, 1))
	e.settle(task.Outcome{ID: claimed[1].ID, Kind: task.DeadEnd})
	e.wantOpen()
	e.settle(cancel(running[1]))
	e.wantComplete(b)
	if c := e.completion(b); c.Failure != 2 || c.Canceled != 2 {
		t.Errorf("%+v", c)
	}

	whole := e.createTelling(6)
	e.tick(task.Room{Total: 2, PerHost: 2})
	if stop, err = e.ToStop(e.ctx, whole.ID); err != nil {
		t.Fatal(err)
	}
	for _, id := range stop.IDs {
		e.settle(task.Outcome{ID: id, Kind: task.Cancel})
	}
	e.wantComplete(whole)

	parent := newTask()
	family := telling([]*task.Task{parent, newTask(after(parent))})
	e.createBatch(family)
	e.run()
	if settled := e.settle(cancel(family.Tasks[1])); !settled.Pump {
		t.Error("nobody tells the pump of the end of a task that was in no place")
	}
	e.finish(task.Success, parent)
	e.wantComplete(family)
}

func testCompletePaused(_ *testing.T, e *env) {
	b := e.createTelling(2)
	e.settle(pause(b.Tasks[0]))
	e.run()
	e.finish(task.Success, b.Tasks[1])
	e.wantOpen()
	e.settle(resume(b.Tasks[0]))
	e.run()
	e.wantOpen()
	e.finish(task.Success, b.Tasks[0])
	e.wantComplete(b)
}

func testCompleteActions(t *testing.T, e *env) {
	b := telling(newTasks(2), `{"a":[1]}`, `{"counts":"mine","b":2}`, `{}`)
	b.OnComplete[2].Headers = map[string]string{"X-A": "b"}
	e.createBatch(b)
	e.run()
	e.finish(task.Success, b.Tasks...)
	e.claim()
	one := e.claimDeliveries(task.Room{Total: 10, PerHost: 10, Busy: map[string]int{hostC: 10}}).Deliveries
	if len(one) != 1 || one[0].Place != 1 || one[0].Host != hostB {
		t.Errorf("%+v", one)
	}
	e.wantTold(b, append(e.outbox(), one...))
}

func testCompleteInSteps(t *testing.T, e *env) {
	var batches []*task.Batch
	for range 3 {
		batches = append(batches, e.createTelling(4))
	}
	e.run()
	for _, b := range batches {
		for _, k := range b.Tasks {
			e.finish(task.Success, k)
		}
	}
	ticks, told := 0, 0
	for more := true; more; ticks++ {
		pumped := e.pump(store.PumpParams{Owner: e.owner, BatchDeltas: 2})
		more = pumped.More
		n := len(e.claimDeliveries(ample()).Deliveries)
		if pumped.Outbox != (n > 0) {
			t.Errorf("tick %d: outbox %t, %d deliveries", ticks, pumped.Outbox, n)
		}
		told += n
	}
	if ticks < 12/2 || told != 3 {
		t.Errorf("%d ticks for twelve ends, two each; %d deliveries", ticks, told)
	}
}

func testCompleteWithout(t *testing.T, e *env) {
	silent := e.create(newTasks(3)...)
	empty := telling(nil)
	e.createBatch(empty)
	e.run()
	e.finish(task.Success, silent.Tasks...)
	if d := e.detail(silent.Tasks[0].ID); d.State.TellsBatch {
		t.Error("a task of a batch without actions tells it")
	}
	e.wantOpen()
}

func testCompleteRetried(t *testing.T, e *env) {
	b := telling(newTasks(1), `{"x":1}`, `{"x":2}`)
	b.Scope, b.Metadata = "nightly", json.RawMessage(`{"run": 17}`)
	e.createBatch(b)
	e.run()
	e.finish(task.Failure, b.Tasks...)
	first := e.outbox()
	e.finishDeliveries(attempt(first[0], store.DeliveryPending, 503, "later", time.Hour), attempt(first[1], store.DeliveryDead, 410, "gone", 0))
	e.clock.Advance(2 * time.Hour)
	again := e.outbox()
	want := first[0]
	want.Failures = 1
	if diff := cmp.Diff([]store.Delivery{want}, again); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	e.finishDeliveries(attempt(again[0], store.DeliveryDone, 204, "", 0))
	summary, err := e.Batch(e.ctx, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	records := []store.DeliveryRecord{
		{Trigger: task.TriggerBatchComplete, State: store.DeliveryDone, Failures: 1, LastStatus: 204},
		{Trigger: task.TriggerBatchComplete, State: store.DeliveryDead, Failures: 1, LastStatus: 410, LastError: "gone"},
	}
	if first[0].Place == 1 {
		slices.Reverse(records)
	}
	for i := range records {
		records[i].Place = i
	}
	e.wantRecords(records, summary.Deliveries)
	if diff := cmp.Diff(b.OnComplete, summary.OnComplete); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := (store.BatchLabels{Requester: b.Requester, Scope: "nightly", Metadata: b.Metadata}); cmp.Diff(want, summary.BatchLabels) != "" {
		t.Errorf("labels %+v", summary.BatchLabels)
	}
}
