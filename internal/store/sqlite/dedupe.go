package sqlite

import (
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// dedupe takes the duplicates out of creates, and reads the tasks of other batches on which the rest depends.
func (t *tx) dedupe(creates []store.Create) ([]store.Create, map[task.ID]task.State, error) {
	d := store.NewDedupe(creates)
	if d == nil {
		return creates, nil, nil
	}
	t.findDuplicates(d)
	if t.err != nil {
		return nil, nil, t.err
	}
	left, err := d.Decide()
	if err != nil {
		return nil, nil, err
	}
	parents := map[task.ID]task.State{}
	t.lockStates(left.Parents, func(s task.State) { parents[s.ID] = s })
	return left.Creates, parents, t.err
}

func (t *tx) findDuplicates(d *store.Dedupe) {
	t.put("insert_shapes", rowsOf(d.Shapes, givenShape))
	known := map[task.ShapeID]bool{}
	t.get("known_shapes_of", givenNumbers(d.ShapeIDs()), func(r *row) error {
		known[task.ShapeID(r.int64())] = true
		return nil
	})
	found := func(r *row) error {
		d.Found(r.id(), task.Status(r.int()), r.text(), r.raw())
		return nil
	}
	t.get("find_duplicates", givenNumbers(d.Gates), found)
	t.rows("changed_tasks", found)
	if unknown := d.Kinds(known); len(unknown) > 0 {
		t.get("of_kinds", givenTexts(unknown), found)
	}
}
