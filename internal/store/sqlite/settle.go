package sqlite

import (
	"context"
	"fmt"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Settle is as in store.Store.
func (s *Store) Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error) {
	var settled store.Settled
	err := s.write(ctx, func(t *tx) error {
		rows := make(map[task.ID]*store.Row, len(outcomes))
		t.lockStates(store.IDs(outcomes), func(state task.State) { rows[state.ID] = &store.Row{State: state} })
		t.find("dead_ends", store.DeadEndsOf(outcomes), func(r *row) error {
			rows[r.id()].DeadEnd = true
			return nil
		})
		t.facts(store.FactsFor(outcomes, rows), func(k *task.Task) { rows[k.ID].Task = k })
		tallied := t.talliedKinds()
		if t.err != nil {
			return t.err
		}
		var changes store.Changes
		changes, settled = store.PlanSettle(outcomes, rows, tallied, t.now)
		t.write(&changes)
		return t.err
	})
	if err != nil {
		return store.Settled{}, fmt.Errorf("settle outcomes: %w", err)
	}
	return settled, nil
}

func (t *tx) talliedKinds() []string {
	var kinds []string
	t.rows("tallied_kinds", func(r *row) error {
		kinds = append(kinds, r.text())
		return nil
	})
	return kinds
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
