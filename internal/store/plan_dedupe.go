package store

import (
	"bytes"
	"fmt"
	"slices"

	"taskrunner/internal/task"
)

// Dedupe decides which tasks of a batch are duplicates. A driver that holds the lock of every shape of Shapes calls Found
// with the tasks there are, and then Decide.
//
// Two creates that look for the same wait for each other, so that the second finds what the first made. What a create
// without a dedupe strategy makes at the same moment is not seen, as if it came later.
type Dedupe struct {
	// Shapes are those by which tasks are looked for, each once, by their ids; Gates are where they are looked for.
	Shapes []task.Shape
	Gates  []task.GateID

	create Create
	byKind map[string][]task.Shape
	gates  [][]task.Gate             // of each task of the batch
	found  map[task.Gate]task.ID     // the newest one; zero: none
	status map[task.Gate]task.Status // of those who are found there
}

// NewDedupe says what has to be found for creates; nil: nothing. One whose tasks have Dedupe comes alone.
func NewDedupe(creates []Create) *Dedupe {
	if !slices.ContainsFunc(creates, func(c Create) bool { return c.Batch.Dedupes() }) {
		return nil
	}
	if len(creates) > 1 {
		panic("store: a create that looks for duplicates is not alone")
	}
	b := creates[0].Batch
	d := &Dedupe{
		create: creates[0], byKind: map[string][]task.Shape{}, gates: make([][]task.Gate, len(b.Tasks)),
		found: map[task.Gate]task.ID{}, status: map[task.Gate]task.Status{},
	}
	for i, t := range b.Tasks {
		md := task.ParseMetadata(t.Metadata)
		for _, m := range t.Dedupe {
			shape := m.Lookup()
			d.Shapes = append(d.Shapes, shape)
			gate, ok := shape.Gate(md)
			if !ok {
				continue
			}
			d.gates[i] = append(d.gates[i], gate)
			if _, known := d.found[gate]; !known {
				d.found[gate], d.status[gate] = task.ID{}, shape.Status
				d.Gates = append(d.Gates, gate.ID)
			}
		}
	}
	d.Shapes = distinct(d.Shapes)
	for _, s := range d.Shapes {
		d.byKind[s.Kind] = append(d.byKind[s.Kind], s)
	}
	return d
}

// Kinds are those of the tasks that are looked for by the shapes that are not in known, each once.
func (d *Dedupe) Kinds(known map[task.ShapeID]bool) []string {
	var kinds []string
	for kind, shapes := range d.byKind {
		if slices.ContainsFunc(shapes, func(s task.Shape) bool { return !known[s.ID] }) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// ShapeIDs are those of Shapes.
func (d *Dedupe) ShapeIDs() []task.ShapeID {
	ids := make([]task.ShapeID, len(d.Shapes))
	for i, s := range d.Shapes {
		ids[i] = s.ID
	}
	return ids
}

// Statuses are those in which the tasks are that are looked for.
func (d *Dedupe) Statuses() []task.Status {
	var statuses []task.Status
	for _, s := range task.Statuses() {
		if slices.ContainsFunc(d.Shapes, func(shape task.Shape) bool { return shape.Status == s.Shown() }) {
			statuses = append(statuses, s)
		}
	}
	return statuses
}

// Found takes a task that may have to be found at some of Gates.
func (d *Dedupe) Found(id task.ID, status task.Status, kind string, metadata []byte) {
	md := task.ParseMetadata(metadata)
	for _, s := range d.byKind[kind] {
		if s.Status != status.Shown() {
			continue
		}
		if gate, ok := s.Gate(md); ok {
			before, wanted := d.found[gate]
			if wanted && bytes.Compare(id[:], before[:]) > 0 {
				d.found[gate] = id
			}
		}
	}
}

// Deduped is what is left of a batch.
type Deduped struct {
	// Creates is the create with a batch of the tasks that are no duplicates. Their dependencies are on those that are there.
	Creates []Create
	// Parents are the tasks of other batches on which they depend, sorted.
	Parents []task.ID
}

// Decide takes the tasks in request order; each sees those before it that are no duplicates. The error is
// [task.Problems]: with the duplicates replaced by what they duplicate, tasks would wait for each other in a circle.
func (d *Dedupe) Decide() (Deduped, error) {
	batch := *d.create.Batch
	batch.Tasks = nil
	instead := map[task.ID]task.ID{}
	for i, t := range d.create.Batch.Tasks {
		if other, ok := d.duplicate(i); ok {
			instead[t.ID] = other
			continue
		}
		batch.Tasks = append(batch.Tasks, t)
		d.Found(t.ID, atFirst(t), t.Kind, t.Metadata)
	}
	return d.rewire(&batch, instead)
}

// atFirst is the status in which a task is created, as far as the request tells.
func atFirst(t *task.Task) task.Status {
	if len(t.Dependencies) > 0 {
		return task.Waiting
	}
	return task.Pending
}

// duplicate finds what the task i duplicates: the newest task that has not ended, or else the newest.
func (d *Dedupe) duplicate(i int) (best task.ID, ok bool) {
	live := false
	for _, gate := range d.gates[i] {
		id, alive := d.found[gate], !d.status[gate].Terminal()
		if id != (task.ID{}) && (alive && !live || alive == live && bytes.Compare(id[:], best[:]) > 0) {
			best, live = id, alive
		}
	}
	return best, best != task.ID{}
}

// rewire makes the tasks of b depend on what is there instead of duplicates.
func (d *Dedupe) rewire(b *task.Batch, instead map[task.ID]task.ID) (Deduped, error) {
	left := Deduped{Creates: []Create{{Batch: b, Key: d.create.Key}}}
	places := make(map[task.ID]int, len(b.Tasks))
	for i, t := range b.Tasks {
		places[t.ID] = i
	}
	var graph task.Graph
	for i, t := range b.Tasks {
		dependencies := merge(t.Dependencies, instead)
		if len(instead) > 0 {
			changed := *t // the batch may be planned again
			changed.Dependencies = dependencies
			b.Tasks[i] = &changed
		}
		var parents []int
		for _, dep := range dependencies {
			if place, ok := places[dep.Parent]; ok {
				parents = append(parents, place)
			} else {
				left.Parents = append(left.Parents, dep.Parent)
			}
		}
		graph.Add(parents...)
	}
	left.Parents = sortIDs(left.Parents)
	const shown = 10
	var problems task.Problems
	for _, cycle := range graph.Cycles(shown) {
		first := b.Tasks[cycle[0]].ID
		place := slices.IndexFunc(d.create.Batch.Tasks, func(t *task.Task) bool { return t.ID == first })
		problems = append(problems, task.Problem{
			Path:    fmt.Sprintf("tasks[%d].dependencies", place),
			Message: "cycle " + task.CycleText(b.Tasks, cycle) + ", with duplicates replaced by what they duplicate",
		})
	}
	if len(problems) > 0 {
		return Deduped{}, problems
	}
	return left, nil
}

// merge replaces parents. Those that become one have to succeed if one of them had to.
func merge(dependencies []task.Dependency, instead map[task.ID]task.ID) []task.Dependency {
	merged := make([]task.Dependency, 0, len(dependencies))
	index := make(map[task.ID]int, len(dependencies))
	for _, dep := range dependencies {
		if other, ok := instead[dep.Parent]; ok {
			dep.Parent = other
		}
		if i, ok := index[dep.Parent]; ok {
			merged[i].RequiresSuccess = merged[i].RequiresSuccess || dep.RequiresSuccess
			continue
		}
		index[dep.Parent] = len(merged)
		merged = append(merged, dep)
	}
	return merged
}
