package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var createTests = []conformance{
	{"everything reads back as it was sent", testReadBack},
	{"a task without anything optional", testReadBackPlain},
	{"a big batch with a fan-out and a join", testCreateBig},
	{"large metadata", testCreateLarge},
	{"the same id twice fails and changes nothing", testCreateTwice},
	{"a big batch whose last task fails leaves nothing", testCreateFailsLate},
	{"a batch without tasks", testCreateEmpty},
	{"batch sums", testBatchSums},
	{"what does not exist is not found", testNotFound},
}

func testReadBack(t *testing.T, e *env) {
	var spellings []task.Rule
	for i := range 8 {
		spellings = append(spellings, task.Rule{
			Matcher: task.Matcher{Kind: "other", Status: task.Running, Fields: []string{"b", "a"}}, Max: i + 1,
			Form: task.RuleForm{Tagged: i&1 > 0, TypeRR: i&2 > 0, MaxRR: i&4 > 0},
		})
	}
	first := newTask(timeout(24*time.Hour), priority(-1000))
	second := newTask(priority(1000), after(first), endActions(3), func(t *task.Task) {
		t.Name, t.Kind = "Aufgabe „zwei“ 🚀 %_\\'\"", "kind/ünï"
		t.LocalID = "second one"
		t.ExpectedCount = new(int64(math.MaxInt64))
		t.DeadEndBarrier = true
		t.Metadata = json.RawMessage(`{"z":1.50,"a":[1,"x",null,{"k":true}],"b":"ä\t\"","big":9007199254740993,"e":1e3}`)
		t.Rules = spellings
		t.OnStart = task.Action{
			Verb: "Put", URL: "https://a.test:8443/p?q=1&x=%20#f", Headers: map[string]string{"X-A": "1", "Accept": "*/*"},
			Body: json.RawMessage(`{"n":[1,2]}`),
		}
		t.OnSuccess[1].Verb, t.OnSuccess[1].Body = "Delete", json.RawMessage(`[null]`)
		t.OnFailure[2].Headers = map[string]string{"Content-Type": "text/plain"}
	})
	third := newTask(func(t *task.Task) { t.ExpectedCount = new(int64(0)) }, after(first), afterAny(second))
	b := batchOf(first, second, third)
	states := e.createBatch(b)
	for i, want := range b.Tasks {
		if since := e.clock.Now().Sub(want.CreatedAt); since < -time.Minute || since > time.Minute {
			t.Errorf("CreatedAt is %s off", since)
		}
		got := e.detail(want.ID)
		if diff := cmp.Diff(*want, got.Task); diff != "" {
			t.Errorf("task %d (-sent +read):\n%s", i, diff)
		}
		if diff := cmp.Diff(states[i], got.State); diff != "" {
			t.Errorf("state %d (-answer of Create +read):\n%s", i, diff)
		}
		for _, at := range []time.Time{got.Task.CreatedAt, got.State.LastUpdated} {
			if at.Location() != time.UTC || at.Nanosecond()%1000 != 0 {
				t.Errorf("%s is not UTC in microseconds", at)
			}
		}
	}
	if got := e.detail(third.ID).Parents; !slices.Equal(got, []task.Status{task.Pending, task.Waiting}) {
		t.Errorf("parents of the third are %v", got)
	}
	wantStates := []task.State{
		{ID: first.ID, Status: task.Pending, Kind: "work", Timeout: 24 * time.Hour, HasChildren: true},
		{ID: second.ID, Status: task.Waiting, Unmet: 1, Kind: "kind/ünï", Timeout: time.Minute, HasChildren: true, EndActions: true},
		{ID: third.ID, Status: task.Waiting, Unmet: 2, Kind: "work", Timeout: time.Minute},
	}
	for i := range wantStates {
		wantStates[i].LastUpdated = first.CreatedAt
	}
	if diff := cmp.Diff(wantStates, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	e.wantGraph(b, []store.Link{{Parent: first.ID, Child: second.ID, RequiresSuccess: true},
		{Parent: first.ID, Child: third.ID, RequiresSuccess: true}, {Parent: second.ID, Child: third.ID}})
}

// wantGraph wants the tasks in request order, and these links in any.
func (e *env) wantGraph(b *task.Batch, want []store.Link) {
	e.Helper()
	dag, err := e.DAG(e.ctx, b.ID)
	if err != nil {
		e.Fatalf("DAG: %v", err)
	}
	var ids []task.ID
	for _, item := range dag.Items {
		ids = append(ids, item.Task.ID)
		if item.State.ID != item.Task.ID || item.Task.BatchID != b.ID {
			e.Errorf("DAG: the item of %s is of state %s and batch %s", item.Task.ID, item.State.ID, item.Task.BatchID)
		}
	}
	if !slices.Equal(ids, idsOf(b.Tasks...)) {
		e.Errorf("DAG: tasks are not those of the batch in request order")
	}
	compare := func(a, b store.Link) int {
		if c := compareIDs(a.Child, b.Child); c != 0 {
			return c
		}
		return compareIDs(a.Parent, b.Parent)
	}
	slices.SortFunc(dag.Links, compare)
	slices.SortFunc(want, compare)
	if !slices.Equal(dag.Links, want) {
		e.Errorf("DAG: %d links differ from the %d that were sent", len(dag.Links), len(want))
	}
}

func testReadBackPlain(t *testing.T, e *env) {
	plain := newTask()
	b := batchOf(plain)
	b.Requester = ""
	e.createBatch(b)
	got := e.detail(plain.ID)
	if diff := cmp.Diff(*plain, got.Task); diff != "" {
		t.Errorf("(-sent +read):\n%s", diff)
	}
	if len(got.Parents)+len(got.Deliveries) > 0 {
		t.Errorf("parents %v, deliveries %v of a task that has none", got.Parents, got.Deliveries)
	}
	summary, err := e.Batch(e.ctx, b.ID)
	if err != nil || summary.Requester != "" {
		t.Errorf("requester %q, %v", summary.Requester, err)
	}
}

func testCreateBig(t *testing.T, e *env) {
	root := newTask()
	n := size(10_000)
	middle := newTasks(n-2, after(root))
	join := newTask(after(middle...))
	b := batchOf(append(append([]*task.Task{root}, middle...), join)...)
	states := e.createBatch(b)
	if len(states) != n || states[n-1].Unmet != n-2 || states[n-1].ID != join.ID {
		t.Fatalf("%d states, the last is %+v", len(states), states[len(states)-1])
	}
	e.wantCounts(b, map[task.Status]int{task.Pending: 1, task.Waiting: n - 1})
	var links []store.Link
	for _, m := range middle {
		links = append(links, store.Link{Parent: root.ID, Child: m.ID, RequiresSuccess: true},
			store.Link{Parent: m.ID, Child: join.ID, RequiresSuccess: true})
	}
	e.wantGraph(b, links)
	e.wantClaims(root)
}

func testCreateLarge(t *testing.T, e *env) {
	tasks := newTasks(100)
	for i, k := range tasks {
		k.Metadata = json.RawMessage(fmt.Sprintf(`{"i":%d,"text":"%s"}`, i, strings.Repeat("x", 50_000)))
	}
	e.create(tasks...)
	for _, want := range tasks {
		if got := e.detail(want.ID).Task; got.LocalID != want.LocalID || string(got.Metadata) != string(want.Metadata) {
			t.Fatalf("task %s has become %s with %.40s", want.LocalID, got.LocalID, got.Metadata)
		}
	}
}

func testCreateFailsLate(t *testing.T, e *env) {
	known := newTask()
	e.create(known)
	tasks := newTasks(3500, after(known))
	b := batchOf(append([]*task.Task{newTask()}, append(tasks, known)...)...)
	key := &store.Idempotency{Key: "late"}
	if _, err := e.Create(e.ctx, b, key); err == nil {
		t.Fatal("a task was created twice")
	}
	if _, err := e.Batch(e.ctx, b.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the batch that failed: %v, want ErrNotFound", err)
	}
	for _, k := range []*task.Task{b.Tasks[0], tasks[0], tasks[2000], tasks[len(tasks)-1]} {
		if _, err := e.Task(e.ctx, k.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a task of the batch that failed: %v, want ErrNotFound", err)
		}
	}
	if created, err := e.Create(e.ctx, batchOf(newTask()), key); err != nil || created.Replayed {
		t.Errorf("with the key of the create that failed: %v, replayed %v", err, created.Replayed)
	}
}

func testCreateTwice(t *testing.T, e *env) {
	first, free := newTask(limit(1)), newTask()
	b := e.create(first)
	before := e.detail(first.ID)

	again := batchOf(free, first)
	if _, err := e.Create(e.ctx, again, nil); err == nil {
		t.Fatal("a task was created twice")
	}
	first.BatchID = b.ID
	if _, err := e.Batch(e.ctx, again.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the batch that failed: %v, want ErrNotFound", err)
	}
	if _, err := e.Task(e.ctx, free.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the other task of the batch that failed: %v, want ErrNotFound", err)
	}
	sameBatch := batchOf(newTask())
	sameBatch.ID = b.ID
	if _, err := e.Create(e.ctx, sameBatch, nil); err == nil {
		t.Fatal("a batch was created twice")
	}
	if diff := cmp.Diff(before, e.detail(first.ID)); diff != "" {
		t.Errorf("the task that was there changed:\n%s", diff)
	}
	e.wantClaims(first)
}

func testCreateEmpty(t *testing.T, e *env) {
	b := e.create()
	if summary, err := e.Batch(e.ctx, b.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%+v, %v; want that there is none", summary, err)
	}
}

func testBatchSums(t *testing.T, e *env) {
	expecting := func(n int64) func(*task.Task) {
		return func(t *task.Task) { t.ExpectedCount = &n }
	}
	tasks := []*task.Task{newTask(expecting(5)), newTask(expecting(7)), newTask(expecting(0))}
	b := e.create(tasks...)
	silent := e.create(newTask(expecting(5)), newTask())
	e.settle(count(tasks[0].ID, 2, 1), count(tasks[1].ID, 3, 4))

	got, err := e.Batch(e.ctx, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := &store.BatchSummary{
		ID: b.ID, BatchLabels: store.BatchLabels{Requester: "storetest", Metadata: b.Metadata}, CreatedAt: tasks[0].CreatedAt,
		BatchSums: store.BatchSums{Counts: map[task.Status]int{task.Pending: 3}, Tasks: 3, Success: 5, Failures: 5, Expected: new(int64(12))},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := e.Batch(e.ctx, silent.ID); err != nil || got.Expected != nil {
		t.Errorf("expected count with a task that does not say: %v, %v", got, err)
	}

	e.settle(count(tasks[0].ID, math.MaxInt64, 0), count(tasks[1].ID, math.MaxInt64, 0),
		task.Outcome{ID: tasks[0].ID, Kind: task.Update, ExpectedCount: new(int64(math.MaxInt64))})
	got, err = e.Batch(e.ctx, b.ID)
	if err != nil || got.Success != math.MaxInt64 || *got.Expected != math.MaxInt64 {
		t.Errorf("sums beyond 64 bits: %+v, %v; want the greatest number", got, err)
	}
}

func testNotFound(t *testing.T, e *env) {
	for what, call := range map[string]func() error{
		"Task":  func() error { _, err := e.Task(e.ctx, newID()); return err },
		"Batch": func() error { _, err := e.Batch(e.ctx, newID()); return err },
		"DAG":   func() error { _, err := e.DAG(e.ctx, newID()); return err },
	} {
		if err := call(); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
}
