package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Settle is as in store.Store.
func (s *Store) Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error) {
	settled, _, err := s.settle(ctx, outcomes, nil)
	return settled, err
}

// SettleAndPump is as in store.Store.
func (s *Store) SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (store.Settled, *store.Pumped, error) {
	settled, pumped, err := s.settle(ctx, outcomes, turn)
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) { // it may be the tick that fails
		settled, err = s.Settle(ctx, outcomes)
		return settled, nil, err
	}
	return settled, pumped, err
}

// settle lets a tick follow if turn, which may be nil, allows it; not again when that transaction was undone.
func (s *Store) settle(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (settled store.Settled, pumped *store.Pumped, err error) {
	var k *ticking
	released := 0
	err = s.run(ctx, func(ctx context.Context, t *tx) error {
		if k != nil {
			s.pumping.Unlock()
			k, turn = nil, nil
		}
		changes, err := t.settle(ctx, outcomes, &settled)
		if err != nil {
			return err
		}
		released = len(changes.Release)
		if t.batch.Len() == 0 { // what the answers tell was durable before it could be seen
			return errNothing
		}
		if settled.Pump && turn != nil {
			if k = s.follow(changes, turn); k != nil {
				return t.tick(ctx, k)
			}
		}
		return nil
	})
	if k != nil {
		defer s.pumping.Unlock()
	}
	if err != nil {
		return store.Settled{}, nil, fmt.Errorf("settle outcomes: %w", err)
	}
	s.deletions.add(released + 1) // and a mark
	if k == nil || k.Result.Busy {
		return settled, nil, nil
	}
	s.ticked(k)
	return settled, &k.Result, nil
}

// settle loads what outcomes are about, and queues what follows from them.
func (t *tx) settle(ctx context.Context, outcomes []task.Outcome, settled *store.Settled) (*store.Changes, error) {
	ids := store.IDs(outcomes)
	rows := make(map[task.ID]*store.Row, len(ids))
	t.lockStates(ids, func(state task.State) { rows[state.ID] = &store.Row{State: state} })
	tallied := store.Tallied{}
	t.tallied("tallied_kinds_of", uuids(ids), tallied)
	t.clock()
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	if ids := store.DeadEndsOf(outcomes); len(ids) > 0 { // a statement of its own: it must see what the locks waited for
		still, err := t.ids(ctx, "dead_ends", uuids(ids))
		if err != nil {
			return nil, err
		}
		for _, id := range still {
			rows[id].DeadEnd = true
		}
	}
	if ids := store.MaybeGone(outcomes, rows); len(ids) > 0 {
		gone, err := t.ids(ctx, "gone", uuids(ids))
		if err != nil {
			return nil, err
		}
		for _, id := range gone {
			delete(rows, id)
		}
	}
	if ids := store.FactsFor(outcomes, rows); len(ids) > 0 {
		t.facts(ids, func(k *task.Task) { rows[k.ID].Task = k })
		if err := t.flush(ctx); err != nil {
			return nil, err
		}
	}
	var changes store.Changes
	changes, *settled = store.PlanSettle(outcomes, rows, tallied, t.now)
	t.write(&changes)
	return &changes, nil
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
