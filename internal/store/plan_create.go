package store

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"taskrunner/internal/task"
)

// CreatePlan is what creates become that share a transaction.
type CreatePlan struct {
	// Batches are those that have tasks.
	Batches []Create
	// Tasks are those of all Batches.
	Tasks []*task.Task
	Links []Link
	// Ready are the tasks that wait for nothing.
	Ready []ReadyKey
	// Shapes of all rules, each once, by their ids.
	Shapes []task.Shape
	// Kinds of the tasks, each once a batch.
	Kinds []BatchKind
	// Adopted are tasks of other batches that have children now.
	Adopted []task.ID
	// Changes are what follows for tasks whose parents have ended already.
	Changes Changes
	// Awaited is how many tasks have to end for the actions of a batch that has some.
	Awaited []Awaited

	// What State needs besides the tasks.

	now    time.Time
	traits []traits
	ended  map[task.ID]endedParents
}

// traits are what only its batch tells of the state of a task.
type traits struct{ hasChildren, tellsBatch bool }

// State is that of Tasks[i], made when it is asked for: kept, those of small tasks would take more memory than anything else.
func (p *CreatePlan) State(i int) task.State {
	s := p.first(i)
	if parents := p.ended[s.ID]; parents.n > 0 {
		task.SettleDependencies(&s, parents.n, parents.failed, p.now)
	}
	return s
}

// first is State for tasks of which no parent has ended.
func (p *CreatePlan) first(i int) task.State {
	t, has := p.Tasks[i], p.traits[i]
	s := task.State{
		ID: t.ID, Status: task.Pending, Unmet: len(t.Dependencies), LastUpdated: p.now, Kind: t.Kind, Timeout: t.Timeout,
		HasChildren: has.hasChildren, EndActions: len(t.OnSuccess)+len(t.OnFailure) > 0, TellsBatch: has.tellsBatch,
	}
	if s.Unmet > 0 {
		s.Status = task.Waiting
	}
	return s
}

// BatchKind is a kind of tasks that a batch has.
type BatchKind struct {
	Batch task.ID
	Kind  string
}

// Awaited is how many tasks of a batch have to end.
type Awaited struct {
	Batch task.ID
	Tasks int
}

// CreateParams is what [PlanCreate] needs besides the creates.
type CreateParams struct {
	// Now becomes the CreatedAt of the tasks.
	Now time.Time
	// Tallied has the kinds of the tasks.
	Tallied Tallied
	// Parents are the tasks of other batches on which tasks of these depend, under lock.
	Parents map[task.ID]task.State
}

// PlanCreate plans those of creates whose answers are Fresh, and completes these.
func PlanCreate(creates []Create, created []Created, params CreateParams) *CreatePlan {
	p := &CreatePlan{now: params.Now, ended: map[task.ID]endedParents{}}
	shapes := map[task.ShapeID]task.Shape{}
	for i, c := range creates {
		if !created[i].Fresh() {
			continue
		}
		first, sent := len(p.Tasks), len(p.Changes.Deliveries)
		p.add(c, params, shapes)
		created[i].Kept, created[i].State = c.Batch.Tasks, func(k int) task.State { return p.State(first + k) }
		created[i].Parents = statuses(params.Parents)
		created[i].Outbox = len(p.Changes.Deliveries) > sent
	}
	p.Adopted = sortIDs(p.Adopted)
	p.Shapes = slices.SortedFunc(maps.Values(shapes), func(a, b task.Shape) int { return cmp.Compare(a.ID, b.ID) })
	return p
}

func statuses(states map[task.ID]task.State) map[task.ID]task.Status {
	if len(states) == 0 {
		return nil
	}
	of := make(map[task.ID]task.Status, len(states))
	for id, s := range states {
		of[id] = s.Status
	}
	return of
}

// add plans c, and collects the shapes of its rules.
func (p *CreatePlan) add(c Create, params CreateParams, shapes map[task.ShapeID]task.Shape) {
	b, first := c.Batch, len(p.Tasks)
	if len(b.Tasks) == 0 {
		return
	}
	p.Batches, p.Tasks = append(p.Batches, c), append(p.Tasks, b.Tasks...)
	p.traits = append(p.traits, make([]traits, len(b.Tasks))...)
	tells := len(b.OnComplete) > 0
	links, ready := 0, 0
	for i, t := range b.Tasks {
		t.CreatedAt = p.now
		p.traits[first+i].tellsBatch = tells
		if _, tallied := params.Tallied[t.Kind]; tallied {
			p.Changes.Tally = append(p.Changes.Tally, t.ID)
		}
		for _, r := range t.Rules {
			shape := r.Shape()
			shapes[shape.ID] = shape
		}
		if links += len(t.Dependencies); len(t.Dependencies) == 0 {
			ready++
		}
	}
	p.Links, p.Ready = slices.Grow(p.Links, links), slices.Grow(p.Ready, ready)
	for _, t := range b.Tasks {
		p.link(b, first, t, params.Parents)
	}
	for i, t := range b.Tasks {
		s := p.first(first + i)
		if parents := p.ended[t.ID]; parents.n > 0 {
			p.Changes.settle(&s, t, parents, p.now)
		}
		if s.Status == task.Pending {
			p.Ready = append(p.Ready, ReadyKey{t.ID, Host(t.OnStart), t.Priority})
		}
	}
	for _, kind := range kindsOf(b.Tasks) {
		p.Kinds = append(p.Kinds, BatchKind{b.ID, kind})
	}
	if tells {
		p.Awaited = append(p.Awaited, Awaited{b.ID, len(b.Tasks)})
	}
}

// link links t, of b, whose tasks begin at first, with its parents.
func (p *CreatePlan) link(b *task.Batch, first int, t *task.Task, others map[task.ID]task.State) {
	for _, d := range t.Dependencies {
		link := Link{Parent: d.Parent, Child: t.ID, RequiresSuccess: d.RequiresSuccess}
		if parent, ok := PlaceOf(b.Tasks, d.Parent); ok {
			p.traits[first+parent].hasChildren = true
		} else {
			p.Adopted = append(p.Adopted, d.Parent)
			if status := others[d.Parent].Status; status.Terminal() {
				link.Settled = true
				parents := p.ended[t.ID]
				parents.add(d, status)
				p.ended[t.ID] = parents
			}
		}
		p.Links = append(p.Links, link)
	}
}

// PlaceOf is where the task id stands among those of a batch, whose ids sort in request order.
func PlaceOf(tasks []*task.Task, id task.ID) (place int, ok bool) {
	return slices.BinarySearchFunc(tasks, id, func(t *task.Task, id task.ID) int { return bytes.Compare(t.ID[:], id[:]) })
}

// endedParents are those of one task.
type endedParents struct {
	n      int
	failed task.ID // one that had to succeed and did not; zero: none
}

func (e *endedParents) add(d task.Dependency, status task.Status) {
	e.n++
	if status != task.Success && d.RequiresSuccess {
		e.failed = d.Parent
	}
}

// settle tells a task that was just created of parents that have ended.
func (c *Changes) settle(s *task.State, t *task.Task, parents endedParents, now time.Time) {
	_, triggers := task.SettleDependencies(s, parents.n, parents.failed, now)
	switch s.Status {
	case task.Pending:
		c.tell(s, task.DependenciesMet, now)
	case task.Failure:
		c.tell(s, task.ParentFailed, now)
		c.moved(task.Waiting, s)
		c.send(&Row{State: *s, Task: t}, triggers)
	}
}

// Kinds are those of the tasks of creates.
func Kinds(creates []Create) []string {
	var kinds []string
	for _, c := range creates {
		kinds = append(kinds, kindsOf(c.Batch.Tasks)...)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// kindsOf are those of tasks, each once.
func kindsOf(tasks []*task.Task) []string {
	var kinds []string
	seen := map[string]bool{}
	for _, t := range tasks {
		if !seen[t.Kind] {
			seen[t.Kind] = true
			kinds = append(kinds, t.Kind)
		}
	}
	return kinds
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
