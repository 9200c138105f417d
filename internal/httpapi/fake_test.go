package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fake is a store, a creator and a settler in memory, with the domain's own decisions about outcomes.
type fake struct {
	mu     sync.Mutex
	now    time.Time // when outcomes are applied
	lastID int
	ids    []task.ID
	tasks  map[task.ID]*store.Detail
	batch  map[task.ID]*task.Batch
	filter store.Filter // of the last list
	walked task.ID      // where lists end their walk
	// deliveries are those of every batch.
	deliveries []store.DeliveryRecord
	outbox     []store.DeliveryDetail // oldest first
	relapse    bool                   // what is retried is dead again at once
	retries    int
	keys       map[string]store.StoredKey
	limits     store.LimitFilter
	gates      []store.LimitSituation
	err        error // what every method fails with
	settle     func(ctx context.Context, outcomes []task.Outcome) ([]store.Result, error)
	seen       []task.Outcome
}

func newFake() *fake {
	return &fake{now: start.Add(time.Second), tasks: map[task.ID]*store.Detail{}, batch: map[task.ID]*task.Batch{}, keys: map[string]store.StoredKey{}}
}

// testID is the n-th id that a fake gives out.
func testID(n int) task.ID {
	id := task.ID{0x01, 0x98, 0xc0, 0xde, 0x5a, 0x10, 0x70, 0, 0x80}
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

func (f *fake) newID() task.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastID++
	return testID(f.lastID)
}

func (f *fake) Health(context.Context) (store.Health, error) {
	return store.Health{PoolSize: 10, PoolIdle: 5}, f.err
}

func (f *fake) Create(_ context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return store.Created{}, f.err
	}
	if key != nil {
		if _, ok := f.keys[key.Key]; !ok {
			f.keys[key.Key] = store.StoredKey{Digest: key.Digest[:], Batch: b.ID}
		}
		if known := store.Replay([]store.Create{{Batch: b, Key: key}}, f.keys)[0]; !known.Fresh() {
			return known, known.Err
		}
	}
	f.batch[b.ID] = b
	states := make([]task.State, len(b.Tasks))
	for i, t := range b.Tasks {
		t.CreatedAt = start
		states[i] = task.State{
			ID: t.ID, Status: task.Pending, Unmet: len(t.Dependencies), LastUpdated: start, Timeout: t.Timeout,
		}
		if states[i].Unmet > 0 {
			states[i].Status = task.Waiting
		}
		f.ids = append(f.ids, t.ID)
		f.tasks[t.ID] = &store.Detail{Item: store.Item{Task: *t, State: states[i]}}
	}
	return store.Created{Batch: b.ID, Kept: b.Tasks, State: func(i int) task.State { return states[i] }}, nil
}

func (f *fake) Details(_ context.Context, batch task.ID) ([]store.Detail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var tasks []store.Detail
	for _, t := range f.batch[batch].Tasks {
		d := *f.tasks[t.ID]
		for _, p := range d.Task.Dependencies {
			d.Parents = append(d.Parents, f.tasks[p.Parent].State.Status)
		}
		tasks = append(tasks, d)
	}
	return tasks, f.err
}

func (f *fake) History(ctx context.Context, id task.ID) ([]task.Step, error) {
	d, err := f.Task(ctx, id)
	if err != nil {
		return nil, err
	}
	return task.History(start, len(d.Task.Dependencies) > 0, &d.State, nil), nil
}

func (f *fake) Task(_ context.Context, id task.ID) (*store.Detail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	d, ok := f.tasks[id]
	if !ok {
		return nil, store.ErrNotFound
	}
	d.Parents = nil
	for _, p := range d.Task.Dependencies {
		d.Parents = append(d.Parents, f.tasks[p.Parent].State.Status)
	}
	return d, nil
}

func (f *fake) Tasks(_ context.Context, filter store.Filter) (store.Page[store.Item], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filter = filter
	var items []store.Item
	for _, id := range slices.Backward(f.ids) {
		d := f.tasks[id]
		before := bytes.Compare(id[:], filter.Before[:]) < 0
		if at := d.State.LastUpdated; filter.Sort == store.SortUpdated && !at.Equal(filter.BeforeUpdate) {
			before = at.Before(filter.BeforeUpdate)
		}
		if filter.Before != (task.ID{}) && !before ||
			len(filter.Statuses) > 0 && !slices.Contains(filter.Statuses, d.State.Status) ||
			filter.IDs != nil && !slices.Contains(filter.IDs, id) ||
			filter.Kind != "" && filter.Kind != d.Task.Kind {
			continue
		}
		items = append(items, d.Item)
	}
	if filter.Sort == store.SortUpdated {
		slices.SortStableFunc(items, func(a, b store.Item) int { return b.State.LastUpdated.Compare(a.State.LastUpdated) })
	}
	items = items[min(filter.Offset, len(items)):]
	return store.NewPage(items[:min(filter.Limit, len(items))], f.walked, &filter), f.err
}

func (f *fake) Batches(_ context.Context, filter store.Filter) (store.Page[store.BatchItem], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filter = filter
	var items []store.BatchItem
	for _, id := range slices.SortedFunc(maps.Keys(f.batch), func(a, b task.ID) int { return bytes.Compare(b[:], a[:]) }) {
		if filter.Before != (task.ID{}) && bytes.Compare(id[:], filter.Before[:]) >= 0 {
			continue
		}
		item := store.BatchItem{BatchLabels: labels(f.batch[id]), ID: id, CreatedAt: start, UpdatedAt: start.Add(time.Second), Counts: map[task.Status]int{}}
		for _, t := range f.batch[id].Tasks {
			item.Tasks++
			item.Counts[f.tasks[t.ID].State.Status]++
			item.Kinds = append(item.Kinds, t.Kind)
		}
		slices.Sort(item.Kinds)
		item.Kinds = slices.Compact(item.Kinds)
		items = append(items, item)
	}
	items = items[min(filter.Offset, len(items)):]
	return store.NewPage(items[:min(filter.Limit, len(items))], f.walked, &filter), f.err
}

func (f *fake) Batch(_ context.Context, id task.ID) (*store.BatchSummary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.batch[id]
	if !ok {
		return nil, store.ErrNotFound
	}
	s := &store.BatchSummary{BatchLabels: labels(b), ID: id, CreatedAt: start, OnComplete: b.OnComplete, Deliveries: f.deliveries, BatchSums: store.BatchSums{Counts: map[task.Status]int{}}}
	for _, t := range b.Tasks {
		state := f.tasks[t.ID].State
		s.Tasks++
		s.Counts[state.Status]++
		s.Success += state.Success
		s.Failures += state.Failures
	}
	return s, f.err
}

func labels(b *task.Batch) store.BatchLabels {
	return store.BatchLabels{Requester: b.Requester, Scope: b.Scope, Metadata: b.Metadata}
}

func (f *fake) DAG(_ context.Context, id task.ID) (*store.DAG, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.batch[id]
	if !ok {
		return nil, store.ErrNotFound
	}
	var dag store.DAG
	for _, t := range b.Tasks {
		dag.Items = append(dag.Items, f.tasks[t.ID].Item)
		for _, d := range t.Dependencies {
			dag.Links = append(dag.Links, store.Link{Parent: d.Parent, Child: t.ID, RequiresSuccess: d.RequiresSuccess})
		}
	}
	return &dag, f.err
}

func (f *fake) Explain(_ context.Context, id task.ID) (*store.Situation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.tasks[id]
	if !ok {
		return nil, store.ErrNotFound
	}
	s := store.NewSituation(&d.Task, &d.State)
	s.Now = start
	return s, f.err
}

func (f *fake) Limits(_ context.Context, filter store.LimitFilter) (*store.Limits, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limits = filter
	return store.NewLimits(slices.Clone(f.gates), filter.Limit), f.err
}

func (f *fake) Deliveries(_ context.Context, filter store.Filter) (store.Page[store.DeliveryItem], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filter = filter
	var items []store.DeliveryItem
	for _, d := range slices.Backward(f.outbox) {
		if (filter.Before == task.ID{} || bytes.Compare(d.ID[:], filter.Before[:]) < 0) &&
			(filter.DeliveryStates == nil || slices.Contains(filter.DeliveryStates, d.State)) && (filter.Host == "" || filter.Host == d.Host) {
			items = append(items, d.DeliveryItem)
		}
	}
	items = items[min(filter.Offset, len(items)):]
	return store.NewPage(items[:min(filter.Limit, len(items))], f.walked, &filter), f.err
}

func (f *fake) Delivery(_ context.Context, id task.ID) (*store.DeliveryDetail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.outbox {
		if f.outbox[i].ID == id {
			return &f.outbox[i], f.err
		}
	}
	return nil, cmp.Or(f.err, store.ErrNotFound)
}

func (f *fake) RetryDeliveries(_ context.Context, ids []task.ID) (map[task.ID]store.DeliveryState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retries += len(ids); f.retries > 5*retryPage {
		return nil, errors.New("this takes no end")
	}
	states, asked := map[task.ID]store.DeliveryState{}, map[task.ID]bool{}
	for _, id := range ids {
		asked[id] = true
	}
	for i := range f.outbox {
		d := &f.outbox[i]
		if !asked[d.ID] || f.err != nil {
			continue
		}
		states[d.ID] = d.State
		if d.State == store.DeliveryDead && !f.relapse {
			d.State, d.NextAt = store.DeliveryPending, start
		}
	}
	return states, f.err
}

func (f *fake) Settle(ctx context.Context, outcomes ...task.Outcome) ([]store.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, outcomes...)
	if f.settle != nil {
		return f.settle(ctx, outcomes)
	}
	if f.err != nil {
		return nil, f.err
	}
	results := make([]store.Result, len(outcomes))
	for i := range outcomes {
		d, ok := f.tasks[outcomes[i].ID]
		if !ok {
			results[i].Err = task.Missing(&outcomes[i])
			continue
		}
		_, err := task.Apply(&d.State, &d.Task, &outcomes[i], f.now)
		results[i] = store.Result{State: d.State, Err: err}
	}
	return results, nil
}

func (f *fake) StopBatch(ctx context.Context, id task.ID) (store.Stopped, error) {
	stopped := store.Stopped{Canceled: map[task.Status]int{}}
	if f.err != nil {
		return stopped, f.err
	}
	b, ok := f.batch[id]
	if !ok {
		return stopped, store.ErrNotFound
	}
	for _, t := range b.Tasks {
		from := f.tasks[t.ID].State.Status
		results, err := f.Settle(ctx, task.Outcome{ID: t.ID, Kind: task.Cancel})
		switch {
		case err != nil:
			return stopped, err
		case results[0].Err != nil:
			stopped.Ended++
		default:
			stopped.Canceled[from]++
		}
	}
	return stopped, nil
}

func (f *fake) EditRules(ctx context.Context, id task.ID, kind string, rules []task.Rule) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	b, ok := f.batch[id]
	if !ok {
		return 0, store.ErrNotFound
	}
	n := 0
	for _, t := range b.Tasks {
		if t.Kind != kind {
			continue
		}
		results, err := f.Settle(ctx, task.Outcome{ID: t.ID, Kind: task.EditRules, Rules: rules})
		if err != nil {
			return n, err
		}
		if results[0].Err == nil {
			n++
		}
	}
	return n, nil
}

// service is a handler over a fake.
type service struct {
	*fake
	handler http.Handler
	log     *bytes.Buffer
	woken   int
}

func newService(t testing.TB, change ...func(o *Options)) *service {
	t.Helper()
	s := &service{fake: newFake(), log: &bytes.Buffer{}}
	o := Options{
		Store: s.fake, Creator: s.fake, Settler: s.fake, NewID: s.newID,
		OnRetried: func() { s.woken++ },
		Log:       slog.New(slog.NewTextHandler(s.log, nil)),
	}
	for _, c := range change {
		c(&o)
	}
	s.handler = New(o)
	return s
}

// do sends a request; headers are "Name: value".
func (s *service) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// diamond are four tasks: a, then b and c, then d.
const diamond = `[
  {"id":"a","name":"A","kind":"ingest","timeout":30,"metadata":{"tenant_id": 7, "note":"<b>&"},"priority":5,"expected_count":40,
   "on_start":{"kind":"Webhook","trigger":"Start","params":{"url":"https://example.com/run?x=1&y=2","verb":"Post",
     "headers":{"X-Token":"t"},"body":{"n": 1.50}}},
   "on_success":[{"kind":"Webhook","trigger":"End","params":{"url":"https://example.com/ok","verb":"Put"}},
     {"kind":"Webhook","params":{"url":"https://example.com/ok2","verb":"Get"}}],
   "on_failure":[{"kind":"Webhook","params":{"url":"https://example.com/no","verb":"Delete"}}],
   "rules":[{"Concurency":{"matcher":{"kind":"ingest","status":"Running","fields":["tenant_id"]},"max_concurency":3}},
     {"type":"Concurrency","matcher":{"kind":"other","status":"Running","fields":[]},"max_concurrency":2}]},
  {"id":"b","name":"B","kind":"ingest","on_start":{"kind":"Webhook","params":{"url":"https://example.com/b","verb":"Post"}},
   "dependencies":[{"id":"a","requires_success":true}]},
  {"id":"c","name":"C","kind":"ingest","on_start":{"kind":"Webhook","params":{"url":"https://example.com/c","verb":"Post"}},
   "dependencies":[{"id":"a","requires_success":false}]},
  {"id":"d","name":"D","kind":"cluster","on_start":{"kind":"Webhook","params":{"url":"https://example.com/d","verb":"Post"}},
   "dependencies":[{"id":"c"},{"id":"b"}]}
]`

// withDiamond is a service that has the batch testID(1) with the tasks testID(2) to testID(5).
func withDiamond(t testing.TB, change ...func(o *Options)) *service {
	t.Helper()
	s := newService(t, change...)
	if w := s.do("POST", "/task", diamond, "X-Requester: nightly"); w.Code != 201 {
		t.Fatalf("create: %d %s", w.Code, w.Body)
	}
	s.woken = 0
	return s
}

func decode[T any](t testing.TB, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%d: %v: %s", w.Code, err, w.Body)
	}
	return v
}
