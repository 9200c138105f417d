package bench

import (
	"context"
	"errors"
	"sync"
	"time"
)

// trickleRate is a second.
const trickleRate = 50

// trickle is a few tasks at a given rate, each posted alone, whatever became of the one before.
type trickle struct {
	load *load
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// trickle begins one that lasts at most d. Its latency is from the moment when a task was due to be posted to the arrival of its
// on_start. It has a host of its own: those of one host and one priority are started in the order of their age.
func (r *run) trickle(ctx context.Context, d time.Duration) (*trickle, error) {
	host, err := r.receiver.listen()
	if err != nil {
		return nil, err
	}
	l := r.receiver.newLoad(&load{
		kind: "trickle", to: host, tasks: int(d.Seconds()*trickleRate) + 1, since: func(task int) (int, bool) { return task, true },
	})
	ctx, stop := context.WithCancel(ctx)
	t := &trickle{load: l, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.run(ctx, r)
	}()
	return t, nil
}

func (t *trickle) run(ctx context.Context, r *run) {
	begun := r.receiver.now()
	errs := make([]error, t.load.tasks)
	var posts sync.WaitGroup
	for i := range t.load.tasks {
		due := begun + time.Duration(i)*time.Second/trickleRate
		select {
		case <-ctx.Done():
		case <-time.After(due - r.receiver.now()):
		}
		if ctx.Err() != nil {
			break
		}
		t.load.sent[i].Store(int64(due))
		posts.Go(func() { errs[i] = r.postSome(context.WithoutCancel(ctx), t.load, i, 1) })
	}
	posts.Wait()
	t.err = errors.Join(errs...)
}

// endTrickle ends it, waits until its tasks have ended, and tells its latency.
func (r *run) endTrickle(ctx context.Context, t *trickle, name string) error {
	t.stop()
	<-t.done
	if t.err != nil {
		return t.err
	}
	if err := r.wait(ctx, "tasks of the trickle reported on", t.load.reported, t.load.posted()); err != nil {
		return err
	}
	r.latency(name, t.load.arrived, floor.p50, floor.p99)
	return r.check(ctx, t.load)
}

// wholeTrickle is one that lasts for d.
func (r *run) wholeTrickle(ctx context.Context, d time.Duration) error {
	t, err := r.trickle(ctx, d)
	if err != nil {
		return err
	}
	<-t.done
	return r.endTrickle(ctx, t, "due to started")
}
