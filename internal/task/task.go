package task

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// ID names a task, a batch, a delivery or a process: a UUIDv7, so that ids sort by age.
type ID = uuid.UUID

// ParseID reads the one canonical form, 36 characters with dashes.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, fmt.Errorf("%q is not a UUID", s)
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("%q is not a UUID", s)
	}
	return id, nil
}

// Limits and defaults of a task, from the specification.
const (
	MaxName        = 255              // characters
	MaxKind        = 100              // characters
	MaxMetadata    = 64 << 10         // bytes, compact
	DefaultTimeout = 60 * time.Second // when left out
	MinTimeout     = time.Second      //
	MaxTimeout     = 86400 * time.Second
	MinPriority    = -1000
	MaxPriority    = 1000
)

// Batch is what one POST creates, all of it or nothing.
type Batch struct {
	ID        ID
	Requester string // X-Requester; may be empty
	// Scope is a label to find batches by, empty for none, and Metadata a compact JSON object, "{}" when the client sent
	// none. They say nothing about the tasks.
	Scope    string
	Metadata json.RawMessage
	// OnComplete are sent once, when the last task has ended. A body of theirs is an object: see [Completion].
	OnComplete []Action
	// Tasks stand in request order, and their ids sort in that order.
	Tasks []*Task
}

// Dedupes reports whether some of the tasks may be duplicates.
func (b *Batch) Dedupes() bool {
	return slices.ContainsFunc(b.Tasks, func(t *Task) bool { return len(t.Dedupe) > 0 })
}

// Task holds the facts of a task: what its client sent. What changes while it runs is its [State].
type Task struct {
	ID      ID
	BatchID ID
	LocalID string // the id the client gave it within the batch
	Name    string
	Kind    string
	// Timeout is how long it may go without activity once Running.
	Timeout time.Duration
	// Priority orders what waits: higher first, then oldest first.
	Priority int
	// ExpectedCount is how much work it announces; nil when it does not say.
	ExpectedCount *int64
	// DeadEndBarrier stops dead-end cancellation from going further up.
	DeadEndBarrier bool
	// Metadata is a compact JSON object, "{}" when the client sent none.
	Metadata json.RawMessage
	Rules    []Rule
	OnStart  Action
	// OnSuccess and OnFailure are sent when it ends, in order of no importance.
	OnSuccess []Action
	OnFailure []Action
	// OnCancel is what on_start's answer asked for; empty until then.
	OnCancel     []Action
	Dependencies []Dependency
	// Dedupe: the task is not created if one of these matches a task that is there. It matters only then, and is not kept.
	Dedupe    []Matcher
	CreatedAt time.Time
}

// Size is about how many bytes there are of what may be long: metadata, the fields of rules, and actions.
func (t *Task) Size() int {
	n := len(t.Metadata) + t.OnStart.Size()
	for i := range t.Rules {
		for _, field := range t.Rules[i].Matcher.Fields {
			n += len(field)
		}
	}
	for _, actions := range [][]Action{t.OnSuccess, t.OnFailure} {
		for i := range actions {
			n += actions[i].Size()
		}
	}
	return n
}

// Dependency says that a task waits for its parent.
type Dependency struct {
	Parent ID
	// RequiresSuccess: the parent must end in Success; otherwise it only has to end.
	RequiresSuccess bool
}

// State is what changes while a task lives. One narrow row of the store.
type State struct {
	ID     ID
	Status Status
	// Unmet counts the dependencies that have not settled.
	Unmet int
	// Success and Failures are the counts its worker reported.
	Success  int64
	Failures int64
	// Attempt counts its claims: 0 before the first, more than 1 after its process died. An answer to on_start
	// of an earlier attempt no longer fails the task.
	Attempt int
	// StartFailures counts the requests of on_start that failed, StartStatus is the last answer's code (0: none),
	// StartError the last error (empty: none).
	StartFailures int
	StartStatus   int
	StartError    string
	// ClaimedAt, StartedAt and EndedAt are zero until it comes to that.
	ClaimedAt time.Time
	StartedAt time.Time
	EndedAt   time.Time
	// LastUpdated is its last activity, from which the time-out runs.
	LastUpdated   time.Time
	FailureReason string

	// What follows never changes; it stands here so that settling an outcome needs no other row.

	Kind    string
	Timeout time.Duration
	// HasChildren: other tasks depend on it. A later batch may make it so.
	HasChildren bool
	// EndActions: it has at least one on_success or on_failure action.
	EndActions bool
	// TellsBatch: its batch has actions for when its last task has ended, so it has to hear of this one's end.
	TellsBatch bool
}

// HoldsSlots reports whether the task is in the place running: it counts for the rules of others.
func (s *State) HoldsSlots() bool {
	return s.Status == Claimed || s.Status == Running || s.Status == Paused && !s.ClaimedAt.IsZero()
}

// AwaitsStart reports whether the answer to the on_start of that attempt still matters: the task has neither started nor
// ended, and no other process has taken the claim over.
func (s *State) AwaitsStart(attempt int) bool {
	return s.HoldsSlots() && s.StartedAt.IsZero() && s.Attempt == attempt
}

// Left is the work that the task has left of expected, its ExpectedCount: never negative, and 0 where it does not say.
func (s *State) Left(expected *int64) int {
	if expected == nil || s.Success >= *expected {
		return 0
	}
	return int(max(0, *expected-s.Success-min(s.Failures, *expected)))
}

// Deadline is when a Running task times out. It means nothing in other states.
func (s *State) Deadline() time.Time { return s.LastUpdated.Add(s.Timeout) }
