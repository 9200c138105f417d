package store

import (
	"slices"
	"time"

	"taskrunner/internal/task"
)

// PlanTakeOver takes over, at the time now, those of the claims in states whose on_start has had no answer.
func PlanTakeOver(states []task.State, facts map[task.ID]*task.Task, now time.Time) (Changes, []Claim) {
	var c Changes
	var claims []Claim
	for i := range states {
		s := &states[i]
		if !s.TakeOver(now) {
			continue
		}
		c.States = append(c.States, *s)
		c.tell(s, task.ClaimTakenOver, now)
		start := facts[s.ID].OnStart
		claims = append(claims, Claim{ID: s.ID, Attempt: s.Attempt, Host: Host(start), Action: start})
	}
	return c, claims
}

// PlanDue tells, of running tasks whose check is due, those that have timed out from those to look at later. What is
// claimed does not time out; it is looked at again after its time-out.
func PlanDue(running []task.State, now time.Time) (due []task.ID, later []Check) {
	for i := range running {
		s := &running[i]
		switch deadline := s.Deadline(); {
		case s.Status != task.Running:
			later = append(later, Check{s.ID, now.Add(s.Timeout)})
		case deadline.After(now):
			later = append(later, Check{s.ID, deadline})
		default:
			due = append(due, s.ID)
		}
	}
	return due, later
}

// DeadEndRows are tasks that may be dead ends, some of them several times.
type DeadEndRows struct {
	seqs []int64
	ids  []task.ID
}

// Add takes the next one.
func (d *DeadEndRows) Add(seq int64, id task.ID) {
	d.seqs, d.ids = append(d.seqs, seq), append(d.ids, id)
}

// Len counts the rows.
func (d *DeadEndRows) Len() int { return len(d.seqs) }

// IDs are the tasks, each once.
func (d *DeadEndRows) IDs() []task.ID { return sortIDs(slices.Clone(d.ids)) }

// Others are the rows of tasks that are not among found. The rest stay until their tasks have ended: a crash before that
// must not lose them.
func (d *DeadEndRows) Others(found []task.ID) []int64 {
	var seqs []int64
	for i, id := range d.ids {
		if !slices.Contains(found, id) {
			seqs = append(seqs, d.seqs[i])
		}
	}
	return seqs
}
