// Package group lets many callers share one commit: while one group is being carried out the next gathers, so that a
// lone caller does not wait and a crowd pays for one transaction.
package group

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

var (
	// ErrStopped is the answer to calls that come after the group has stopped, or were not begun by then.
	ErrStopped = errors.New("stopped")
	// ErrBusy is the answer to calls that were not begun in time. They are never carried out.
	ErrBusy = errors.New("busy for too long")
)

// Group carries out items of type In, many at a time, and answers each caller with its own results. Safe for
// concurrent use. One goroutine must run [Group.Run].
type Group[In, Out any] struct {
	do    func(ctx context.Context, items []In) ([]Out, error)
	split func(error) bool
	max   int
	wait  time.Duration
	calls chan *call[In, Out]
	done  chan struct{}
}

type call[In, Out any] struct {
	// taken: by the group, to be carried out, or by the caller, who waits no longer.
	taken atomic.Bool
	items []In
	out   []Out
	err   error
	done  chan struct{}
}

// New makes a group that hands do the items of one or more callers, together no more than limit unless one caller
// alone brings more. do answers every item in its place. When it fails for a whole group and split says that the error
// may be one caller's, each caller's items are carried out on their own, so that nobody fails for another's.
// A call that is not begun within wait fails with ErrBusy; 0: it waits for as long as it takes.
func New[In, Out any](
	limit int, wait time.Duration, do func(ctx context.Context, items []In) ([]Out, error), split func(error) bool,
) *Group[In, Out] {
	return &Group[In, Out]{
		do: do, split: split, max: limit, wait: wait,
		calls: make(chan *call[In, Out], limit), done: make(chan struct{}),
	}
}

// Do has items carried out and waits for it. A ctx that ends does not undo them: their fate is then not known.
func (g *Group[In, Out]) Do(ctx context.Context, items ...In) ([]Out, error) {
	if len(items) == 0 {
		return nil, nil
	}
	c := &call[In, Out]{items: items, done: make(chan struct{})}
	var late <-chan time.Time
	if g.wait > 0 {
		timer := time.NewTimer(g.wait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case g.calls <- c:
	case <-late:
		return nil, ErrBusy
	case <-g.done:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		select {
		case <-c.done:
			return c.out, c.err
		case <-late:
			if c.taken.CompareAndSwap(false, true) {
				return nil, ErrBusy
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-g.done:
			select {
			case <-c.done:
				return c.out, c.err
			default:
				return nil, ErrStopped
			}
		}
	}
}

// grace is how long carrying out may go on after the group was told to stop.
const grace = 10 * time.Second

// Run carries calls out until ctx ends, then what has been accepted by then, and returns.
func (g *Group[In, Out]) Run(ctx context.Context) error {
	defer close(g.done)
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	for {
		select {
		case c := <-g.calls:
			g.carryOut(work, g.gather(c))
		case <-ctx.Done():
			for {
				select {
				case c := <-g.calls:
					g.carryOut(work, g.gather(c))
				default:
					return nil
				}
			}
		}
	}
}

// gather takes first and what is waiting behind it, but for calls that were withdrawn.
func (g *Group[In, Out]) gather(first *call[In, Out]) []*call[In, Out] {
	var calls []*call[In, Out]
	for c, n := first, 0; ; {
		if c.taken.CompareAndSwap(false, true) {
			calls = append(calls, c)
			n += len(c.items)
		}
		if n >= g.max {
			return calls
		}
		select {
		case c = <-g.calls:
		default:
			return calls
		}
	}
}

func (g *Group[In, Out]) carryOut(ctx context.Context, calls []*call[In, Out]) {
	if len(calls) == 0 {
		return
	}
	items := calls[0].items
	if len(calls) > 1 {
		items = nil
		for _, c := range calls {
			items = append(items, c.items...)
		}
	}
	out, err := g.do(ctx, items)
	if err != nil && len(calls) > 1 && g.split(err) {
		for _, c := range calls {
			g.carryOut(ctx, []*call[In, Out]{c})
		}
		return
	}
	for _, c := range calls {
		if c.err = err; err == nil {
			c.out, out = out[:len(c.items):len(c.items)], out[len(c.items):]
		}
		close(c.done)
	}
}
