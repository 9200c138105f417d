package telemetry

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Instrument counts what goes through s in metrics of registry. All that happens to a task happens in a transaction
// of the store, so these are all the metrics about tasks. The names and labels of the first six are the original's.
func Instrument(s store.Store, registry prometheus.Registerer) store.Store {
	i := &instrumented{
		Store: s,
		created: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tasks_created_total", Help: "Tasks created.",
		}),
		completed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasks_completed_total", Help: "Tasks that reached an end, by outcome and kind.",
		}, []string{"outcome", "kind"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "task_status_transitions_total", Help: "Changes of status.",
		}, []string{"from_status", "to_status"}),
		blocked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tasks_blocked_by_concurrency_total", Help: "Times a rule began to hold a task back.",
		}),
		propagations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dependency_propagations_total", Help: "Dependencies settled, by the outcome of the parent.",
		}, []string{"parent_outcome"}),
		loop:           durations("worker_loop_duration_seconds", "Duration of a tick of the pump, with that of the outcomes that it follows in their transaction."),
		admissions:     sizes("pump_admissions", "Tasks claimed by a tick of the pump that claimed any."),
		settleSize:     sizes("settle_batch_size", "Outcomes that shared a transaction."),
		settleDuration: durations("settle_duration_seconds", "Duration of a transaction that settles outcomes, with that of the tick that may follow there."),
		createSize:     sizes("create_batch_size", "Batches that shared a transaction."),
		createDuration: durations("create_duration_seconds", "Duration of a transaction that creates batches."),
		removedBatches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batches_removed_total", Help: "Batches that are gone because they were old.",
		}),
		removedTasks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tasks_removed_total", Help: "Tasks of these batches that were deleted.",
		}),
		removal: durations("removal_duration_seconds", "Duration of a transaction that removes what is old."),
	}
	registry.MustRegister(i.created, i.completed, i.transitions, i.blocked, i.propagations, i.loop, i.admissions,
		i.settleSize, i.settleDuration, i.createSize, i.createDuration, i.removedBatches, i.removedTasks, i.removal)
	return i
}

func durations(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14), // seconds, up to 2
	})
}

func sizes(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(1, 2, 15), // up to 16384: 10 000 outcomes may share a transaction
	})
}

type instrumented struct {
	store.Store

	created, blocked           prometheus.Counter
	completed, transitions     *prometheus.CounterVec
	propagations               *prometheus.CounterVec
	loop, admissions           prometheus.Histogram
	settleSize, settleDuration prometheus.Histogram
	createSize, createDuration prometheus.Histogram

	removedBatches, removedTasks prometheus.Counter
	removal                      prometheus.Histogram
}

// Create is as in store.Store.
func (i *instrumented) Create(ctx context.Context, creates []store.Create) ([]store.Created, error) {
	begun := time.Now()
	created, err := i.Store.Create(ctx, creates)
	i.createDuration.Observe(time.Since(begun).Seconds())
	i.createSize.Observe(float64(len(creates)))
	for _, c := range created {
		i.created.Add(float64(len(c.Kept))) // none of a replay
		for k := range c.Kept {
			if s := c.State(k); s.Status.Terminal() { // a parent of it had failed before
				i.moved(store.Transition{From: task.Waiting, To: s.Status, Kind: s.Kind}, 1)
			}
		}
	}
	return created, err
}

// Settle is as in store.Store.
func (i *instrumented) Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error) {
	begun := time.Now()
	settled, err := i.Store.Settle(ctx, outcomes)
	i.settled(outcomes, &settled, begun)
	return settled, err
}

// SettleAndPump is as in store.Store.
func (i *instrumented) SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (store.Settled, *store.Pumped, error) {
	begun := time.Now()
	settled, pumped, err := i.Store.SettleAndPump(ctx, outcomes, turn)
	i.settled(outcomes, &settled, begun)
	if pumped != nil {
		i.pumped(pumped, begun)
	}
	return settled, pumped, err
}

func (i *instrumented) settled(outcomes []task.Outcome, settled *store.Settled, begun time.Time) {
	i.settleDuration.Observe(time.Since(begun).Seconds())
	i.settleSize.Observe(float64(len(outcomes)))
	for k := range settled.Results {
		if r := &settled.Results[k]; r.From != r.State.Status {
			i.moved(store.Transition{From: r.From, To: r.State.Status, Kind: r.State.Kind}, 1)
		}
	}
}

// Pump is as in store.Store.
func (i *instrumented) Pump(ctx context.Context, p store.PumpParams) (store.Pumped, error) {
	begun := time.Now()
	pumped, err := i.Store.Pump(ctx, p)
	if err == nil && !pumped.Busy {
		i.pumped(&pumped, begun)
	}
	return pumped, err
}

func (i *instrumented) pumped(pumped *store.Pumped, begun time.Time) {
	i.loop.Observe(time.Since(begun).Seconds())
	if len(pumped.Claims) > 0 {
		i.admissions.Observe(float64(len(pumped.Claims)))
	}
	for transition, n := range pumped.Transitions {
		i.moved(transition, n)
	}
	for outcome, n := range pumped.Propagated {
		i.propagations.WithLabelValues(outcomeLabel(outcome)).Add(float64(n))
	}
	i.blocked.Add(float64(pumped.Parked))
}

// Expire is as in store.Store.
func (i *instrumented) Expire(ctx context.Context, keep time.Duration, limit int) (store.Removed, error) {
	begun := time.Now()
	removed, err := i.Store.Expire(ctx, keep, limit)
	return i.removed(removed, begun), err
}

// Purge is as in store.Store.
func (i *instrumented) Purge(ctx context.Context, limit int) (store.Removed, error) {
	begun := time.Now()
	removed, err := i.Store.Purge(ctx, limit)
	return i.removed(removed, begun), err
}

func (i *instrumented) removed(r store.Removed, begun time.Time) store.Removed {
	i.removedBatches.Add(float64(r.Batches))
	i.removedTasks.Add(float64(r.Tasks))
	if r.Batches+r.Tasks > 0 {
		i.removal.Observe(time.Since(begun).Seconds())
	}
	return r
}

func (i *instrumented) moved(t store.Transition, n int) {
	i.transitions.WithLabelValues(t.From.String(), t.To.String()).Add(float64(n))
	if t.To.Terminal() {
		i.completed.WithLabelValues(outcomeLabel(t.To), t.Kind).Add(float64(n))
	}
}

// outcomeLabel is success, failure or canceled.
func outcomeLabel(s task.Status) string { return strings.ToLower(s.String()) }
