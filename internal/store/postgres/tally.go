package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// walk goes on with the walks of kinds for tallied shapes that are new.
func (t *tx) walk(ctx context.Context, tick *store.Tick) error {
	walks := tick.Walks()
	if len(walks) == 0 {
		return nil
	}
	n := len(walks)
	kinds, after := make([]string, n), make(uuids, n)
	for i, w := range walks {
		kinds[i], after[i] = w.Kind, w.After
	}
	found := make([][]task.State, n)
	t.rows("walk_kinds", []any{kinds, after, walks[0].Limit}, func(rows pgx.Rows) error {
		var s task.State
		var i int
		var claimed pgtype.Timestamptz
		err := rows.Scan(&i, (*[16]byte)(&s.ID), (*int16)(&s.Status), &claimed)
		s.Kind, s.ClaimedAt = walks[i-1].Kind, timeOf(claimed)
		found[i-1] = append(found[i-1], s)
		return err
	})
	if err := t.flush(ctx); err != nil {
		return err
	}
	tick.Walked(walks, found)
	return nil
}

// tallies queues the reading of tasks that are tallied, and of what they add so far.
func (t *tx) tallies(ids []task.ID, u *store.Unfolded) {
	t.rows("tallied_tasks", []any{uuids(ids)}, talliedTasks(u))
	t.rows("tallies", []any{uuids(ids)}, storedTallies(u))
}

// unfolded queues the same for tasks of kinds that have changed since; without kinds, nothing.
func (t *tx) unfolded(kinds []string, u *store.Unfolded) {
	if len(kinds) > 0 {
		t.rows("unfolded_tasks", []any{store.MaxUnfolded, kinds}, talliedTasks(u))
		t.rows("unfolded_tallies", []any{store.MaxUnfolded}, storedTallies(u))
	}
}

func talliedTasks(u *store.Unfolded) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var k store.TalliedTask
		var scan stateScan
		err := rows.Scan(append([]any{&k.Metadata, &k.ExpectedCount}, scan.into()...)...)
		k.State = scan.get()
		u.Tasks = append(u.Tasks, k)
		return err
	}
}

func storedTallies(u *store.Unfolded) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var s store.StoredTally
		var g gateScan
		err := rows.Scan(append([]any{(*[16]byte)(&s.Task), &s.N}, g.into()...)...)
		s.Gate = g.get()
		u.Stored = append(u.Stored, s)
		return err
	}
}

func (t *tx) writeTallies(tick *store.Tick) {
	var fresh []int64
	for i := range tick.NewTallies {
		if n := &tick.NewTallies[i]; !n.Marked {
			fresh = append(fresh, int64(n.ID))
		}
	}
	if len(fresh) > 0 {
		t.exec("mark_horizons", fresh)
	}
	if n := len(tick.WalkedTo); n > 0 {
		shapes, after := make([]int64, n), make(uuids, n)
		for i, to := range tick.WalkedTo {
			shapes[i], after[i] = int64(to.Shape), to.After
		}
		t.exec("set_walked", shapes, after)
	}
	if n := len(tick.SetTallies); n > 0 {
		ids, gates, ns := make(uuids, n), make([]int64, n), make([]int64, n)
		for i, y := range tick.SetTallies {
			ids[i], gates[i], ns[i] = y.Task, int64(y.Gate), int64(y.N)
		}
		t.exec("upsert_tallies", ids, gates, ns)
	}
	if n := len(tick.DropTallies); n > 0 {
		ids, gates := make(uuids, n), make([]int64, n)
		for i, y := range tick.DropTallies {
			ids[i], gates[i] = y.Task, int64(y.Gate)
		}
		t.exec("delete_tallies", ids, gates)
	}
}
