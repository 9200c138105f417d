package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Million is what MeasureLists expects in a store: a million tasks in batches of 1 000, one batch a minute from Million on,
// one task a millisecond; the ids are version 7 of those times, of variant 8000 and zeros. Task n is of kind-(n mod 20), has
// the metadata {"tenant": n mod 50, "run": n / 1000, "n": n} and the name "task n". Of a thousand, one failed, one waits, five
// are ready, nine parked, five Running; ten of the million are Paused; the rest succeeded, spread evenly. The time-out is 60 s,
// for every tenth 120 s, and 77 s for task 70007.
const Million = 1767225600

// MillionID is the id of task n of the million; that of a batch is that of its first task with a 0 behind its version.
func MillionID(n int) task.ID { return millionID(int64(Million+n/1000*60)*1000+int64(n%1000), 1) }

func millionBatch(b int) task.ID { return millionID(int64(Million+b*60)*1000, 0) }

func millionID(millis int64, last int) task.ID {
	id, err := task.ParseID(fmt.Sprintf("%08x-%04x-7%03x-8000-000000000000", millis>>16, millis&0xffff, last))
	if err != nil {
		panic(err)
	}
	return id
}

// MeasureLists prints what every list costs at a million tasks, as a table of p50 and p99 in milliseconds.
func MeasureLists(t *testing.T, s store.Store) {
	middle := time.Unix(Million+500*60, 0)
	status := func(s ...task.Status) store.Filter { return store.Filter{Statuses: s} }
	filters := []struct {
		name  string
		f     store.Filter
		tasks bool // a filter of tasks alone
	}{
		{"everything", store.Filter{}, false},
		{"status=Success", status(task.Success), false},
		{"status=Failure", status(task.Failure), false},
		{"status=Canceled (none)", status(task.Canceled), false},
		{"status=Waiting", status(task.Waiting), false},
		{"status=Paused", status(task.Paused), false},
		{"status=Running", status(task.Running), false},
		{"status=Pending", status(task.Pending, task.Claimed), false},
		{"status=Failure&kind=", store.Filter{Statuses: []task.Status{task.Failure}, Kind: "kind-4"}, false},
		{"status=Waiting&kind= (none)", store.Filter{Statuses: []task.Status{task.Waiting}, Kind: "kind-7"}, false},
		{"kind=", store.Filter{Kind: "kind-7"}, false},
		{"kind= (none)", store.Filter{Kind: "nothing"}, false},
		{"kind=kind-1*", store.Filter{KindPrefix: "kind-1"}, false},
		{"kind=nothing*", store.Filter{KindPrefix: "nothing"}, false},
		{"name= (common)", store.Filter{NamePart: "7"}, false},
		{"name= (rare)", store.Filter{NamePart: "task 70007"}, false},
		{"name= (none)", store.Filter{NamePart: "nothing"}, false},
		{"created_after=", store.Filter{CreatedAfter: middle}, false},
		{"created_before=", store.Filter{CreatedBefore: middle}, false},
		{"batch_id=", store.Filter{Batch: millionBatch(40)}, true},
		{"batch_id=&sort=updated", store.Filter{Batch: millionBatch(40), Sort: store.SortUpdated}, true},
		{"status=Running&sort=updated", store.Filter{Statuses: []task.Status{task.Running}, Sort: store.SortUpdated}, true},
		{"metadata= (common)", store.Filter{Metadata: []byte(`{"tenant":7}`)}, true},
		{"metadata= (one batch)", store.Filter{Metadata: []byte(`{"run":70}`)}, true},
		{"metadata= (none)", store.Filter{Metadata: []byte(`{"tenant":99}`)}, true},
		{"metadata=&kind= (none)", store.Filter{Metadata: []byte(`{"tenant":99}`), Kind: "kind-7"}, true},
		{"timeout=120 (common)", store.Filter{Timeout: 120 * time.Second}, true},
		{"timeout=77 (rare)", store.Filter{Timeout: 77 * time.Second}, true},
		{"ids= (100)", store.Filter{IDs: hundred()}, true},
	}
	for _, c := range filters {
		for page, f := range pagesOf(c.f, store.MaxWalk, MillionID(90_000), 500_000) {
			timed(t, "GET /task "+c.name, page, func() (int, bool, error) {
				p, err := s.Tasks(t.Context(), f)
				return len(p.Items), p.Walked != task.ID{}, err
			})
		}
	}
	for _, c := range filters {
		if c.tasks {
			continue
		}
		for page, f := range pagesOf(c.f, store.MaxBatchWalk, millionBatch(90), 500) {
			timed(t, "GET /batches "+c.name, page, func() (int, bool, error) {
				p, err := s.Batches(t.Context(), f)
				return len(p.Items), p.Walked != task.ID{}, err
			})
		}
	}
	batch := func() (int, bool, error) {
		_, err := s.Batch(t.Context(), millionBatch(40))
		return 1, false, err
	}
	timed(t, "GET /batch/{id}", "", batch)
	timed(t, "GET /dag/{id}", "", func() (int, bool, error) {
		dag, err := s.DAG(t.Context(), millionBatch(40))
		if err != nil {
			return 0, false, err
		}
		return len(dag.Items), false, nil
	})
	cancelAll(t, s)
	for _, f := range []store.Filter{{}, {Statuses: []task.Status{task.Success}}} {
		f.Limit = 51
		timed(t, fmt.Sprintf("GET /batches %v, all ended", f.Statuses), "first", func() (int, bool, error) {
			p, err := s.Batches(t.Context(), f)
			return len(p.Items), false, err
		})
	}
	timed(t, "GET /batch/{id}, ended", "", batch)
}

// cancelAll ends what lives of the million.
func cancelAll(t *testing.T, s store.Store) {
	f := store.Filter{Limit: 1000, Statuses: []task.Status{task.Waiting, task.Pending, task.Claimed, task.Running, task.Paused}}
	for {
		p, err := s.Tasks(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Items) == 0 {
			return
		}
		var outcomes []task.Outcome
		for i := range p.Items {
			outcomes = append(outcomes, task.Outcome{ID: p.Items[i].Task.ID, Kind: task.Cancel})
			f.Before = p.Items[i].Task.ID
		}
		if _, err := s.Settle(t.Context(), outcomes); err != nil {
			t.Fatal(err)
		}
	}
}

func hundred() (ids []task.ID) {
	for i := range 100 {
		ids = append(ids, MillionID(i*9_999))
	}
	return ids
}

// pagesOf are the first page of a list, one behind a cursor and one behind an offset.
func pagesOf(f store.Filter, walk int, before task.ID, offset int) func(yield func(string, store.Filter) bool) {
	return func(yield func(string, store.Filter) bool) {
		f.Limit, f.Walk = 51, walk
		if !yield("first", f) {
			return
		}
		if f.Sort == store.SortCreated && f.IDs == nil && f.Batch == (task.ID{}) {
			deep := f
			deep.Before = before
			if !yield("cursor", deep) {
				return
			}
			deep = f
			deep.Offset, deep.Walk = offset, 0
			yield("offset", deep)
		}
	}
}

// timed runs read for a second, or 100 times.
func timed(t *testing.T, name, page string, read func() (items int, more bool, err error)) {
	t.Helper()
	var took []time.Duration
	var items int
	var more bool
	for begun := time.Now(); len(took) < 100 && (len(took) == 0 || time.Since(begun) < time.Second); {
		start := time.Now()
		var err error
		if items, more, err = read(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	found := fmt.Sprint(items)
	if more {
		found += "+"
	}
	at := func(q int) float64 { return took[(len(took)-1)*q/100].Seconds() * 1000 }
	fmt.Println(strings.TrimRight(fmt.Sprintf("%-42s %-7s %5s %8.1f %8.1f", name, page, found, at(50), at(99)), " "))
}
