package task

import (
	"slices"
	"time"
)

// Step is one transition of a task, at the time At.
type Step struct {
	At time.Time
	Transition
}

// Routine reports whether the times in a task's State and Task tell of a transition with that cause: then nobody has to
// write it down.
func (c Cause) Routine() bool { return slices.Contains(routine, c) }

// routine causes happen to a task once at most, and in this order.
var routine = []Cause{Created, ClaimedBySchedule, StartAccepted, Finished}

// Repeatable reports whether a transition with that cause may happen to a task any number of times.
func (c Cause) Repeatable() bool {
	return c == PausedByClient || c == ResumedByClient || c == ClaimTakenOver
}

// Cause is why the outcome changes the state of a task, if it does.
func (o *Outcome) Cause() Cause {
	switch o.Kind {
	case Cancel:
		return CanceledByClient
	case DeadEnd:
		return LeadsNowhere
	case Pause:
		return PausedByClient
	case Started:
		return StartAccepted
	case StartFailed:
		return StartRefused
	case Expire:
		return TimedOut
	case Update:
		if o.Status.Terminal() {
			return Finished
		}
	}
	return ResumedByClient
}

// History is the life of the task in s: the transitions that were written down, in their order, and the routine ones,
// which s tells of. parents: it had dependencies. From is set in none of those that were written down.
func History(created time.Time, parents bool, s *State, written []Step) []Step {
	first := Pending
	if parents {
		first = Waiting
	}
	steps := append([]Step{{created, Transition{Cause: Created, To: first}}}, written...)
	add := func(at time.Time, cause Cause, to Status) {
		steps = append(steps, Step{at, Transition{Cause: cause, To: to}})
	}
	if !s.ClaimedAt.IsZero() {
		add(s.ClaimedAt, ClaimedBySchedule, Claimed)
	}
	if !s.StartedAt.IsZero() && !s.StartedAt.Equal(s.ClaimedAt) { // equal: it ended before on_start was accepted
		add(s.StartedAt, StartAccepted, Running)
	}
	ended := slices.ContainsFunc(written, func(step Step) bool { return step.To.Terminal() })
	if s.Status.Terminal() && !ended {
		add(s.EndedAt, Finished, s.Status)
	}
	slices.SortStableFunc(steps, func(a, b Step) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return a.Cause.rank() - b.Cause.rank()
	})
	from := Status(0)
	for i := range steps {
		step := &steps[i]
		if step.Cause == StartAccepted && from == Paused {
			step.To = Paused // it was accepted all the same
		}
		step.From, from = from, step.To
	}
	return steps
}

// rank orders what happened in the same transaction.
func (c Cause) rank() int {
	switch c {
	case Created:
		return 0
	case DependenciesMet:
		return 1
	case ClaimedBySchedule:
		return 2
	case StartAccepted:
		return 3
	case Finished:
		return 5
	}
	return 4
}
