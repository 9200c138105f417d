package store

import (
	"time"

	"taskrunner/internal/task"
)

// Bounds of one tick.
const (
	// DefaultLinks is how many dependencies a tick folds: a fan-out of 100 000 must not stall the others. A link takes 15 to 40 µs.
	DefaultLinks = 1000
	// DefaultBatchDeltas is how many rows of what batches are told a tick folds.
	DefaultBatchDeltas = 10_000
	// MaxDeltas and MaxDirty bound the gates a tick looks at.
	MaxDeltas = 10_000
	MaxDirty  = 500
	// maxWoken bounds the parked tasks that a tick looks at.
	maxWoken = 1000
	// wakeAll is how many are woken at once in a lane whose tasks take no slot.
	wakeAll = 256
	// wakeLoads is how many are woken at once in a lane of a gate of Capacity: nobody knows how much each of them takes.
	wakeLoads = 32
)

// Tick plans one tick of the pump. A driver, holding the pump's lock, sets Now and calls its methods in this order, each
// with what it loaded, and in the end writes what the exported members say:
//
//	FoldGates   deltas with their gates; dirty gates if there is room
//	FoldEvents  the ends of parents with their links, and the children locked, in id order
//	FoldBatches the batches that are complete, once what they were told is folded
//	Ready       the heads of ready, locked as far as that needs no waiting
//	TallyEvents the tasks that changed, of kinds that are tallied
//	Walked      the next tasks of the kinds of Walks(), if there are any
//	Facts       of the tasks that Missing() names
//	Count       the running rows of the kinds in NewShapes, if there are any
//	Woken       the parked tasks that Wakes() asks for, locked like ready ones
//	FoldTallies the tasks that Tallies() names, and their tallies
//	Admit       the gates that Wanted() names
//
// Everything up to TallyEvents can be loaded at once, then what Walks asks for, then everything up to FoldTallies, then
// the gates.
type Tick struct {
	Params PumpParams
	Now    time.Time

	// Changes is written like that of outcomes; the other members are the pump's alone.
	Changes Changes
	// Done removes events; Advance moves the cursor of one on, and puts it behind all others: a big one takes turns with them.
	Done    []int64
	Advance *EventCursor
	// Claim puts tasks into running, Lined into ready; Unready and Unpark take them out of where they were.
	Claim   []ClaimRow
	Lined   []ReadyKey
	Unready []ReadyKey
	Unpark  []task.ID
	// Park puts tasks into parked, or moves them there.
	Park []ParkRow
	// Hold adds gates to running rows.
	Hold []HoldRow
	// SetGates writes gates, DropGates removes them.
	SetGates  []GateRow
	DropGates []task.GateID
	// NewShapes are known from this transaction's commit on. At first the driver puts those that are not tallied there.
	NewShapes []task.Shape
	// NewTallies are set by the driver, too. Of those that are not Marked it writes down what has to end.
	NewTallies []NewTally
	// WalkedTo is how far the kinds of new tallied shapes were walked that are not walked whole.
	WalkedTo []TallyCursor
	// SetTallies writes rows of tally, DropTallies removes them.
	SetTallies  []TallyRow
	DropTallies []TallyKey
	// Deltas, of gates and of batches, and TalliesTaken count the rows that were folded.
	Deltas, TalliesTaken int

	Result Pumped

	shapes  *Shapes
	waiting map[task.ID]*waiting
	ended   map[task.ID]*endedChild
	missing []task.ID
	tallies []task.ID
	changed []*task.State // to write

	used  map[task.GateID]int // also of gates that are not loaded yet: from 0
	gates map[task.GateID]*gate
	order []task.GateID // of gates, in which they were met
	wakes []Wake

	fetched    map[string]int // ready tasks by host
	candidates []*task.Candidate
	cut        bool // more of ready than was found
	late       bool // more tasks have changed than the tick takes: tallied gates are not what there is
	more       bool // bounds were hit, or somebody moved
}

// Facts are what the pump needs of a task.
type Facts struct {
	ID        task.ID
	Kind      string
	Priority  int
	Host      string
	Metadata  []byte
	Rules     []byte // nil: none
	OnStart   []byte
	OnFailure []byte // nil: none, or not asked for

	ExpectedCount *int64
}

// Found is a task where it waits. State is nil when its row is locked by somebody else, or was changed after Facts were
// read: who did that wakes the pump.
type Found struct {
	Facts Facts
	State *task.State
}

// EventRow is an ended parent and one of its children; Child is nil when it has none left.
type EventRow struct {
	Seq             int64
	Parent          task.ID
	Succeeded       bool
	Child           *task.State
	RequiresSuccess bool
	// Facts are those of a child that may start now, without OnFailure, if they came with it; nil: Missing asks for them.
	Facts *Facts
}

// CompleteBatch is a batch whose last task has ended.
type CompleteBatch struct {
	ID         task.ID
	OnComplete []byte
}

// EventCursor says up to which child an event is folded.
type EventCursor struct {
	Seq   int64
	After task.ID
}

// GateRow is a gate as stored.
type GateRow struct {
	task.Gate
	Used  int
	Lanes []task.Lane
	Dirty bool
}

// GateDelta is what ended tasks gave back to a gate.
type GateDelta struct {
	GateRow
	Delta int
}

// Wake asks for the first N tasks parked in a lane: of each host as many as it has room for. Of one that has no room it asks
// for one, behind all others: the lane is not empty, but its tasks wait for their host.
type Wake struct {
	Gate task.GateID
	Lane task.Lane
	N    int
}

// WokenRow is one of them.
type WokenRow struct {
	Gate task.GateID
	Lane task.Lane
	Found
}

// ClaimRow is a row of running.
type ClaimRow struct {
	ID    task.ID
	Gates []task.GateID
	Check time.Time
}

// ReadyKey is a row of ready.
type ReadyKey struct {
	ID       task.ID
	Host     string
	Priority int
}

// ParkRow is a row of parked.
type ParkRow struct {
	ID       task.ID
	Gate     task.GateID
	Lane     task.Lane
	Host     string
	Priority int
}

// HoldRow adds a gate to a running row.
type HoldRow struct {
	ID   task.ID
	Gate task.GateID
}

// Holder is a running row of a kind that a new shape counts.
type Holder struct {
	ID       task.ID
	Kind     string
	Metadata []byte
}

// waiting is a Pending task that may be admitted.
type waiting struct {
	state *task.State
	facts *Facts
	from  origin
	gate  task.GateID // where it is parked
	lane  task.Lane
}

// origin is where a waiting task was found.
type origin int

const (
	freed  origin = iota // nowhere: its last dependency settled just now
	lined                // in ready
	parked               // in parked
)

// NewTick begins a plan. shapes are those known before.
func NewTick(p PumpParams, shapes *Shapes) *Tick {
	if p.Links == 0 {
		p.Links = DefaultLinks
	}
	if p.BatchDeltas == 0 {
		p.BatchDeltas = DefaultBatchDeltas
	}
	return &Tick{
		Params: p, shapes: shapes,
		waiting: map[task.ID]*waiting{}, ended: map[task.ID]*endedChild{},
		used: map[task.GateID]int{}, gates: map[task.GateID]*gate{},
		fetched: map[string]int{},
		Result: Pumped{
			Transitions: map[Transition]int{}, Propagated: map[task.Status]int{},
		},
	}
}

// ReadyTotal is how many ready tasks the tick looks at, the first of all hosts by priority and age.
func (t *Tick) ReadyTotal() int { return max(t.Params.Room.Total, t.Params.Fetch) }

// ReadyLimit is how many of them may be of one host.
func (t *Tick) ReadyLimit(host string) int {
	room := t.Params.Room.Host(host)
	if room == 0 {
		return 0
	}
	return max(room, t.Params.Fetch)
}

// Ready takes tasks found in ready, up to [Tick.ReadyTotal], and [Tick.ReadyLimit] for each host. cut: there may be others
// behind them, however few were found.
func (t *Tick) Ready(found []Found, cut bool) {
	t.cut = cut
	for i := range found {
		f := &found[i]
		t.fetched[f.Facts.Host]++
		t.found(f, waiting{from: lined})
	}
}

// found adds a task unless a cancel or a pause has overtaken the pump.
func (t *Tick) found(f *Found, w waiting) {
	if f.State == nil || f.State.Status != task.Pending {
		return
	}
	w.state, w.facts = f.State, &f.Facts
	t.waiting[f.Facts.ID] = &w
}

func (t *Tick) moved(from task.Status, s *task.State) {
	t.Result.Transitions[Transition{from, s.Status, s.Kind}]++
}

func (t *Tick) finishResult(a task.Admission) {
	started := map[string]int{}
	for _, c := range a.Start {
		started[c.Host]++
	}
	r := &t.Result
	r.Starved = len(a.Keep) > 0 || t.Params.Room.Total == 0
	r.More = t.more || len(t.Changes.Ended)+len(t.Changes.BatchEnds)+len(t.Changes.Tally) > 0
	r.Starved = r.Starved || t.Params.Room.Short() // ready tasks were not looked at
	roomLeft := len(a.Start) < t.Params.Room.Total
	total := 0
	for host, n := range t.fetched {
		total += n
		if n >= t.ReadyLimit(host) {
			t.behind(roomLeft && started[host] < t.Params.Room.Host(host))
		}
	}
	switch {
	case total > 0 && total >= t.ReadyTotal(), t.cut && len(a.Start) < total:
		t.behind(roomLeft)
	case t.cut:
		r.More, r.Starved = r.More || roomLeft, r.Starved || !roomLeft
	}
	r.Outbox = len(t.Changes.Deliveries) > 0
}

// behind is told that there may be ready tasks behind those that were looked at, and whether there is room for them:
// then those that were looked at are held back.
func (t *Tick) behind(room bool) {
	if room {
		t.Result.More, t.Result.Blocked = true, true
	} else {
		t.Result.Starved = true
	}
}
