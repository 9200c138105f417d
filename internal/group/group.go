// Package group lets many callers share one commit: while one group is being carried out the next gathers, so that a
// lone caller does not wait, unless it lingers, and a crowd pays for one transaction.
package group

import (
	"context"
	"errors"
	"sync"
	"time"
)

var (
	// ErrStopped is the answer to calls that come after the group has stopped.
	ErrStopped = errors.New("stopped")
	// ErrBusy is the answer to calls that were not begun in time. They are never carried out.
	ErrBusy = errors.New("busy for too long")
)

// Options of [New]. Limit, Do and Split are needed.
type Options[In, Out any] struct {
	// Do carries out the items of one or more callers, in the order of their calls, and answers every item in its place.
	Do func(ctx context.Context, items []In) ([]Out, error)
	// Split says whether an error of Do may be one caller's. Each caller's items are then carried out on their own, so that
	// nobody fails for another's.
	Split func(error) bool
	// Limit is how much the items of a group weigh together at most, unless one caller alone brings more. Weigh weighs an
	// item; nil: each weighs 1.
	Limit int
	Weigh func(In) int
	// Linger is how long a caller's items wait for others to come, as those do that are in no hurry. nil: they do not wait.
	Linger func(items []In) time.Duration
	// Wait bounds how long a call waits for other groups: one that is not begun by then fails with ErrBusy. 0: it waits
	// for as long as it takes.
	Wait time.Duration
}

// Group carries out items of type In, many at a time, and answers each caller with its own results. Safe for
// concurrent use. One goroutine must run [Group.Run].
type Group[In, Out any] struct {
	options Options[In, Out]
	added   chan struct{} // there are calls, or some that are due earlier

	mu      sync.Mutex
	calls   []*call[In, Out] // that are not begun, in the order in which they came
	due     time.Time        // when the next ones are to be begun
	stopped bool
}

type call[In, Out any] struct {
	items  []In
	weight int
	came   time.Time
	out    []Out
	err    error
	done   chan struct{} // closed when out and err are there
}

// New makes a group.
func New[In, Out any](o Options[In, Out]) *Group[In, Out] {
	return &Group[In, Out]{options: o, added: make(chan struct{}, 1)}
}

// Do has items carried out and waits for it. A ctx that ends does not undo them: their fate is then not known.
func (g *Group[In, Out]) Do(ctx context.Context, items ...In) ([]Out, error) {
	if len(items) == 0 {
		return nil, nil
	}
	c := &call[In, Out]{items: items, weight: g.weight(items), came: time.Now(), done: make(chan struct{})}
	if !g.add(c) {
		return nil, ErrStopped
	}
	select {
	case <-c.done:
		return c.out, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *Group[In, Out]) weight(items []In) int {
	if g.options.Weigh == nil {
		return len(items)
	}
	weight := 0
	for _, item := range items {
		weight += g.options.Weigh(item)
	}
	return weight
}

// add is false when the group has stopped.
func (g *Group[In, Out]) add(c *call[In, Out]) bool {
	due := c.came
	if g.options.Linger != nil {
		due = due.Add(g.options.Linger(c.items))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return false
	}
	if g.calls = append(g.calls, c); len(g.calls) == 1 || due.Before(g.due) {
		g.due = due
		select {
		case g.added <- struct{}{}:
		default:
		}
	}
	return true
}

// grace is how long carrying out may go on after the group was told to stop.
const grace = 10 * time.Second

// Run carries calls out until ctx ends, then what has been accepted by then, and returns.
func (g *Group[In, Out]) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	if g.options.Wait > 0 {
		go g.refuseLate(work)
	}
	for {
		last := ctx.Err() != nil
		calls, linger := g.gather(last)
		switch {
		case len(calls) > 0:
			g.carryOut(work, calls)
		case last:
			return nil
		default:
			var over <-chan time.Time
			if linger > 0 {
				over = time.After(linger)
			}
			select {
			case <-g.added:
			case <-over:
			case <-ctx.Done():
			}
		}
	}
}

// refuseLate answers the calls that have waited too long for the group that is being carried out, until ctx ends.
func (g *Group[In, Out]) refuseLate(ctx context.Context) {
	for ctx.Err() == nil {
		g.mu.Lock()
		next := g.options.Wait // nobody who comes later is late before that
		for len(g.calls) > 0 {
			if next = time.Until(g.calls[0].came.Add(g.options.Wait)); next > 0 {
				break
			}
			c := g.take(1)[0]
			c.err = ErrBusy
			close(c.done)
		}
		g.mu.Unlock()
		select {
		case <-time.After(next):
		case <-ctx.Done():
		}
	}
}

// gather takes the calls that are carried out next, or says for how long they linger. last: they do not, and if there are none,
// none are accepted any more.
func (g *Group[In, Out]) gather(last bool) (calls []*call[In, Out], linger time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.calls) > 0 && !last {
		if linger := time.Until(g.due); linger > 0 {
			return nil, linger
		}
	}
	n, weight := 0, 0
	for n < len(g.calls) && (n == 0 || weight+g.calls[n].weight <= g.options.Limit) {
		weight += g.calls[n].weight
		n++
	}
	g.stopped = last && n == 0
	return g.take(n), 0
}

// take takes the first n calls.
func (g *Group[In, Out]) take(n int) []*call[In, Out] {
	calls := g.calls[:n:n]
	if g.calls = g.calls[n:]; len(g.calls) == 0 {
		g.calls = nil
	}
	return calls
}

func (g *Group[In, Out]) carryOut(ctx context.Context, calls []*call[In, Out]) {
	items := calls[0].items
	if len(calls) > 1 {
		n := 0
		for _, c := range calls {
			n += len(c.items)
		}
		items = make([]In, 0, n)
		for _, c := range calls {
			items = append(items, c.items...)
		}
	}
	out, err := g.options.Do(ctx, items)
	if err != nil && len(calls) > 1 && g.options.Split(err) {
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
