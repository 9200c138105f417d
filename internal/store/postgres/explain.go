package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Explain is as in store.Store.
func (s *Store) Explain(ctx context.Context, id task.ID) (*store.Situation, error) {
	var situation *store.Situation
	err := s.snapshot(ctx, func(ctx context.Context, t *tx) error {
		t.pinPlans()
		var waits waits
		t.itself(id, &situation)
		t.waits(id, &waits)
		if err := t.flush(ctx); err != nil {
			return err
		}
		situation.Now, situation.Unmet, situation.Parked = t.now, waits.unmet, waits.parked
		situation.Ahead, situation.Orphaned = waits.ahead, waits.orphaned
		if len(situation.Gates) == 0 {
			return nil
		}
		t.gatesOf(situation)
		var unfolded store.Unfolded
		t.unfolded(situation.Tallied(), &unfolded)
		if err := t.flush(ctx); err != nil {
			return err
		}
		situation.CountUnfolded(&unfolded)
		t.holdersOf(situation)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("explain task: %w", err)
	}
	return situation, nil
}

// pinPlans keeps the planner from walking tables, for the transaction.
func (t *tx) pinPlans() {
	t.rows("pin_plans", nil, ignore)
}

// ignore is for answers that say nothing.
func ignore(pgx.Rows) error { return nil }

// itself queues the reading of a task and the time.
func (t *tx) itself(id task.ID, into **store.Situation) {
	t.row("task", []any{id}, func(row pgx.Row) error {
		var facts factsScan
		var scan stateScan
		if err := row.Scan(append(facts.into(), scan.into()...)...); err != nil {
			return err
		}
		k, err := facts.get()
		if err != nil {
			return err
		}
		state := scan.get()
		k.Timeout = state.Timeout
		*into = store.NewSituation(k, &state)
		return nil
	})
	t.clock()
}

// waits is what a task waits for, besides its gates.
type waits struct {
	unmet    []store.UnmetParent
	parked   *task.GateID
	ahead    int
	orphaned bool
}

func (t *tx) waits(id task.ID, w *waits) {
	t.rows("unmet_parents", []any{id, store.MaxUnmet}, func(rows pgx.Rows) error {
		var p store.UnmetParent
		var status int16
		err := rows.Scan((*[16]byte)(&p.ID), &p.Name, &status, &p.RequiresSuccess)
		p.Status = task.Status(status)
		w.unmet = append(w.unmet, p)
		return err
	})
	t.rows("parked_place", []any{id, store.MaxAhead + 1}, func(rows pgx.Rows) error {
		w.parked = new(task.GateID)
		return rows.Scan((*int64)(w.parked), &w.ahead)
	})
	t.rows("ready_place", []any{id, store.MaxAhead + 1}, func(rows pgx.Rows) error { return rows.Scan(&w.ahead) })
	t.rows("orphaned", []any{id, t.s.skew()}, func(rows pgx.Rows) error { return rows.Scan(&w.orphaned) })
}

// gatesOf queues the reading of the gates of s.
func (t *tx) gatesOf(s *store.Situation) {
	t.rows("counted_shapes", []any{bigints(s.ShapeIDs())}, func(rows pgx.Rows) error {
		var id task.ShapeID
		err := rows.Scan((*int64)(&id))
		s.CountShape(id)
		return err
	})
	ids := bigints(s.GateIDs())
	var scan gateScan
	t.rows("gates", []any{ids}, func(rows pgx.Rows) error {
		err := rows.Scan(scan.into()...)
		s.CountGate(scan.get())
		return err
	})
	t.deltas(ids, s.CountDelta)
}

func (t *tx) deltas(gates []int64, each func(id task.GateID, delta int)) {
	t.rows("pending_deltas", []any{gates}, func(rows pgx.Rows) error {
		var id task.GateID
		var delta int
		err := rows.Scan((*int64)(&id), &delta)
		each(id, delta)
		return err
	})
}

func (t *tx) holdersOf(s *store.Situation) {
	holder := func(rows pgx.Rows) error {
		var gate task.GateID
		var holder task.ID
		err := rows.Scan((*int64)(&gate), (*[16]byte)(&holder))
		s.AddHolder(gate, holder)
		return err
	}
	if ids, n := s.Wanted(true); len(ids) > 0 {
		t.rows("tally_holders", []any{bigints(ids), n}, holder)
	}
	if ids, n := s.Wanted(false); len(ids) > 0 {
		t.rows("let_walk", nil, ignore)
		t.rows("gate_holders", []any{bigints(ids), n}, holder)
	}
}

// Limits is as in store.Store.
func (s *Store) Limits(ctx context.Context, f store.LimitFilter) (*store.Limits, error) {
	var limits *store.Limits
	err := s.snapshot(ctx, func(ctx context.Context, t *tx) error {
		t.pinPlans()
		var found []store.LimitSituation
		var scan gateScan
		sql, args := t.s.limitsQuery(&f)
		t.query("limits", sql, args, func(rows pgx.Rows) error {
			var g store.LimitSituation
			var shape shapeScan
			err := rows.Scan(append(append(scan.into(), shape.into()[1:]...), &g.Waiting)...)
			if err != nil {
				return err
			}
			g.GateRow = scan.get()
			shape.shape.ID = g.GateRow.Shape
			g.Shape, err = shape.get()
			found = append(found, g)
			return err
		})
		if err := t.flush(ctx); err != nil {
			return err
		}
		limits = store.NewLimits(found, f.Limit)
		ids := make([]int64, len(limits.Gates))
		for i := range limits.Gates {
			ids[i] = int64(limits.Gates[i].ID)
		}
		deltas := map[task.GateID]int{}
		t.deltas(ids, func(id task.GateID, delta int) { deltas[id] = delta })
		var unfolded store.Unfolded
		t.unfolded(limits.Tallied(), &unfolded)
		if err := t.flush(ctx); err != nil {
			return err
		}
		limits.Finish(deltas, &unfolded)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list limits: %w", err)
	}
	return limits, nil
}

func (s *Store) limitsQuery(f *store.LimitFilter) (sql string, args []any) {
	page, args := "limits_by_id", []any{int64(f.After), f.Limit + 1, store.MaxAhead + 1}
	if f.Kind != "" || f.KindPrefix != "" {
		page, args = "limits_by_kind", append(args, f.Kind, f.KindPrefix)
	}
	return fmt.Sprintf(s.queries.Get("limits"), s.queries.Get(page)), args
}
