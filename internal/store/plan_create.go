package store

import (
	"cmp"
	"slices"
	"time"

	"taskrunner/internal/task"
)

// CreatePlan is what a batch becomes, besides the facts of its tasks.
type CreatePlan struct {
	// States stand in the order of the tasks.
	States []task.State
	Links  []Link
	// Ready are the tasks that wait for nothing.
	Ready []task.ID
	// Shapes of all rules, each once, by their ids.
	Shapes []task.Shape
	// Kinds of all tasks, each once.
	Kinds []string
	// Tally are the tasks of kinds that are tallied.
	Tally []task.ID
	// Awaited is how many tasks have to end for the actions of the batch; 0: it has none, or nothing to wait for.
	Awaited int
}

// PlanCreate plans b at the time now, which becomes the CreatedAt of its tasks. tallied are the kinds of which there is a
// tallied shape.
func PlanCreate(b *task.Batch, tallied []string, now time.Time) CreatePlan {
	p := CreatePlan{States: make([]task.State, len(b.Tasks))}
	index := make(map[task.ID]int, len(b.Tasks))
	kinds := map[string]bool{}
	tells := len(b.OnComplete) > 0
	for i, t := range b.Tasks {
		t.CreatedAt = now
		index[t.ID] = i
		s := &p.States[i]
		*s = task.State{
			ID: t.ID, Status: task.Pending, Unmet: len(t.Dependencies), LastUpdated: now, Kind: t.Kind,
			Timeout: t.Timeout, EndActions: len(t.OnSuccess)+len(t.OnFailure) > 0, TellsBatch: tells,
		}
		if s.Unmet > 0 {
			s.Status = task.Waiting
		} else {
			p.Ready = append(p.Ready, t.ID)
		}
		if slices.Contains(tallied, t.Kind) {
			p.Tally = append(p.Tally, t.ID)
		}
		p.Shapes = append(p.Shapes, shapesOf(t.Rules)...)
		if !kinds[t.Kind] {
			kinds[t.Kind] = true
			p.Kinds = append(p.Kinds, t.Kind)
		}
	}
	for _, t := range b.Tasks {
		for _, d := range t.Dependencies {
			p.Links = append(p.Links, Link{d.Parent, t.ID, d.RequiresSuccess})
			p.States[index[d.Parent]].HasChildren = true
		}
	}
	p.Shapes = distinct(p.Shapes)
	if tells {
		p.Awaited = len(p.States)
	}
	return p
}

func shapesOf(rules []task.Rule) []task.Shape {
	var shapes []task.Shape
	for _, r := range rules {
		shapes = append(shapes, r.Shape())
	}
	return shapes
}

// distinct is each of shapes once, by their ids.
func distinct(shapes []task.Shape) []task.Shape {
	slices.SortFunc(shapes, func(a, b task.Shape) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(shapes, func(a, b task.Shape) bool { return a.ID == b.ID })
}
