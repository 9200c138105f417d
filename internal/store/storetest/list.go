package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var listTests = []conformance{
	{"every filter alone and all combined", testFilters},
	{"items have what a list shows", testListItem},
	{"metadata containment", testMetadataFilter},
	{"text is literal and case-sensitive", testLiteralText},
	{"kinds by their prefix", testManyKinds},
	{"tasks that are named", testNamed},
	{"pages", testPages},
	{"a cursor is stable while tasks come in", testCursor},
	{"Claimed and Pending apart", testListClaimed},
	{"by update", testListUpdated},
	{"a walk ends after so many tasks", testWalk},
	{"a walk of batches ends after so many tasks", testBatchWalk},
	{"created after and before", testListCreated},
	{"batches by every filter alone and all combined", testBatchFilters},
	{"batches by scope and metadata", testBatchLabels},
	{"what a list shows of a batch", testBatchItem},
	{"pages of batches", testBatchPages},
	{"lists that stall leave connections to others", testStalledLists},
	{"what comes after the end of a batch", testBatchLate},
}

// matches is what a filter means.
func matches(f store.Filter, t *task.Task, s task.Status) bool {
	return (len(f.Statuses) == 0 || slices.Contains(f.Statuses, s)) &&
		(f.Kind == "" || t.Kind == f.Kind) &&
		strings.HasPrefix(t.Kind, f.KindPrefix) &&
		strings.Contains(t.Name, f.NamePart) &&
		(f.Batch == task.ID{} || t.BatchID == f.Batch) &&
		(f.IDs == nil || slices.Contains(f.IDs, t.ID)) &&
		(f.Metadata == nil || task.Contains(t.Metadata, f.Metadata)) &&
		(f.Timeout == 0 || t.Timeout == f.Timeout)
}

func testFilters(t *testing.T, e *env) {
	kinds, words := []string{"ingest", "ingest-pdf", "export"}, []string{"first", "second", "fir"}
	var batches []*task.Batch
	var all []*task.Task
	for range 3 {
		var tasks []*task.Task
		for range 30 {
			tasks = append(tasks, newTask(kind(kinds[rand.IntN(3)]), timeout(time.Duration(1+rand.IntN(3))*time.Second),
				metadata(`{"a":%d,"b":{"c":[%d,"x"]}}`, rand.IntN(3), rand.IntN(3)), func(k *task.Task) {
					k.Name = words[rand.IntN(3)] + " " + words[rand.IntN(3)]
				}))
		}
		batches, all = append(batches, e.create(tasks...)), append(all, tasks...)
	}
	e.clock.Advance(time.Hour)
	ways := []func(*task.Task) task.Outcome{
		cancel, pause, func(k *task.Task) task.Outcome { return end(k.ID, task.Success) },
		func(k *task.Task) task.Outcome { return end(k.ID, task.Failure) },
		func(k *task.Task) task.Outcome { return started(k.ID) },
	}
	e.tick(task.Room{Total: 60, PerHost: 60})
	for i, k := range all {
		if i%6 < 5 {
			e.settleAll(ways[i%6](k))
		}
	}
	statuses := map[task.ID]task.Status{}
	for _, k := range all {
		statuses[k.ID] = e.detail(k.ID).State.Status
	}
	check := func(f store.Filter) {
		t.Helper()
		var want []task.ID
		for _, k := range slices.Backward(all) {
			if matches(f, k, statuses[k.ID]) {
				want = append(want, k.ID)
			}
		}
		var got []task.ID
		for _, item := range e.list(f) {
			got = append(got, item.Task.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d tasks, want %d, newest first", f, len(got), len(want))
		}
		if got, _ := walkAlong(e, e.Tasks, f, func(i *store.Item) task.ID { return i.Task.ID }); !slices.Equal(got, want) {
			t.Errorf("%+v: %d tasks in short walks, want %d, newest first", f, len(got), len(want))
		}
		got, f.Offset = nil, rand.IntN(len(want)+2)
		f.Limit = 1 + rand.IntN(5)
		want = want[min(f.Offset, len(want)):]
		for _, item := range e.list(f) {
			got = append(got, item.Task.ID)
		}
		if !slices.Equal(got, want[:min(f.Limit, len(want))]) {
			t.Errorf("%+v: not the page of the whole list", f)
		}
	}
	choices := []func(f *store.Filter){
		func(f *store.Filter) {
			for _, s := range task.Statuses() {
				if rand.IntN(3) == 0 {
					f.Statuses = append(f.Statuses, s)
				}
			}
		},
		func(f *store.Filter) { f.Kind = append(kinds, "nothing")[rand.IntN(4)] },
		func(f *store.Filter) { f.KindPrefix = []string{"ing", "ingest", "ingest-", "x"}[rand.IntN(4)] },
		func(f *store.Filter) { f.NamePart = []string{"fir", "first", "st s", "nope"}[rand.IntN(4)] },
		func(f *store.Filter) { f.Batch = batches[rand.IntN(3)].ID },
		func(f *store.Filter) {
			f.IDs = []task.ID{newID()}
			for _, i := range rand.Perm(len(all))[:rand.IntN(len(all))] {
				f.IDs = append(f.IDs, all[i].ID)
			}
		},
		func(f *store.Filter) { f.Metadata = fmt.Appendf(nil, `{"a":%d}`, rand.IntN(4)) },
		func(f *store.Filter) { f.Metadata = fmt.Appendf(nil, `{"b":{"c":[%d]}}`, rand.IntN(4)) },
		func(f *store.Filter) { f.Timeout = time.Duration(1+rand.IntN(4)) * time.Second },
	}
	check(store.Filter{})
	check(store.Filter{Batch: newID()})
	for _, s := range task.Statuses() {
		check(store.Filter{Statuses: []task.Status{s}})
	}
	tryFilters(choices, check)
}

// mixed are batches of tasks of three kinds and names, in every status, with what became of each.
func (e *env) mixed(batches, size int) ([]*task.Batch, map[task.ID]task.Status) {
	e.Helper()
	kinds, words := []string{"ingest", "ingest-pdf", "export"}, []string{"first", "second", "fir"}
	var all []*task.Task
	var made []*task.Batch
	for range batches {
		var tasks []*task.Task
		only := kinds[:1+rand.IntN(3)]
		for range size {
			k := newTask(kind(only[rand.IntN(len(only))]), func(k *task.Task) { k.Name = words[rand.IntN(3)] })
			if len(tasks) > 0 && rand.IntN(4) == 0 {
				after(tasks[0])(k)
			}
			tasks = append(tasks, k)
		}
		made, all = append(made, e.create(tasks...)), append(all, tasks...)
	}
	e.tick(task.Room{Total: len(all) / 3, PerHost: len(all) / 3})
	ways := []func(*task.Task) task.Outcome{
		cancel, pause, func(k *task.Task) task.Outcome { return end(k.ID, task.Success) },
		func(k *task.Task) task.Outcome { return end(k.ID, task.Failure) },
		func(k *task.Task) task.Outcome { return started(k.ID) },
	}
	for _, k := range all {
		if i := rand.IntN(12); i < len(ways) {
			e.settleAll(ways[i](k))
		}
	}
	statuses := map[task.ID]task.Status{}
	for _, k := range all {
		statuses[k.ID] = e.detail(k.ID).State.Status
	}
	return made, statuses
}

func testBatchFilters(t *testing.T, e *env) {
	batches, statuses := e.mixed(40, 4)
	check := func(f store.Filter) {
		t.Helper()
		var want []task.ID
		for _, b := range slices.Backward(batches) {
			if slices.ContainsFunc(b.Tasks, func(k *task.Task) bool { return matches(f, k, statuses[k.ID]) }) {
				want = append(want, b.ID)
			}
		}
		var got []task.ID
		for _, item := range e.batches(f) {
			got = append(got, item.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d batches, want %d, newest first", f, len(got), len(want))
		}
		if got, _ := walkAlong(e, e.Batches, f, func(b *store.BatchItem) task.ID { return b.ID }); !slices.Equal(got, want) {
			t.Errorf("%+v: %d batches in short walks, want %d, newest first", f, len(got), len(want))
		}
	}
	choices := []func(f *store.Filter){
		func(f *store.Filter) {
			for _, s := range task.Statuses() {
				if rand.IntN(4) == 0 {
					f.Statuses = append(f.Statuses, s)
				}
			}
		},
		func(f *store.Filter) { f.Kind = []string{"ingest", "ingest-pdf", "export", "nothing"}[rand.IntN(4)] },
		func(f *store.Filter) { f.KindPrefix = []string{"ing", "ingest-", "x"}[rand.IntN(3)] },
		func(f *store.Filter) { f.NamePart = []string{"fir", "first", "con", "nope"}[rand.IntN(4)] },
	}
	check(store.Filter{})
	for _, s := range task.Statuses() {
		check(store.Filter{Statuses: []task.Status{s}})
		check(store.Filter{Statuses: []task.Status{s}, Kind: "export"})
	}
	check(store.Filter{Statuses: []task.Status{task.Pending, task.Claimed}})
	check(store.Filter{Statuses: []task.Status{task.Failure, task.Canceled}})
	tryFilters(choices, check)
}

func testBatchLabels(t *testing.T, e *env) {
	scopes := []string{"", "nightly", "Nightly", "night", "a%"}
	metadata := []string{`{}`, `{"run":1}`, `{"run":1,"by":["x","y"]}`, `{"run":"1"}`}
	kinds := []string{"ingest", "export"}
	var all []*task.Batch
	for i := range 60 {
		b := batchOf(newTask(kind(kinds[i%2])), newTask(kind("common"), func(k *task.Task) { k.Metadata = json.RawMessage(`{"run":7}`) }))
		b.Scope, b.Metadata = scopes[rand.IntN(len(scopes))], json.RawMessage(metadata[rand.IntN(len(metadata))])
		e.createBatch(b)
		all = append(all, b)
	}
	e.tick(task.Room{Total: 40, PerHost: 40})
	for _, b := range all[40:50] {
		e.settle(cancel(b.Tasks[0]))
	}
	running := map[task.ID]bool{}
	for _, item := range e.list(store.Filter{Statuses: []task.Status{task.Claimed}}) {
		running[item.Task.BatchID] = true
	}
	check := func(f store.Filter) {
		t.Helper()
		var want, got []store.BatchLabels
		for _, b := range slices.Backward(all) {
			if (f.Scope == "" || b.Scope == f.Scope) && (f.Metadata == nil || task.Contains(b.Metadata, f.Metadata)) &&
				(f.Kind == "" || b.Tasks[0].Kind == f.Kind) && (f.Before == task.ID{} || compareIDs(b.ID, f.Before) < 0) &&
				(f.Statuses == nil || running[b.ID] && f.Statuses[0] == task.Claimed ||
					slices.Contains(all[40:50], b) && f.Statuses[0] == task.Canceled) {
				want = append(want, store.BatchLabels{Requester: b.Requester, Scope: b.Scope, Metadata: b.Metadata})
			}
		}
		want = want[min(f.Offset, len(want)):]
		for _, item := range e.batches(f) {
			got = append(got, item.BatchLabels)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", f, diff)
		}
	}
	for _, scope := range append(scopes, "nothing", "NIGHTLY", "a") {
		check(store.Filter{Scope: scope})
		check(store.Filter{Scope: scope, Before: all[30].ID})
		check(store.Filter{Scope: scope, Offset: 2})
		for _, part := range append(metadata, `{"by":["y"]}`, `{"run":7}`) {
			check(store.Filter{Scope: scope, Metadata: []byte(part)})
			check(store.Filter{Scope: scope, Metadata: []byte(part), Kind: "export"})
		}
		for _, status := range []task.Status{task.Claimed, task.Canceled} {
			check(store.Filter{Scope: scope, Statuses: []task.Status{status}})
			check(store.Filter{Metadata: []byte(`{"run":1}`), Statuses: []task.Status{status}})
		}
	}
}

func testBatchItem(t *testing.T, e *env) {
	parent := newTask(kind("ingest"))
	b := e.create(parent, newTask(kind("export"), after(parent)), newTask(kind("ingest")), newTask(kind("archive")))
	e.clock.Advance(time.Minute)
	e.settle(cancel(b.Tasks[3]))
	e.create(newTask())
	summary, err := e.Batch(e.ctx, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := []store.BatchItem{{
		BatchLabels: store.BatchLabels{Requester: "storetest", Metadata: b.Metadata}, ID: b.ID, CreatedAt: summary.CreatedAt, UpdatedAt: e.detail(b.Tasks[3].ID).State.LastUpdated, Tasks: 4,
		Counts: map[task.Status]int{task.Waiting: 1, task.Pending: 2, task.Canceled: 1}, Kinds: []string{"archive", "export", "ingest"},
	}}
	if diff := cmp.Diff(want, e.batches(store.Filter{Kind: "ingest"})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, k := range b.Tasks {
		e.clock.Advance(time.Minute)
		e.settle(count(k.ID, 1, 0))
		if got, want := e.batches(store.Filter{Kind: "ingest"})[0].UpdatedAt, e.detail(k.ID).State.LastUpdated; !got.Equal(want) {
			t.Errorf("last updated %s, want %s", got, want)
		}
	}
}

// An end is final, but reports are taken after it; whoever was told before what a batch came to is told anew, by each process.
func testBatchLate(t *testing.T, e *env) {
	tasks := newTasks(3)
	b := e.create(tasks...)
	other := e.create(newTask())
	e.wantClaims(append(tasks, other.Tasks...)...)
	want := func(what string, success int64, last *task.Task, counts map[task.Status]int) {
		t.Helper()
		for range 2 { // the second time they remember
			for _, s := range []store.Store{e.Store, e.another()} {
				page, err := s.Batches(e.ctx, store.Filter{Limit: 2})
				if err != nil {
					t.Fatal(err)
				}
				if got := page.Items[1]; !cmp.Equal(got.Counts, counts) || !got.UpdatedAt.Equal(e.detail(last.ID).State.LastUpdated) {
					t.Errorf("%s: %+v", what, got)
				}
				got, err := s.Batch(e.ctx, b.ID)
				if err != nil || got.Success != success || !cmp.Equal(got.Counts, counts) {
					t.Errorf("%s: %+v, %v; want %d successes", what, got, err, success)
				}
			}
		}
	}
	e.clock.Advance(time.Second)
	e.settle(end(tasks[0].ID, task.Success), end(tasks[1].ID, task.Failure))
	want("one task lives", 0, tasks[1], map[task.Status]int{task.Success: 1, task.Failure: 1, task.Claimed: 1})
	e.clock.Advance(time.Second)
	e.settle(cancel(tasks[2]))
	over := map[task.Status]int{task.Success: 1, task.Failure: 1, task.Canceled: 1}
	want("over", 0, tasks[2], over)
	for i, k := range tasks {
		e.clock.Advance(time.Second)
		e.settle(count(k.ID, 2, 0))
		want("a count", int64(3*i+2), k, over)
		e.clock.Advance(time.Second)
		e.settle(task.Outcome{ID: k.ID, Kind: task.Update, NewSuccess: 1})
		want("a report", int64(3*i+3), k, over)
	}
	e.clock.Advance(time.Second)
	e.settle(count(tasks[0].ID, 1, 0), count(other.Tasks[0].ID, 1, 0), count(tasks[1].ID, 1, 0))
	want("several at once", 11, tasks[1], over)
	e.settleAll(end(tasks[0].ID, task.Success), end(tasks[0].ID, task.Failure), cancel(tasks[1]))
	want("what changes nothing", 11, tasks[1], over)
}

func testBatchPages(t *testing.T, e *env) {
	var want []task.ID
	for range 23 {
		want = append(want, e.create(newTasks(2)...).ID)
	}
	slices.Reverse(want)
	for _, f := range []store.Filter{
		{}, {Kind: "work"}, {NamePart: "task"}, {Statuses: []task.Status{task.Pending}}, {Statuses: []task.Status{task.Pending, task.Success}},
	} {
		f.Limit = 5
		var pages, walk []task.ID
		for f.Offset = 0; f.Offset < 30; f.Offset += 5 {
			for _, b := range e.batches(f) {
				pages = append(pages, b.ID)
			}
		}
		f.Offset = 0
		for range want {
			page := e.batches(f)
			if len(page) == 0 {
				break
			}
			for _, b := range page {
				walk = append(walk, b.ID)
			}
			f.Before = walk[len(walk)-1]
		}
		if !slices.Equal(pages, want) || !slices.Equal(walk, want) {
			t.Errorf("%+v: %d batches on pages, %d by cursor, want all 23, newest first, each once", f, len(pages), len(walk))
		}
	}
}

func testListCreated(t *testing.T, e *env) {
	var tasks []*task.Task
	var at []time.Time
	for range 5 {
		k := newTask()
		e.create(k)
		tasks, at = append(tasks, k), append(at, e.detail(k.ID).Task.CreatedAt)
		e.clock.Advance(10 * time.Second) // an id is older than its task is said to be
	}
	e.wantClaims(tasks...)
	e.finish(task.Success, tasks...)
	created := func(i int) time.Time { return at[i] }
	for _, c := range []struct {
		after, before time.Time
		want          []*task.Task
	}{
		{created(1), time.Time{}, tasks[2:]}, {time.Time{}, created(1), tasks[:1]}, {created(0), created(4), tasks[1:4]},
		{created(0).Add(-time.Microsecond), created(0).Add(time.Microsecond), tasks[:1]}, {created(4), time.Time{}, nil},
		{time.Time{}, created(0), nil}, {created(3), created(1), nil}, {time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), tasks},
		{time.Time{}, time.Unix(0, 0), nil}, {time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Time{}, nil},
	} {
		for _, f := range []store.Filter{{}, {Kind: "work"}, {Statuses: []task.Status{task.Success}}, {NamePart: "task"}} {
			f.CreatedAfter, f.CreatedBefore = c.after, c.before
			var got, batches, want []task.ID
			for _, item := range e.list(f) {
				got = append(got, item.Task.ID)
			}
			e.sameTasks(fmt.Sprintf("created between %s and %s", c.after, c.before), got, c.want)
			for _, b := range e.batches(f) {
				batches = append(batches, b.ID)
			}
			for _, k := range slices.Backward(c.want) {
				want = append(want, k.BatchID)
			}
			if !slices.Equal(batches, want) {
				t.Errorf("%d batches created between %s and %s, want %d", len(batches), c.after, c.before, len(want))
			}
		}
	}
}

func testListItem(t *testing.T, e *env) {
	parent := newTask()
	k := newTask(after(parent), endActions(1), limit(1, "x"), metadata(`{"x":1}`), priority(4), func(k *task.Task) {
		k.ExpectedCount, k.DeadEndBarrier = new(int64(5)), true
	})
	e.create(parent, k)
	e.settle(count(k.ID, 1, 2))
	d := e.detail(k.ID)
	want := d.Item
	want.Task.Metadata, want.Task.Rules, want.Task.Dependencies = nil, nil, nil
	want.Task.OnStart, want.Task.OnSuccess, want.Task.OnFailure = task.Action{}, nil, nil
	items := e.list(store.Filter{})
	if len(items) != 2 {
		t.Fatalf("%d items", len(items))
	}
	if diff := cmp.Diff(want, items[0]); diff != "" {
		t.Errorf("(-detail without what is left out +item):\n%s", diff)
	}
	dag, err := e.DAG(e.ctx, k.BatchID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, dag.Items[1]); diff != "" {
		t.Errorf("in the graph (-want +got):\n%s", diff)
	}
}

func testMetadataFilter(t *testing.T, e *env) {
	stored := []string{
		`{}`, `{"a":1}`, `{"a":1.0,"b":2}`, `{"a":"1"}`, `{"a":null}`, `{"a":[1,2,{"x":1,"y":2}]}`, `{"a":{"b":{"c":1,"d":2}}}`,
		`{"A":1}`, `{"a":true}`, `{"a":[]}`, `{"a":{}}`, `{"ä\"":"ö\u00e4"}`, `{"a":[[1]]}`, `{"a":9007199254740993}`,
		`{"a.b":1}`, `{"a":1e300}`, `{"":1}`,
	}
	var tasks []*task.Task
	for _, md := range stored {
		tasks = append(tasks, newTask(func(k *task.Task) { k.Metadata = json.RawMessage(md) }))
	}
	e.create(tasks...)
	for _, part := range append([]string{
		`{"a":[2]}`, `{"a":[2,1]}`, `{"a":[1,1]}`, `{"a":[{"x":1}]}`, `{"a":[{"x":2}]}`, `{"a":{"b":{}}}`, `{"a":{"b":{"d":2}}}`,
		`{"a":{"b":1}}`, `{"a":false}`, `{"ä\"":"öä"}`, `{"c":1}`, `{"a":[1]}`, `{"a":10e-1}`, `{"a":9007199254740992}`,
		`{"a":{"c":1}}`, `{"a":{"b":{"c":1,"d":2,"e":3}}}`, `{"b":2,"a":1}`, `{"a":[[]]}`,
	}, stored...) {
		var want []int
		for i := range stored {
			if task.Contains([]byte(stored[i]), []byte(part)) {
				want = append(want, i)
			}
		}
		var got []int
		for _, item := range e.list(store.Filter{Metadata: []byte(part)}) {
			got = append(got, slices.IndexFunc(tasks, func(k *task.Task) bool { return k.ID == item.Task.ID }))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("containing %s: %v, want %v", part, got, want)
		}
	}
}

func testLiteralText(t *testing.T, e *env) {
	texts := []string{"100% done", "100 done", "a_b", "axb", `a\b`, "Ümlaut", "ümlaut", "it's", `"quoted"`, "a*b"}
	for _, text := range texts {
		e.create(newTask(kind(text), func(k *task.Task) { k.Name = "the " + text + " task" }))
	}
	for _, part := range []string{"%", "_", "a_b", `\`, "Ü", "ü", "'", `"`, "*", "100", "A", "the", "The"} {
		names, kinds := 0, 0
		for _, text := range texts {
			if strings.Contains("the "+text+" task", part) {
				names++
			}
			if strings.HasPrefix(text, part) {
				kinds++
			}
		}
		if got := len(e.list(store.Filter{NamePart: part})); got != names {
			t.Errorf("names with %q: %d, want %d", part, got, names)
		}
		if got := len(e.list(store.Filter{KindPrefix: part})); got != kinds {
			t.Errorf("kinds that begin with %q: %d, want %d", part, got, kinds)
		}
	}
}

// The prefix of a kind, whether there are few kinds, many with that prefix, or many.
func testManyKinds(t *testing.T, e *env) {
	var tasks []*task.Task
	for i := range store.FewKinds + 10 {
		k := newTask(kind(fmt.Sprintf("p-%03d", i)))
		tasks = append(tasks, k)
		e.create(k)
		if n := len(tasks); n != 5 && n != 50 && n != 150 && n != store.FewKinds+10 {
			continue
		}
		for _, prefix := range []string{"p-", "p-00", "p-01", "p-20", "q"} {
			var want []*task.Task
			for _, k := range tasks {
				if strings.HasPrefix(k.Kind, prefix) {
					want = append(want, k)
				}
			}
			slices.Reverse(want)
			for offset := 0; offset <= len(want); offset += 100 {
				page := want[offset:min(offset+100, len(want))]
				var got []task.ID
				for _, item := range e.list(store.Filter{KindPrefix: prefix, Offset: offset, Limit: 100}) {
					got = append(got, item.Task.ID)
				}
				if !slices.Equal(got, idsOf(page...)) {
					t.Fatalf("%d kinds, %s*, behind %d: %v, want %v", len(tasks), prefix, offset, names(page, got), names(page, idsOf(page...)))
				}
			}
		}
	}
}

func testNamed(t *testing.T, e *env) {
	tasks := newTasks(9)
	e.create(tasks...)
	want := func(what string, f store.Filter, want ...*task.Task) {
		t.Helper()
		var got []task.ID
		for _, item := range e.list(f) {
			got = append(got, item.Task.ID)
		}
		if !slices.Equal(got, idsOf(want...)) {
			t.Errorf("%s: %v, want %v", what, names(tasks, got), names(tasks, idsOf(want...)))
		}
	}
	a, b, c, d := tasks[1], tasks[3], tasks[4], tasks[7]
	want("newest first, each once, unknown ones left out", store.Filter{IDs: []task.ID{c.ID, newID(), a.ID, d.ID, c.ID, b.ID, {}}}, d, c, b, a)
	want("none", store.Filter{IDs: []task.ID{}})
	want("unknown ones only", store.Filter{IDs: []task.ID{newID(), newID()}})
	e.settleAll(cancel(b), pause(c))
	all := idsOf(a, b, c, d)
	want("by status", store.Filter{IDs: all, Statuses: []task.Status{task.Canceled, task.Paused}}, c, b)
	want("by ready", store.Filter{IDs: all, Statuses: []task.Status{task.Pending}}, d, a)
	want("by a place they are not in", store.Filter{IDs: all, Statuses: []task.Status{task.Running, task.Claimed}})
	want("by batch", store.Filter{IDs: all, Batch: a.BatchID}, d, c, b, a)
	want("by another batch", store.Filter{IDs: all, Batch: newID()})
	want("from a cursor on", store.Filter{IDs: all, Before: c.ID}, b, a)
	want("a page", store.Filter{IDs: all, Offset: 1, Limit: 2}, c, b)
	many := newTasks(300)
	e.create(many...)
	ids := idsOf(many...)
	slices.Reverse(many)
	want("300", store.Filter{IDs: append(ids, all...)}, append(many, d, c, b, a)...)
}

func testPages(t *testing.T, e *env) {
	tasks := newTasks(23)
	e.create(tasks...)
	var got []task.ID
	for offset := 0; offset < 30; offset += 5 {
		page := e.list(store.Filter{Offset: offset, Limit: 5, Kind: "work"})
		if len(page) != max(0, min(5, 23-offset)) {
			t.Errorf("%d from %d on", len(page), offset)
		}
		for _, item := range page {
			got = append(got, item.Task.ID)
		}
	}
	slices.Reverse(got)
	if !slices.Equal(got, idsOf(tasks...)) {
		t.Error("the pages are not all tasks, newest first, each once")
	}
}

func testCursor(t *testing.T, e *env) {
	tasks := newTasks(23)
	e.create(tasks...)
	var got []task.ID
	var last task.ID
	for {
		page := e.list(store.Filter{Before: last, Limit: 4, Statuses: []task.Status{task.Pending, task.Claimed, task.Canceled}})
		if len(page) == 0 {
			break
		}
		for _, item := range page {
			got = append(got, item.Task.ID)
		}
		last = got[len(got)-1]
		e.create(newTasks(3)...)
		e.settle(cancel(tasks[len(tasks)-len(got)]))
	}
	slices.Reverse(got)
	if !slices.Equal(got, idsOf(tasks...)) {
		t.Errorf("%d tasks, want the 23 that were there at first, each once", len(got))
	}
	if page := e.list(store.Filter{Before: tasks[10].ID, Offset: 2, Limit: 3}); len(page) != 3 || page[0].Task.ID != tasks[7].ID {
		t.Error("an offset counts from the cursor")
	}
}

func testListUpdated(t *testing.T, e *env) {
	tasks, others := newTasks(9), newTasks(9)
	e.create(tasks...)
	e.create(others...)
	e.claim()
	all := idsOf(append(slices.Clone(tasks), others...)...)
	touch := func(k *task.Task) {
		e.clock.Advance(time.Second)
		e.settleAll(started(k.ID))
	}
	for _, i := range []int{3, 1, 8, 5} {
		touch(tasks[i])
		touch(others[i])
	}
	e.clock.Advance(time.Second)
	e.settle(end(tasks[1].ID, task.Success), end(others[1].ID, task.Success))
	byUpdate := func(f store.Filter) (want []task.ID) {
		found := e.list(store.Filter{Statuses: f.Statuses, Batch: f.Batch, IDs: f.IDs}) // newest first
		slices.SortStableFunc(found, func(a, b store.Item) int { return b.State.LastUpdated.Compare(a.State.LastUpdated) })
		for _, item := range found {
			want = append(want, item.Task.ID)
		}
		return want
	}
	for _, f := range []store.Filter{
		{Batch: tasks[0].BatchID}, {IDs: all}, {Statuses: []task.Status{task.Claimed, task.Running}}, {Statuses: []task.Status{task.Running}},
		{Batch: tasks[0].BatchID, Statuses: []task.Status{task.Success, task.Running}}, {Batch: tasks[0].BatchID, IDs: all},
		{Batch: tasks[0].BatchID, Statuses: []task.Status{task.Running}},
	} {
		want := byUpdate(f)
		f.Sort, f.Limit = store.SortUpdated, 4
		var pages, walk []task.ID
		for f.Offset = 0; f.Offset < 20; f.Offset += 4 {
			for _, item := range e.list(f) {
				pages = append(pages, item.Task.ID)
			}
		}
		f.Offset = 0
		for range pages {
			for _, item := range e.list(f) {
				walk = append(walk, item.Task.ID)
				f.Before, f.BeforeUpdate = item.Task.ID, item.State.LastUpdated
			}
		}
		if len(want) < 3 || !slices.Equal(pages, want) || !slices.Equal(walk, want) {
			t.Errorf("%+v: %v on pages, %v by cursor, want %v", f, names(append(tasks, others...), pages), names(append(tasks, others...), walk),
				names(append(tasks, others...), want))
		}
	}
	// What is updated while one walks goes to the front, and is not shown twice.
	f := store.Filter{Batch: tasks[0].BatchID, Sort: store.SortUpdated, Limit: 4}
	first := e.list(f)
	f.Before, f.BeforeUpdate, f.Limit = first[3].Task.ID, first[3].State.LastUpdated, 100
	touch(tasks[0])
	e.settle(count(first[2].Task.ID, 1, 0))
	if rest := e.list(f); len(rest) != 4 {
		t.Errorf("%d tasks, want the 9 without the 4 shown and the one that went to the front", len(rest))
	}
}

// walkAlong reads a list in walks of seven tasks, four items a page, and counts the pages.
func walkAlong[T any](
	e *env, read func(context.Context, store.Filter) (store.Page[T], error), f store.Filter, id func(*T) task.ID,
) (ids []task.ID, pages int) {
	e.Helper()
	f.Limit, f.Walk = 4, 7
	for pages < 1000 {
		pages++
		page, err := read(e.ctx, f)
		if err != nil {
			e.Fatalf("%+v: %v", f, err)
		}
		for i := range page.Items {
			ids = append(ids, id(&page.Items[i]))
		}
		switch {
		case page.Walked != task.ID{}:
			if f.Before = page.Walked; len(page.Items) >= f.Limit {
				e.Errorf("%+v: %d items, and a walk that ended before", f, len(page.Items))
			}
		case len(page.Items) == f.Limit:
			f.Before = ids[len(ids)-1]
		default:
			return ids, pages
		}
	}
	e.Errorf("%+v: does not end", f)
	return ids, pages
}

func testWalk(t *testing.T, e *env) {
	tasks := newTasks(30)
	tasks[3].Name, tasks[3].Kind, tasks[3].Metadata, tasks[3].Timeout = "odd", "odd", []byte(`{"odd":1}`), time.Hour
	e.create(tasks...)
	e.claim()
	e.settleAll(started(tasks[3].ID))
	e.clock.Advance(time.Hour)
	others := newTasks(2)
	e.create(others...)
	created := e.detail(tasks[0].ID).Task.CreatedAt
	want := func(f store.Filter, atLeast, atMost int, want ...*task.Task) {
		t.Helper()
		got, pages := walkAlong(e, e.Tasks, f, func(i *store.Item) task.ID { return i.Task.ID })
		e.sameTasks(fmt.Sprintf("%+v", f), got, want)
		if pages < atLeast || pages > atMost {
			t.Errorf("%+v: %d pages, want %d to %d", f, pages, atLeast, atMost)
		}
	}
	for _, f := range []store.Filter{
		{NamePart: "odd"}, {Metadata: []byte(`{"odd":1}`)}, {Timeout: time.Hour},
		{Statuses: []task.Status{task.Running, task.Success}}, {NamePart: "odd", CreatedBefore: created.Add(time.Minute)},
	} {
		want(f, 5, 5, tasks[3])
	}
	want(store.Filter{Statuses: []task.Status{task.Running}}, 5, 5, tasks[3]) // among those that are claimed
	want(store.Filter{Kind: "odd", NamePart: "odd"}, 1, 1, tasks[3])          // there is one of that kind
	want(store.Filter{KindPrefix: "odd"}, 1, 1, tasks[3])
	want(store.Filter{KindPrefix: "o", NamePart: "d"}, 1, 1, tasks[3])
	want(store.Filter{KindPrefix: "odder"}, 1, 1)
	want(store.Filter{Batch: others[0].BatchID, NamePart: "odd"}, 1, 1)
	want(store.Filter{Batch: tasks[0].BatchID, NamePart: "odd"}, 5, 5, tasks[3])
	want(store.Filter{NamePart: "nothing"}, 5, 5)
	want(store.Filter{CreatedBefore: created}, 1, 5)
	// These find at once what they show.
	want(store.Filter{Kind: "odd"}, 1, 1, tasks[3])
	want(store.Filter{IDs: idsOf(tasks[3], others[0]), NamePart: "odd"}, 1, 1, tasks[3])
	want(store.Filter{Statuses: []task.Status{task.Failure}}, 1, 1)
	e.settle(end(tasks[3].ID, task.Failure), cancel(tasks[4]))
	want(store.Filter{Statuses: []task.Status{task.Failure}}, 1, 1, tasks[3])
	want(store.Filter{Statuses: []task.Status{task.Canceled}, Kind: "work"}, 1, 1, tasks[4])
	want(store.Filter{Statuses: []task.Status{task.Canceled, task.Failure}}, 1, 1, tasks[3], tasks[4])
	// An offset and an order by update look at all.
	for _, f := range []store.Filter{{NamePart: "odd", Batch: tasks[3].BatchID, Sort: store.SortUpdated, Walk: 7}, {NamePart: "odd"}} {
		if items := e.list(f); len(items) != 1 {
			t.Errorf("%+v: %d items, want 1", f, len(items))
		}
	}
}

func testBatchWalk(t *testing.T, e *env) {
	var batches []*task.Batch
	for i := range 20 {
		tasks := newTasks(3)
		if i == 4 {
			tasks[1].Name = "odd"
		}
		batches = append(batches, e.create(tasks...))
	}
	large := e.create(newTasks(20)...)
	for _, c := range []struct {
		f     store.Filter
		want  []task.ID
		pages int
	}{
		{store.Filter{NamePart: "odd"}, []task.ID{batches[4].ID}, 8}, // the first looks at the whole of the large one, others at three
		{store.Filter{NamePart: "nothing"}, nil, 8},
		{store.Filter{Statuses: []task.Status{task.Success}}, nil, 8},
		{store.Filter{NamePart: "odd", Kind: "work"}, []task.ID{batches[4].ID}, 8},
		{store.Filter{Statuses: []task.Status{task.Running}}, nil, 1},
	} {
		got, pages := walkAlong(e, e.Batches, c.f, func(b *store.BatchItem) task.ID { return b.ID })
		if !slices.Equal(got, c.want) || pages != c.pages {
			t.Errorf("%+v: %v on %d pages, want %v on %d", c.f, got, pages, c.want, c.pages)
		}
	}
	// What is asked of batches alone counts batches.
	for _, f := range []store.Filter{{Metadata: []byte(`{"odd":1}`)}, {CreatedBefore: e.detail(batches[0].Tasks[0].ID).Task.CreatedAt}} {
		if _, pages := walkAlong(e, e.Batches, f, func(b *store.BatchItem) task.ID { return b.ID }); pages != 4 {
			t.Errorf("%+v: %d pages, want 4 for 21 batches", f, pages)
		}
	}
	if got, _ := walkAlong(e, e.Batches, store.Filter{}, func(b *store.BatchItem) task.ID { return b.ID }); len(got) != 21 || got[0] != large.ID {
		t.Errorf("%v", got)
	}
}

func testListClaimed(t *testing.T, e *env) {
	claimed := newTask()
	e.create(claimed)
	e.claim()
	pending := newTask()
	e.create(pending)
	for _, c := range []struct {
		statuses []task.Status
		want     []*task.Task
	}{
		{[]task.Status{task.Pending}, []*task.Task{pending}},
		{[]task.Status{task.Claimed}, []*task.Task{claimed}},
		{[]task.Status{task.Claimed, task.Pending}, []*task.Task{claimed, pending}},
		{[]task.Status{task.Running}, nil},
	} {
		var got []task.ID
		for _, item := range e.list(store.Filter{Statuses: c.statuses}) {
			got = append(got, item.Task.ID)
			if item.State.ClaimedAt.IsZero() != (item.State.Status == task.Pending) {
				t.Errorf("%+v", item.State)
			}
		}
		e.sameTasks(fmt.Sprint(c.statuses), got, c.want)
	}
}

// tryFilters checks filters of single choices, and of several together.
func tryFilters(choices []func(f *store.Filter), check func(f store.Filter)) {
	for _, choose := range choices {
		for range 4 {
			var f store.Filter
			choose(&f)
			check(f)
		}
	}
	for range 60 {
		var f store.Filter
		for _, i := range rand.Perm(len(choices))[:1+rand.IntN(len(choices))] {
			choices[i](&f)
		}
		check(f)
	}
}

// Stalls is implemented by stores under test. StallList is a list that does not find its page before ctx ends.
type Stalls interface {
	StallList(ctx context.Context) error
}

func testStalledLists(t *testing.T, e *env) {
	k := newTask()
	b := e.create(k)
	health := func() store.Health {
		h, err := e.Health(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	var stalled sync.WaitGroup
	defer stalled.Wait()
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	for range 2 * health().PoolSize {
		stalled.Go(func() { _ = e.Store.(Stalls).StallList(ctx) })
	}
	outer := e.ctx
	defer func() { e.ctx = outer }()
	var stop context.CancelFunc
	e.ctx, stop = context.WithTimeout(e.ctx, 20*time.Second) // to fail rather than hang
	defer stop()
	for h := health(); h.PoolIdle > h.PoolSize/2; h = health() {
		runtime.Gosched()
	}
	if got := e.detail(k.ID); got.Task.ID != k.ID {
		t.Errorf("%+v", got)
	}
	e.create(newTask())
	lists := map[string]func(ctx context.Context) error{
		"tasks":      func(ctx context.Context) error { _, err := e.Tasks(ctx, store.Filter{Limit: 1}); return err },
		"batches":    func(ctx context.Context) error { _, err := e.Batches(ctx, store.Filter{Limit: 1}); return err },
		"deliveries": func(ctx context.Context) error { _, err := e.Deliveries(ctx, store.Filter{Limit: 1}); return err },
		"a graph":    func(ctx context.Context) error { _, err := e.DAG(ctx, b.ID); return err },
	}
	for name, list := range lists {
		short, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
		if err := list(short); !errors.Is(err, store.ErrListsBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s beside those that stall: %v, want that it waits", name, err)
		}
		cancel()
	}
	cancel()
	stalled.Wait()
	for name, list := range lists {
		if err := list(e.ctx); err != nil {
			t.Errorf("%s after them: %v", name, err)
		}
	}
}
