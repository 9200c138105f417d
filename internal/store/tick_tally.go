package store

import (
	"slices"

	"taskrunner/internal/task"
)

// Bounds of one tick.
const (
	// MaxTallyEvents bounds the tasks whose tallies are found anew because they changed.
	MaxTallyEvents = 2000
	// TallyChunk bounds the tasks that are looked at for a tallied shape that is new.
	TallyChunk = 1000
)

// NewTally is a tallied shape that is new. The tasks of its kind are tallied some at a time, in the order of their ids,
// and only then its gates bind.
type NewTally struct {
	task.Shape
	// Seen: no transaction is under way any more that may not know of the shape. Whoever changes a task of its kind from
	// now on leaves a tally event, so no change is missed behind the back of the walk.
	Seen bool
	// Marked: what has to end before it is seen was written down by an earlier tick.
	Marked bool
	// After is how far the walk is.
	After task.ID
}

// TallyRow is what a task adds to a gate. 0 is for gates of Lookup, which are not stored: the row itself is what matters.
type TallyRow struct {
	Task task.ID
	Gate task.GateID
	N    int
}

// TallyKey names a TallyRow.
type TallyKey struct {
	Task task.ID
	Gate task.GateID
}

// TalliedTask is what decides what a task adds to gates.
type TalliedTask struct {
	State         task.State
	Metadata      []byte
	ExpectedCount *int64
}

// StoredTally is a TallyRow as stored, with its gate, of which a Lookup has only the id.
type StoredTally struct {
	Task task.ID
	N    int
	Gate GateRow
}

// TallyEvents takes the tasks that changed, one event for each change, up to MaxTallyEvents.
func (t *Tick) TallyEvents(ids []task.ID) {
	t.TalliesTaken = len(ids)
	t.late = len(ids) >= MaxTallyEvents
	t.more = t.more || t.late
	t.tallies = append(t.tallies, ids...)
}

// Walk is the new tallied shape of which tasks are to be walked in this tick; nil: none.
func (t *Tick) Walk() *NewTally {
	var walk *NewTally
	for i := range t.NewTallies {
		switch n := &t.NewTallies[i]; {
		case n.Seen && walk == nil:
			walk = n
		case n.Marked && !n.Seen:
			t.Result.Uncounted = true
		default:
			t.more = true // its turn comes in another tick
		}
	}
	return walk
}

// Walked takes the next tasks of the kind of n, which is [Tick.Walk], up to TallyChunk, in the order of their ids.
func (t *Tick) Walked(n *NewTally, states []task.State) {
	for i := range states {
		states[i].Kind = n.Kind
		if _, counted := n.Tally(&states[i], new(int64(1))); counted {
			t.tallies = append(t.tallies, states[i].ID)
		}
	}
	if len(states) < TallyChunk {
		t.NewShapes = append(t.NewShapes, n.Shape)
		return
	}
	t.WalkedTo = &TallyCursor{n.ID, states[len(states)-1].ID}
	t.more = true
}

// TallyCursor says up to which task the kind of a new tallied shape was walked.
type TallyCursor struct {
	Shape task.ShapeID
	After task.ID
}

// Tallies names the tasks whose tallies are to be found anew, each once: those that changed, and the children that this
// tick changes, so that what it admits is judged by how they are now.
func (t *Tick) Tallies() []task.ID {
	kinds := t.shapes.talliedKinds(t.NewTallies)
	for _, s := range t.changed {
		if slices.Contains(kinds, s.Kind) {
			t.tallies = append(t.tallies, s.ID)
		}
	}
	t.tallies = sortIDs(t.tallies)
	return t.tallies
}

// FoldTallies takes the tasks of [Tick.Tallies] and what they add so far, and makes it what they add now.
func (t *Tick) FoldTallies(tasks []TalliedTask, stored []StoredTally) {
	changed := make(map[task.ID]*task.State, len(t.changed))
	for _, s := range t.changed {
		changed[s.ID] = s
	}
	before := map[task.ID][]StoredTally{}
	for _, s := range stored {
		if s.Gate.Shape != 0 {
			t.load(s.Gate)
		}
		before[s.Task] = append(before[s.Task], s)
	}
	for i := range tasks {
		k := &tasks[i]
		if s := changed[k.State.ID]; s != nil {
			k.State = *s
		}
		t.foldTally(k.State.ID, before[k.State.ID], t.tallyOf(k, before[k.State.ID]))
	}
}

// tallyOf is what a task adds to the gates of tallied shapes. A task that has started keeps its load at the gate where it
// was when it started, whatever becomes of its metadata.
func (t *Tick) tallyOf(k *TalliedTask, before []StoredTally) map[task.GateID]int {
	now := map[task.GateID]int{}
	md := task.ParseMetadata(k.Metadata)
	for _, s := range t.shapes.tallied(k.State.Kind, t.NewTallies) {
		n, counted := s.Tally(&k.State, k.ExpectedCount)
		if !counted {
			continue
		}
		kept := slices.IndexFunc(before, func(b StoredTally) bool { return b.Gate.Shape == s.ID })
		if s.Type == task.Capacity && kept >= 0 {
			now[before[kept].Gate.ID] = n
		} else if gate, ok := s.Gate(md); ok {
			if s.Type != task.Lookup {
				t.want(gate)
			}
			now[gate.ID] = n
		}
	}
	return now
}

func (t *Tick) foldTally(id task.ID, before []StoredTally, now map[task.GateID]int) {
	for _, b := range before {
		n, counted := now[b.Gate.ID]
		delete(now, b.Gate.ID)
		switch {
		case !counted:
			t.DropTallies = append(t.DropTallies, TallyKey{id, b.Gate.ID})
		case n != b.N:
			t.SetTallies = append(t.SetTallies, TallyRow{id, b.Gate.ID, n})
		}
		t.addTally(b.Gate.ID, n-b.N)
	}
	for gate, n := range now {
		t.addTally(gate, n)
		t.SetTallies = append(t.SetTallies, TallyRow{id, gate, n})
	}
}

func (t *Tick) addTally(gate task.GateID, n int) {
	if n != 0 {
		t.used[gate] += n
		t.gates[gate].moved = true // if there is room now, the next tick looks who can use it
	}
}

// loads is what a task with the state s adds to gates of Capacity when it starts.
func (t *Tick) loads(f *Facts, s *task.State, md task.Metadata) []task.Load {
	var loads []task.Load
	for _, shape := range t.shapes.ofKind(f.Kind, t.NewShapes) {
		if shape.Type != task.Capacity {
			continue
		}
		if gate, ok := shape.Gate(md); ok {
			t.want(gate)
			loads = append(loads, task.Load{Gate: gate.ID, N: s.Left(f.ExpectedCount)})
		}
	}
	return loads
}
