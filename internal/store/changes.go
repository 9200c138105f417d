package store

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"taskrunner/internal/task"
)

// Row is a task as a plan sees it: its state under lock, and its facts where the plan asked for them.
type Row struct {
	task.State
	Task *task.Task
	// DeadEnd: it is one under the lock. Whoever looked for dead ends did so without, and it may have got a child since.
	DeadEnd bool
}

// Changes is what a plan wants written. No task is named twice in one member.
type Changes struct {
	// States replaces state rows.
	States []task.State
	// Edits replaces metadata, rules, priority, expected_count and on_cancel of tasks.
	Edits []*task.Task
	// Shapes of the rules in Edits, each once, by their ids.
	Shapes []task.Shape
	// Release takes tasks out of running and appends a delta of −1 for every gate they hold.
	Release []task.ID
	// Unqueue takes tasks out of ready and parked, before Enqueue puts tasks into ready.
	Unqueue []task.ID
	Enqueue []task.ID
	// Tally has what these tasks add to gates of tallied shapes found anew.
	Tally []task.ID
	// Checks sets when running rows are looked at again; the zero time: not at all.
	Checks []Check
	// Ended tells the children of these tasks.
	Ended []Ended
	// BatchEnds tells the batches of these tasks.
	BatchEnds []BatchEnd
	// Late tasks had ended before, and reports about them came now: see [BatchVersion].
	Late []task.ID
	// Rare tasks have come to one of [RareStatuses], and Unpaused ones have left Paused: lists look for them.
	Rare     []RareRow
	Unpaused []task.ID
	// Futile tasks have ended otherwise than by Success. Their parents may be dead ends now; a store that does not look for
	// those writes nothing of it.
	Futile []task.ID
	// Deliveries adds to the outbox what is not there yet.
	Deliveries []Delivery
	// History adds transitions that no time in the state tells of, in their order.
	History []HistoryRow
}

// MaxHistory is how many rows of history a task keeps, the newest ones.
const MaxHistory = 100

// HistoryRow is a transition of a task.
type HistoryRow struct {
	Task  task.ID
	At    time.Time
	Cause task.Cause
	To    task.Status
}

// Repeated names the tasks that may have more than MaxHistory rows now.
func (c *Changes) Repeated() []task.ID {
	var ids []task.ID
	for i := range c.History {
		if c.History[i].Cause.Repeatable() {
			ids = append(ids, c.History[i].Task)
		}
	}
	return sortIDs(ids)
}

// tell writes a transition down, unless the state tells of it.
func (c *Changes) tell(s *task.State, cause task.Cause, now time.Time) {
	if !cause.Routine() {
		c.History = append(c.History, HistoryRow{s.ID, now, cause, s.Status})
	}
}

// Tallied has the kinds of which there is a tallied shape, and whether one of them is of Capacity.
type Tallied map[string]bool

// changed reports whether what a task adds to gates of tallied shapes may have changed. edited: its facts have.
func (t Tallied) changed(before, after *task.State, edited bool) bool {
	capacity, tallied := t[after.Kind]
	return tallied && (edited || before.Status != after.Status || capacity && after.HoldsSlots())
}

// Check is when a running task is looked at for its time-out.
type Check struct {
	ID task.ID
	At time.Time
}

// Ended is the end of a task that has children.
type Ended struct {
	ID        task.ID
	Succeeded bool
}

// RareStatuses are those that no task has on its way from being created to Success.
var RareStatuses = []task.Status{task.Paused, task.Failure, task.Canceled}

// RareRow is a task in one of them.
type RareRow struct {
	ID     task.ID
	Status task.Status
}

// BatchEnd is the end of a task of which its batch has to hear.
type BatchEnd struct {
	ID     task.ID
	Status task.Status
	At     time.Time
}

// LetStart reports whether an end among the changes may let others start, which wait for it or, if there are rules, for its slots.
func (c *Changes) LetStart(rules bool) bool { return len(c.Ended) > 0 || rules && len(c.Release) > 0 }

// moved tells whom it concerns that a task has come from a status to that of s, if that is another.
func (c *Changes) moved(from task.Status, s *task.State) {
	if from == s.Status {
		return
	}
	if slices.Contains(RareStatuses, s.Status) {
		c.Rare = append(c.Rare, RareRow{s.ID, s.Status})
	}
	if from == task.Paused {
		c.Unpaused = append(c.Unpaused, s.ID)
	}
	if !s.Status.Terminal() {
		return
	}
	if s.HasChildren {
		c.Ended = append(c.Ended, Ended{s.ID, s.Status == task.Success})
	}
	if s.TellsBatch {
		c.BatchEnds = append(c.BatchEnds, BatchEnd{s.ID, s.Status, s.EndedAt})
	}
	if s.Status != task.Success {
		c.Futile = append(c.Futile, s.ID)
	}
}

// Host is where an action goes, for windows and fairness: host and port of its URL, in lower case, and the port only if it has one.
func Host(a task.Action) string {
	u, err := url.Parse(a.URL)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.ToLower(u.Host), ":")
}

// place is where a task in a state stands; see the package comment.
type place int

const (
	nowhere place = iota
	queued
	running
)

func placeOf(s *task.State) place {
	switch {
	case s.HoldsSlots():
		return running
	case s.Status == task.Pending:
		return queued
	}
	return nowhere
}

// follow adds what follows from a task having gone from before to r.State: its place, its children, its actions.
// requeue: its order or its gates changed.
func (c *Changes) follow(before *task.State, r *Row, triggers []task.Trigger, requeue bool) {
	c.States = append(c.States, r.State)
	from, to := placeOf(before), placeOf(&r.State)
	if from == running && to != running {
		c.Release = append(c.Release, r.ID)
	}
	if from == queued && (to != queued || requeue) {
		c.Unqueue = append(c.Unqueue, r.ID)
	}
	if to == queued && (from != queued || requeue) {
		c.Enqueue = append(c.Enqueue, r.ID)
	}
	if from == running && to == running && (before.Status == task.Paused) != (r.Status == task.Paused) {
		check := Check{ID: r.ID}
		if r.Status != task.Paused {
			check.At = r.Deadline()
		}
		c.Checks = append(c.Checks, check)
	}
	c.moved(before.Status, &r.State)
	c.send(r, triggers)
}

// send adds the actions of triggers to the outbox. A task without end actions needs no facts for it.
func (c *Changes) send(r *Row, triggers []task.Trigger) {
	if r.Task == nil {
		return
	}
	for _, trigger := range triggers {
		for i, a := range r.Task.Actions(trigger) {
			c.Deliveries = append(c.Deliveries, Delivery{Source: r.ID, Trigger: trigger, Place: i, Host: Host(a)})
		}
	}
}
