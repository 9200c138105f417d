package postgres

import (
	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// rare is what there is for a tick, of the sorts that most ticks find nothing of. One statement looks for all of them; those
// that load them are sent where it finds some. Of what the last tick found there is likely to be more, which is loaded without
// asking: so it takes no round trip more, but for the first time.
type rare struct {
	shapes  shapesRead
	dirty   []store.GateRow
	changed []task.ID
}

// sorts says something about each sort, in the order of [tx.loads].
type sorts [3]bool

const ofShapes = 0

// loads queue the loading of each sort.
func (t *tx) loads(tick *store.Tick, r *rare) [len(sorts{})]func() {
	return [...]func(){
		func() { t.readShapes(tick, &r.shapes) },
		func() {
			if tick.Params.Room.Total > 0 {
				t.gates("dirty_gates", []any{store.MaxDirty, int64(t.s.shapes.Dirty)}, &r.dirty)
			}
		},
		func() { t.takeTallyEvents(r) },
	}
}

// found says what was loaded.
func (r *rare) found(tick *store.Tick) sorts {
	return sorts{
		len(r.shapes.shapes)+len(tick.NewShapes)+len(tick.NewTallies) > 0, len(r.dirty) > 0, len(r.changed) > 0,
	}
}

// lookForRare queues the look for all sorts, and the reading of the time, and of how often processes have found another
// one pumping.
func (t *tx) lookForRare(there *sorts, busy *int64) {
	t.rows("look_for_rare", []any{t.s.shapes.Version, int64(t.s.shapes.Dirty)}, func(rows pgx.Rows) error {
		defer t.adjust()
		return rows.Scan(&t.now, busy, &there[0], &there[1], &there[2])
	})
}

func (t *tx) takeTallyEvents(r *rare) {
	t.rows("take_tally_events", []any{store.MaxTallyEvents}, func(rows pgx.Rows) error {
		var id task.ID
		err := rows.Scan((*[16]byte)(&id))
		r.changed = append(r.changed, id)
		return err
	})
}
