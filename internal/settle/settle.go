// Package settle takes outcomes in: what workers report, what clients ask for, what became of on_start, what timed out.
// Concurrent callers share a transaction, and each gets its own answer once it is durable.
//
// Invariants: an answer is given only after the commit; whoever has work because of it (the pump, the outbox) is told
// after the commit, in this process at once.
package settle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"taskrunner/internal/group"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// maxGroup bounds the outcomes of one transaction, so that a crowd is not answered all at once and late. It is as many as one
// request may bring: arrays share transactions, too, and so the rows of tasks that are in more than one of them.
const maxGroup = 10_000

// maxWait is how long an outcome waits for the one before: while the database is away that may be for as long as it
// takes, since the fate of a commit has to be known.
const maxWait = 10 * time.Second

// Store is what the settler needs of a store.
type Store interface {
	Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error)
	ToStop(ctx context.Context, batch task.ID) (*store.ToStop, error)
	ToEdit(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (store.ToEdit, error)
}

// Options of [New]. All are needed.
type Options struct {
	Store Store
	// WakePump and WakeOutbox tell them that there is work. They must not block.
	WakePump, WakeOutbox func()
}

// Settler settles outcomes. Safe for concurrent use.
type Settler struct {
	options Options
	group   *group.Group[task.Outcome, store.Result]
}

// New makes a settler; [Settler.Run] must run for it to answer.
func New(o Options) *Settler {
	s := &Settler{options: o}
	s.group = group.New(group.Options[task.Outcome, store.Result]{
		Do: s.commit, Split: func(err error) bool { return !errors.Is(err, store.ErrUnavailable) }, Limit: maxGroup, Wait: maxWait,
	})
	return s
}

// Settle applies outcomes and answers each in its place, durably. The error says that nothing was applied, or, when
// ctx ended first, that it is not known.
func (s *Settler) Settle(ctx context.Context, outcomes ...task.Outcome) ([]store.Result, error) {
	results, err := s.group.Do(ctx, outcomes...)
	if errors.Is(err, group.ErrBusy) {
		err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return results, err
}

// Run works until ctx ends and everything accepted is settled.
func (s *Settler) Run(ctx context.Context) error { return s.group.Run(ctx) }

func (s *Settler) commit(ctx context.Context, outcomes []task.Outcome) ([]store.Result, error) {
	settled, err := s.options.Store.Settle(ctx, outcomes)
	if err != nil {
		return nil, err
	}
	if settled.Pump {
		s.options.WakePump()
	}
	if settled.Outbox {
		s.options.WakeOutbox()
	}
	return settled.Results, nil
}
