// Package settle takes outcomes in: what workers report, what clients ask for, what became of on_start, what timed out.
// Concurrent callers share a transaction, and each gets its own answer once it is durable.
//
// Invariants: an answer is given only after the commit; whoever has work because of it (the pump, the outbox) is told
// after the commit, in this process at once, and does it: others may see it a moment later. What few outcomes let start is
// claimed in their own transaction while the pump is idle, and is started before they are answered.
package settle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"taskrunner/internal/group"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// maxGroup bounds the outcomes of one transaction, so that a crowd is not answered all at once and late. It is as many as one
// request may bring: arrays share transactions, too, and so the rows of tasks that are in more than one of them.
const maxGroup = 10_000

// maxFollowed is how many outcomes a tick of the pump follows in their transaction. What that saves is the cost of a transaction,
// once; what it costs is the time in which the next outcomes could be settled beside the tick.
const maxFollowed = 64

// maxWait is how long an outcome waits for the one before: while the database is away that may be for as long as it
// takes, since the fate of a commit has to be known.
const maxWait = 10 * time.Second

// linger is how long the answer to an on_start waits for a report to share its transaction with. When the process dies meanwhile,
// the on_start is sent again, as one whose answer had not come yet.
const linger = 10 * time.Millisecond

// Store is what the settler needs of a store.
type Store interface {
	Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error)
	SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (store.Settled, *store.Pumped, error)
	ToStop(ctx context.Context, batch task.ID) (*store.ToStop, error)
	ToEdit(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (store.ToEdit, error)
}

// Options of [New]. All but Follow are needed.
type Options struct {
	Store Store
	// WakePump and WakeOutbox tell them that there is work. They must not block.
	WakePump, WakeOutbox func()
	// Follow is [taskrunner/internal/schedule.Pump.Follow]. nil: no tick follows.
	Follow func(do func(turn store.Turn) (*store.Pumped, error)) error
}

// Settler settles outcomes. Safe for concurrent use.
type Settler struct {
	options Options
	group   *group.Group[task.Outcome, store.Result]
	// ended are the tasks that the last transaction ended. It belongs to Run.
	ended map[task.ID]task.State
}

// New makes a settler; [Settler.Run] must run for it to answer.
func New(o Options) *Settler {
	s := &Settler{options: o}
	s.group = group.New(group.Options[task.Outcome, store.Result]{
		Do: s.commit, Split: func(err error) bool { return !errors.Is(err, store.ErrUnavailable) }, Limit: maxGroup, Linger: lingers, Wait: maxWait,
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

// commit settles outcomes in one transaction, but for those that are overtaken: a quick worker's report is often settled just
// before the answer to on_start, which then changes nothing.
func (s *Settler) commit(ctx context.Context, outcomes []task.Outcome) ([]store.Result, error) {
	if !slices.ContainsFunc(outcomes, s.overtaken) {
		return s.apply(ctx, outcomes)
	}
	results := make([]store.Result, len(outcomes))
	inTime, places := make([]task.Outcome, 0, len(outcomes)), make([]int, 0, len(outcomes))
	for i, o := range outcomes {
		if s.overtaken(o) {
			state := s.ended[o.ID]
			results[i] = store.Result{From: state.Status, State: state}
		} else {
			inTime, places = append(inTime, o), append(places, i)
		}
	}
	if len(inTime) == 0 {
		return results, nil
	}
	applied, err := s.apply(ctx, inTime)
	for i, r := range applied {
		results[places[i]] = r
	}
	return results, err
}

// lingers: nobody waits for what comes of an on_start that was answered, and a quick worker's report comes just behind. Not if it
// says what is to be called on cancel, which nobody else knows.
func lingers(outcomes []task.Outcome) time.Duration {
	if slices.ContainsFunc(outcomes, func(o task.Outcome) bool { return o.Kind != task.Started || len(o.OnCancel) > 0 }) {
		return 0
	}
	return linger
}

// overtaken: it is the answer to an on_start whose task the last transaction has ended, and an end is final. Not if it says what is to
// be called on cancel: the task may have been canceled.
func (s *Settler) overtaken(o task.Outcome) bool {
	if o.Kind != task.Started || len(o.OnCancel) > 0 {
		return false
	}
	_, ended := s.ended[o.ID]
	return ended
}

func (s *Settler) apply(ctx context.Context, outcomes []task.Outcome) ([]store.Result, error) {
	settled, pumped, err := s.settle(ctx, outcomes)
	if err != nil {
		return nil, err
	}
	s.ended = map[task.ID]task.State{}
	for _, r := range settled.Results {
		if r.State.Status.Terminal() && !r.From.Terminal() {
			s.ended[r.State.ID] = r.State
		}
	}
	if settled.Pump && !pumped {
		s.options.WakePump()
	}
	if settled.Outbox {
		s.options.WakeOutbox()
	}
	return settled.Results, nil
}

// settle settles outcomes. pumped: a tick has followed them.
func (s *Settler) settle(ctx context.Context, outcomes []task.Outcome) (settled store.Settled, pumped bool, err error) {
	if s.options.Follow != nil && len(outcomes) <= maxFollowed {
		err = s.options.Follow(func(turn store.Turn) (*store.Pumped, error) {
			var tick *store.Pumped
			settled, tick, err = s.options.Store.SettleAndPump(ctx, outcomes, turn)
			pumped = tick != nil
			return tick, err
		})
		if !errors.Is(err, store.ErrUndone) {
			return settled, pumped, err
		}
	}
	settled, err = s.options.Store.Settle(ctx, outcomes)
	return settled, false, err
}
