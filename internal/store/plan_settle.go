package store

import (
	"time"

	"taskrunner/internal/task"
)

// IDs lists the tasks that outcomes are about, sorted and each once: the order in which their rows are locked.
func IDs(outcomes []task.Outcome) []task.ID {
	ids := make([]task.ID, len(outcomes))
	for i := range outcomes {
		ids[i] = outcomes[i].ID
	}
	return sortIDs(ids)
}

// DeadEndsOf lists the tasks that may be canceled as dead ends. A driver has to look at them again, since a create may have
// made others wait for them.
func DeadEndsOf(outcomes []task.Outcome) []task.ID {
	var ids []task.ID
	for i := range outcomes {
		if outcomes[i].Kind == task.DeadEnd {
			ids = append(ids, outcomes[i].ID)
		}
	}
	return sortIDs(ids)
}

// MaybeGone lists the tasks that had ended before clients ask something of them: retention may have removed their batch, and then
// they are not there for anybody.
func MaybeGone(outcomes []task.Outcome, rows map[task.ID]*Row) []task.ID {
	var ids []task.ID
	for i := range outcomes {
		switch o := &outcomes[i]; o.Kind {
		case task.Update, task.Count, task.Cancel, task.Pause, task.Resume:
			if r := rows[o.ID]; r != nil && r.Status.Terminal() {
				ids = append(ids, o.ID)
			}
		}
	}
	return sortIDs(ids)
}

// FactsFor lists the tasks whose facts PlanSettle will need.
func FactsFor(outcomes []task.Outcome, rows map[task.ID]*Row) []task.ID {
	var ids []task.ID
	for i := range outcomes {
		o := &outcomes[i]
		if r := rows[o.ID]; r != nil && task.NeedsTask(&r.State, o) {
			ids = append(ids, o.ID)
		}
	}
	return sortIDs(ids)
}

// touched is what the outcomes of one call have done to one task.
type touched struct {
	before   task.State
	matters  bool // the state differs in more than nothing
	edited   bool
	requeue  bool
	newRules bool
	triggers []task.Trigger
}

// PlanSettle applies outcomes in their order to rows, which hold every task of [IDs] that is there, with the facts that
// [FactsFor] asks for. tallied has the kinds of their tasks.
func PlanSettle(outcomes []task.Outcome, rows map[task.ID]*Row, tallied Tallied, now time.Time) (Changes, Settled) {
	settled := Settled{Results: make([]Result, len(outcomes))}
	seen := make(map[task.ID]*touched, len(rows))
	var order []task.ID
	var c Changes
	for i := range outcomes {
		o := &outcomes[i]
		r := rows[o.ID]
		if r == nil {
			settled.Results[i].Err = task.Missing(o)
			continue
		}
		t := seen[o.ID]
		if t == nil {
			t = &touched{before: r.State}
			seen[o.ID] = t
			order = append(order, o.ID)
		}
		settled.Results[i] = t.apply(r, o, now)
		if result := &settled.Results[i]; result.From != result.State.Status {
			c.tell(&result.State, o.Cause(), now)
		}
	}
	for _, id := range sortIDs(order) { // every statement takes its rows in the same order
		seen[id].follow(&c, rows[id], tallied)
	}
	c.Shapes = distinct(c.Shapes)
	settled.Outbox = len(c.Deliveries) > 0
	settled.Pump = len(c.Release)+len(c.Unqueue)+len(c.Enqueue)+len(c.Ended)+len(c.BatchEnds)+len(c.Tally) > 0 || anyPending(rows)
	return c, settled
}

func (t *touched) apply(r *Row, o *task.Outcome, now time.Time) Result {
	from := r.State
	if o.Kind == task.DeadEnd && !r.DeadEnd {
		return Result{From: from.Status, State: from}
	}
	hadCancel := r.Task != nil && len(r.Task.OnCancel) > 0
	triggers, err := task.Apply(&r.State, r.Task, o, now)
	if err != nil {
		return Result{From: from.Status, State: from, Err: err}
	}
	t.triggers = append(t.triggers, triggers...)
	t.matters = t.matters || r.State != from || len(triggers) > 0
	if r.Task != nil {
		edits := o.Kind == task.Update && !from.Status.Terminal() &&
			(o.Metadata != nil || o.Priority != nil || o.ExpectedCount != nil)
		rules := o.Kind == task.EditRules && !from.Status.Terminal()
		t.edited = t.edited || edits || rules || hadCancel != (len(r.Task.OnCancel) > 0)
		t.requeue = t.requeue || rules || edits && (o.Metadata != nil || o.Priority != nil)
		t.newRules = t.newRules || rules
	}
	return Result{From: from.Status, State: r.State}
}

func (t *touched) follow(c *Changes, r *Row, tallied Tallied) {
	if t.edited {
		c.Edits = append(c.Edits, r.Task)
	}
	if t.newRules {
		c.Shapes = append(c.Shapes, shapesOf(r.Task.Rules)...)
	}
	if !t.matters && !t.edited {
		return
	}
	if tallied.changed(&t.before, &r.State, t.edited) {
		c.Tally = append(c.Tally, r.ID)
	}
	if t.before.Status.Terminal() {
		c.Late = append(c.Late, r.ID)
	}
	c.follow(&t.before, r, t.triggers, t.requeue)
}

// anyPending: the pump passes over a row that is locked, so whoever held a Pending one wakes it.
func anyPending(rows map[task.ID]*Row) bool {
	for _, r := range rows {
		if r.Status == task.Pending {
			return true
		}
	}
	return false
}
