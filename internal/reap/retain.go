package reap

import (
	"context"
	"time"

	"taskrunner/internal/store"
)

const (
	// retainEvery is how often it is looked for old batches, at least; more often where they are not kept for long.
	retainEvery = time.Minute
	// stepLasts is what one transaction of retention is to take: on SQLite nobody else writes meanwhile.
	stepLasts = 15 * time.Millisecond
	// maxStep is how many batches, or tasks, it takes on at most.
	maxStep = 1000
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
		if done, err := r.step(ctx, &r.purging, &sum, r.o.Store.Purge); err != nil || done.Busy {
			return err
		} else if done.More {
			continue
		}
		if done, err := r.step(ctx, &r.expiring, &sum, expire); err != nil || done.Busy || done.Batches == 0 && !done.More {
			return err
		}
	}
}

// step does as much as size says, adds it to sum, and makes size fit.
func (r *Reaper) step(
	ctx context.Context, size *int, sum *store.Removed, do func(ctx context.Context, limit int) (store.Removed, error),
) (store.Removed, error) {
	begun := time.Now()
	done, err := do(ctx, *size)
	took := time.Since(begun)
	sum.Batches, sum.Tasks = sum.Batches+done.Batches, sum.Tasks+done.Tasks
	switch {
	case took > stepLasts:
		*size = max(*size/2, 1)
	case done.More && took < stepLasts/2:
		*size = min(*size*2, maxStep)
	}
	if err != nil || !done.More && done.Batches == 0 {
		return done, err
	}
	return done, pause(ctx, took)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
