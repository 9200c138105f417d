package store

import (
	"fmt"
	"math"
	"slices"

	"taskrunner/internal/task"
)

// Shapes are the shapes a pump knows: committed, and everything running is counted at their gates. Not safe for
// concurrent use; it belongs to whoever holds the lock of the pump within the process.
type Shapes struct {
	// Version is that of the newest one known.
	Version int64
	// Epoch counts the deletions of shapes up to which these are known; others make them worth nothing. For drivers whose
	// database other processes change.
	Epoch int
	// Dirty is the dirty gate behind which the next tick looks on, so that all have their turn. It is no more than a
	// hint, and need not be remembered. DirtyBehind: there is one up to there at which something is to do by now.
	Dirty       task.GateID
	DirtyBehind bool

	byKind map[string][]task.Shape
	ids    map[task.ShapeID]task.RuleType
	kinds  map[string]bool // whether there is a tallied shape
	parsed map[string][]task.Rule
}

// NewShapes knows none.
func NewShapes() *Shapes {
	return &Shapes{Dirty: math.MinInt64, byKind: map[string][]task.Shape{}, ids: map[task.ShapeID]task.RuleType{}, parsed: map[string][]task.Rule{}, kinds: map[string]bool{}}
}

// Add makes shapes known, up to version.
func (s *Shapes) Add(version int64, shapes ...task.Shape) {
	for _, shape := range shapes {
		if _, known := s.ids[shape.ID]; !known {
			s.ids[shape.ID] = shape.Type
			s.byKind[shape.Kind] = append(s.byKind[shape.Kind], shape)
			s.kinds[shape.Kind] = s.kinds[shape.Kind] || shape.Tallied()
		}
	}
	s.Version = max(s.Version, version)
}

func (s *Shapes) known(id task.ShapeID, fresh []task.Shape) bool {
	_, known := s.ids[id]
	return known || slices.ContainsFunc(fresh, func(f task.Shape) bool { return f.ID == id })
}

// capacity reports whether the shape is known, and of Capacity.
func (s *Shapes) capacity(id task.ShapeID) bool { return s.ids[id] == task.Capacity }

// tallied are the tallied shapes of a kind, with those that are new, once all changes leave events.
func (s *Shapes) tallied(kind string, fresh []NewTally) []task.Shape {
	var shapes []task.Shape
	for _, shape := range s.byKind[kind] {
		if shape.Tallied() {
			shapes = append(shapes, shape)
		}
	}
	for i := range fresh {
		if fresh[i].Kind == kind && fresh[i].Seen {
			shapes = append(shapes, fresh[i].Shape)
		}
	}
	return shapes
}

func (s *Shapes) ofKind(kind string, fresh []task.Shape) []task.Shape {
	shapes := s.byKind[kind]
	for _, f := range fresh {
		if f.Kind == kind {
			shapes = append(slices.Clip(shapes), f)
		}
	}
	return shapes
}

// maxParsed bounds the cache of rules.
const maxParsed = 10_000

// rules parses stored rules; the same ones come again and again.
func (s *Shapes) rules(raw []byte) []task.Rule {
	if len(raw) == 0 {
		return nil
	}
	if rules, ok := s.parsed[string(raw)]; ok {
		return rules
	}
	rules, err := task.ParseRules(raw)
	if err != nil {
		panic(fmt.Sprintf("store: stored rules %q: %v", raw, err)) // we wrote them
	}
	if len(s.parsed) >= maxParsed {
		clear(s.parsed)
	}
	s.parsed[string(raw)] = rules
	return rules
}
