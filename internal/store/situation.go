package store

import (
	"math"
	"slices"
	"time"

	"taskrunner/internal/task"
)

// Bounds of what [Store] looks at to explain a task, so that it costs the same however many wait.
const (
	MaxUnmet   = 100  // parents
	MaxHolders = 20   // of a gate
	MaxAhead   = 1000 // tasks that wait in front
	// MaxUnfolded bounds the changes of tasks that are looked at because no tick has folded them. Where there are more,
	// what is used of tallied gates is that of a moment ago.
	MaxUnfolded = 2000
)

// Situation is what decides whether a task may start, all of one moment.
type Situation struct {
	// Item has no dependencies and no on_cancel that is newer than the moment; the rest is whole.
	Item
	// Now is that moment, by the database's clock.
	Now time.Time
	// Unmet are the first MaxUnmet parents that have not ended. State.Unmet may count others, which have ended and whose
	// end has not been folded yet.
	Unmet []UnmetParent
	// Gates are those of Task.Rules, in their order.
	Gates []GateSituation
	// Parked is the gate at which it is parked; nil when it is not.
	Parked *task.GateID
	// Ahead counts the tasks in front of it, in its lane or in the line for its host, up to MaxAhead + 1.
	Ahead int
	// Orphaned: it is Claimed or Running, and the lease of the process that claimed it has run out.
	Orphaned bool
}

// UnmetParent is a dependency that has not settled.
type UnmetParent struct {
	ID              task.ID
	Name            string
	Status          task.Status
	RequiresSuccess bool
}

// GateSituation is how a rule stands.
type GateSituation struct {
	task.Check
	Shape task.Shape
	// Counted is false while the rule is so new that the pump has not counted what it limits. Used and Holders mean
	// nothing then.
	Counted bool
	// Used is how many tasks hold a slot, or are tallied, or their load. Holders are up to MaxHolders of them, sorted; of
	// tallied shapes those that the last tick found.
	Used    int
	Holders []task.ID
}

// NewSituation has the gates of k's rules, nothing counted.
func NewSituation(k *task.Task, s *task.State) *Situation {
	situation := &Situation{Item: Item{Task: *k, State: *s}}
	md := task.ParseMetadata(k.Metadata)
	for _, r := range k.Rules {
		check, _ := r.Check(k.Kind, md) // validated when it came in
		situation.Gates = append(situation.Gates, GateSituation{Check: check, Shape: r.Shape()})
	}
	return situation
}

// GateIDs names each gate once.
func (s *Situation) GateIDs() []task.GateID {
	var ids []task.GateID
	seen := map[task.GateID]bool{}
	for i := range s.Gates {
		if id := s.Gates[i].Gate.ID; !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// ShapeIDs names the shape of every rule.
func (s *Situation) ShapeIDs() []task.ShapeID {
	var ids []task.ShapeID
	for i := range s.Gates {
		ids = append(ids, s.Gates[i].Shape.ID)
	}
	return ids
}

// CountShape says that the pump knows a shape.
func (s *Situation) CountShape(id task.ShapeID) {
	for i := range s.Gates {
		s.Gates[i].Counted = s.Gates[i].Counted || s.Gates[i].Shape.ID == id
	}
}

// CountGate takes a gate as it is stored. One with another key of the same hash says nothing about these rules.
func (s *Situation) CountGate(row GateRow) {
	for i := range s.Gates {
		if g := &s.Gates[i]; g.Gate.ID == row.ID {
			g.Used += row.Used
			g.Counted = g.Counted && g.Gate == row.Gate
		}
	}
}

// CountDelta takes what was given back to a gate and is not folded yet.
func (s *Situation) CountDelta(id task.GateID, delta int) {
	for i := range s.Gates {
		if g := &s.Gates[i]; g.Gate.ID == id {
			g.Used += delta
		}
	}
}

// CountUnfolded takes what has changed and is not folded yet.
func (s *Situation) CountUnfolded(u *Unfolded) {
	for i := range s.Gates {
		g := &s.Gates[i]
		g.Used += u.at(&g.Shape, g.Gate.ID)
	}
}

// Tallied are the kinds of the tallied shapes.
func (s *Situation) Tallied() []string {
	var kinds []string
	for i := range s.Gates {
		if shape := &s.Gates[i].Shape; shape.Tallied() {
			kinds = append(kinds, shape.Kind)
		}
	}
	return kinds
}

// Unfolded are tasks that have changed since their tallies were found, and these.
type Unfolded struct {
	Tasks  []TalliedTask
	Stored []StoredTally
}

// at is how much more is used at a gate than its tallies say.
func (u *Unfolded) at(shape *task.Shape, gate task.GateID) int {
	if !shape.Tallied() {
		return 0
	}
	more := 0
	for i := range u.Stored {
		if s := &u.Stored[i]; s.Gate.ID == gate {
			more -= s.N
		}
	}
	for i := range u.Tasks {
		k := &u.Tasks[i]
		if n, now, counted := tallyAt(*shape, k, task.ParseMetadata(k.Metadata), u.Stored); counted && now.ID == gate {
			more += n
		}
	}
	return more
}

// MayStart reports whether it has not started, and has not ended either.
func (s *Situation) MayStart() bool { return !s.State.HoldsSlots() && !s.State.Status.Terminal() }

// HoldsBack reports whether the rule, by its place, keeps it from starting now.
func (s *Situation) HoldsBack(rule int) bool {
	g := &s.Gates[rule]
	return s.MayStart() && g.Counted && g.Used >= g.Limit
}

// Wanted names the gates whose holders are to be found, those of tallied shapes or the others, and how many of each there
// are to find, at most.
func (s *Situation) Wanted(tallied bool) (ids []task.GateID, n []int32) {
	for i := range s.Gates {
		g := &s.Gates[i]
		if g.Used > 0 && g.Shape.Tallied() == tallied && !slices.Contains(ids, g.Gate.ID) {
			ids, n = append(ids, g.Gate.ID), append(n, int32(min(g.Used, MaxHolders)))
		}
	}
	return ids, n
}

// AddHolder takes a task that holds a slot of a gate.
func (s *Situation) AddHolder(id task.GateID, holder task.ID) {
	for i := range s.Gates {
		if g := &s.Gates[i]; g.Gate.ID == id {
			g.Holders = append(g.Holders, holder)
		}
	}
}

// FirstGate is before every gate, for [LimitFilter.After].
const FirstGate = task.GateID(math.MinInt64)

// LimitFilter selects gates. Zero members do not filter, but Limit.
type LimitFilter struct {
	Kind, KindPrefix string
	// After continues behind that gate; FirstGate begins.
	After task.GateID
	Limit int
}

// Limits is a page of gates in the order of their ids.
type Limits struct {
	// Gates are those in use: somebody holds a slot, or waits. There may be fewer than asked for though there are more
	// pages.
	Gates []LimitSituation
	// Next is where the next page begins, for [LimitFilter.After]; nil: this is the last one.
	Next *task.GateID
}

// LimitSituation is how a gate stands.
type LimitSituation struct {
	GateRow // Used has everything given back, Lanes are those in which somebody waits
	Shape   task.Shape
	// Waiting counts the tasks parked there, up to MaxAhead + 1.
	Waiting int
}

// NewLimits makes a page of limit gates of rows, of which there is one more if there is another page.
func NewLimits(rows []LimitSituation, limit int) *Limits {
	l := &Limits{Gates: rows}
	if len(rows) > limit {
		l.Gates = rows[:limit]
		l.Next = &rows[limit-1].ID
	}
	return l
}

// Tallied are the kinds of the tallied shapes.
func (l *Limits) Tallied() []string {
	var kinds []string
	for i := range l.Gates {
		if shape := &l.Gates[i].Shape; shape.Tallied() {
			kinds = append(kinds, shape.Kind)
		}
	}
	return kinds
}

// Finish takes what was given back or has changed and is not folded yet, and leaves out the gates that nobody uses any more.
func (l *Limits) Finish(deltas map[task.GateID]int, unfolded *Unfolded) {
	gates := l.Gates
	l.Gates = nil
	for _, g := range gates {
		if g.Used += deltas[g.ID] + unfolded.at(&g.Shape, g.ID); g.Used > 0 || g.Waiting > 0 {
			l.Gates = append(l.Gates, g)
		}
	}
}
