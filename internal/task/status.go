package task

import (
	"fmt"
	"slices"
)

// Status is where a task stands. The numbers are stored in the databases and never change their meaning.
// The zero value is no status; it stands for "not created yet" in [Transitions].
type Status int16

const (
	// Waiting: at least one dependency has not ended.
	Waiting Status = iota + 1
	// Pending: may start as soon as its rules and the windows of dispatch allow it.
	Pending
	// Claimed: picked, its slots are taken, on_start is on its way. On the wire such a task is Pending with
	// claimed_at set.
	Claimed
	// Running: on_start was accepted.
	Running
	// Paused: set aside by a client. It keeps the slots it held.
	Paused
	// Success, Failure and Canceled are the ends.
	Success
	Failure
	Canceled
)

var statusNames = [...]string{
	Waiting: "Waiting", Pending: "Pending", Claimed: "Claimed", Running: "Running",
	Paused: "Paused", Success: "Success", Failure: "Failure", Canceled: "Canceled",
}

// Statuses lists every status in the order of a task's life.
func Statuses() []Status {
	return []Status{Waiting, Pending, Claimed, Running, Paused, Success, Failure, Canceled}
}

// String is the spelling on the wire; "Status(n)" for a number that is none.
func (s Status) String() string {
	if s < Waiting || int(s) >= len(statusNames) {
		return fmt.Sprintf("Status(%d)", int16(s))
	}
	return statusNames[s]
}

// Shown is the status as clients see it: a claimed task is Pending, and its claimed_at says the rest.
func (s Status) Shown() Status {
	if s == Claimed {
		return Pending
	}
	return s
}

// ParseStatus reads the wire spelling, which is case-sensitive as in the original.
func ParseStatus(name string) (Status, bool) {
	i := slices.Index(statusNames[:], name)
	return Status(i), i > 0
}

// Terminal reports whether no transition leads out of s.
func (s Status) Terminal() bool { return s == Success || s == Failure || s == Canceled }

// Cause is why a state changes.
type Cause string

const (
	Created           Cause = "created"            // POST /task
	DependenciesMet   Cause = "dependencies met"   // the last parent settled
	ParentFailed      Cause = "parent failed"      // a parent that had to succeed did not
	ClaimedBySchedule Cause = "claimed"            // the pump picked it and took its slots
	StartAccepted     Cause = "on_start accepted"  // 2xx
	StartRefused      Cause = "on_start failed"    // for good: its attempts are used up
	Finished          Cause = "finished by worker" // PATCH with a status
	TimedOut          Cause = "timed out"          // no activity for its timeout
	CanceledByClient  Cause = "canceled"           // DELETE
	LeadsNowhere      Cause = "dead end"           // all its children ended, none by Success
	PausedByClient    Cause = "paused"             // PATCH /task/pause
	ResumedByClient   Cause = "resumed"            // PATCH /task/resume
	ClaimTakenOver    Cause = "claim taken over"   // its process died; another sends on_start again
)

// Transition is one row of the state machine: Cause takes a task From (0: not created yet) to To.
type Transition struct {
	From  Status
	Cause Cause
	To    Status
}

// Transitions is the state machine, whole. Nothing else decides which state may follow which.
func Transitions() []Transition { return transitions }

var transitions = []Transition{
	{0, Created, Waiting},
	{0, Created, Pending},
	{Waiting, DependenciesMet, Pending},
	{Waiting, ParentFailed, Failure},
	{Waiting, CanceledByClient, Canceled},
	{Waiting, LeadsNowhere, Canceled},
	{Waiting, PausedByClient, Paused},
	{Pending, ClaimedBySchedule, Claimed},
	{Pending, CanceledByClient, Canceled},
	{Pending, LeadsNowhere, Canceled},
	{Pending, PausedByClient, Paused},
	{Claimed, StartAccepted, Running},
	{Claimed, StartRefused, Failure},
	{Claimed, ClaimTakenOver, Claimed},
	{Claimed, Finished, Success},
	{Claimed, Finished, Failure},
	{Claimed, CanceledByClient, Canceled},
	{Claimed, LeadsNowhere, Canceled},
	{Claimed, PausedByClient, Paused},
	{Running, Finished, Success},
	{Running, Finished, Failure},
	{Running, TimedOut, Failure},
	{Running, CanceledByClient, Canceled},
	{Running, LeadsNowhere, Canceled},
	{Running, PausedByClient, Paused},
	{Paused, ResumedByClient, Waiting},
	{Paused, ResumedByClient, Pending},
	{Paused, ResumedByClient, Claimed},
	{Paused, ResumedByClient, Running},
	{Paused, ParentFailed, Failure},
	{Paused, StartRefused, Failure},
	{Paused, ClaimTakenOver, Paused},
	{Paused, Finished, Success},
	{Paused, Finished, Failure},
	{Paused, CanceledByClient, Canceled},
	{Paused, LeadsNowhere, Canceled},
}

// Allowed reports whether cause may take a task from one state to the other.
func Allowed(from Status, cause Cause, to Status) bool {
	return slices.Contains(transitions, Transition{from, cause, to})
}
