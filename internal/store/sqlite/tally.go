package sqlite

import (
	"database/sql/driver"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// walk goes on with the walks of kinds for tallied shapes that are new.
func (t *tx) walk(tick *store.Tick) {
	walks := tick.Walks()
	if len(walks) == 0 {
		return
	}
	found := make([][]task.State, len(walks))
	for i, w := range walks {
		t.rows("walk_kind", func(r *row) error {
			s := task.State{ID: r.id(), Status: task.Status(r.int()), ClaimedAt: r.time(), Kind: w.Kind}
			found[i] = append(found[i], s)
			return nil
		}, w.Kind, w.After[:], int64(w.Limit))
	}
	if t.err == nil {
		tick.Walked(walks, found)
	}
}

// tallies reads tasks that are tallied, and what they add so far.
func (t *tx) tallies(ids []task.ID) *store.Unfolded {
	u := &store.Unfolded{}
	t.find("tallied_tasks", ids, talliedTasks(u))
	t.find("tallies", ids, storedTallies(u))
	return u
}

// unfolded reads the same for tasks of kinds that have changed since; without kinds, nothing.
func (t *tx) unfolded(kinds []string) *store.Unfolded {
	u := &store.Unfolded{}
	if len(kinds) > 0 {
		t.rows("unfolded_tasks", talliedTasks(u), int64(store.MaxUnfolded), array(kinds))
		t.rows("unfolded_tallies", storedTallies(u), int64(store.MaxUnfolded))
	}
	return u
}

func talliedTasks(u *store.Unfolded) func(*row) error {
	return func(r *row) error {
		u.Tasks = append(u.Tasks, store.TalliedTask{Metadata: r.raw(), ExpectedCount: r.maybe(), State: r.state()})
		return nil
	}
}

func storedTallies(u *store.Unfolded) func(*row) error {
	return func(r *row) error {
		s := store.StoredTally{Task: r.id(), N: r.int()}
		var err error
		s.Gate, err = r.gate()
		u.Stored = append(u.Stored, s)
		return err
	}
}

func (t *tx) writeTallies(tick *store.Tick) {
	for _, to := range tick.WalkedTo {
		t.exec("set_walked", int64(to.Shape), to.After[:])
	}
	t.put("upsert_tallies", rowsOf(tick.SetTallies, func(y *store.TallyRow, to []driver.Value) []driver.Value {
		return append(to, y.Task[:], int64(y.Gate), int64(y.N))
	}))
	t.put("delete_tallies", rowsOf(tick.DropTallies, func(y *store.TallyKey, to []driver.Value) []driver.Value {
		return append(to, y.Task[:], int64(y.Gate), nil)
	}))
}
