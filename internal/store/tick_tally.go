package store

import (
	"slices"

	"taskrunner/internal/task"
)

// Bounds of one tick.
const (
	// MaxTallyEvents bounds the tasks whose tallies are found anew because they changed.
	MaxTallyEvents = 2000
	// TallyChunk bounds the tasks that are looked at for tallied shapes that are new.
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

// Walk is the walk of a kind, for the tallied shapes of it that are new and have come as far.
type Walk struct {
	Kind  string
	After task.ID
	// Limit is how many tasks are to be looked at.
	Limit int
}

// maxWalks bounds the kinds that are walked in one tick.
const maxWalks = 100

// Walks are those to be gone on with in this tick.
func (t *Tick) Walks() []Walk {
	var walks []Walk
	for i := range t.NewTallies {
		switch n := &t.NewTallies[i]; {
		case !n.Seen && n.Marked:
			t.Result.Uncounted = true
		case !n.Seen:
			t.more = true // it is marked now
		case slices.ContainsFunc(walks, n.goes):
		case len(walks) == maxWalks:
			t.more = true
		default:
			walks = append(walks, Walk{Kind: n.Kind, After: n.After})
		}
	}
	for i := range walks {
		walks[i].Limit = TallyChunk / len(walks)
	}
	return walks
}

// goes reports whether w is a walk for n.
func (n *NewTally) goes(w Walk) bool { return n.Seen && n.Kind == w.Kind && n.After == w.After }

// Walked takes what walks found: of each the next tasks of its kind, up to its limit, in the order of their ids.
func (t *Tick) Walked(walks []Walk, found [][]task.State) {
	for i, w := range walks {
		last := len(found[i]) < w.Limit
		for k := range t.NewTallies {
			n := &t.NewTallies[k]
			if !n.goes(w) {
				continue
			}
			for j := range found[i] {
				if _, counted := n.Tally(&found[i][j], new(int64(1))); counted {
					t.tallies = append(t.tallies, found[i][j].ID)
				}
			}
			if last {
				t.NewShapes = append(t.NewShapes, n.Shape)
			} else {
				t.WalkedTo = append(t.WalkedTo, TallyCursor{n.ID, found[i][len(found[i])-1].ID})
			}
		}
	}
	t.more = t.more || len(walks) > 0
}

// TallyCursor says up to which task the kind of a new tallied shape was walked.
type TallyCursor struct {
	Shape task.ShapeID
	After task.ID
}

// Tallies names the tasks whose tallies are to be found anew, each once: those that changed, and the children that this
// tick changes, so that what it admits is judged by how they are now.
func (t *Tick) Tallies() []task.ID {
	for _, s := range t.changed {
		if t.tallied(s.Kind) {
			t.tallies = append(t.tallies, s.ID)
		}
	}
	t.tallies = sortIDs(t.tallies)
	return t.tallies
}

// FoldTallies takes the tasks of [Tick.Tallies] and what they add so far, and makes it what they add now. Those that retention
// has deleted are not among the tasks, and add nothing any more.
func (t *Tick) FoldTallies(u *Unfolded) {
	changed := make(map[task.ID]*task.State, len(t.changed))
	for _, s := range t.changed {
		changed[s.ID] = s
	}
	before := map[task.ID][]StoredTally{}
	for _, s := range u.Stored {
		if s.Gate.Shape != 0 {
			t.load(s.Gate)
		}
		before[s.Task] = append(before[s.Task], s)
	}
	for i := range u.Tasks {
		k := &u.Tasks[i]
		if s := changed[k.State.ID]; s != nil {
			k.State = *s
		}
		t.foldTally(k.State.ID, before[k.State.ID], t.tallyOf(k, before[k.State.ID]))
		delete(before, k.State.ID)
	}
	for id, tallies := range before {
		t.foldTally(id, tallies, nil)
	}
}

// tallyOf is what a task adds to the gates of tallied shapes. A task that has started keeps its load at the gate where it
// is, whatever becomes of its metadata, as long as it has any left.
func (t *Tick) tallyOf(k *TalliedTask, before []StoredTally) map[task.GateID]int {
	now := map[task.GateID]int{}
	md := task.ParseMetadata(k.Metadata)
	for _, s := range t.shapes.tallied(k.State.Kind, t.NewTallies) {
		n, gate, counted := tallyAt(s, k, md, before)
		if !counted {
			continue
		}
		if s.Type != task.Lookup {
			t.want(gate)
		}
		now[gate.ID] = n
	}
	return now
}

// tallyAt is where a task is tallied by a shape, and what it adds there. before are its tallies.
func tallyAt(s task.Shape, k *TalliedTask, md task.Metadata, before []StoredTally) (n int, gate task.Gate, counted bool) {
	n, counted = s.Tally(&k.State, k.ExpectedCount)
	if !counted {
		return 0, gate, false
	}
	kept := slices.IndexFunc(before, func(b StoredTally) bool { return b.Task == k.State.ID && b.Gate.Shape == s.ID })
	if s.Type == task.Capacity && kept >= 0 {
		return n, before[kept].Gate.Gate, true
	}
	gate, counted = s.Gate(md)
	return n, gate, counted
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

// tallied reports whether there is a tallied shape of the kind.
func (t *Tick) tallied(kind string) bool {
	return t.shapes.kinds[kind] || slices.ContainsFunc(t.NewTallies, func(n NewTally) bool { return n.Kind == kind })
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
