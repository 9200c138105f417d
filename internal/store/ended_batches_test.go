package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// What has ended is counted once for each version, what lives each time.
func TestCountBatches(t *testing.T) {
	t.Parallel()
	var ended store.EndedBatches[store.BatchItem]
	live, over := task.ID{1}, task.ID{2}
	list := func(late int64, scope string, want ...task.ID) []store.BatchItem {
		t.Helper()
		rows := []store.BatchRow{{BatchItem: store.BatchItem{ID: live}}, {BatchItem: store.BatchItem{ID: over}, Late: late}}
		rows[1].Scope = scope
		uncounted := store.Recall(rows, &ended)
		if diff := cmp.Diff(want, uncounted); diff != "" {
			t.Errorf("uncounted (-want +got):\n%s", diff)
		}
		groups := map[task.ID][]store.BatchGroup{
			live: {{Batch: live, Kind: "a", Status: task.Success, Tasks: 1}, {Batch: live, Kind: "a", Status: task.Waiting, Tasks: 1}},
			over: {{Batch: over, Kind: "b", Status: task.Failure, Tasks: 2}, {Batch: over, Kind: "a", Status: task.Failure, Tasks: 1}},
		}
		var counted []store.BatchGroup
		for _, id := range uncounted {
			counted = append(counted, groups[id]...)
		}
		return store.CountBatches(rows, counted, &ended)
	}
	first := list(0, "first", live, over)
	again := list(0, "again", live)
	if again[1].Scope != "again" {
		t.Errorf("the label is %q: it was remembered", again[1].Scope)
	}
	again[1].Scope = "first"
	if diff := cmp.Diff(first, again); diff != "" || first[1].Tasks != 3 {
		t.Errorf("(-first +again):\n%s", diff)
	}
	list(1, "", live, over)
}

// However many batches there are, few are remembered, and among them the one that is asked for all the time.
func TestEndedBatchesForget(t *testing.T) {
	t.Parallel()
	var ended store.EndedBatches[int]
	version := func(n int) store.BatchVersion {
		return store.BatchVersion{ID: task.ID{byte(n >> 16), byte(n >> 8), byte(n)}}
	}
	over := map[task.Status]int{task.Success: 1}
	const all = 50_000
	for n := range all {
		ended.Put(version(n), over, n, 1)
		if _, ok := ended.Get(version(7)); n >= 7 && !ok {
			t.Fatalf("forgotten after %d others", n)
		}
	}
	known := 0
	for n := range all {
		if v, ok := ended.Get(version(n)); ok && v == n {
			known++
		}
	}
	if known < 1_000 || known > 20_000 {
		t.Errorf("%d of %d are known", known, all)
	}
}
