package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Settle is as in store.Store.
func (s *Store) Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error) {
	var settled store.Settled
	released := 0
	err := s.run(ctx, func(ctx context.Context, t *tx) error {
		changes, err := t.settle(ctx, outcomes, &settled)
		released = len(changes.Release)
		return err
	})
	if err != nil {
		return store.Settled{}, fmt.Errorf("settle outcomes: %w", err)
	}
	s.deletions.add(released + 1) // and a mark
	return settled, nil
}

// SettleAndPump is as in store.Store.
func (s *Store) SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (store.Settled, *store.Pumped, error) {
	var settled store.Settled
	var k *ticking
	released := 0
	err := s.try(ctx, &s.engine, func(ctx context.Context, t *tx) error {
		changes, err := t.settle(ctx, outcomes, &settled)
		released = len(changes.Release)
		if err != nil || !settled.Pump {
			return err
		}
		if k = s.follow(changes, turn); k == nil {
			return nil
		}
		return t.tick(ctx, k)
	})
	if k != nil {
		defer s.pumping.Unlock()
	}
	switch {
	case err == nil:
	case errors.Is(err, store.ErrUnavailable), k == nil && !retryable(err): // what became of it is not known, or it is the outcomes' fault
		return store.Settled{}, nil, fmt.Errorf("settle outcomes: %w", redact(err))
	default:
		level := slog.LevelWarn
		if retryable(err) {
			level = slog.LevelDebug
		}
		err = fmt.Errorf("%w: %w", store.ErrUndone, redact(err))
		s.log.Log(ctx, level, "outcomes are settled without a tick", "error", err)
		return store.Settled{}, nil, err
	}
	s.deletions.add(released + 1)
	if k == nil || k.Result.Busy {
		return settled, nil, nil
	}
	s.ticked(k)
	return settled, &k.Result, nil
}

// settle loads what outcomes are about, and queues the changes that follow from them.
func (t *tx) settle(ctx context.Context, outcomes []task.Outcome, settled *store.Settled) (changes store.Changes, err error) {
	ids := store.IDs(outcomes)
	rows := make(map[task.ID]*store.Row, len(ids))
	t.lockStates(ids, func(state task.State) { rows[state.ID] = &store.Row{State: state} })
	tallied := store.Tallied{}
	t.tallied("tallied_kinds_of", uuids(ids), tallied)
	t.clock()
	if err := t.flush(ctx); err != nil {
		return changes, err
	}
	if ids := store.DeadEndsOf(outcomes); len(ids) > 0 { // a statement of its own: it must see what the locks waited for
		still, err := t.ids(ctx, "dead_ends", uuids(ids))
		if err != nil {
			return changes, err
		}
		for _, id := range still {
			rows[id].DeadEnd = true
		}
	}
	if ids := store.MaybeGone(outcomes, rows); len(ids) > 0 {
		gone, err := t.ids(ctx, "gone", uuids(ids))
		if err != nil {
			return changes, err
		}
		for _, id := range gone {
			delete(rows, id)
		}
	}
	if ids := store.FactsFor(outcomes, rows); len(ids) > 0 {
		t.facts(ids, func(k *task.Task) { rows[k.ID].Task = k })
		if err := t.flush(ctx); err != nil {
			return changes, err
		}
	}
	changes, *settled = store.PlanSettle(outcomes, rows, tallied, t.now)
	t.write(&changes)
	if t.batch.Len() == 0 { // what the answers tell was durable before it could be seen
		err = errNothing
	}
	return changes, err
}

// tallied queues the reading of kinds that are tallied.
func (t *tx) tallied(name string, of any, into store.Tallied) {
	t.rows(name, []any{of}, func(rows pgx.Rows) error {
		var kind string
		var capacity bool
		err := rows.Scan(&kind, &capacity)
		into[kind] = capacity
		return err
	})
}

// facts queues the reading of tasks whole.
func (t *tx) facts(ids []task.ID, each func(*task.Task)) {
	t.rows("facts", []any{uuids(ids)}, func(rows pgx.Rows) error {
		var scan factsScan
		if err := rows.Scan(scan.into()...); err != nil {
			return err
		}
		k, err := scan.get()
		if err != nil {
			return err
		}
		each(k)
		return nil
	})
}
