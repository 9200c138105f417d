package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// dedupe takes the duplicates out of b, and locks the tasks of other batches on which the rest depends.
func (t *tx) dedupe(ctx context.Context, b *task.Batch) (*task.Batch, map[task.ID]task.State, error) {
	d := store.NewDedupe(b)
	if d == nil {
		return b, nil, nil
	}
	if err := t.findDuplicates(ctx, d); err != nil {
		return nil, nil, err
	}
	left, err := d.Decide()
	if err != nil || len(left.Parents) == 0 {
		return left.Batch, nil, err
	}
	parents := map[task.ID]task.State{}
	t.lockStates(left.Parents, func(s task.State) { parents[s.ID] = s })
	t.clock()
	return left.Batch, parents, t.flush(ctx)
}

func (t *tx) findDuplicates(ctx context.Context, d *store.Dedupe) error {
	ids := d.ShapeIDs()
	t.rows("lock_lookups", []any{bigints(ids)}, ignore)
	t.insertShapes(d.Shapes)
	known := map[task.ShapeID]bool{}
	t.rows("counted_shapes", []any{bigints(ids)}, func(rows pgx.Rows) error {
		var id task.ShapeID
		err := rows.Scan((*int64)(&id))
		known[id] = true
		return err
	})
	t.rows("find_duplicates", []any{bigints(d.Gates), d.Kinds(nil)}, func(rows pgx.Rows) error {
		var gate task.GateID
		id, status, kind, metadata, err := candidate(rows, (*int64)(&gate))
		if status == 0 {
			d.FoundAt(gate, id)
		} else {
			d.Found(id, status, kind, metadata)
		}
		return err
	})
	if err := t.flush(ctx); err != nil {
		return err
	}
	unknown := d.Kinds(known)
	if len(unknown) == 0 {
		return nil
	}
	t.rows("of_kinds", []any{unknown}, func(rows pgx.Rows) error {
		id, status, kind, metadata, err := candidate(rows)
		d.Found(id, status, kind, metadata)
		return err
	})
	return t.flush(ctx)
}

// candidate reads the columns of more, and then those of a task that may be duplicated.
func candidate(rows pgx.Rows, more ...any) (id task.ID, status task.Status, kind string, metadata []byte, err error) {
	err = rows.Scan(append(more, (*[16]byte)(&id), (*int16)(&status), &kind, &metadata)...)
	return id, status, kind, metadata, err
}
