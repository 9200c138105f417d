package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Pump is as in store.Store.
func (s *Store) Pump(ctx context.Context, p store.PumpParams) (pumped store.Pumped, err error) {
	err = s.write(ctx, func(t *tx) (err error) {
		pumped, err = t.tick(p)
		return err
	})
	if err != nil {
		return store.Pumped{}, fmt.Errorf("pump: %w", err)
	}
	return pumped, nil
}

// tick makes a tick. The order of its statements is that of [store.Tick].
func (t *tx) tick(p store.PumpParams) (store.Pumped, error) {
	t.learnShapes()
	if t.err != nil {
		return store.Pumped{}, t.err
	}
	tick := store.NewTick(p, t.s.shapes)
	tick.Now = t.now
	t.newShapes(tick)
	t.fold(tick)
	t.foldBatches(tick)
	t.ready(tick)
	t.loadMore(tick)
	if t.err != nil {
		return store.Pumped{}, t.err
	}
	var version int64
	if err := t.admit(tick, p.Owner, &version); err != nil {
		return store.Pumped{}, err
	}
	t.committed = func() { t.s.shapes.Add(version, tick.NewShapes...) }
	return tick.Result, nil
}

// learnShapes makes known what earlier processes and ticks have committed.
func (t *tx) learnShapes() {
	t.rows("known_shapes", func(r *row) error {
		shape, err := r.shape()
		if err == nil {
			t.s.shapes.Add(r.int64(), shape)
		}
		return err
	}, t.s.shapes.Version)
}

func (t *tx) newShapes(tick *store.Tick) {
	t.rows("new_shapes", func(r *row) error {
		shape, err := r.shape()
		if shape.Tallied() { // whoever writes sees it: there is one writer at a time
			tick.NewTallies = append(tick.NewTallies, store.NewTally{Shape: shape, Seen: true, Marked: true, After: r.id()})
		} else {
			tick.NewShapes = append(tick.NewShapes, shape)
		}
		return err
	})
}

// fold loads what has happened.
func (t *tx) fold(tick *store.Tick) {
	var deltas []store.GateDelta
	sums, taken := map[task.GateID]int{}, 0
	t.rows("take_deltas", func(r *row) error {
		sums[task.GateID(r.int64())] += r.int()
		taken++
		return nil
	}, int64(store.MaxDeltas))
	ids := make([]task.GateID, 0, len(sums))
	for id := range sums {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	t.gates(ids, func(g store.GateRow) { deltas = append(deltas, store.GateDelta{GateRow: g, Delta: sums[g.ID]}) })
	var dirty []store.GateRow
	if tick.Params.Room.Total > 0 {
		t.rows("dirty_gates", eachGate(func(g store.GateRow) { dirty = append(dirty, g) }), int64(store.MaxDirty), int64(t.s.shapes.Dirty))
	}
	var events []store.EventRow
	t.rows("events", func(r *row) error {
		e := store.EventRow{Seq: r.int64(), Parent: r.id(), Succeeded: r.bool(), RequiresSuccess: r.bool()}
		if s := r.state(); s.ID != (task.ID{}) {
			e.Child = &s
		}
		events = append(events, e)
		return nil
	}, int64(tick.Params.Links))
	var changed []task.ID
	t.rows("take_tally_events", func(r *row) error {
		changed = append(changed, r.id())
		return nil
	}, int64(store.MaxTallyEvents))
	if t.err == nil {
		tick.FoldGates(deltas, dirty, taken)
		tick.FoldEvents(events)
		tick.TallyEvents(changed)
	}
}

// batchDelta is what batches were told, summed up for one of them.
type batchDelta struct {
	batch                      task.ID
	success, failure, canceled int64
	at                         int64 // the last end, as it is stored
}

// foldBatches tells batches of the ends of their tasks.
func (t *tx) foldBatches(tick *store.Tick) {
	var deltas []batchDelta
	index, taken := map[task.ID]int{}, 0
	t.rows("take_batch_deltas", func(r *row) error {
		id := r.id()
		i, ok := index[id]
		if !ok {
			i, index[id] = len(deltas), len(deltas)
			deltas = append(deltas, batchDelta{batch: id})
		}
		d := &deltas[i]
		d.success, d.failure, d.canceled = d.success+r.int64(), d.failure+r.int64(), d.canceled+r.int64()
		d.at = max(d.at, r.int64())
		taken++
		return nil
	}, int64(tick.Params.BatchDeltas))
	if taken == 0 {
		return
	}
	var complete []store.CompleteBatch
	t.get("fold_batches", rowsOf(deltas, func(d *batchDelta, to []driver.Value) []driver.Value {
		return append(to, d.batch[:], d.success, d.failure, d.canceled, d.at)
	}), func(r *row) error {
		b := store.CompleteBatch{ID: r.id()}
		if last := r.bool(); last {
			b.OnComplete = r.raw()
			complete = append(complete, b)
		}
		return nil
	})
	if t.err == nil {
		tick.FoldBatches(complete, taken)
	}
}

func eachGate(each func(store.GateRow)) func(*row) error {
	return func(r *row) error {
		g, err := r.gate()
		if err == nil {
			each(g)
		}
		return err
	}
}

func (t *tx) gates(ids []task.GateID, each func(store.GateRow)) {
	if len(ids) > 0 {
		t.get("gates", givenNumbers(ids), eachGate(each))
	}
}

// ready finds the first of ready, by priority and age.
func (t *tx) ready(tick *store.Tick) {
	most := tick.ReadyLimit("")
	if most == 0 {
		return
	}
	limits := map[string]int{}
	for _, host := range tick.Params.Room.Apart() {
		limits[host] = tick.ReadyLimit(host)
	}
	var found []store.Found
	t.rows("ready", func(r *row) error {
		found = append(found, r.found())
		return nil
	}, int64(most), object(limits), int64(tick.ReadyTotal()))
	if t.err == nil {
		tick.Ready(found, false)
	}
}

// loadMore loads what follows from what was loaded before.
func (t *tx) loadMore(tick *store.Tick) {
	if t.err != nil {
		return
	}
	t.walk(tick)
	var facts []*store.Facts
	t.get("pump_facts", givenIDs(tick.Missing()), func(r *row) error {
		f := r.facts()
		f.OnFailure = r.raw()
		facts = append(facts, &f)
		return nil
	})
	var holders []store.Holder
	if len(tick.NewShapes) > 0 {
		var kinds []string
		for _, shape := range tick.NewShapes {
			kinds = append(kinds, shape.Kind)
		}
		t.get("holders", givenTexts(kinds), func(r *row) error {
			holders = append(holders, store.Holder{ID: r.id(), Kind: r.text(), Metadata: r.raw()})
			return nil
		})
	}
	woken := t.woken(tick)
	unfolded := t.tallies(tick.Tallies())
	if t.err == nil {
		tick.Facts(facts)
		tick.Count(holders)
		tick.Woken(woken)
		tick.FoldTallies(unfolded)
	}
}

func (t *tx) woken(tick *store.Tick) []store.WokenRow {
	var woken []store.WokenRow
	wakes := tick.Wakes()
	if len(wakes) == 0 {
		return nil
	}
	room := tick.Params.Room
	t.get("woken", rowsOf(wakes, func(w *store.Wake, to []driver.Value) []driver.Value {
		return append(to, int64(w.Gate), int64(w.Lane), int64(w.N))
	}), func(r *row) error {
		woken = append(woken, store.WokenRow{Gate: task.GateID(r.int64()), Lane: task.Lane(r.int()), Found: r.found()})
		return nil
	}, int64(room.Host("")), object(room.ByHost()))
	return woken
}

// admit decides and writes. version is that of the new shapes from the commit on.
func (t *tx) admit(tick *store.Tick, owner task.ID, version *int64) error {
	var gates []store.GateRow
	t.gates(tick.Wanted(), func(g store.GateRow) { gates = append(gates, g) })
	if t.err != nil {
		return t.err
	}
	if err := tick.Admit(gates); err != nil {
		return err
	}
	if len(tick.NewShapes) > 0 {
		t.get("mark_shapes", rowsOf(tick.NewShapes, givenShape), func(r *row) error {
			*version = r.int64()
			return nil
		})
	}
	t.write(&tick.Changes)
	t.writeTallies(tick)
	t.writePlaces(tick, owner)
	t.writeGates(tick)
	t.put("delete_events", givenNumbers(tick.Done))
	if a := tick.Advance; a != nil {
		t.exec("advance_event", a.Seq, a.After[:])
	}
	return t.err
}

func givenReady(k *store.ReadyKey, to []driver.Value) []driver.Value {
	return append(to, k.Host, int64(-k.Priority), k.ID[:])
}

func (t *tx) writePlaces(tick *store.Tick, owner task.ID) {
	t.put("delete_ready", rowsOf(tick.Unready, givenReady))
	t.put("insert_ready", rowsOf(tick.Lined, givenReady))
	t.put("unqueue_parked", givenIDs(tick.Unpark))
	t.put("upsert_parked", rowsOf(tick.Park, func(p *store.ParkRow, to []driver.Value) []driver.Value {
		return append(to, p.ID[:], int64(p.Gate), int64(p.Lane), p.Host, int64(-p.Priority))
	}))
	t.put("insert_running", rowsOf(tick.Claim, func(c *store.ClaimRow, to []driver.Value) []driver.Value {
		return append(to, c.ID[:], array(c.Gates), micros(c.Check))
	}), owner[:])
}

// held are the gates that are added to a running row.
type held struct {
	id    task.ID
	gates []task.GateID
}

func (t *tx) writeGates(tick *store.Tick) {
	var holds []held
	index := map[task.ID]int{}
	for _, h := range tick.Hold {
		i, ok := index[h.ID]
		if !ok {
			i, index[h.ID] = len(holds), len(holds)
			holds = append(holds, held{id: h.ID})
		}
		holds[i].gates = append(holds[i].gates, h.Gate)
	}
	t.put("hold_gates", rowsOf(holds, func(h *held, to []driver.Value) []driver.Value {
		return append(to, h.id[:], array(h.gates))
	}))
	t.put("upsert_gates", rowsOf(tick.SetGates, func(g *store.GateRow, to []driver.Value) []driver.Value {
		return append(to, int64(g.ID), int64(g.Shape), g.Values, int64(g.Used), array(g.Lanes), flag(g.Dirty))
	}))
	t.put("delete_gates", givenNumbers(tick.DropGates))
}
