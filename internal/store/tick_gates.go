package store

import (
	"math"
	"slices"

	"taskrunner/internal/task"
)

type gate struct {
	GateRow
	stored bool
	before GateRow
	drain  map[task.Lane]int // rows seen of lanes that were asked
	moved  bool              // of those asked somebody has left, or was locked; or there was no time to ask
	other  bool              // it is stored with another key of the same hash
}

// FoldGates takes the deltas, summed up for each gate, of up to MaxDeltas rows, and up to MaxDirty dirty gates behind
// Shapes.Dirty. taken counts the rows of deltas.
func (t *Tick) FoldGates(deltas []GateDelta, dirty []GateRow, taken int) {
	t.Deltas = taken
	t.more = t.more || taken >= MaxDeltas || len(dirty) >= MaxDirty
	switch s := t.shapes; {
	case len(dirty) >= MaxDirty:
		s.Dirty = dirty[len(dirty)-1].ID
	default: // from the beginning again
		t.more = t.more || s.DirtyBehind
		s.Dirty, s.DirtyBehind = math.MinInt64, false
	}
	for _, d := range deltas {
		t.load(d.GateRow)
	}
	for _, g := range dirty {
		t.load(g)
	}
	for _, d := range deltas {
		t.used[d.ID] += d.Delta
	}
	if t.Params.Room.Total > 0 {
		t.wake()
	}
}

func (t *Tick) load(row GateRow) {
	if _, ok := t.gates[row.ID]; ok {
		return
	}
	t.gates[row.ID] = &gate{GateRow: row, stored: true, before: row, drain: map[task.Lane]int{}}
	t.used[row.ID] = row.Used
	t.order = append(t.order, row.ID)
}

// wake asks, at every gate with room, for those who can use it.
func (t *Tick) wake() {
	left := maxWoken
	for i, id := range t.order {
		g := t.gates[id]
		if slices.ContainsFunc(t.NewTallies, func(n NewTally) bool { return n.ID == g.Shape }) {
			continue // nobody can be judged there
		}
		for _, lane := range g.Lanes {
			n := lane.Limit() - t.used[id]
			if n <= 0 {
				continue
			}
			switch {
			case lane < 0:
				n = wakeAll
			case t.shapes.capacity(g.Shape):
				n = min(n, wakeLoads)
			}
			if n = min(n, t.Params.Room.Total, left); n == 0 {
				t.wakeLater(t.order[i:])
				return
			}
			left -= n
			g.drain[lane] = 0
			t.wakes = append(t.wakes, Wake{g.ID, lane, n})
		}
	}
}

// wakeLater lets the next tick begin with these gates.
func (t *Tick) wakeLater(gates []task.GateID) {
	for _, id := range slices.Backward(gates) {
		g := t.gates[id]
		g.moved = true
		if g.before.Dirty {
			t.shapes.Dirty = id - 1
		}
	}
}

// Wakes are the parked tasks to look at.
func (t *Tick) Wakes() []Wake { return t.wakes }

// Woken takes what Wakes asked for.
func (t *Tick) Woken(rows []WokenRow) {
	type lane struct {
		gate task.GateID
		lane task.Lane
		host string
	}
	perHost := map[lane]int{}
	for i := range rows {
		w := &rows[i]
		g := t.gates[w.Gate]
		g.drain[w.Lane]++
		perHost[lane{w.Gate, w.Lane, w.Facts.Host}]++
		switch {
		case t.Params.Room.Host(w.Facts.Host) == 0: // it stands for all of its host
		case w.State == nil:
			g.drain[w.Lane] += maxWoken // the lane is not drained
			g.moved = true
		default:
			t.found(&w.Found, waiting{from: parked, gate: w.Gate, lane: w.Lane})
		}
	}
	// There may be more where as many were found as were asked for, over all or of one host.
	for _, w := range t.wakes {
		if g := t.gates[w.Gate]; g.drain[w.Lane] >= w.N {
			delete(g.drain, w.Lane)
		}
	}
	for l, n := range perHost {
		if n >= max(1, t.Params.Room.Host(l.host)) {
			delete(t.gates[l.gate].drain, l.lane)
		}
	}
}

// Count gives the new shapes what is running already.
func (t *Tick) Count(holders []Holder) {
	for _, h := range holders {
		md := task.ParseMetadata(h.Metadata)
		for _, s := range t.NewShapes {
			if s.Kind != h.Kind || s.Tallied() {
				continue
			}
			if g, ok := s.Gate(md); ok {
				t.want(g)
				t.used[g.ID]++
				t.Hold = append(t.Hold, HoldRow{h.ID, g.ID})
			}
		}
	}
}

// want makes sure that g is loaded. Until it is, used counts from 0.
func (t *Tick) want(g task.Gate) {
	if _, ok := t.gates[g.ID]; !ok {
		t.gates[g.ID] = &gate{GateRow: GateRow{Gate: g}, drain: map[task.Lane]int{}}
		t.order = append(t.order, g.ID)
	}
}

// finishGates writes what has changed of the gates, and sees to it that a gate with room and waiters is dirty.
func (t *Tick) finishGates() {
	for _, id := range t.order {
		g := t.gates[id]
		g.Used = t.used[id]
		g.Lanes = slices.DeleteFunc(slices.Clone(g.Lanes), func(l task.Lane) bool {
			_, drained := g.drain[l]
			return drained
		})
		g.Dirty = slices.ContainsFunc(g.Lanes, func(l task.Lane) bool { return l.Limit() > g.Used })
		if g.Dirty && g.moved {
			t.more = true
			t.shapes.DirtyBehind = t.shapes.DirtyBehind || id <= t.shapes.Dirty
		}
		switch empty := g.Used == 0 && len(g.Lanes) == 0; {
		case empty && g.stored:
			t.DropGates = append(t.DropGates, id)
		case !empty && (!g.stored || g.Used != g.before.Used || g.Dirty != g.before.Dirty ||
			!slices.Equal(g.Lanes, g.before.Lanes)):
			t.SetGates = append(t.SetGates, g.GateRow)
		}
	}
}
