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
	// Adopted are tasks of other batches that have children now.
	Adopted []task.ID
	// Changes are what follows for tasks whose parents have ended already.
	Changes Changes
	// Awaited is how many tasks have to end for the actions of the batch; 0: it has none, or nothing to wait for.
	Awaited int
}

// CreateParams is what [PlanCreate] needs besides the batch.
type CreateParams struct {
	// Now becomes the CreatedAt of the tasks.
	Now time.Time
	// Tallied has the kinds of the tasks.
	Tallied Tallied
	// Parents are the tasks of other batches on which tasks of this one depend, under lock.
	Parents map[task.ID]task.State
}

// PlanCreate plans b.
func PlanCreate(b *task.Batch, params CreateParams) CreatePlan {
	now := params.Now
	p := CreatePlan{States: make([]task.State, len(b.Tasks))}
	index := make(map[task.ID]int, len(b.Tasks))
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
				p.States[parent].HasChildren = true
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
	p.Adopted = sortIDs(p.Adopted)
	for i, t := range b.Tasks {
		if ended[i].n > 0 {
			p.Changes.settle(&p.States[i], t, ended[i], now)
		}
		if p.States[i].Status == task.Pending {
			p.Ready = append(p.Ready, t.ID)
		}
	}
	p.Kinds = Kinds(b)
	p.Shapes = distinct(p.Shapes)
	if tells {
		p.Awaited = len(p.States)
	}
	return p
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

// Kinds are those of the tasks of b, each once.
func Kinds(b *task.Batch) []string {
	var kinds []string
	seen := map[string]bool{}
	for _, t := range b.Tasks {
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
