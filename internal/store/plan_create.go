package store

import (
	"cmp"
	"slices"
	"time"

	"taskrunner/internal/task"
)

// CreatePlan is what creates become that share a transaction.
type CreatePlan struct {
	// Batches are those that have tasks.
	Batches []Create
	// Tasks are those of all Batches, States theirs.
	Tasks  []*task.Task
	States []task.State
	Links  []Link
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
func PlanCreate(creates []Create, created []Created, params CreateParams) CreatePlan {
	var p CreatePlan
	for i, c := range creates {
		if created[i].Fresh() && len(c.Batch.Tasks) > 0 {
			p.Batches = append(p.Batches, c)
			p.Tasks = append(p.Tasks, c.Batch.Tasks...)
		}
	}
	p.States = make([]task.State, len(p.Tasks))
	free := p.States
	for i, c := range creates {
		if !created[i].Fresh() {
			continue
		}
		n, sent := len(c.Batch.Tasks), len(p.Changes.Deliveries)
		created[i].Kept, created[i].States = c.Batch.Tasks, free[:n:n]
		p.add(c.Batch, created[i].States, params)
		created[i].Parents = statuses(params.Parents)
		created[i].Outbox = len(p.Changes.Deliveries) > sent
		free = free[n:]
	}
	p.Adopted = sortIDs(p.Adopted)
	p.Shapes = distinct(p.Shapes)
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

// add plans b, whose states these become.
func (p *CreatePlan) add(b *task.Batch, states []task.State, params CreateParams) {
	now := params.Now
	index := make(map[task.ID]int, len(b.Tasks))
	tells := len(b.OnComplete) > 0
	for i, t := range b.Tasks {
		t.CreatedAt = now
		index[t.ID] = i
		s := &states[i]
		*s = task.State{
			ID: t.ID, Status: task.Pending, Unmet: len(t.Dependencies), LastUpdated: now, Kind: t.Kind,
			Timeout: t.Timeout, EndActions: len(t.OnSuccess)+len(t.OnFailure) > 0, TellsBatch: tells,
		}
		if s.Unmet > 0 {
			s.Status = task.Waiting
		}
		if _, tallied := params.Tallied[t.Kind]; tallied {
			p.Changes.Tally = append(p.Changes.Tally, t.ID)
		}
		p.Shapes = append(p.Shapes, shapesOf(t.Rules)...)
	}
	ended := make([]endedParents, len(b.Tasks))
	for i, t := range b.Tasks {
		for _, d := range t.Dependencies {
			link := Link{Parent: d.Parent, Child: t.ID, RequiresSuccess: d.RequiresSuccess}
			if parent, ok := index[d.Parent]; ok {
				states[parent].HasChildren = true
			} else {
				p.Adopted = append(p.Adopted, d.Parent)
				if status := params.Parents[d.Parent].Status; status.Terminal() {
					link.Settled = true
					ended[i].add(d, status)
				}
			}
			p.Links = append(p.Links, link)
		}
	}
	for i, t := range b.Tasks {
		if ended[i].n > 0 {
			p.Changes.settle(&states[i], t, ended[i], now)
		}
		if states[i].Status == task.Pending {
			p.Ready = append(p.Ready, ReadyKey{t.ID, Host(t.OnStart), t.Priority})
		}
	}
	for _, kind := range kindsOf(b.Tasks) {
		p.Kinds = append(p.Kinds, BatchKind{b.ID, kind})
	}
	if tells && len(states) > 0 {
		p.Awaited = append(p.Awaited, Awaited{b.ID, len(states)})
	}
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
		c.ended(s)
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
