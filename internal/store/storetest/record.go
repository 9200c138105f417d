package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var recordTests = []conformance{
	{"every attempt, with what it came to", testAttempts},
	{"the newest attempts are kept", testAttemptsAreBounded},
	{"of an unknown delivery", testNoRecord},
	{"when the next attempt is", testNextAttempt},
	{"a dead one is retried", testRetryDead},
	{"one that waits is retried now, one that is sent is not", testRetryPending},
	{"many are retried at once", testRetryMany},
	{"of a batch", testRecordOfBatch},
	{"listed by everything", testListDeliveries},
	{"listed page by page", testPagesOfDeliveries},
	{"listed by a walk that ends", testWalkDeliveries},
}

func (e *env) record(id task.ID) *store.DeliveryDetail {
	e.Helper()
	d, err := e.Delivery(e.ctx, id)
	if err != nil {
		e.Fatalf("Delivery: %v", err)
	}
	return d
}

func (e *env) retry(ids ...task.ID) map[task.ID]store.DeliveryState {
	e.Helper()
	states, err := e.RetryDeliveries(e.ctx, ids)
	if err != nil {
		e.Fatalf("RetryDeliveries: %v", err)
	}
	return states
}

func (e *env) wantRetried(want store.DeliveryState, id task.ID) {
	e.Helper()
	if got := e.retry(id); len(got) != 1 || got[id] != want {
		e.Errorf("retried from %v, want %d", got, want)
	}
}

// one claims the only delivery that is due.
func (e *env) one() store.Delivery {
	e.Helper()
	got := e.claimDeliveries(ample()).Deliveries
	if len(got) != 1 {
		e.Fatalf("%d deliveries are due, want one: %+v", len(got), got)
	}
	return got[0]
}

func (e *env) deliveryPage(f store.Filter) store.Page[store.DeliveryItem] {
	e.Helper()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	page, err := e.Deliveries(e.ctx, f)
	if err != nil {
		e.Fatalf("Deliveries: %v", err)
	}
	return page
}

func testAttempts(t *testing.T, e *env) {
	k := e.running(1, func(k *task.Task) {
		k.OnSuccess = []task.Action{webhook(hostA, "/0"), {Verb: "Get", URL: "http://" + hostB + "/1?x=1", Headers: map[string]string{"X-A": "b"}, Body: []byte(`{"c":[1]}`)}}
	})[0]
	e.finish(task.Success, k)
	claimed := e.claimDeliveries(ample()).Deliveries
	d := claimed[slices.IndexFunc(claimed, func(d store.Delivery) bool { return d.Place == 1 })]
	at := time.Date(2026, 1, 1, 0, 0, 0, 123_000, time.UTC)
	attempts := []store.AttemptRecord{
		{At: at, Took: 1_500 * time.Microsecond, Status: 503, Error: "503 Service Unavailable", Answer: "Bitte warten …\n"},
		{At: at.Add(time.Minute), Took: 10 * time.Second, Error: "no answer within 10s"},
		{At: at.Add(time.Hour), Took: time.Microsecond, Status: 200, Answer: "ok"},
	}
	for i, a := range attempts {
		state := store.DeliveryPending
		if i == 2 {
			state = store.DeliveryDone
		}
		e.finishDeliveries(store.Attempt{Delivery: d.ID, State: state, AttemptRecord: a})
	}
	late := store.AttemptRecord{At: at.Add(2 * time.Hour), Status: 500, Error: "late"} // it was made, but changes nothing
	e.finishDeliveries(store.Attempt{Delivery: d.ID, State: store.DeliveryDead, AttemptRecord: late})
	got := e.record(d.ID)
	if got.CreatedAt.IsZero() {
		t.Error("no time of creation")
	}
	want := &store.DeliveryDetail{
		DeliveryItem: store.DeliveryItem{
			DeliveryRecord: store.DeliveryRecord{
				ID: d.ID, Trigger: task.TriggerSuccess, Place: 1, State: store.DeliveryDone, Failures: 2, LastStatus: 200,
			},
			Task: k.ID, Batch: k.BatchID, Host: hostB, CreatedAt: got.CreatedAt,
		},
		Action: k.OnSuccess[1], Attempts: append(attempts, late),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	other := claimed[slices.IndexFunc(claimed, func(d store.Delivery) bool { return d.Place == 0 })]
	if got := e.record(other.ID); len(got.Attempts) > 0 || got.Action.URL != k.OnSuccess[0].URL {
		t.Errorf("the other action: %+v", got)
	}
}

func testAttemptsAreBounded(t *testing.T, e *env) {
	e.ended(2, 1)
	claimed := e.claimDeliveries(ample()).Deliveries
	for i := range store.KeptAttempts + 3 {
		a := attempt(claimed[0], store.DeliveryPending, 500, fmt.Sprint(i), 0)
		if i < 2 {
			e.finishDeliveries(a, attempt(claimed[1], store.DeliveryPending, 500, "other", 0))
		} else {
			e.finishDeliveries(a)
		}
	}
	d := e.record(claimed[0].ID)
	if len(d.Attempts) != store.KeptAttempts || d.Attempts[0].Error != "3" || d.Failures != store.KeptAttempts+3 {
		t.Errorf("%d attempts of %d failures, the first is %q", len(d.Attempts), d.Failures, d.Attempts[0].Error)
	}
	if n := len(e.record(claimed[1].ID).Attempts); n != 2 {
		t.Errorf("the other has %d attempts", n)
	}
}

func testNoRecord(t *testing.T, e *env) {
	e.ended(1, 1)
	id := newID()
	if _, err := e.Delivery(e.ctx, id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Delivery: %v", err)
	}
	for _, ids := range [][]task.ID{{id}, nil} {
		if states := e.retry(ids...); len(states) != 0 {
			t.Errorf("retry of %v: %v", ids, states)
		}
	}
	if page := e.deliveryPage(store.Filter{Task: id}); len(page.Items) > 0 {
		t.Errorf("listed: %+v", page)
	}
}

func testNextAttempt(t *testing.T, e *env) {
	k := e.ended(1, 1)[0]
	next := func() time.Duration {
		at := e.detail(k.ID).Deliveries[0].NextAt
		if at.IsZero() {
			return -1
		}
		return at.Sub(e.clock.Now()).Round(time.Minute)
	}
	if got := next(); got != 0 {
		t.Errorf("of a new one: %v", got)
	}
	d := e.one()
	if got := next(); got != -1 {
		t.Errorf("while it is sent: %v", got)
	}
	e.finishDeliveries(attempt(d, store.DeliveryPending, 500, "x", time.Hour))
	if got := next(); got != time.Hour {
		t.Errorf("of a retry: %v", got)
	}
	e.finishDeliveries(attempt(d, store.DeliveryDead, 500, "x", 0))
	if got := next(); got != -1 {
		t.Errorf("of a dead one: %v", got)
	}
}

func testRetryDead(t *testing.T, e *env) {
	k := e.ended(1, 1)[0]
	first := e.one()
	e.finishDeliveries(attempt(first, store.DeliveryPending, 500, "x", 0))
	e.finishDeliveries(attempt(e.one(), store.DeliveryDead, 500, "x", 0))
	e.wantRetried(store.DeliveryDead, first.ID)
	d := e.one()
	want := first
	want.Failures, want.EarlierFailures = 2, 2
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("retried (-want +got):\n%s", diff)
	}
	e.finishDeliveries(attempt(d, store.DeliveryPending, 500, "x", time.Hour))
	e.wantRetried(store.DeliveryPending, first.ID) // the round goes on
	d = e.one()
	if want.Failures = 3; cmp.Diff(want, d) != "" {
		t.Errorf("in the next round: %+v", d)
	}
	e.finishDeliveries(attempt(d, store.DeliveryDone, 200, "", 0))
	e.wantRetried(store.DeliveryDone, first.ID)
	if got := e.claimDeliveries(ample()).Deliveries; len(got) > 0 {
		t.Errorf("a done one is sent again: %+v", got)
	}
	e.wantRecords([]store.DeliveryRecord{
		{Trigger: task.TriggerSuccess, State: store.DeliveryDone, Failures: 3, LastStatus: 200},
	}, e.detail(k.ID).Deliveries)
}

func testRetryPending(t *testing.T, e *env) {
	e.ended(1, 1)
	d := e.one()
	e.wantRetried(store.DeliveryPending, d.ID)
	if got := e.claimDeliveries(ample()).Deliveries; len(got) > 0 {
		t.Errorf("sent twice at once: %+v", got)
	}
	e.clock.Advance(2 * time.Minute) // the lease is over
	if got := e.one(); got.Failures != 0 {
		t.Errorf("%+v", got)
	}
}

func testRetryMany(t *testing.T, e *env) {
	e.ended(50, 2)
	claimed := e.claimDeliveries(ample()).Deliveries
	var attempts []store.Attempt
	var ids []task.ID
	for i, d := range claimed {
		state := []store.DeliveryState{store.DeliveryDead, store.DeliveryDone, store.DeliveryDead, store.DeliveryPending}[i%4]
		attempts = append(attempts, attempt(d, state, 0, "x", time.Hour))
		ids = append(ids, d.ID)
	}
	e.finishDeliveries(attempts...)
	states := e.retry(append(ids, newID())...)
	for _, a := range attempts {
		if states[a.Delivery] != a.State {
			t.Fatalf("%s was %v, want %v", a.Delivery, states[a.Delivery], a.State)
		}
	}
	if len(states) != len(ids) {
		t.Errorf("%d states of %d", len(states), len(ids))
	}
	if n := len(e.claimDeliveries(ample()).Deliveries); n != 75 {
		t.Errorf("%d are sent again, want 75", n)
	}
}

func testRecordOfBatch(t *testing.T, e *env) {
	b := telling(newTasks(2), `{"x":1}`)
	e.createBatch(b)
	e.run()
	e.finish(task.Success, b.Tasks...)
	claimed := e.outbox()
	if len(claimed) != 1 {
		t.Fatalf("%+v", claimed)
	}
	d := e.record(claimed[0].ID)
	if d.Task != (task.ID{}) || d.Batch != b.ID || d.Trigger != task.TriggerBatchComplete || cmp.Diff(claimed[0].Action, d.Action) != "" {
		t.Errorf("%+v", d)
	}
}

// testListDeliveries compares every filter with the same choice made here.
func testListDeliveries(t *testing.T, e *env) {
	both := func(k *task.Task) {
		k.OnSuccess = []task.Action{webhook(hostA, "/0"), webhook(hostB, "/1")}
	}
	var tasks []*task.Task
	for range 3 {
		b := telling(newTasks(3, both), `{"x":1}`)
		e.createBatch(b)
		e.run()
		e.finish(task.Success, b.Tasks...)
		e.claim() // which ends the batch
		tasks = append(tasks, b.Tasks...)
	}
	var attempts []store.Attempt
	for i, d := range e.claimDeliveries(ample()).Deliveries {
		states := []store.DeliveryState{store.DeliveryDone, store.DeliveryDead, store.DeliveryPending, store.DeliveryDead, 0}
		if state := states[i%5]; state != 0 {
			attempts = append(attempts, attempt(d, state, 500, "x", time.Hour))
		}
	}
	e.finishDeliveries(attempts...)
	all := e.deliveryPage(store.Filter{}).Items
	if len(all) != 3*(3*2+1) {
		t.Fatalf("%d deliveries", len(all))
	}
	for i := range all {
		if i > 0 && compareIDs(all[i].ID, all[i-1].ID) >= 0 {
			t.Error("not newest first")
		}
		if diff := cmp.Diff(e.record(all[i].ID).DeliveryItem, all[i]); diff != "" {
			t.Errorf("listed otherwise than shown:\n%s", diff)
		}
	}
	states := [][]store.DeliveryState{
		nil, {store.DeliveryPending}, {store.DeliveryDone}, {store.DeliveryDead}, {store.DeliveryPending, store.DeliveryDead},
	}
	for _, wanted := range states {
		for _, host := range []string{"", hostA, hostC, "none.test"} {
			for _, id := range []task.ID{{}, tasks[4].ID} {
				for _, batch := range []task.ID{{}, tasks[4].BatchID, tasks[0].BatchID} {
					f := store.Filter{DeliveryStates: wanted, Host: host, Task: id, Batch: batch, Before: all[2].ID}
					var want []store.DeliveryItem
					for _, d := range all[3:] {
						if (wanted == nil || slices.Contains(wanted, d.State)) && (host == "" || d.Host == host) &&
							(id == task.ID{} || d.Task == id) && (batch == task.ID{} || d.Batch == batch) {
							want = append(want, d)
						}
					}
					got := e.deliveryPage(f).Items
					if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
						t.Errorf("%+v (-want +got):\n%s", f, diff)
					}
				}
			}
		}
	}
}

func testPagesOfDeliveries(t *testing.T, e *env) {
	e.ended(5, 2)
	for _, d := range e.claimDeliveries(ample()).Deliveries {
		e.finishDeliveries(attempt(d, store.DeliveryDead, 500, "x", 0))
	}
	for _, states := range [][]store.DeliveryState{nil, {store.DeliveryDead}} {
		f := store.Filter{DeliveryStates: states}
		all := e.deliveryPage(f).Items
		var paged []store.DeliveryItem
		for f.Limit = 3; ; {
			items := e.deliveryPage(f).Items
			if len(items) == 0 {
				break
			}
			paged = append(paged, items...)
			f.Before = items[len(items)-1].ID
		}
		if len(all) != 10 || cmp.Diff(all, paged) != "" {
			t.Errorf("%v: %d by pages, %d in all", states, len(paged), len(all))
		}
		if got := e.deliveryPage(store.Filter{DeliveryStates: states, Limit: 3, Offset: 6}).Items; cmp.Diff(all[6:9], got) != "" {
			t.Errorf("%v: the third page is %+v", states, got)
		}
	}
}

func testWalkDeliveries(t *testing.T, e *env) {
	e.ended(10, 1)
	claimed := e.claimDeliveries(ample()).Deliveries
	slices.SortFunc(claimed, func(a, b store.Delivery) int { return compareIDs(a.ID, b.ID) })
	e.finishDeliveries(attempt(claimed[1], store.DeliveryDone, 200, "", 0))
	f := store.Filter{DeliveryStates: []store.DeliveryState{store.DeliveryDone}, Walk: 4, Limit: 5}
	var found []task.ID
	pages := 0
	for ; pages < 10; pages++ {
		page := e.deliveryPage(f)
		for _, d := range page.Items {
			found = append(found, d.ID)
		}
		if page.Walked == (task.ID{}) {
			break
		}
		f.Before = page.Walked
	}
	if pages != 2 || !slices.Equal(found, []task.ID{claimed[1].ID}) {
		t.Errorf("found %v after %d walks, want %s after 2", found, pages, claimed[1].ID)
	}
	f.DeliveryStates, f.Before = []store.DeliveryState{store.DeliveryDead}, task.ID{}
	if page := e.deliveryPage(f); page.Walked != (task.ID{}) { // an index has them
		t.Errorf("a list of dead ones walks: %+v", page)
	}
}
