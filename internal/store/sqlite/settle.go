package sqlite

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Settle is as in store.Store.
func (s *Store) Settle(ctx context.Context, outcomes []task.Outcome) (settled store.Settled, err error) {
	err = s.write(ctx, func(t *tx) error {
		_, settled = t.settle(outcomes)
		return t.err
	})
	if err != nil {
		return store.Settled{}, fmt.Errorf("settle outcomes: %w", err)
	}
	return settled, nil
}

// SettleAndPump is as in store.Store.
func (s *Store) SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (settled store.Settled, pumped *store.Pumped, err error) {
	err = s.write(ctx, func(t *tx) error {
		var changes store.Changes
		changes, settled = t.settle(outcomes)
		if t.err != nil || !settled.Pump || !changes.LetStart(s.shapes.Version > 0) {
			return t.err
		}
		p, ok := turn()
		if !ok {
			return nil
		}
		pumped = &store.Pumped{}
		*pumped, err = t.tick(p)
		return err
	})
	switch {
	case err == nil:
		return settled, pumped, nil
	case pumped == nil:
		return store.Settled{}, nil, fmt.Errorf("settle outcomes: %w", err)
	}
	err = fmt.Errorf("%w: %w", store.ErrUndone, err)
	s.log.Warn("outcomes are settled without a tick", "error", err)
	return store.Settled{}, nil, err
}

func (t *tx) settle(outcomes []task.Outcome) (changes store.Changes, settled store.Settled) {
	ids := store.IDs(outcomes)
	rows := make(map[task.ID]*store.Row, len(ids))
	t.lockStates(ids, func(state task.State) { rows[state.ID] = &store.Row{State: state} })
	t.find("dead_ends", store.DeadEndsOf(outcomes), func(r *row) error {
		rows[r.id()].DeadEnd = true
		return nil
	})
	t.find("gone", store.MaybeGone(outcomes, rows), func(r *row) error {
		delete(rows, r.id())
		return nil
	})
	t.facts(store.FactsFor(outcomes, rows), func(k *task.Task) { rows[k.ID].Task = k })
	tallied := t.talliedOf(rows)
	if t.err != nil {
		return changes, settled
	}
	changes, settled = store.PlanSettle(outcomes, rows, tallied, t.now)
	t.write(&changes)
	return changes, settled
}

// talliedOf reads which of the kinds of tasks are tallied.
func (t *tx) talliedOf(rows map[task.ID]*store.Row) store.Tallied {
	any := false
	t.rows("any_tallied", func(r *row) error {
		any = r.bool()
		return nil
	})
	if !any {
		return nil
	}
	kinds := map[string]bool{}
	for _, r := range rows {
		kinds[r.Kind] = true
	}
	return t.tallied(slices.Collect(maps.Keys(kinds)))
}

// tallied reads which of kinds are tallied.
func (t *tx) tallied(kinds []string) store.Tallied {
	tallied := store.Tallied{}
	t.get("tallied_kinds", givenTexts(kinds), func(r *row) error {
		tallied[r.text()] = r.bool()
		return nil
	})
	return tallied
}

// lockStates reads state rows.
func (t *tx) lockStates(ids []task.ID, each func(task.State)) {
	t.find("lock_states", ids, func(r *row) error {
		each(r.state())
		return nil
	})
}

// facts reads tasks whole.
func (t *tx) facts(ids []task.ID, each func(*task.Task)) {
	t.find("facts", ids, func(r *row) error {
		k, err := r.task()
		if err == nil {
			each(k)
		}
		return err
	})
}
