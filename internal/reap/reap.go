// Package reap looks after what nobody reports: tasks whose time-out has passed, dead ends, claims of processes that
// died, batches that are old, and the lease of this process. It is stage 6, beside the way of a task: what it finds goes to
// settle and to dispatch.
//
// One look tells what there is to do, for all stages: what has become due by itself, and work of which the hint was lost. So
// the others need no ticks.
//
// Invariants:
//
//   - The lease is renewed three times before it would run out, and nothing is claimed before there is one.
//   - Claims are only taken over by a process whose own lease is fresh, so that it never takes its own.
//   - A duty that hangs or fails holds up no other; it is logged when it begins to fail and when it works again.
package reap

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

const (
	defaultLease = 30 * time.Second
	// lookEvery is how late may come what is due, and what nobody has hinted at.
	lookEvery = time.Second
	// lookFor is when a look that hangs is given up: all others wait for it.
	lookFor       = 10 * time.Second
	maintainEvery = time.Second
	driftEvery    = time.Minute
	// retryEvery is the interval of a duty that fails.
	retryEvery = time.Second
	// chunk bounds the time-outs, and the dead ends, that are settled at once.
	chunk = 1000
)

// Store is what reap needs of [store.Store].
type Store interface {
	Work(ctx context.Context, owner task.ID) (store.Work, error)
	Due(ctx context.Context, limit int) (ids []task.ID, more bool, err error)
	DeadEnds(ctx context.Context, limit int) (ids []task.ID, more bool, err error)
	TakeOver(ctx context.Context, owner task.ID) ([]store.Claim, error)
	Heartbeat(ctx context.Context, owner task.ID, lease time.Duration) error
	Leave(ctx context.Context, owner task.ID) error
	Drift(ctx context.Context) (int, error)
	Maintain(ctx context.Context) error
	Expire(ctx context.Context, keep time.Duration, limit int) (store.Removed, error)
	Purge(ctx context.Context, limit int) (store.Removed, error)
}

// Settler takes outcomes and returns when they are durable.
type Settler interface {
	Settle(ctx context.Context, outcomes ...task.Outcome) ([]store.Result, error)
}

// Starter sends the on_start of claims. It does not block.
type Starter interface {
	Start(claims []store.Claim)
}

// Options of a [Reaper]. Store, Settler, Starter and Owner are required.
type Options struct {
	Store   Store
	Settler Settler
	Starter Starter
	// Owner is this process.
	Owner task.ID
	// Lease is how long other processes leave our claims alone after a heartbeat. 0: 30 s.
	Lease time.Duration
	// OnPump and OnOutbox are called when the pump, or the outbox, has work. They must not block. Nil: nobody asks.
	OnPump, OnOutbox func()
	// Keep is how long batches are kept after their end. 0: for good.
	Keep time.Duration
	// Registry takes the metrics. Nil: they are kept nowhere.
	Registry prometheus.Registerer
	// Log is nil for none.
	Log *slog.Logger
}

// Reaper does the duties of this package.
type Reaper struct {
	o     Options
	drift prometheus.Gauge

	due, deadEnds, dead chan struct{} // hints
	draining            atomic.Bool
}

// New returns a reaper that waits for Run.
func New(o Options) *Reaper {
	if o.Lease <= 0 {
		o.Lease = defaultLease
	}
	if o.OnPump == nil {
		o.OnPump = func() {}
	}
	if o.OnOutbox == nil {
		o.OnOutbox = func() {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	hint := func() chan struct{} { return make(chan struct{}, 1) }
	return &Reaper{o: o, due: hint(), deadEnds: hint(), dead: hint(), drift: promauto.With(o.Registry).NewGauge(prometheus.GaugeOpts{
		Name: "gate_drift",
		Help: "Gates whose used slots differ from the tasks that hold them. Anything but 0 is a bug.",
	})}
}

// Register takes the lease of this process. It must have returned nil before anything is claimed.
func (r *Reaper) Register(ctx context.Context) error {
	if err := r.o.Store.Heartbeat(ctx, r.o.Owner, r.o.Lease); err != nil {
		return fmt.Errorf("take the lease: %w", err)
	}
	return nil
}

// Run does the duties until ctx ends, and returns nil then. The lease must be kept while webhooks are out, so Run is
// stopped after dispatch.
func (r *Reaper) Run(ctx context.Context) error {
	var duties sync.WaitGroup
	duties.Go(func() { r.every(ctx, r.o.Lease/3, "renew the lease", r.keep) })
	duties.Go(func() { r.every(ctx, lookEvery, "look for work", r.look) })
	duties.Go(func() { r.on(ctx, r.dead, "take claims over", r.takeOver) })
	duties.Go(func() { r.on(ctx, r.due, "settle time-outs", r.expire) })
	duties.Go(func() { r.on(ctx, r.deadEnds, "cancel dead ends", r.cancelDeadEnds) })
	duties.Go(func() { r.every(ctx, maintainEvery, "maintain the database", r.o.Store.Maintain) })
	if r.o.Keep > 0 {
		duties.Go(func() { r.every(ctx, min(retainEvery, r.o.Keep/10), "remove old batches", r.retain) })
	}
	duties.Go(func() { r.every(ctx, driftEvery, "compare gates with tasks", r.measureDrift) })
	duties.Wait()
	return nil
}

// Drain takes nothing over any more: who is about to stop starts nothing.
func (r *Reaper) Drain() { r.draining.Store(true) }

// Stop gives the lease up, so that other processes take over at once what this one has left. It is called when Run has
// returned and dispatch is drained.
func (r *Reaper) Stop(ctx context.Context) error {
	if err := r.o.Store.Leave(ctx, r.o.Owner); err != nil {
		return fmt.Errorf("give the lease up: %w", err)
	}
	return nil
}

// every does a duty at once and then at that interval, or sooner while it fails.
func (r *Reaper) every(ctx context.Context, interval time.Duration, what string, duty func(context.Context) error) {
	failing := false
	for {
		pause := interval
		if r.do(ctx, what, duty, &failing); failing {
			pause = min(interval, retryEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// on does a duty for each hint. What failed is found by the next look.
func (r *Reaper) on(ctx context.Context, hint <-chan struct{}, what string, duty func(context.Context) error) {
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-hint:
			r.do(ctx, what, duty, &failing)
		}
	}
}

// do does a duty, and logs when it begins to fail and when it works again.
func (r *Reaper) do(ctx context.Context, what string, duty func(context.Context) error, failing *bool) {
	err := duty(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !*failing:
		r.o.Log.Error(what+": failing, will go on trying", "error", err)
	case err == nil && *failing:
		r.o.Log.Info(what + ": works again")
	}
	*failing = err != nil
}

// look hints at what there is to do.
func (r *Reaper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	work, err := r.o.Store.Work(ctx, r.o.Owner)
	if work.Pump {
		r.o.OnPump()
	}
	if work.Outbox {
		r.o.OnOutbox()
	}
	if work.Due {
		give(r.due)
	}
	if work.DeadEnds {
		give(r.deadEnds)
	}
	if work.Dead && !r.draining.Load() {
		give(r.dead)
	}
	return err
}

// give gives a hint, unless there is one.
func give(hint chan<- struct{}) {
	select {
	case hint <- struct{}{}:
	default:
	}
}

// keep renews the lease. What hangs is given up in time for the next heartbeat.
func (r *Reaper) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Lease/3)
	defer cancel()
	return r.o.Store.Heartbeat(ctx, r.o.Owner, r.o.Lease)
}

// takeOver takes over what dead processes have claimed. The store may give it up, but not its outcome: what was claimed has to be known.
func (r *Reaper) takeOver(ctx context.Context) error {
	claims, err := r.o.Store.TakeOver(ctx, r.o.Owner)
	if err != nil {
		return err
	}
	if len(claims) > 0 {
		r.o.Log.Warn("take over claims of a process that died", "claims", len(claims))
		r.o.Starter.Start(claims)
	}
	return nil
}

// expire settles time-outs until there are none left, or those that are left do not end.
func (r *Reaper) expire(ctx context.Context) error {
	for {
		ids, more, err := r.o.Store.Due(ctx, chunk)
		if err != nil || len(ids) == 0 && !more {
			return err
		}
		outcomes := make([]task.Outcome, len(ids))
		for i, id := range ids {
			outcomes[i] = task.Outcome{ID: id, Kind: task.Expire}
		}
		results, err := r.o.Settler.Settle(ctx, outcomes...)
		if err != nil {
			return err
		}
		fewer := len(ids) < chunk // the others were active, and are looked at later
		for i := range results {
			fewer = fewer || results[i].State.Status.Terminal()
		}
		if !more || !fewer {
			return nil
		}
	}
}

// cancelDeadEnds goes on until there are none: canceling one may make another of its parent.
func (r *Reaper) cancelDeadEnds(ctx context.Context) error {
	for {
		ids, more, err := r.o.Store.DeadEnds(ctx, chunk)
		if err != nil || len(ids) == 0 && !more {
			return err
		}
		outcomes := make([]task.Outcome, len(ids))
		for i, id := range ids {
			outcomes[i] = task.Outcome{ID: id, Kind: task.DeadEnd}
		}
		if _, err := r.o.Settler.Settle(ctx, outcomes...); err != nil {
			return err
		}
	}
}

func (r *Reaper) measureDrift(ctx context.Context) error {
	n, err := r.o.Store.Drift(ctx)
	if err != nil {
		return err
	}
	if r.drift.Set(float64(n)); n > 0 {
		r.o.Log.Error("gates differ from the tasks that hold them", "gates", n)
	}
	return nil
}
