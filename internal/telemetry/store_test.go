package telemetry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
	"taskrunner/internal/telemetry"
)

// fakeStore answers what it is told to.
type fakeStore struct {
	store.Store
	settled store.Settled
	pumped  store.Pumped
	err     error
}

func (f *fakeStore) Create(_ context.Context, creates []store.Create) ([]store.Created, error) {
	created := make([]store.Created, len(creates))
	for i, c := range creates {
		if created[i].Replayed = c.Key != nil; c.Key == nil {
			created[i].Kept = c.Batch.Tasks
			created[i].State = func(int) task.State { return task.State{} }
		}
	}
	return created, f.err
}

func (f *fakeStore) Settle(context.Context, []task.Outcome) (store.Settled, error) {
	return f.settled, f.err
}

func (f *fakeStore) Pump(context.Context, store.PumpParams) (store.Pumped, error) {
	return f.pumped, f.err
}

func (f *fakeStore) SettleAndPump(context.Context, []task.Outcome, store.Turn) (store.Settled, *store.Pumped, error) {
	return f.settled, &f.pumped, f.err
}

// TestMetricsOfTheOriginal counts what a transaction for each does, and one for outcomes and the tick that follows.
func TestMetricsOfTheOriginal(t *testing.T) {
	t.Parallel()
	testMetricsOfTheOriginal(t, func(s store.Store) error {
		_, settled := s.Settle(t.Context(), nil)
		_, pumped := s.Pump(t.Context(), store.PumpParams{})
		return errors.Join(settled, pumped)
	})
	testMetricsOfTheOriginal(t, func(s store.Store) error {
		_, _, err := s.SettleAndPump(t.Context(), nil, nil)
		return err
	})
}

func testMetricsOfTheOriginal(t *testing.T, settleAndPump func(store.Store) error) {
	t.Helper()
	registry := prometheus.NewRegistry()
	fake := &fakeStore{
		settled: store.Settled{Results: []store.Result{
			{From: task.Running, State: task.State{Status: task.Success, Kind: "a"}},
			{From: task.Success, State: task.State{Status: task.Success, Kind: "a"}}, // a repeat
			{Err: &task.Refusal{Code: task.NotFound}},
			{From: task.Pending, State: task.State{Status: task.Canceled, Kind: "b"}},
		}},
		pumped: store.Pumped{
			Transitions: map[store.Transition]int{
				{From: task.Waiting, To: task.Failure, Kind: "a"}: 2, {From: task.Pending, To: task.Claimed, Kind: "a"}: 3,
			},
			Propagated: map[task.Status]int{task.Success: 4, task.Failure: 2},
			Parked:     5,
		},
	}
	s := telemetry.Instrument(fake, registry)
	batch := &task.Batch{Tasks: make([]*task.Task, 7)}
	if _, err := s.Create(t.Context(), []store.Create{{Batch: batch}, {Batch: batch, Key: &store.Idempotency{Key: "a replay"}}}); err != nil {
		t.Fatal(err)
	}
	if err := settleAndPump(s); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP dependency_propagations_total Dependencies settled, by the outcome of the parent.
# TYPE dependency_propagations_total counter
dependency_propagations_total{parent_outcome="failure"} 2
dependency_propagations_total{parent_outcome="success"} 4
# HELP task_status_transitions_total Changes of status.
# TYPE task_status_transitions_total counter
task_status_transitions_total{from_status="Pending",to_status="Canceled"} 1
task_status_transitions_total{from_status="Pending",to_status="Claimed"} 3
task_status_transitions_total{from_status="Running",to_status="Success"} 1
task_status_transitions_total{from_status="Waiting",to_status="Failure"} 2
# HELP tasks_blocked_by_concurrency_total Times a rule began to hold a task back.
# TYPE tasks_blocked_by_concurrency_total counter
tasks_blocked_by_concurrency_total 5
# HELP tasks_completed_total Tasks that reached an end, by outcome and kind.
# TYPE tasks_completed_total counter
tasks_completed_total{kind="a",outcome="failure"} 2
tasks_completed_total{kind="a",outcome="success"} 1
tasks_completed_total{kind="b",outcome="canceled"} 1
# HELP tasks_created_total Tasks created.
# TYPE tasks_created_total counter
tasks_created_total 7
`
	err := testutil.GatherAndCompare(registry, strings.NewReader(want), "tasks_created_total", "tasks_completed_total",
		"task_status_transitions_total", "tasks_blocked_by_concurrency_total", "dependency_propagations_total")
	if err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	observed := map[string]uint64{}
	for _, f := range families {
		observed[f.GetName()] = f.GetMetric()[0].GetHistogram().GetSampleCount()
	}
	if observed["worker_loop_duration_seconds"] != 1 || observed["settle_duration_seconds"] != 1 || observed["settle_batch_size"] != 1 {
		t.Errorf("observed %v", observed)
	}
}

func TestNothingIsCountedThatFailed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := telemetry.Instrument(&fakeStore{err: errors.New("away"), pumped: store.Pumped{Parked: 1}}, registry)
	if _, err := s.Pump(t.Context(), store.PumpParams{}); err == nil {
		t.Error("no error")
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP tasks_blocked_by_concurrency_total Times a rule began to hold a task back.
# TYPE tasks_blocked_by_concurrency_total counter
tasks_blocked_by_concurrency_total 0
`), "tasks_blocked_by_concurrency_total")
	if err != nil {
		t.Error(err)
	}
}

func (f *fakeStore) Expire(context.Context, time.Duration, int) (store.Removed, error) {
	return store.Removed{Batches: 2}, f.err
}

func (f *fakeStore) Purge(context.Context, int) (store.Removed, error) {
	return store.Removed{Tasks: 3}, f.err
}

func TestMetricsOfRetention(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := telemetry.Instrument(&fakeStore{}, registry)
	for range 2 {
		if _, err := s.Expire(t.Context(), time.Hour, 10); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Purge(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP batches_removed_total Batches that are gone because they were old.
# TYPE batches_removed_total counter
batches_removed_total 4
# HELP tasks_removed_total Tasks of these batches that were deleted.
# TYPE tasks_removed_total counter
tasks_removed_total 6
`), "batches_removed_total", "tasks_removed_total")
	if err != nil {
		t.Error(err)
	}
}

// A transaction has up to 10 000 outcomes, and a histogram knows of no size beyond its last bucket.
func TestSizesHaveBuckets(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := telemetry.Instrument(&fakeStore{}, registry)
	if _, err := s.Settle(t.Context(), make([]task.Outcome, 10_000)); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "settle_batch_size" {
			buckets := f.GetMetric()[0].GetHistogram().GetBucket()
			if last := buckets[len(buckets)-1]; last.GetCumulativeCount() != 1 {
				t.Errorf("10 000 outcomes are in no bucket up to %g", last.GetUpperBound())
			}
			return
		}
	}
	t.Error("no settle_batch_size")
}
