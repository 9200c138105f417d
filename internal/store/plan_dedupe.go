package store

import (
	"bytes"
	"fmt"
	"slices"

	"taskrunner/internal/task"
)

// Dedupe decides which tasks of a batch are duplicates. A driver that holds the lock of every shape of Lookups calls Found
// with the tasks there are, and then Decide.
//
// Two creates that look for the same wait for each other, so that the second finds what the first made. What a create
// without a dedupe strategy makes at the same moment is not seen, as if it came later.
type Dedupe struct {
	// Shapes are those by which tasks are looked for, each once, by their ids. Keys are what they are looked for by.
	Shapes []task.Shape
	Keys   []LookupKey

	batch  *task.Batch
	byKey  map[LookupKey]int
	byKind map[string][]task.Shape
	gates  map[task.GateID][]int // keys
	keys   [][]int               // of each task of the batch
	found  map[int]Existing      // by key: the newest one
}

// LookupKey finds the tasks at a gate of Lookup that are in one of some statuses.
type LookupKey struct {
	Gate task.GateID
	// Statuses has the bit 1<<s for each status s.
	Statuses int
}

func (k LookupKey) has(s task.Status) bool { return k.Statuses>>s&1 == 1 }

// Existing is a task that another one duplicates.
type Existing struct {
	ID     task.ID
	Status task.Status
}

// NewDedupe says what has to be found for b; nil: nothing.
func NewDedupe(b *task.Batch) *Dedupe {
	d := &Dedupe{
		batch: b, byKey: map[LookupKey]int{}, byKind: map[string][]task.Shape{}, gates: map[task.GateID][]int{},
		keys: make([][]int, len(b.Tasks)), found: map[int]Existing{},
	}
	for i, t := range b.Tasks {
		if len(t.Dedupe) == 0 {
			continue
		}
		statuses := map[task.GateID]int{}
		md := task.ParseMetadata(t.Metadata)
		for _, m := range t.Dedupe {
			shape := m.Lookup()
			d.Shapes = append(d.Shapes, shape)
			if gate, ok := shape.Gate(md); ok {
				statuses[gate.ID] |= bits(m.Status)
			}
		}
		for gate, mask := range statuses {
			d.keys[i] = append(d.keys[i], d.key(LookupKey{gate, mask}))
		}
	}
	if len(d.Shapes) == 0 {
		return nil
	}
	d.Shapes = distinct(d.Shapes)
	for _, s := range d.Shapes {
		d.byKind[s.Kind] = append(d.byKind[s.Kind], s)
	}
	return d
}

// bits has that of the status, and with Pending that of Claimed, which shows as Pending.
func bits(s task.Status) int {
	mask := 1 << s
	if s == task.Pending {
		mask |= 1 << task.Claimed
	}
	return mask
}

func (d *Dedupe) key(k LookupKey) int {
	i, ok := d.byKey[k]
	if !ok {
		i = len(d.Keys)
		d.byKey[k] = i
		d.gates[k.Gate] = append(d.gates[k.Gate], i)
		d.Keys = append(d.Keys, k)
	}
	return i
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

// FoundByKey takes a task that a key finds.
func (d *Dedupe) FoundByKey(key int, e Existing) {
	if before, ok := d.found[key]; !ok || bytes.Compare(e.ID[:], before.ID[:]) > 0 {
		d.found[key] = e
	}
}

// Found takes a task that some keys may find.
func (d *Dedupe) Found(e Existing, kind string, metadata []byte) {
	md := task.ParseMetadata(metadata)
	for _, s := range d.byKind[kind] {
		gate, ok := s.Gate(md)
		if !ok {
			continue
		}
		for _, i := range d.gates[gate.ID] {
			if d.Keys[i].has(e.Status) {
				d.FoundByKey(i, e)
			}
		}
	}
}

// Deduped is what is left of a batch.
type Deduped struct {
	// Batch has the tasks that are no duplicates. Their dependencies are on those that are there.
	Batch *task.Batch
	// Parents are the tasks of other batches on which they depend, sorted.
	Parents []task.ID
}

// Decide takes the tasks in request order; each sees those before it that are no duplicates. The error is
// [task.Problems]: with the duplicates replaced by what they duplicate, tasks would wait for each other in a circle.
func (d *Dedupe) Decide() (Deduped, error) {
	batch := *d.batch
	batch.Tasks = nil
	within := map[LookupKey]task.ID{} // of one status each
	instead := map[task.ID]task.ID{}
	for i, t := range d.batch.Tasks {
		if other, ok := d.duplicate(i, within); ok {
			instead[t.ID] = other
			continue
		}
		batch.Tasks = append(batch.Tasks, t)
		for _, s := range d.byKind[t.Kind] {
			if s.Status != 0 {
				continue
			}
			if gate, ok := s.Gate(task.ParseMetadata(t.Metadata)); ok {
				within[LookupKey{gate.ID, int(atFirst(t))}] = t.ID
			}
		}
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
func (d *Dedupe) duplicate(i int, within map[LookupKey]task.ID) (task.ID, bool) {
	var best task.ID
	live := false
	take := func(id task.ID, alive bool) {
		if alive && !live || alive == live && bytes.Compare(id[:], best[:]) > 0 {
			best, live = id, alive
		}
	}
	for _, key := range d.keys[i] {
		for _, s := range []task.Status{task.Waiting, task.Pending} {
			if id, ok := within[LookupKey{d.Keys[key].Gate, int(s)}]; ok && d.Keys[key].has(s) {
				take(id, true)
			}
		}
		if e, ok := d.found[key]; ok {
			take(e.ID, !e.Status.Terminal())
		}
	}
	return best, best != task.ID{}
}

// rewire makes the tasks of b depend on what is there instead of duplicates.
func (d *Dedupe) rewire(b *task.Batch, instead map[task.ID]task.ID) (Deduped, error) {
	left := Deduped{Batch: b}
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
		problems = append(problems, task.Problem{
			Path:    fmt.Sprintf("tasks[%d].dependencies", slices.Index(d.batch.Tasks, d.original(b.Tasks[cycle[0]].ID))),
			Message: "cycle " + task.CycleText(b.Tasks, cycle) + ", with duplicates replaced by what they duplicate",
		})
	}
	if len(problems) > 0 {
		return Deduped{}, problems
	}
	return left, nil
}

func (d *Dedupe) original(id task.ID) *task.Task {
	i := slices.IndexFunc(d.batch.Tasks, func(t *task.Task) bool { return t.ID == id })
	return d.batch.Tasks[i]
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
