package reap

import (
	"context"
	"time"

	"taskrunner/internal/store"
)

const (
	// retainEvery is how often it is looked for old batches, at least; more often where they are not kept for long.
	retainEvery = time.Minute
	// retainChunk is how many batches, or tasks, one transaction of retention takes on.
	retainChunk = 1000
)

// retain removes the batches that have been over for Keep. After each step it rests for as long as the step took, so that
// it never takes more than half of one connection, or of who writes; where other work makes steps slow, it rests longer.
func (r *Reaper) retain(ctx context.Context) error {
	begun := time.Now()
	var sum store.Removed
	defer func() {
		if sum.Batches+sum.Tasks > 0 {
			r.o.Log.Info("old batches removed", "batches", sum.Batches, "tasks", sum.Tasks, "took", time.Since(begun).Round(time.Millisecond).String())
		}
	}()
	expire := func(ctx context.Context, limit int) (store.Removed, error) {
		return r.o.Store.Expire(ctx, r.o.Keep, limit)
	}
	for {
		if done, err := step(ctx, &sum, r.o.Store.Purge); err != nil || done.Busy {
			return err
		} else if done.More {
			continue
		}
		if done, err := step(ctx, &sum, expire); err != nil || done.Busy || done.Batches == 0 && !done.More {
			return err
		}
	}
}

// step does one, adds it to sum, and rests if others follow.
func step(ctx context.Context, sum *store.Removed, do func(ctx context.Context, limit int) (store.Removed, error)) (store.Removed, error) {
	begun := time.Now()
	done, err := do(ctx, retainChunk)
	sum.Batches, sum.Tasks = sum.Batches+done.Batches, sum.Tasks+done.Tasks
	if err != nil || !done.More && done.Batches == 0 {
		return done, err
	}
	timer := time.NewTimer(time.Since(begun))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return done, context.Cause(ctx)
	case <-timer.C:
		return done, nil
	}
}
