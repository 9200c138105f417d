package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// dedupe takes the duplicates out of creates, and locks the tasks of other batches on which the rest depends.
func (t *tx) dedupe(ctx context.Context, creates []store.Create) ([]store.Create, map[task.ID]task.State, error) {
	for {
		d := store.NewDedupe(creates)
		if d == nil {
			return creates, nil, nil
		}
		if err := t.findDuplicates(ctx, d); err != nil {
			return nil, nil, err
		}
		left, err := d.Decide()
		if err != nil || len(left.Parents) == 0 {
			return left.Creates, nil, err
		}
		parents := map[task.ID]task.State{}
		t.lockStates(left.Parents, func(s task.State) { parents[s.ID] = s })
		t.clock()
		if err := t.flush(ctx); err != nil || len(parents) == len(left.Parents) {
			return left.Creates, parents, err
		}
		// Retention has deleted some that were found.
	}
}

// registerLookups makes the shapes known by which duplicates are looked for, so that the pump learns them, whatever
// becomes of the create.
func (s *Store) registerLookups(ctx context.Context, creates []store.Create) error {
	d := store.NewDedupe(creates)
	if d == nil {
		return nil
	}
	fresh := slices.DeleteFunc(slices.Clone(d.Shapes), func(shape task.Shape) bool {
		_, registered := s.lookups.Load(shape.ID)
		return registered
	})
	if len(fresh) == 0 {
		return nil
	}
	err := s.runOn(ctx, &s.pool, func(_ context.Context, t *tx) error {
		t.insertShapes(fresh)
		return nil
	})
	for _, shape := range fresh {
		if err == nil {
			s.lookups.Store(shape.ID, true)
		}
	}
	return err
}

func (t *tx) findDuplicates(ctx context.Context, d *store.Dedupe) error {
	ids := d.ShapeIDs()
	t.rows("lock_lookups", []any{bigints(ids)}, ignore)
	known := map[task.ShapeID]bool{}
	t.rows("counted_shapes", []any{bigints(ids)}, func(rows pgx.Rows) error {
		var id task.ShapeID
		err := rows.Scan((*int64)(&id))
		known[id] = true
		return err
	})
	statuses := make([]int16, 0, len(task.Statuses()))
	for _, status := range d.Statuses() {
		statuses = append(statuses, int16(status))
	}
	found := func(rows pgx.Rows) error {
		var id task.ID
		var status task.Status
		var kind string
		var metadata []byte
		err := rows.Scan((*[16]byte)(&id), (*int16)(&status), &kind, &metadata)
		d.Found(id, status, kind, metadata)
		return err
	}
	t.rows("find_duplicates", []any{bigints(d.Gates), d.Kinds(nil), statuses}, found)
	if err := t.flush(ctx); err != nil {
		return err
	}
	unknown := d.Kinds(known)
	if len(unknown) == 0 {
		return nil
	}
	for _, id := range ids {
		if !known[id] {
			t.s.lookups.Delete(id) // retention may have deleted it
		}
	}
	t.rows("of_kinds", []any{unknown, statuses}, found)
	return t.flush(ctx)
}
