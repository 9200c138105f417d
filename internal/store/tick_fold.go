package store

import (
	"fmt"

	"taskrunner/internal/task"
)

// child is a task some of whose parents have ended.
type child struct {
	state  *task.State
	n      int
	failed task.ID // the first failed parent whose success is required; zero: none
	facts  *Facts  // nil: not known yet
}

// endedChild has ended because of a parent, and has end actions to send.
type endedChild struct {
	state    *task.State
	triggers []task.Trigger
}

// FoldEvents takes events in the order of their numbers, with up to Params.Links rows; rows of an event stand in the
// order of the children. A child of several parents has the same state in every row.
func (t *Tick) FoldEvents(events []EventRow) {
	full := len(events) >= t.Params.Links
	t.more = t.more || full
	children := map[task.ID]*child{}
	var ids []task.ID
	for i, e := range events {
		if e.Child != nil {
			c := children[e.Child.ID]
			if c == nil {
				c = &child{state: e.Child, facts: e.Facts}
				children[e.Child.ID] = c
				ids = append(ids, e.Child.ID)
			}
			t.foldLink(c, e)
		}
		switch {
		case i+1 < len(events) && events[i+1].Seq == e.Seq:
		case i+1 == len(events) && full && e.Child != nil:
			t.Advance = &EventCursor{e.Seq, e.Child.ID}
		default:
			t.Done = append(t.Done, e.Seq)
		}
	}
	for _, id := range ids {
		t.settleChild(children[id])
	}
}

func (t *Tick) foldLink(c *child, e EventRow) {
	c.n++
	outcome := task.Success
	if !e.Succeeded {
		outcome = task.Failure
		if e.RequiresSuccess && c.failed == (task.ID{}) {
			c.failed = e.Parent
		}
	}
	t.Result.Propagated[outcome]++
}

func (t *Tick) settleChild(c *child) {
	s, before := c.state, c.state.Status
	changed, triggers := task.SettleDependencies(s, c.n, c.failed, t.Now)
	if !changed {
		return
	}
	t.changed = append(t.changed, s)
	switch s.Status {
	case before:
		return
	case task.Pending:
		t.Changes.tell(s, task.DependenciesMet, t.Now)
		t.waiting[s.ID] = &waiting{state: s, facts: c.facts, from: freed}
		if c.facts == nil {
			t.missing = append(t.missing, s.ID)
		}
	default:
		t.Changes.tell(s, task.ParentFailed, t.Now)
		t.Changes.moved(before, s)
		if s.EndActions {
			t.ended[s.ID] = &endedChild{s, triggers}
			t.missing = append(t.missing, s.ID)
		}
	}
	t.moved(before, s)
}

// FoldBatches takes the batches whose last task has ended, out of up to Params.BatchDeltas rows; taken counts those.
func (t *Tick) FoldBatches(complete []CompleteBatch, taken int) {
	t.Deltas += taken
	t.more = t.more || taken >= t.Params.BatchDeltas
	for _, b := range complete {
		actions, err := task.ParseActions(b.OnComplete)
		if err != nil {
			panic(fmt.Sprintf("store: on_complete of batch %s: %v", b.ID, err)) // we wrote it
		}
		for i, a := range actions {
			t.Changes.Deliveries = append(t.Changes.Deliveries, Delivery{
				Source: b.ID, Trigger: task.TriggerBatchComplete, Place: i, Host: Host(a),
			})
		}
	}
}

// Missing names the children whose facts are wanted.
func (t *Tick) Missing() []task.ID { return t.missing }

// Facts takes those of [Tick.Missing].
func (t *Tick) Facts(facts []*Facts) {
	for _, f := range facts {
		if w := t.waiting[f.ID]; w != nil {
			w.facts = f
		}
		if ended := t.ended[f.ID]; ended != nil && len(f.OnFailure) > 0 {
			actions, err := task.ParseActions(f.OnFailure)
			if err != nil {
				panic(fmt.Sprintf("store: on_failure of task %s: %v", f.ID, err)) // we wrote it
			}
			t.Changes.send(&Row{State: *ended.state, Task: &task.Task{OnFailure: actions}}, ended.triggers)
		}
	}
}
