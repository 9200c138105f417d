package task

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// OutcomeKind says what happened to a task.
type OutcomeKind int

const (
	// Update is a PATCH: a status, counts, metadata, expected_count, priority, in any combination.
	Update OutcomeKind = iota + 1
	// Count is a PUT of counts, which every state takes.
	Count
	// Cancel, Pause and Resume are what clients ask for.
	Cancel
	Pause
	Resume
	// Started and StartFailed are what became of on_start; Expire says that a deadline seems to have passed.
	Started
	StartFailed
	Expire
	// EditRules replaces the rules. A task that has started keeps the slots it took; one that has ended is left alone.
	EditRules
	// DeadEnd cancels a task whose children have all ended, none by Success; it may have ended meanwhile.
	DeadEnd
)

// Outcome is one thing that happened to one task, on its way to the store.
type Outcome struct {
	ID   ID
	Kind OutcomeKind

	// Of Update. Status is 0 (none), Success, Failure, or Pending, which resumes. FailureReason is of Cancel, too, where
	// it is not needed.
	Status        Status
	FailureReason string
	Metadata      json.RawMessage // nil: unchanged
	ExpectedCount *int64          // nil: unchanged
	Priority      *int            // nil: unchanged

	// Handle is the capability by which a report came; nil: its sender needs none.
	Handle *Handle

	// Of EditRules.
	Rules []Rule

	// Of Update and Count; never negative.
	NewSuccess  int64
	NewFailures int64

	// Of Started and StartFailed. Attempt is the claim they belong to.
	Attempt       int
	StartFailures int
	StartStatus   int
	StartError    string
	OnCancel      []Action // Started only: what the answer asked to call on cancel
}

// RefusalCode says why an outcome was refused.
type RefusalCode int

const (
	NotFound     RefusalCode = iota + 1 // no such task
	Conflict                            // not in this state
	Invalid                             // wrong in itself
	Unauthorized                        // its handle is dead
)

// Refusal is an outcome that was not applied. It changed nothing.
type Refusal struct {
	Code    RefusalCode
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Missing is the refusal of o when there is no task of its id. Whoever has a handle only is not told so.
func Missing(o *Outcome) *Refusal {
	if o.Handle != nil {
		return &Refusal{Code: Unauthorized}
	}
	return &Refusal{NotFound, fmt.Sprintf("task %s not found", o.ID)}
}

// Handle is what the token of a task's handle says, which was found to be right.
type Handle struct {
	// Attempt is the claim for which it was made, 0 for none. Those of earlier claims are good as well: their workers may be
	// alive, and the work is the same.
	Attempt int
	// Grace is how long it is good after the task has ended.
	Grace time.Duration
}

// Dead reports whether the handle of the task in s is good no more at the time now. That of a claim that never was is not
// good yet: the database was set back.
func (h *Handle) Dead(s *State, now time.Time) bool {
	return h.Attempt > s.Attempt || s.Status.Terminal() && now.Sub(s.EndedAt) > h.Grace
}

func conflict(s *State, what string) error {
	return &Refusal{Conflict, fmt.Sprintf("task is %s, it cannot %s", s.Status, what)}
}

// Apply takes o to the task in s at the time now. It changes s, and t where o edits facts, and returns the triggers
// whose actions are to be sent because of it. t is needed when [NeedsTask] says so and may be nil otherwise.
// Outcomes of the service itself (Started, StartFailed, Expire) that come too late change nothing and are no error;
// those of clients give a [*Refusal], and then nothing has changed.
func Apply(s *State, t *Task, o *Outcome, now time.Time) ([]Trigger, error) {
	if o.Handle != nil && o.Handle.Dead(s, now) {
		return nil, &Refusal{Code: Unauthorized}
	}
	switch o.Kind {
	case Update:
		return applyUpdate(s, t, o, now)
	case Count:
		s.count(o)
		s.LastUpdated = now
		return nil, nil
	case Cancel:
		if s.Status.Terminal() {
			return nil, conflict(s, "be canceled")
		}
		return s.cancel(CanceledByClient, o.FailureReason, now), nil
	case DeadEnd:
		if s.Status.Terminal() {
			return nil, nil
		}
		return s.cancel(LeadsNowhere, "Dead end", now), nil
	case Pause:
		if s.Status.Terminal() || s.Status == Paused {
			return nil, conflict(s, "be paused")
		}
		s.move(Paused, PausedByClient, now)
		return nil, nil
	case Resume:
		return nil, s.resume(now)
	case Started:
		return s.started(t, o, now), nil
	case StartFailed:
		return s.startFailed(o, now), nil
	case EditRules:
		return nil, s.editRules(t, o)
	case Expire:
		if s.Status != Running || s.Deadline().After(now) {
			return nil, nil
		}
		s.end(Failure, TimedOut, "Timeout", now)
		return []Trigger{TriggerFailure}, nil
	}
	panic(fmt.Sprintf("task: unknown outcome kind %d", o.Kind))
}

// NeedsTask reports whether Apply, or what follows from it, looks at the facts of the task in s.
func NeedsTask(s *State, o *Outcome) bool {
	switch o.Kind {
	case Update:
		return o.Metadata != nil || o.Priority != nil || o.ExpectedCount != nil || o.Status.Terminal() && s.EndActions
	case EditRules:
		return true
	case Started:
		return len(o.OnCancel) > 0
	case StartFailed, Expire:
		return s.EndActions
	case Cancel, DeadEnd:
		return s.HoldsSlots() // it may have a cancel action
	}
	return false
}

func applyUpdate(s *State, t *Task, o *Outcome, now time.Time) ([]Trigger, error) {
	edits := o.Metadata != nil || o.ExpectedCount != nil || o.Priority != nil
	if s.Status.Terminal() {
		switch {
		case o.Status == s.Status:
			return nil, nil // a worker that repeats itself is not punished, and its counts were taken the first time
		case o.Status != 0 || edits || o.NewSuccess+o.NewFailures == 0:
			return nil, conflict(s, "be changed")
		}
		s.count(o)
		s.LastUpdated = now
		return nil, nil
	}
	if o.Metadata != nil {
		if err := fits("metadata: ", t.Rules, o.Metadata, t.ExpectedCount); err != nil {
			return nil, err
		}
	}
	var triggers []Trigger
	switch o.Status {
	case Success, Failure:
		if !s.HoldsSlots() {
			return nil, conflict(s, "end in "+o.Status.String())
		}
		if s.StartedAt.IsZero() {
			s.StartedAt = s.ClaimedAt
		}
		s.end(o.Status, Finished, o.FailureReason, now)
		triggers = []Trigger{TriggerSuccess}
		if o.Status == Failure {
			triggers[0] = TriggerFailure
		}
	case Pending:
		if err := s.resume(now); err != nil {
			return nil, err
		}
	}
	s.count(o)
	s.LastUpdated = now
	if edits {
		t.edit(o)
	}
	return triggers, nil
}

// editRules is no activity of the task.
func (s *State) editRules(t *Task, o *Outcome) error {
	if s.Status.Terminal() {
		return nil
	}
	if err := fits("", o.Rules, t.Metadata, t.ExpectedCount); err != nil {
		return err
	}
	t.Rules = o.Rules
	return nil
}

// fits refuses rules for which a task lacks something. what stands before the message.
func fits(what string, rules []Rule, metadata json.RawMessage, expected *int64) error {
	md := ParseMetadata(metadata)
	for i, r := range rules {
		lacks := r.Lacks(md, expected)
		switch {
		case len(lacks) == 0:
		case lacks[0] == "":
			return &Refusal{Invalid, fmt.Sprintf("%srules[%d] needs expected_count", what, i)}
		default:
			return &Refusal{Invalid, fmt.Sprintf("%srules[%d] needs the fields %q", what, i, r.Matcher.Fields)}
		}
	}
	return nil
}

func (t *Task) edit(o *Outcome) {
	if o.Metadata != nil {
		t.Metadata = o.Metadata
	}
	if o.ExpectedCount != nil {
		t.ExpectedCount = o.ExpectedCount
	}
	if o.Priority != nil {
		t.Priority = *o.Priority
	}
}

func (s *State) started(t *Task, o *Outcome, now time.Time) []Trigger {
	if s.StartedAt.IsZero() && s.HoldsSlots() {
		s.StartedAt = now
		s.recordStart(o)
		if s.Status == Claimed {
			s.move(Running, StartAccepted, now)
		}
	}
	if len(o.OnCancel) == 0 || len(t.OnCancel) > 0 || s.Status == Success || s.Status == Failure {
		return nil
	}
	t.OnCancel = o.OnCancel
	if s.Status == Canceled {
		return []Trigger{TriggerCancel} // canceled while the answer was on its way
	}
	return nil
}

func (s *State) startFailed(o *Outcome, now time.Time) []Trigger {
	if !s.AwaitsStart(o.Attempt) {
		return nil
	}
	s.recordStart(o)
	s.end(Failure, StartRefused, o.FailureReason, now)
	return []Trigger{TriggerFailure}
}

func (s *State) recordStart(o *Outcome) {
	s.StartFailures += o.StartFailures
	s.StartStatus, s.StartError = o.StartStatus, o.StartError
}

// SettleDependencies tells the child in s that n of its parents ended at the time now; failed is one of them that
// had to succeed and did not, or the zero ID. It reports whether the child changed at all, and the triggers whose
// actions are to be sent because of it.
func SettleDependencies(s *State, n int, failed ID, now time.Time) (bool, []Trigger) {
	if s.Status.Terminal() {
		return false, nil
	}
	s.Unmet -= n
	switch {
	case failed != ID{}:
		s.end(Failure, ParentFailed, fmt.Sprintf("Required parent task %s failed", failed), now)
		return true, []Trigger{TriggerFailure}
	case s.Unmet == 0 && s.Status == Waiting:
		s.move(Pending, DependenciesMet, now)
	}
	return true, nil
}

// Claim takes the task in s, which must be Pending, for its first attempt.
func (s *State) Claim(now time.Time) {
	s.move(Claimed, ClaimedBySchedule, now)
	s.ClaimedAt = now
	s.Attempt++
}

// TakeOver gives a claim whose process died to another; false if the answer to on_start is known by now.
func (s *State) TakeOver(now time.Time) bool {
	if !s.HoldsSlots() || !s.StartedAt.IsZero() {
		return false
	}
	s.move(s.Status, ClaimTakenOver, now)
	s.Attempt++
	return true
}

func (s *State) resume(now time.Time) error {
	if s.Status != Paused {
		return conflict(s, "be resumed")
	}
	to := Waiting
	switch {
	case s.HoldsSlots() && !s.StartedAt.IsZero():
		to = Running
	case s.HoldsSlots():
		to = Claimed
	case s.Unmet == 0:
		to = Pending
	}
	s.move(to, ResumedByClient, now)
	return nil
}

func (s *State) count(o *Outcome) {
	s.Success = addCapped(s.Success, o.NewSuccess)
	s.Failures = addCapped(s.Failures, o.NewFailures)
}

func addCapped(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func (s *State) cancel(cause Cause, reason string, now time.Time) []Trigger {
	held := s.HoldsSlots()
	s.end(Canceled, cause, reason, now)
	if held {
		return []Trigger{TriggerCancel}
	}
	return nil
}

func (s *State) end(to Status, cause Cause, reason string, now time.Time) {
	s.move(to, cause, now)
	s.EndedAt = now
	s.FailureReason = reason
}

func (s *State) move(to Status, cause Cause, now time.Time) {
	if !Allowed(s.Status, cause, to) {
		panic(fmt.Sprintf("task: no transition %s → %s (%s)", s.Status, to, cause))
	}
	s.Status = to
	s.LastUpdated = now
}
