package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Explain is as in store.Store.
func (s *Store) Explain(ctx context.Context, id task.ID) (*store.Situation, error) {
	var situation *store.Situation
	err := s.read(ctx, func(t *tx) error {
		t.rows("task", func(r *row) error {
			k, err := r.task()
			if err != nil {
				return err
			}
			state := r.state()
			k.Timeout = state.Timeout
			situation = store.NewSituation(k, &state)
			return nil
		}, id[:])
		if t.err == nil && situation == nil {
			return store.ErrNotFound
		}
		t.waits(id, situation)
		if t.err == nil && len(situation.Gates) > 0 {
			t.gatesOf(situation)
			situation.CountUnfolded(t.unfolded(situation.Tallied()))
			t.holdersOf(situation)
		}
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("explain task: %w", err)
	}
	return situation, nil
}

// waits reads what a task waits for, besides its gates.
func (t *tx) waits(id task.ID, s *store.Situation) {
	if t.err != nil {
		return
	}
	s.Now = t.s.now()
	t.rows("unmet_parents", func(r *row) error {
		s.Unmet = append(s.Unmet, store.UnmetParent{
			ID: r.id(), Name: r.text(), Status: task.Status(r.int()), RequiresSuccess: r.bool(),
		})
		return nil
	}, id[:], int64(store.MaxUnmet))
	t.rows("parked_place", func(r *row) error {
		s.Parked = new(task.GateID(r.int64()))
		s.Ahead = r.int()
		return nil
	}, id[:], int64(store.MaxAhead+1))
	t.rows("ready_place", func(r *row) error {
		s.Ahead = r.int()
		return nil
	}, id[:], int64(store.MaxAhead+1))
	t.rows("orphaned", func(r *row) error {
		s.Orphaned = r.bool()
		return nil
	}, id[:], micros(s.Now))
}

func (t *tx) gatesOf(s *store.Situation) {
	t.rows("counted_shapes", func(r *row) error {
		s.CountShape(task.ShapeID(r.int64()))
		return nil
	}, array(s.ShapeIDs()))
	ids := s.GateIDs()
	t.rows("gates_of", func(r *row) error {
		g, err := r.gate()
		s.CountGate(g)
		return err
	}, array(ids))
	t.deltas(ids, s.CountDelta)
}

func (t *tx) deltas(gates []task.GateID, each func(id task.GateID, delta int)) {
	t.rows("pending_deltas", func(r *row) error {
		each(task.GateID(r.int64()), r.int())
		return nil
	}, array(gates))
}

func (t *tx) holdersOf(s *store.Situation) {
	ids, n := s.Wanted(true)
	for i, id := range ids {
		t.rows("tally_holders", func(r *row) error {
			s.AddHolder(id, r.id())
			return nil
		}, int64(id), int64(n[i]))
	}
	ids, n = s.Wanted(false)
	for i, id := range ids {
		t.rows("gate_holders", func(r *row) error {
			s.AddHolder(id, r.id())
			return nil
		}, strconv.FormatInt(int64(id), 10), int64(n[i]))
	}
}

// Limits is as in store.Store.
func (s *Store) Limits(ctx context.Context, f store.LimitFilter) (*store.Limits, error) {
	var limits *store.Limits
	err := s.read(ctx, func(t *tx) error {
		var found []store.LimitSituation
		sql, args := s.limitsQuery(&f)
		t.query("limits", sql, func(r *row) error {
			row, err := r.gate()
			if err != nil {
				return err
			}
			g := store.LimitSituation{GateRow: row}
			g.Shape = task.Shape{ID: row.Shape, Type: task.RuleType(r.int()), Kind: r.text(), Status: task.Status(r.int())}
			if err := json.Unmarshal(r.raw(), &g.Shape.Fields); err != nil {
				return err
			}
			g.Waiting = r.int()
			found = append(found, g)
			return nil
		}, args...)
		limits = store.NewLimits(found, f.Limit)
		ids := make([]task.GateID, len(limits.Gates))
		for i := range limits.Gates {
			ids[i] = limits.Gates[i].ID
		}
		deltas := map[task.GateID]int{}
		t.deltas(ids, func(id task.GateID, delta int) { deltas[id] = delta })
		limits.Finish(deltas, t.unfolded(limits.Tallied()))
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("list limits: %w", err)
	}
	return limits, nil
}

func (s *Store) limitsQuery(f *store.LimitFilter) (sql string, args []driver.Value) {
	page, args := "limits_by_id", []driver.Value{int64(f.After), int64(f.Limit + 1), int64(store.MaxAhead + 1)}
	if f.Kind != "" || f.KindPrefix != "" {
		page, args = "limits_by_kind", append(args, f.Kind, f.KindPrefix)
	}
	return fmt.Sprintf(s.queries.Get("limits"), s.queries.Get(page)), args
}
