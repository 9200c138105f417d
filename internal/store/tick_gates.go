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
	moved  bool              // of those asked somebody has left, or was locked
	other  bool              // it is stored with another key of the same hash
}

// FoldGates takes the deltas, summed up for each gate, of up to MaxDeltas rows, and up to MaxDirty dirty gates behind
// Shapes.Dirty. taken counts the rows of deltas.
func (t *Tick) FoldGates(deltas []GateDelta, dirty []GateRow, taken int) {
	t.Deltas = taken
	t.more = t.more || taken >= MaxDeltas
	if t.Params.SkipDirty {
		t.Result.Stuck = true
	}
	t.manyDirty = len(dirty) >= MaxDirty
	t.shapes.Dirty = math.MinInt64 // from the beginning again, unless there are more
	if t.manyDirty {
		t.shapes.Dirty = dirty[len(dirty)-1].ID
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
	for _, id := range t.order {
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
				n = min(n, lookAhead) // each takes more than 1, but nobody knows how much
			}
			if n = min(n, t.Params.Room.Total, left); n == 0 {
				t.more = true // its turn comes in the next tick, and must not wait
				return
			}
			left -= n
			g.drain[lane] = 0
			t.wakes = append(t.wakes, Wake{g.ID, lane, n})
		}
	}
	// Where nobody in front could start the last time, look further: they may go to a host that has no room, those behind
	// them to another.
	for i := range t.wakes {
		if w := &t.wakes[i]; t.gates[w.Gate].before.Dirty && left >= lookAhead {
			w.N += lookAhead
			left -= lookAhead
		}
	}
}

// LooksAtDirty reports whether dirty gates are to be loaded.
func (t *Tick) LooksAtDirty() bool { return t.Params.Room.Total > 0 && !t.Params.SkipDirty }

// Wakes are the parked tasks to look at.
func (t *Tick) Wakes() []Wake { return t.wakes }

// Woken takes what Wakes asked for.
func (t *Tick) Woken(rows []WokenRow) {
	for i := range rows {
		w := &rows[i]
		g := t.gates[w.Gate]
		if w.State == nil { // the lane is not drained
			g.drain[w.Lane] += maxWoken
			g.moved = true
			continue
		}
		g.drain[w.Lane]++
		t.found(&w.Found, waiting{from: parked, gate: w.Gate, lane: w.Lane})
	}
	for _, w := range t.wakes {
		if g := t.gates[w.Gate]; g.drain[w.Lane] >= w.N {
			delete(g.drain, w.Lane) // there may be more
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
		t.more = t.more || (g.Dirty || t.manyDirty) && g.moved
		t.Result.Stuck = t.Result.Stuck || g.Dirty && !g.moved
		switch empty := g.Used == 0 && len(g.Lanes) == 0; {
		case empty && g.stored:
			t.DropGates = append(t.DropGates, id)
		case !empty && (!g.stored || g.Used != g.before.Used || g.Dirty != g.before.Dirty ||
			!slices.Equal(g.Lanes, g.before.Lanes)):
			t.SetGates = append(t.SetGates, g.GateRow)
		}
	}
}
