package sqlite

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"taskrunner/internal/store"
	"taskrunner/internal/store/storetest"
	"taskrunner/internal/task"
)

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func open(t testing.TB, path string, c *clock) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path, Now: c.now, DeadEnds: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func newID() task.ID { return uuid.Must(uuid.NewV7()) }

func action(url string) task.Action { return task.Action{Verb: "Post", URL: url} }

// newBatch is n tasks without dependencies.
func newBatch(n int) *task.Batch {
	b := &task.Batch{ID: newID(), Requester: "tests", Metadata: []byte("{}")}
	for range n {
		b.Tasks = append(b.Tasks, &task.Task{
			ID: newID(), BatchID: b.ID, LocalID: "a", Name: "load 'x' é", Kind: "ingest", Timeout: time.Minute,
			Metadata: json.RawMessage(`{"project":"p1","n":1.0}`), OnStart: action("http://one.test/start"),
		})
	}
	return b
}

var room = task.Room{Total: 1000, PerHost: 1000}

func ids(claims []store.Claim) []task.ID {
	var out []task.ID
	for _, c := range claims {
		out = append(out, c.ID)
	}
	return out
}

type harness struct {
	*Store
	t     *testing.T
	owner task.ID
}

func (h *harness) create(b *task.Batch) []task.State {
	h.t.Helper()
	created, err := h.Create(h.t.Context(), []store.Create{{Batch: b}})
	if err != nil {
		h.t.Fatal(err)
	}
	states := make([]task.State, len(b.Tasks))
	for i := range states {
		states[i] = created[0].State(i)
	}
	return states
}

func (h *harness) pump(want ...task.ID) store.Pumped {
	h.t.Helper()
	r, err := h.Pump(h.t.Context(), store.PumpParams{Owner: h.owner, Room: room, Fetch: 64})
	if err != nil {
		h.t.Fatal(err)
	}
	got := ids(r.Claims)
	if len(got) != len(want) {
		h.t.Fatalf("claimed %v, want %v; %+v", got, want, r)
	}
	for i := range got {
		if got[i] != want[i] {
			h.t.Fatalf("claimed %v, want %v", got, want)
		}
	}
	h.drift()
	return r
}

func (h *harness) drift() {
	h.t.Helper()
	if n, err := h.Drift(h.t.Context()); n != 0 || err != nil {
		h.t.Fatalf("drift %d, %v", n, err)
	}
}

func (h *harness) settle(outcomes ...task.Outcome) store.Settled {
	h.t.Helper()
	r, err := h.Settle(h.t.Context(), outcomes)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, one := range r.Results {
		if one.Err != nil {
			h.t.Fatal(one.Err)
		}
	}
	h.drift()
	return r
}

func (h *harness) status(id task.ID, want task.Status) *store.Detail {
	h.t.Helper()
	d, err := h.Task(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	if d.State.Status != want {
		h.t.Fatalf("%s is %s, want %s (%s)", id, d.State.Status, want, d.State.FailureReason)
	}
	return d
}

func started(id task.ID) task.Outcome {
	return task.Outcome{ID: id, Kind: task.Started, Attempt: 1, StartStatus: 200}
}

func ended(id task.ID, s task.Status) task.Outcome {
	o := task.Outcome{ID: id, Kind: task.Update, Status: s}
	if s == task.Failure {
		o.FailureReason = "no"
	}
	return o
}

// TestLife takes tasks the whole way, so that every statement runs once. What the contract asks is tested in storetest.
func TestLife(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), newClock()
	h := &harness{open(t, filepath.Join(t.TempDir(), "a?b#c%d é.db"), c), t, newID()}
	if err := h.Heartbeat(ctx, h.owner, 30*time.Second); err != nil {
		t.Fatal(err)
	}

	// Four tasks; the third needs the first, the fourth only that the second has ended. At most one at a time of the
	// first two.
	b := newBatch(4)
	one, two, three, four := b.Tasks[0], b.Tasks[1], b.Tasks[2], b.Tasks[3]
	rule := task.Rule{Matcher: task.Matcher{Kind: "ingest", Status: task.Running, Fields: []string{"project"}}, Max: 1}
	one.Rules, two.Rules = []task.Rule{rule}, []task.Rule{rule}
	one.OnSuccess = []task.Action{action("http://two.test/1"), action("http://two.test/2")}
	two.OnFailure = []task.Action{action("http://three.test/")}
	three.Dependencies = []task.Dependency{{Parent: one.ID, RequiresSuccess: true}}
	four.Dependencies = []task.Dependency{{Parent: two.ID}}
	three.Kind, four.Kind = "join", "join"
	three.OnFailure = two.OnFailure
	if states := h.create(b); states[0].Status != task.Pending || states[2].Status != task.Waiting || !states[0].HasChildren {
		t.Fatalf("%+v", states)
	}
	h.pump(one.ID)
	h.pump()
	h.settle(started(one.ID))
	d := h.status(one.ID, task.Running)
	if d.Task.Rules[0].Max != 1 || len(d.Task.OnSuccess) != 2 || d.Task.Timeout != time.Minute || d.Task.Name != one.Name {
		t.Errorf("%+v", d.Task)
	}
	if !d.State.StartedAt.Equal(c.now()) || !d.Task.CreatedAt.Equal(c.now()) {
		t.Errorf("times: %+v", d.State)
	}

	// A new shape counts what is running.
	other := newBatch(1)
	any := rule
	any.Matcher.Fields = nil
	other.Tasks[0].Rules = []task.Rule{any}
	h.create(other)
	h.pump()

	// A change of priority while parked, and of metadata, which lets it go.
	priority := 5
	h.settle(task.Outcome{ID: two.ID, Kind: task.Update, Priority: &priority, Metadata: json.RawMessage(`{"project":"p2"}`)})
	h.settle(task.Outcome{ID: other.Tasks[0].ID, Kind: task.Cancel})
	h.status(other.Tasks[0].ID, task.Canceled)
	h.pump(two.ID)
	h.settle(started(two.ID), task.Outcome{ID: two.ID, Kind: task.Count, NewSuccess: 3, NewFailures: 1})

	// Their ends.
	if r := h.settle(ended(one.ID, task.Success), ended(two.ID, task.Failure)); !r.Outbox || !r.Pump {
		t.Errorf("%+v", r)
	}
	if d := h.status(three.ID, task.Waiting); len(d.Parents) != 1 || d.Parents[0] != task.Success {
		t.Errorf("%+v", d)
	}
	h.pump(three.ID, four.ID)
	h.settle(task.Outcome{ID: three.ID, Kind: task.StartFailed, Attempt: 1, StartFailures: 3, StartStatus: 500,
		StartError: "500", FailureReason: "on_start failed"})
	h.status(three.ID, task.Failure)
	if steps, err := h.History(ctx, three.ID); err != nil || len(steps) != 4 || steps[3].Cause != task.StartRefused {
		t.Errorf("history %v, %v", steps, err)
	}
	if toEdit, err := h.ToEdit(ctx, b.ID, "", nil); err != nil || len(toEdit.IDs) != 0 {
		t.Errorf("to edit %v, %v", toEdit, err)
	}
	if ids, more, err := h.DeadEnds(ctx, 100); err != nil || more || len(ids) != 0 {
		t.Errorf("dead ends %v, %t, %v", ids, more, err)
	}
	testPauseAndTimeout(h, c, four)
	testDeliveries(h, c)
	testTakeOver(h, c)
	testLists(h, b)
	testExplain(h)
	testFanOut(h)
	if err := h.Maintain(ctx); err != nil {
		t.Error(err)
	}
	if health, err := h.Health(ctx); err != nil || health.PoolSize == 0 {
		t.Error(health, err)
	}
}

func testExplain(h *harness) {
	h.t.Helper()
	b := newBatch(2)
	for _, k := range b.Tasks {
		k.Kind = "explained"
		k.Rules = []task.Rule{{Matcher: task.Matcher{Kind: "explained", Status: task.Running}, Max: 1}}
	}
	h.create(b)
	h.pump(b.Tasks[0].ID)
	s, err := h.Explain(h.t.Context(), b.Tasks[1].ID)
	if err != nil || s.Parked == nil || len(s.Gates) != 1 || !slices.Equal(s.Gates[0].Holders, []task.ID{b.Tasks[0].ID}) {
		h.t.Errorf("%+v %v", s, err)
	}
	l, err := h.Limits(h.t.Context(), store.LimitFilter{After: store.FirstGate, Limit: 9})
	if err != nil || len(l.Gates) == 0 {
		h.t.Errorf("%+v %v", l, err)
	}
	h.settle(task.Outcome{ID: b.Tasks[1].ID, Kind: task.Cancel}, ended(b.Tasks[0].ID, task.Success))
}

func testPauseAndTimeout(h *harness, c *clock, four *task.Task) {
	h.t.Helper()
	ctx := h.t.Context()
	h.settle(task.Outcome{
		ID: four.ID, Kind: task.Started, Attempt: 1, OnCancel: []task.Action{action("http://four.test/cancel")},
	})
	h.settle(task.Outcome{ID: four.ID, Kind: task.Pause})
	c.add(2 * time.Minute)
	if due, _, err := h.Due(ctx, 10); len(due) > 0 || err != nil {
		h.t.Fatal(due, err)
	}
	h.settle(task.Outcome{ID: four.ID, Kind: task.Resume})
	c.add(59 * time.Second)
	h.settle(task.Outcome{ID: four.ID, Kind: task.Count, NewSuccess: 1})
	c.add(30 * time.Second)
	if due, _, err := h.Due(ctx, 10); len(due) > 0 || err != nil { // its check is due, it is not
		h.t.Fatal(due, err)
	}
	c.add(29 * time.Second)
	if due, _, err := h.Due(ctx, 10); len(due) > 0 || err != nil {
		h.t.Fatal(due, err)
	}
	c.add(time.Second)
	due, _, err := h.Due(ctx, 10)
	if len(due) != 1 || err != nil {
		h.t.Fatal(due, err)
	}
	h.settle(task.Outcome{ID: four.ID, Kind: task.Expire})
	h.status(four.ID, task.Failure)

	// Canceled while it runs, it sends the action that on_start's answer brought.
	b := newBatch(1)
	h.create(b)
	h.pump(b.Tasks[0].ID)
	h.settle(task.Outcome{ID: b.Tasks[0].ID, Kind: task.Started, Attempt: 1,
		OnCancel: []task.Action{action("http://four.test/cancel")}})
	h.settle(task.Outcome{ID: b.Tasks[0].ID, Kind: task.Cancel})
}

func testDeliveries(h *harness, c *clock) {
	h.t.Helper()
	ctx := h.t.Context()
	params := store.ClaimDeliveriesParams{Room: task.Room{Total: 10, PerHost: 1}, Lease: time.Minute}
	first, err := h.ClaimDeliveries(ctx, params)
	if err != nil || len(first.Deliveries) != 3 || !first.More {
		h.t.Fatalf("%+v %v", first, err)
	}
	params.Room = task.Room{Total: 10, PerHost: 9, Busy: map[string]int{"three.test": 9}}
	second, err := h.ClaimDeliveries(ctx, params)
	if err != nil || len(second.Deliveries) != 1 || second.More || second.Deliveries[0].Place != 1 {
		h.t.Fatalf("%+v %v", second, err)
	}
	c.add(time.Minute + time.Second)
	var attempts []store.Attempt
	for _, d := range first.Deliveries {
		attempts = append(attempts, store.Attempt{Delivery: d.ID, State: store.DeliveryPending, Retry: time.Hour,
			AttemptRecord: store.AttemptRecord{At: c.now(), Status: 503, Error: "503"}})
	}
	if err := h.FinishDeliveries(ctx, attempts); err != nil {
		h.t.Fatal(err)
	}
	params.Room.Busy = nil
	third, err := h.ClaimDeliveries(ctx, params)
	if err != nil || len(third.Deliveries) != 2 { // the lease of one ended; one was never claimed
		h.t.Fatalf("%+v %v", third, err)
	}
	c.add(time.Hour)
	for i := range attempts {
		attempts[i].State, attempts[i].Error, attempts[i].Status = store.DeliveryDone, "", 200
	}
	if err := h.FinishDeliveries(ctx, attempts); err != nil {
		h.t.Fatal(err)
	}
	d, err := h.Task(ctx, first.Deliveries[0].Source)
	if err != nil || len(d.Deliveries) == 0 || d.Deliveries[0].State != store.DeliveryDone || d.Deliveries[0].Failures != 1 {
		h.t.Fatalf("%+v %v", d, err)
	}
}

func testTakeOver(h *harness, c *clock) {
	h.t.Helper()
	ctx := h.t.Context()
	old := h.owner
	b := newBatch(2)
	h.create(b)
	if err := h.Heartbeat(ctx, old, 30*time.Second); err != nil {
		h.t.Fatal(err)
	}
	h.pump(b.Tasks[0].ID, b.Tasks[1].ID)
	h.settle(started(b.Tasks[0].ID))
	h.owner = newID()
	if err := h.Heartbeat(ctx, h.owner, time.Hour); err != nil {
		h.t.Fatal(err)
	}
	if claims, err := h.TakeOver(ctx, h.owner); len(claims) > 0 || err != nil {
		h.t.Fatal(claims, err)
	}
	c.add(31 * time.Second)
	claims, err := h.TakeOver(ctx, h.owner)
	if err != nil || len(claims) != 1 || claims[0].ID != b.Tasks[1].ID || claims[0].Attempt != 2 ||
		claims[0].Action.URL != b.Tasks[1].OnStart.URL || claims[0].Host != "one.test" {
		h.t.Fatalf("%+v %v", claims, err)
	}
	if err := h.Leave(ctx, h.owner); err != nil {
		h.t.Fatal(err)
	}
	h.owner = newID()
	if claims, err := h.TakeOver(ctx, h.owner); len(claims) != 1 || claims[0].Attempt != 3 || err != nil {
		h.t.Fatal(claims, err)
	}
	h.settle(ended(b.Tasks[0].ID, task.Success), ended(b.Tasks[1].ID, task.Success))
	h.pump()
}

func testLists(h *harness, b *task.Batch) {
	h.t.Helper()
	ctx := h.t.Context()
	live := newBatch(5) // two run, the others do not
	for _, k := range live.Tasks[2:] {
		k.Kind = "limited"
		k.Rules = []task.Rule{{Matcher: task.Matcher{Kind: "limited", Status: task.Running}, Max: 1}}
	}
	h.create(live)
	h.pump(live.Tasks[0].ID, live.Tasks[1].ID, live.Tasks[2].ID)
	for name, test := range map[string]struct {
		f    store.Filter
		want int
	}{
		"all":              {store.Filter{}, 13},
		"two":              {store.Filter{Limit: 2}, 2},
		"offset":           {store.Filter{Offset: 12}, 1},
		"before":           {store.Filter{Before: b.Tasks[2].ID}, 2},
		"batch":            {store.Filter{Batch: b.ID}, 4},
		"named":            {store.Filter{IDs: []task.ID{b.Tasks[3].ID, newID(), live.Tasks[0].ID, b.Tasks[3].ID}}, 2},
		"kind":             {store.Filter{Kind: "join"}, 2},
		"kind prefix":      {store.Filter{KindPrefix: "jo"}, 2},
		"name":             {store.Filter{NamePart: "'x' é", Kind: "join"}, 2},
		"name, other case": {store.Filter{NamePart: "'X'"}, 0},
		"metadata":         {store.Filter{Metadata: []byte(`{"n":1}`), Batch: b.ID}, 3},
		"time-out":         {store.Filter{Timeout: time.Minute}, 13},
		"running":          {store.Filter{Statuses: []task.Status{task.Claimed, task.Running}}, 3},
		"pending":          {store.Filter{Statuses: []task.Status{task.Pending}}, 2},
		"pending of batch": {store.Filter{Statuses: []task.Status{task.Pending}, Batch: live.ID}, 2},
		"ended":            {store.Filter{Statuses: []task.Status{task.Failure, task.Success}}, 6},
		"failed":           {store.Filter{Statuses: []task.Status{task.Failure}}, 3},
		"failed, canceled": {store.Filter{Statuses: []task.Status{task.Failure, task.Canceled}}, 5},
		"failed of batch":  {store.Filter{Statuses: []task.Status{task.Failure}, Batch: b.ID}, 3},
	} {
		if test.f.Limit == 0 {
			test.f.Limit = 100
		}
		page, err := h.Tasks(ctx, test.f)
		if err != nil || len(page.Items) != test.want {
			h.t.Errorf("%s: %d page.Items, want %d; %v", name, len(page.Items), test.want, err)
		}
		for i := 1; i < len(page.Items); i++ {
			if page.Items[i-1].Task.ID.String() <= page.Items[i].Task.ID.String() {
				h.t.Errorf("%s: not newest first", name)
			}
		}
	}
	sum, err := h.Batch(ctx, b.ID)
	if err != nil || sum.Tasks != 4 || sum.Success != 4 || sum.Failures != 1 || sum.Counts[task.Failure] != 3 ||
		sum.Expected != nil || sum.Requester != "tests" {
		h.t.Errorf("%+v %v", sum, err)
	}
	dag, err := h.DAG(ctx, b.ID)
	if err != nil || len(dag.Items) != 4 || len(dag.Links) != 2 || dag.Items[0].Task.ID != b.Tasks[0].ID {
		h.t.Errorf("%+v %v", dag, err)
	}
}

// testFanOut folds the children of one parent in several ticks, and parks and unparks.
func testFanOut(h *harness) {
	h.t.Helper()
	b := newBatch(8)
	limit := task.Rule{Matcher: task.Matcher{Kind: "fan", Status: task.Running}, Max: 1}
	for _, k := range b.Tasks[1:] {
		k.Kind = "fan"
		k.Rules = []task.Rule{limit}
		k.Dependencies = []task.Dependency{{Parent: b.Tasks[0].ID, RequiresSuccess: true}}
	}
	h.create(b)
	h.pump(b.Tasks[0].ID)
	h.settle(ended(b.Tasks[0].ID, task.Success))
	claimed, next := 0, -1
	for range 40 {
		r, err := h.Pump(h.t.Context(), store.PumpParams{Owner: h.owner, Room: room, Links: 3})
		if err != nil {
			h.t.Fatal(err)
		}
		h.drift()
		for i, k := range b.Tasks {
			if len(r.Claims) > 0 && k.ID == r.Claims[0].ID {
				if i <= next {
					h.t.Errorf("%d claimed after %d", i, next)
				}
				next = i
				claimed++
				h.settle(ended(k.ID, task.Success))
			}
		}
		if len(r.Claims) == 0 && !r.More {
			break
		}
	}
	if claimed != 7 {
		h.t.Errorf("claimed %d of 7", claimed)
	}
}

// Nobody does what a look does not find, so it must not wait for lists that take long.
func TestLookWaitsForNoReader(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	for range readers {
		busy := <-s.readers
		defer func() { s.readers <- busy }()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.Work(ctx, newID()); err != nil {
		t.Errorf("Work: %v", err)
	}
}

func TestImpossibleStates(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	if _, err := s.Create(t.Context(), []store.Create{{Batch: newBatch(1)}}); err != nil {
		t.Fatal(err)
	}
	storetest.Impossible(t, func(sql string) error {
		return s.write(t.Context(), func(tx *tx) error { return tx.conn.script(t.Context(), sql) })
	})
}
