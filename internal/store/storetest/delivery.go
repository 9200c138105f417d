package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var deliveryTests = []conformance{
	{"one for each action of the trigger", testDeliveryForEach},
	{"none without actions", testNoDelivery},
	{"leased until the lease runs out", testDeliveryLease},
	{"leased for longer where the action may take longer", testDeliveryLongLease},
	{"room in total and per host", testDeliveryRoom},
	{"oldest first", testDeliveryOrder},
	{"retried later", testDeliveryRetry},
	{"done and dead are final", testDeliveryFinal},
	{"concurrent claimers get disjoint ones", testDeliveryClaimers},
}

// ended is n tasks that ended in Success and have that many on_success actions each.
func (e *env) ended(n, actions int) []*task.Task {
	e.Helper()
	tasks := e.running(n, endActions(actions))
	e.finish(task.Success, tasks...)
	return tasks
}

func (e *env) finishDeliveries(attempts ...store.Attempt) {
	e.Helper()
	if err := e.FinishDeliveries(e.ctx, attempts); err != nil {
		e.Fatalf("FinishDeliveries: %v", err)
	}
}

func attempt(d store.Delivery, state store.DeliveryState, status int, err string, retry time.Duration) store.Attempt {
	return store.Attempt{Delivery: d.ID, State: state, Retry: retry, AttemptRecord: store.AttemptRecord{
		At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Took: 2 * time.Millisecond, Status: status, Error: err,
	}}
}

// wantRecords compares records, but for what every delivery has for itself.
func (e *env) wantRecords(want, got []store.DeliveryRecord) {
	e.Helper()
	got = slices.Clone(got)
	for i := range got {
		if got[i].ID.Version() != 7 || !got[i].NextAt.IsZero() && got[i].State != store.DeliveryPending {
			e.Errorf("record %+v", got[i])
		}
		got[i].ID, got[i].NextAt = task.ID{}, time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("records (-want +got):\n%s", diff)
	}
}

func testDeliveryForEach(t *testing.T, e *env) {
	tasks := e.running(3, endActions(2), func(k *task.Task) {
		k.OnSuccess[1] = task.Action{
			Verb: "Get", URL: "http://a.test/ok?x=1", Headers: map[string]string{"X-A": "b"}, Body: []byte(`{"c":[1]}`),
		}
	})
	e.settle(startedWithCancel(tasks[2].ID))
	e.settle(end(tasks[0].ID, task.Success), end(tasks[1].ID, task.Failure), count(tasks[0].ID, 1, 0))
	e.settle(end(tasks[0].ID, task.Success), end(tasks[1].ID, task.Failure), count(tasks[0].ID, 1, 0))
	e.settle(cancel(tasks[2]))
	var want []store.Delivery
	for i, trigger := range []task.Trigger{task.TriggerSuccess, task.TriggerFailure} {
		for place, a := range tasks[i].Actions(trigger) {
			want = append(want, store.Delivery{Source: tasks[i].ID, Trigger: trigger, Place: place, Host: store.Host(a), Action: a})
		}
	}
	got := e.claimDeliveries(ample())
	slices.SortFunc(got.Deliveries, func(a, b store.Delivery) int {
		if c := compareIDs(a.Source, b.Source); c != 0 {
			return c
		}
		return a.Place - b.Place
	})
	if len(got.Deliveries) != 5 || got.Deliveries[4].Source != tasks[2].ID || got.Deliveries[4].Trigger != task.TriggerCancel {
		t.Fatalf("%d deliveries: %+v", len(got.Deliveries), got.Deliveries)
	}
	for i := range want {
		want[i].ID = got.Deliveries[i].ID
	}
	if diff := cmp.Diff(want, got.Deliveries[:4]); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
	records := []store.DeliveryRecord{
		{Trigger: task.TriggerFailure, Place: 0, State: store.DeliveryPending},
		{Trigger: task.TriggerFailure, Place: 1, State: store.DeliveryPending},
	}
	e.wantRecords(records, e.detail(tasks[1].ID).Deliveries)
}

func testNoDelivery(t *testing.T, e *env) {
	tasks := e.running(3)
	if settled := e.settle(end(tasks[0].ID, task.Success), end(tasks[1].ID, task.Failure), cancel(tasks[2])); settled.Outbox {
		t.Error("there is work for the outbox")
	}
	if got := e.claimDeliveries(ample()); len(got.Deliveries) > 0 || got.More {
		t.Errorf("%+v", got)
	}
	e.finishDeliveries()                                                                     // nothing
	e.finishDeliveries(attempt(store.Delivery{ID: newID()}, store.DeliveryDone, 200, "", 0)) // not there
	if got := e.detail(tasks[0].ID).Deliveries; len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

func testDeliveryLease(t *testing.T, e *env) {
	e.ended(2, 1)
	claim := func() int {
		claimed, err := e.ClaimDeliveries(e.ctx, store.ClaimDeliveriesParams{Room: ample(), Lease: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return len(claimed.Deliveries)
	}
	for i, want := range []struct {
		advance time.Duration
		n       int
	}{{0, 2}, {0, 0}, {29 * time.Second, 0}, {2 * time.Second, 2}, {time.Second, 0}, {time.Hour, 2}} {
		e.clock.Advance(want.advance)
		if got := claim(); got != want.n {
			t.Errorf("step %d: %d claimed, want %d", i, got, want.n)
		}
	}
}

func testDeliveryLongLease(t *testing.T, e *env) {
	timeouts := []time.Duration{0, 10 * time.Second, time.Minute}
	tasks := e.running(2, endActions(len(timeouts)), func(k *task.Task) {
		for i, timeout := range timeouts {
			k.OnSuccess[i].Timeout = timeout
		}
	})
	e.finish(task.Success, tasks...)
	for i, want := range []struct {
		advance time.Duration
		places  map[int]int
	}{
		{0, map[int]int{0: 2, 1: 2, 2: 2}},
		{29 * time.Second, map[int]int{}},
		{2 * time.Second, map[int]int{0: 2, 1: 2}}, // leased anew for 30 s
		{88 * time.Second, map[int]int{0: 2, 1: 2}},
		{2 * time.Second, map[int]int{2: 2}}, // after 2 min
		{29 * time.Second, map[int]int{0: 2, 1: 2}},
		{time.Minute, map[int]int{0: 2, 1: 2}},
		{time.Hour, map[int]int{0: 2, 1: 2, 2: 2}},
	} {
		e.clock.Advance(want.advance)
		claimed, err := e.ClaimDeliveries(e.ctx, store.ClaimDeliveriesParams{Room: ample(), Lease: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		places := map[int]int{}
		for _, d := range claimed.Deliveries {
			places[d.Place]++
			if d.Action.Timeout != timeouts[d.Place] {
				t.Errorf("step %d: timeout %v of place %d", i, d.Action.Timeout, d.Place)
			}
		}
		if diff := cmp.Diff(want.places, places); diff != "" {
			t.Errorf("step %d: claimed by place (-want +got):\n%s", i, diff)
		}
	}
}

func testDeliveryRoom(t *testing.T, e *env) {
	e.ended(4, 2) // eight for host B
	more := e.running(3, func(k *task.Task) { k.OnFailure = []task.Action{webhook(hostA, "/f")} })
	e.finish(task.Failure, more...)
	if got := e.claimDeliveries(task.Room{}); len(got.Deliveries) > 0 || !got.More {
		t.Errorf("without room: %+v", got)
	}
	for i, c := range []struct {
		room task.Room
		a, b int
		more bool
	}{
		{task.Room{Total: 10, PerHost: 2}, 2, 2, true},
		{task.Room{Total: 10, PerHost: 3, Busy: map[string]int{hostB: 2, hostA: 3, "c.test": 1}}, 0, 1, true},
		{task.Room{Total: 2, PerHost: 2, Busy: map[string]int{hostA: 2}}, 0, 2, true},
		{task.Room{Total: 10, PerHost: 5}, 1, 3, false},
		{task.Room{Total: 10, PerHost: 5}, 0, 0, false},
	} {
		got := e.claimDeliveries(c.room)
		hosts := map[string]int{}
		for _, d := range got.Deliveries {
			hosts[d.Host]++
		}
		if hosts[hostA] != c.a || hosts[hostB] != c.b || got.More != c.more {
			t.Errorf("step %d: %v, more %t; want %d and %d, more %t", i, hosts, got.More, c.a, c.b, c.more)
		}
	}
}

func testDeliveryOrder(t *testing.T, e *env) {
	var want []task.ID
	for i := range 6 {
		k := e.running(1, func(k *task.Task) { // hosts in no order
			k.OnSuccess = []task.Action{webhook([]string{"b.test", "c.test", "a.test"}[i%3], "/s")}
		})[0]
		e.finish(task.Success, k)
		want = append(want, k.ID)
		e.clock.Advance(time.Second)
	}
	for i, id := range want {
		got := e.claimDeliveries(task.Room{Total: 1, PerHost: 1}).Deliveries
		if len(got) != 1 || got[0].Source != id {
			t.Fatalf("claim %d: %+v, want task %s", i, got, id)
		}
	}
}

func testDeliveryRetry(t *testing.T, e *env) {
	k := e.ended(1, 1)[0]
	for failures := range 3 {
		got := e.claimDeliveries(ample()).Deliveries
		if len(got) != 1 || got[0].Failures != failures {
			t.Fatalf("after %d failures: %+v", failures, got)
		}
		e.finishDeliveries(attempt(got[0], store.DeliveryPending, 500+failures, "try again", time.Hour))
		want := []store.DeliveryRecord{{
			Trigger: task.TriggerSuccess, State: store.DeliveryPending, Failures: failures + 1, LastStatus: 500 + failures,
			LastError: "try again",
		}}
		e.wantRecords(want, e.detail(k.ID).Deliveries)
		e.clock.Advance(59 * time.Minute)
		if got := e.claimDeliveries(ample()).Deliveries; len(got) > 0 {
			t.Fatal("claimed before its time")
		}
		e.clock.Advance(2 * time.Minute)
	}
	got := e.claimDeliveries(ample()).Deliveries
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	// Sent again at once, as when a process stops: no failure.
	e.finishDeliveries(attempt(got[0], store.DeliveryPending, 0, "", 0))
	if got := e.claimDeliveries(ample()).Deliveries; len(got) != 1 || got[0].Failures != 3 {
		t.Errorf("given back: %+v", got)
	}
}

func testDeliveryFinal(t *testing.T, e *env) {
	tasks := e.ended(2, 1)
	got := e.claimDeliveries(ample()).Deliveries
	slices.SortFunc(got, func(a, b store.Delivery) int { return compareIDs(a.Source, b.Source) })
	e.finishDeliveries(attempt(got[0], store.DeliveryDone, 204, "", 0), attempt(got[1], store.DeliveryDead, 410, "gone", 0))
	// Whoever lost its lease reports later; it changes nothing.
	e.finishDeliveries(attempt(got[0], store.DeliveryDead, 500, "late", 0), attempt(got[1], store.DeliveryPending, 500, "late", 0))
	for i, want := range []store.DeliveryRecord{
		{Trigger: task.TriggerSuccess, State: store.DeliveryDone, LastStatus: 204},
		{Trigger: task.TriggerSuccess, State: store.DeliveryDead, Failures: 1, LastStatus: 410, LastError: "gone"},
	} {
		e.wantRecords([]store.DeliveryRecord{want}, e.detail(tasks[i].ID).Deliveries)
	}
	e.clock.Advance(240 * time.Hour)
	if got := e.claimDeliveries(ample()).Deliveries; len(got) > 0 {
		t.Errorf("claimed again: %+v", got)
	}
	e.finish(task.Success, tasks...) // a repeat of the end
	if got := e.claimDeliveries(ample()).Deliveries; len(got) > 0 {
		t.Errorf("claimed again: %+v", got)
	}
}

func testDeliveryClaimers(t *testing.T, e *env) {
	const tasks, actions = 50, 3
	e.ended(tasks, actions)
	type key struct {
		id    task.ID
		place int
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[key]int{}
	for range 6 {
		wg.Go(func() {
			for range tasks * actions { // far more than it takes
				p := store.ClaimDeliveriesParams{Room: task.Room{Total: 7, PerHost: 7}, Lease: time.Minute}
				claimed, err := e.ClaimDeliveries(e.ctx, p)
				if err != nil || len(claimed.Deliveries) == 0 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				for _, d := range claimed.Deliveries {
					seen[key{d.Source, d.Place}]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, d := range e.claimDeliveries(ample()).Deliveries { // what a claimer passed over because another held it
		seen[key{d.Source, d.Place}]++
	}
	for k, n := range seen {
		if n != 1 {
			t.Errorf("%v was claimed %d times", k, n)
		}
	}
	if len(seen) != tasks*actions {
		t.Errorf("%d were claimed, want %d", len(seen), tasks*actions)
	}
}
