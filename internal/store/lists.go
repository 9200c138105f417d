package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrListsBusy: as many lists are being read as may be, and none of them came to an end in time.
var ErrListsBusy = errors.New("too many lists are being read")

// GraphWait is how long [Store.DAG] waits for a place among the lists: as long as a list of the API waits and reads.
const GraphWait = 10 * time.Second

// Lists bounds how many lists are read at once. Safe for concurrent use.
type Lists chan struct{}

// NewLists gives lists half of the connections that read: each may take seconds, and however many there are, others read and
// create beside them.
func NewLists(connections int) Lists { return make(Lists, max(1, connections/2)) }

// Do calls read when there is a place for it, or answers [ErrListsBusy] when ctx ended before.
func (l Lists) Do(ctx context.Context, read func() error) error {
	select {
	case l <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrListsBusy, context.Cause(ctx))
	}
	defer func() { <-l }()
	return read()
}

// Graph is Do for a graph, which may be large and has no pages: its wait is bounded by [GraphWait], its reading by ctx alone.
func (l Lists) Graph(ctx context.Context, read func(ctx context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, GraphWait)
	defer cancel()
	return l.Do(waiting, func() error { return read(ctx) })
}
