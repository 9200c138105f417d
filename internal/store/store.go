package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"taskrunner/internal/task"
)

var (
	// ErrNotFound: no such task or batch.
	ErrNotFound = errors.New("not found")
	// ErrUndone: outcomes and the tick that was to follow them had no effect; without it they may have.
	ErrUndone = errors.New("tick undone")
	// ErrUnavailable: the database could not be reached, or undid the transaction again and again. It may work later.
	ErrUnavailable = errors.New("database unavailable")
)

// Store keeps tasks. Safe for concurrent use. Every method is one transaction; see the package comment for what holds
// between them. Errors other than the documented ones mean that the database could not be asked.
type Store interface {
	// Migrate brings the schema up to date. Concurrent calls, also of other processes, wait for each other.
	Migrate(ctx context.Context) error
	// Health answers an error when the database does not.
	Health(ctx context.Context) (Health, error)
	// Close ends every connection.
	Close() error

	// Create stores batches and everything in them but duplicates ([task.Task].Dedupe), and sets CreatedAt of their tasks; of a
	// batch of duplicates alone, nothing. It answers each create in its place. One with a key that stands for an earlier one, be
	// it of the same call, stores nothing and is answered with the batch that there is, or ErrKeyReused. An error means that
	// nothing is stored, nor any key.
	//
	// A create whose tasks have Dedupe comes alone. The error is [task.Problems] if without the duplicates tasks would wait for
	// each other in a circle.
	Create(ctx context.Context, creates []Create) ([]Created, error)
	// Settle applies outcomes in their order and answers each in its own place. One task may have several.
	Settle(ctx context.Context, outcomes []task.Outcome) (Settled, error)
	// SettleAndPump is Settle and, if that may let others start and turn allows it, Pump, in one transaction: so what an end
	// lets start takes one commit. Without a tick pumped is nil, and Settled says whether it is still due. It is tried once, and
	// the tick waits for nobody's rows: on ErrUndone, Settle.
	SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn Turn) (settled Settled, pumped *Pumped, err error)

	// Work tells the process owner what there is to do, by one cheap look. Who makes work hints at it where it is done;
	// this finds what becomes due by itself, and that of which the hint was lost, be it with its process.
	Work(ctx context.Context, owner task.ID) (Work, error)
	// Pump runs one tick: it folds what has ended, admits what may start, and parks the rest. What another process has made
	// ready, or has ended, it may overlook for about a second, unless Listen has heard of it.
	Pump(ctx context.Context, p PumpParams) (Pumped, error)
	// TakeOver gives owner the claims of other processes whose lease has run out, to send on_start again.
	TakeOver(ctx context.Context, owner task.ID) ([]Claim, error)
	// Heartbeat says that the process owner lives, for the next lease.
	Heartbeat(ctx context.Context, owner task.ID, lease time.Duration) error
	// Leave ends the lease of owner at once, so that others take its claims over.
	Leave(ctx context.Context, owner task.ID) error
	// Due returns Running tasks whose time-out has passed; they are still to be settled. It looks at up to limit of those that
	// may be; more: there may be others. Those that have been active since are not looked at again before their time-out.
	Due(ctx context.Context, limit int) (ids []task.ID, more bool, err error)

	// DeadEnds returns tasks that have not ended though all their children have, none by Success, and that are no
	// barriers; they are still to be settled. It looks at up to limit of those that may be; more: there are others. A
	// store that was not opened to look for them finds none.
	DeadEnds(ctx context.Context, limit int) (ids []task.ID, more bool, err error)

	// ClaimDeliveries leases deliveries that are due, so that no other process sends them before the lease runs out.
	ClaimDeliveries(ctx context.Context, p ClaimDeliveriesParams) (ClaimedDeliveries, error)
	// FinishDeliveries records attempts and what they came to. Of a delivery that was finished meanwhile only the attempt is
	// recorded; one that does not exist is passed over.
	FinishDeliveries(ctx context.Context, attempts []Attempt) error
	// RetryDeliveries sends deliveries again now: those that are dead, with the attempts of a new round, and those that are
	// pending, but what is being sent just now. What is done stays so. It returns the states in which they were, of those
	// that exist. No id stands twice.
	RetryDeliveries(ctx context.Context, ids []task.ID) (map[task.ID]DeliveryState, error)
	// Deliveries lists deliveries, newest first, by what f says of them.
	Deliveries(ctx context.Context, f Filter) (Page[DeliveryItem], error)
	// Delivery returns everything about a delivery, or ErrNotFound.
	Delivery(ctx context.Context, id task.ID) (*DeliveryDetail, error)

	// Task returns everything about a task, or ErrNotFound.
	Task(ctx context.Context, id task.ID) (*Detail, error)
	// History returns the transitions of a task, oldest first, or ErrNotFound. Of those that may happen again and again
	// it has the newest MaxHistory.
	History(ctx context.Context, id task.ID) ([]task.Step, error)
	// Tasks lists tasks in the order of f.Sort. Their metadata, rules, actions and dependencies are left out.
	Tasks(ctx context.Context, f Filter) (Page[Item], error)
	// ToEdit lists the tasks of that kind of a batch that have not ended, oldest first, and up to MaxLacking things that
	// they lack for rules. ErrNotFound: there is no such batch.
	ToEdit(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (ToEdit, error)
	// Batches lists batches, newest first: those with a task that f selects. Before and Offset count batches.
	Batches(ctx context.Context, f Filter) (Page[BatchItem], error)
	// Batch sums a batch up, or ErrNotFound.
	Batch(ctx context.Context, id task.ID) (*BatchSummary, error)
	// ToStop lists the tasks of a batch that have not ended, or answers ErrNotFound. They stand in the order of
	// [StopOrder].
	ToStop(ctx context.Context, batch task.ID) (*ToStop, error)
	// Details returns everything about the tasks of a batch, in request order; none if there is no such batch.
	Details(ctx context.Context, batch task.ID) ([]Detail, error)
	// DAG returns the tasks of a batch in request order and the dependencies between them, or ErrNotFound. It has its place
	// among the lists: ErrListsBusy.
	DAG(ctx context.Context, batch task.ID) (*DAG, error)
	// Explain returns what decides whether a task may start, or ErrNotFound.
	Explain(ctx context.Context, id task.ID) (*Situation, error)
	// Limits lists the gates in use.
	Limits(ctx context.Context, f LimitFilter) (*Limits, error)

	// Expire looks at up to limit batches, first at those that may be over for longest, and makes those gone for every reader
	// that have been over for keep: all their tasks have ended, all their webhooks were sent or given up, and no task
	// of another batch that has not ended depends on one of theirs. One of which something is still to come is looked at again
	// after keep. A driver may have a lower limit of its own, here and for Purge.
	Expire(ctx context.Context, keep time.Duration, limit int) (Removed, error)
	// Purge deletes up to limit tasks of batches that have expired, with all that there is about them. What it did not come to
	// it finds the next time.
	Purge(ctx context.Context, limit int) (Removed, error)

	// Drift counts the gates whose used slots differ from the rows that hold them. It must be 0.
	Drift(ctx context.Context) (int, error)
	// Maintain does the housekeeping that the driver needs now and then, and deletes keys past their KeyLife, some at a
	// time; cheap when there is none.
	Maintain(ctx context.Context) error
	// Notify wakes the other processes on this database.
	Notify(ctx context.Context) error
	// Listen calls wake for each Notify of another process, or more often, until ctx ends. It wakes
	// whenever something may have been missed.
	Listen(ctx context.Context, wake func())
}

// Work is what there is to do.
type Work struct {
	Pump     bool // a tick may find something
	Outbox   bool // deliveries are due
	Due      bool // running tasks may have timed out
	DeadEnds bool // tasks may be dead ends
	Dead     bool // the lease of another process has run out
}

// Health is what a database says of itself.
type Health struct {
	PoolSize int // connections
	PoolIdle int // of them not in use
}

// Settled is what Settle did.
type Settled struct {
	// Results stand in the order of the outcomes.
	Results []Result
	// Pump and Outbox: there is work for them now.
	Pump, Outbox bool
}

// Result answers one outcome.
type Result struct {
	// From and State are the task before and after. Zero when the task does not exist.
	From  task.Status
	State task.State
	// Err is a *task.Refusal, or nil.
	Err error
}

// PumpParams bounds a tick.
type PumpParams struct {
	// Owner is the process that claims. It must have a lease.
	Owner task.ID
	// Room is how much dispatch can take now.
	Room task.Room
	// Fetch is how many ready tasks are looked at where Room is less; 0: as many as there is room for. Links bounds the
	// dependencies folded; 0: DefaultLinks. BatchDeltas bounds what batches are told of the ends of their tasks, in rows; 0: 10 000.
	Fetch, Links, BatchDeltas int
}

// Turn gives the parameters of the tick that is to follow in a transaction, or says that there is to be none. It is asked at most
// once, while rows are locked: it must not wait.
type Turn func() (p PumpParams, ok bool)

// Pumped is what a tick did.
type Pumped struct {
	// Claims are to be sent.
	Claims []Claim
	// Transitions counts the state changes of the tick.
	Transitions map[Transition]int
	// Propagated counts the dependencies settled, by the outcome of the parent.
	Propagated map[task.Status]int
	// Parked counts the tasks that a rule began to hold back.
	Parked int
	// Busy: another process is pumping; nothing was done.
	Busy bool
	// More: another tick would find work now.
	More bool
	// Blocked: every ready task looked at is held back by a rule while there is room; a greater Fetch gets further.
	Blocked bool
	// Starved: tasks could start but for Room.
	Starved bool
	// Uncounted: rules are so new that nobody has counted what they limit, and it takes the end of other transactions before
	// that can be done. It is to be tried again soon.
	Uncounted bool
	// Outbox: there are new deliveries.
	Outbox bool
}

// Transition labels a state change for the metrics.
type Transition struct {
	From, To task.Status
	Kind     string
}

// Claim is an on_start to send.
type Claim struct {
	ID      task.ID
	Attempt int
	Host    string
	Action  task.Action
}

// Delivery is an end or cancel action of a task to send, or an action of a batch that is complete. There is one for each
// Source, Trigger and Place.
type Delivery struct {
	// ID is made when it is stored.
	ID task.ID
	// Source is the task, or the batch, whose action it is.
	Source  task.ID
	Trigger task.Trigger
	// Place counts the actions of one trigger from 0.
	Place int
	Host  string
	// Failures counts the attempts so far; all of them failed. The first EarlierFailures of them belong to rounds after which
	// it was dead and was retried by hand.
	Failures, EarlierFailures int
	// Action of a batch has the body that tells of the batch.
	Action task.Action
}

// ClaimDeliveriesParams bounds what is claimed.
type ClaimDeliveriesParams struct {
	// Room is an upper bound. A driver whose statement cannot lower the shares of hosts as it takes places leaves half of
	// Total to the next claim.
	Room task.Room
	// Lease is that of a delivery, unless its action may take longer: see [Delivery.Lease].
	Lease time.Duration
}

// ClaimedDeliveries are deliveries to send.
type ClaimedDeliveries struct {
	Deliveries []Delivery
	// More: others were due but for Room.
	More bool
}

// DeliveryState is where a delivery stands.
type DeliveryState int16

const (
	DeliveryPending DeliveryState = iota + 1 // to be sent, now or later
	DeliveryDone                             // accepted
	DeliveryDead                             // given up
)

// Attempt is one attempt to send a delivery, and what the delivery came to by it.
type Attempt struct {
	Delivery task.ID
	// State is DeliveryPending when it is to be sent again, after Retry.
	State DeliveryState
	Retry time.Duration
	AttemptRecord
}

// AttemptRecord is what is kept of an attempt.
type AttemptRecord struct {
	// At is when it began, by the clock of the process that made it, Took the time to the end of the answer.
	At   time.Time
	Took time.Duration
	// Status is the answer's code, 0 for none; Error is empty on success.
	Status int
	Error  string
	// Answer is how the answer's body begins, as text.
	Answer string
}

// KeptAttempts is how many attempts of a delivery are kept, the newest ones; the one that is accepted may come to them.
const KeptAttempts = 100

// Item is a task in a list.
type Item struct {
	Task  task.Task
	State task.State
}

// Detail is a task with everything about it.
type Detail struct {
	Item
	// Parents are the states of Task.Dependencies, in their order.
	Parents []task.Status
	// Deliveries are the records of end and cancel actions that came due.
	Deliveries []DeliveryRecord
}

// DeliveryRecord is what is known of a delivery.
type DeliveryRecord struct {
	ID         task.ID
	Trigger    task.Trigger
	Place      int
	State      DeliveryState
	Failures   int
	LastStatus int    // 0: none
	LastError  string // empty: none
	// NextAt is when it is sent. Zero: it is being sent, or it is not pending.
	NextAt time.Time
}

// DeliveryItem is a delivery in a list.
type DeliveryItem struct {
	DeliveryRecord
	// Task is zero when it is the action of a batch itself.
	Task, Batch task.ID
	Host        string
	CreatedAt   time.Time
}

// DeliveryDetail is a delivery with everything about it.
type DeliveryDetail struct {
	DeliveryItem
	Action   task.Action
	Attempts []AttemptRecord // oldest first, the newest KeptAttempts
}

// Filter selects tasks. Zero members do not filter.
type Filter struct {
	Statuses []task.Status
	Kind     string // exact
	// KindPrefix, NamePart: the kind begins with, the name contains. Case-sensitive.
	KindPrefix, NamePart string
	Batch                task.ID
	// IDs: only these tasks. Nil does not filter, empty finds nothing. Those that do not exist are passed over.
	IDs []task.ID
	// Metadata: a JSON object that the metadata contains, as jsonb's @> has it: that of a task, or of a batch in a list of
	// batches.
	Metadata []byte
	// Scope of a batch, exact. In a list of batches only.
	Scope string
	// DeliveryStates, Task and Host, exact, are those of deliveries. In a list of deliveries only, which knows of the other
	// filters Batch alone: the deliveries of the batch and of its tasks.
	DeliveryStates []DeliveryState
	Task           task.ID
	Host           string

	Timeout time.Duration
	// CreatedAfter and CreatedBefore do not include the time itself. A list is bounded by ids where it can be, which
	// begin with the time of the process that made them: see [ClockSlack]. Where its clock is off by more, the list is.
	CreatedAfter, CreatedBefore time.Time
	// Sort is the order of tasks; batches know SortCreated alone.
	Sort Sort
	// Before continues after that task of an earlier page, which with SortUpdated was last updated at BeforeUpdate; Offset
	// skips.
	Before       task.ID
	BeforeUpdate time.Time
	Offset       int
	Limit        int
	// Walk is about how many tasks are looked at for one page when no index knows what f selects, or batches when f asks
	// nothing of their tasks; 0: as many as it takes.
	// It is not for an Offset, nor for SortUpdated.
	Walk int
}

// FewKinds is up to how many kinds are looked through for those with a prefix.
const FewKinds = 200

// KindsOf returns those of all, the first FewKinds that there are, that begin with prefix; prefix itself where there is none. merge says
// whether their list is to be merged from those of each: to merge costs more than to pass a task over, so not where they are a large
// part of all.
func KindsOf(prefix string, all []string) (kinds []string, merge bool) {
	for _, kind := range all {
		if strings.HasPrefix(kind, prefix) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		kinds = []string{prefix}
	}
	return kinds, len(all) < FewKinds && (len(kinds) == 1 || len(kinds) <= min(20, len(all)/4))
}

// Walks that take some ten milliseconds. To look at a task of a batch costs less.
const (
	MaxWalk      = 5_000
	MaxBatchWalk = 20_000
)

// Page is a part of a list.
type Page[T any] struct {
	Items []T
	// Walked is where Filter.Walk ended the page, for Filter.Before: others may follow though Items are fewer than asked
	// for, or none. Zero: Items are as many as asked for, or there are no others.
	Walked task.ID
}

// NewPage makes the page of what a walk found that ended at walked; zero: at the end of the list.
func NewPage[T any](items []T, walked task.ID, f *Filter) Page[T] {
	if len(items) == f.Limit {
		walked = task.ID{}
	}
	return Page[T]{items, walked}
}

// Walks reports whether a list may pass over tasks that f does not select, so that Walk is for it.
func (f *Filter) Walks() bool {
	return f.Walk > 0 && f.Sort == SortCreated && f.IDs == nil && (len(f.Statuses) > 0 || f.KindPrefix != "" || f.NamePart != "" ||
		f.Metadata != nil || f.Timeout != 0 || len(f.DeliveryStates) > 0 || f.Host != "" || !f.CreatedAfter.IsZero() || !f.CreatedBefore.IsZero())
}

// Sort is the order of a list.
type Sort int

const (
	// SortCreated: the newest first, by their ids.
	SortCreated Sort = iota
	// SortUpdated: the last updated first. No index has that time, which every transition changes, so all that the filter
	// selects is sorted: it should be Bounded.
	SortUpdated
)

// Bounded reports whether f selects no more tasks than one batch has, than it names, or than are at work.
func (f *Filter) Bounded() bool {
	return f.IDs != nil || f.Batch != (task.ID{}) || f.Only(task.Claimed, task.Running)
}

// Only reports whether f wants nothing but some of statuses.
func (f *Filter) Only(statuses ...task.Status) bool {
	return len(f.Statuses) > 0 &&
		!slices.ContainsFunc(f.Statuses, func(s task.Status) bool { return !slices.Contains(statuses, s) })
}

// OnlyDead reports whether f wants nothing but dead deliveries, OnlyPending nothing but pending ones.
func (f *Filter) OnlyDead() bool { return f.only(DeliveryDead) }

// OnlyPending is as above.
func (f *Filter) OnlyPending() bool { return f.only(DeliveryPending) }

func (f *Filter) only(state DeliveryState) bool {
	return len(f.DeliveryStates) == 1 && f.DeliveryStates[0] == state
}

// MaxLacking bounds ToEdit.Lacking.
const MaxLacking = 20

// ToEdit are tasks whose rules are to change.
type ToEdit struct {
	IDs     []task.ID
	Lacking []Lacking
}

// Lacking is what a task lacks for a rule, by its place: a field of its metadata, or expected_count, as "".
type Lacking struct {
	ID    task.ID
	Rule  int
	Field string
}

// Add takes the next task.
func (u *ToEdit) Add(id task.ID, metadata []byte, expected *int64, rules []task.Rule) {
	u.IDs = append(u.IDs, id)
	md := task.ParseMetadata(metadata)
	for i, rule := range rules {
		for _, field := range rule.Lacks(md, expected) {
			if len(u.Lacking) < MaxLacking {
				u.Lacking = append(u.Lacking, Lacking{id, i, field})
			}
		}
	}
}

// OfTasks reports whether f, in a list of batches, says anything about tasks.
func (f *Filter) OfTasks() bool {
	return len(f.Statuses) > 0 || f.Kind != "" || f.KindPrefix != "" || f.NamePart != "" || f.Batch != (task.ID{}) ||
		f.Timeout != 0
}

// BatchLabels are what a batch is known by; as in [task.Batch].
type BatchLabels struct {
	Requester string
	Scope     string
	Metadata  json.RawMessage
}

// BatchItem is a batch in a list.
type BatchItem struct {
	BatchLabels
	ID        task.ID
	CreatedAt time.Time
	UpdatedAt time.Time // the last activity of any of its tasks
	Tasks     int
	Counts    map[task.Status]int
	Kinds     []string // sorted
}

// BatchSummary sums a batch up.
type BatchSummary struct {
	BatchLabels
	ID        task.ID
	CreatedAt time.Time
	// OnComplete are its own actions, Deliveries the records of them, if it is complete.
	OnComplete []task.Action
	Deliveries []DeliveryRecord
	BatchSums
}

// BatchSums are what the tasks of a batch come to.
type BatchSums struct {
	Counts   map[task.Status]int
	Tasks    int
	Success  int64
	Failures int64
	// Expected is nil as soon as one task does not say.
	Expected *int64
}

// ToStop are the tasks that the stop of a batch cancels.
type ToStop struct {
	Tasks int // of the batch, ended or not
	IDs   []task.ID
}

// DAG is a batch as a graph.
type DAG struct {
	Items []Item
	Links []Link
}

// Link is a dependency.
type Link struct {
	Parent, Child   task.ID
	RequiresSuccess bool
	// Settled: the parent had ended before the child was created, which knows of it. The parent's end, which may be still to
	// be told to others, is not told to it.
	Settled bool
}
