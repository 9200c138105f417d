package store

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"taskrunner/internal/task"
)

// Bounds of one tick.
const (
	// DefaultLinks is how many dependencies a tick folds: a fan-out of 100 000 must not stall the others.
	DefaultLinks = 2000
	// MaxDeltas and MaxDirty bound the gates a tick looks at.
	MaxDeltas = 10_000
	MaxDirty  = 500
	// maxWoken bounds the parked tasks that a tick looks at.
	maxWoken = 1000
	// wakeAll is how many are woken at once in a lane whose tasks take no slot.
	wakeAll = 256
	// lookAhead is how many are looked at behind those that a lane has room for.
	lookAhead = 32
)

// Tick plans one tick of the pump. A driver, holding the pump's lock, calls its methods in this order, each with what
// it loaded, and in the end writes what the exported members say:
//
//	Fold        the ends of parents with their links; deltas with their gates; dirty gates; shapes not yet known
//	Lock        state rows of Locks(), in id order; then facts of the Children() and of ready tasks
//	Count       the running rows of the kinds in NewShapes, if there are any
//	Woken       the parked tasks that Wakes() asks for, skipping locked ones
//	Admit       the gates that Wanted() names
type Tick struct {
	Params PumpParams
	Now    time.Time

	// Changes is written like that of outcomes; the other members are the pump's alone.
	Changes Changes
	// Done removes events; Advance moves their cursors on.
	Done    []int64
	Advance []EventCursor
	// Claim puts tasks into running; Unready and Unpark take them out of where they were.
	Claim   []ClaimRow
	Unready []ReadyKey
	Unpark  []task.ID
	// Park puts tasks into parked, or moves them there.
	Park []ParkRow
	// Hold adds gates to running rows.
	Hold []HoldRow
	// SetGates writes gates, DropGates removes them.
	SetGates  []GateRow
	DropGates []task.GateID
	// NewShapes are known from this transaction's commit on.
	NewShapes []task.Shape
	// Deltas counts the rows that were folded.
	Deltas int

	Result Pumped

	shapes     *Shapes
	rows       map[task.ID]*Row
	changed    []task.ID // states to write, in order
	children   map[task.ID]*childFold
	candidates []*task.Candidate
	source     map[task.ID]source
	facts      map[task.ID]*Facts
	used       map[task.GateID]int // also the gates that are loaded
	gates      map[task.GateID]*gate
	order      []task.GateID // of gates, for writing in one order
	wakes      []Wake
	manyDirty  bool           // there may be more dirty gates than were loaded
	fetched    map[string]int // ready tasks by host
	more       bool           // bounds were hit, or somebody moved
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
	OnFailure []byte // nil: none
}

// EventRow is an ended parent and one of its children; Child is zero when it has none left.
type EventRow struct {
	Seq             int64
	Parent          task.ID
	Succeeded       bool
	Child           task.ID
	RequiresSuccess bool
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

// Wake asks for the first N tasks parked in a lane.
type Wake struct {
	Gate task.GateID
	Lane task.Lane
	N    int
}

// WokenRow is one of them. State is nil when its row was locked, or was changed after Facts were read.
type WokenRow struct {
	Gate  task.GateID
	Lane  task.Lane
	ID    task.ID
	State *task.State
	Facts *Facts
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

type childFold struct {
	n      int
	failed task.ID
}

// source is where a candidate was found.
type source struct {
	place place // queued: in ready; nowhere: its dependencies were met just now; parked: wake says where
	wake  *Wake
}

const parked place = 100 // apart from queued only here: a task may be found in either

type gate struct {
	GateRow
	stored bool
	before GateRow
	drain  map[task.Lane]int // rows seen of lanes that were asked
	moved  bool              // of those asked somebody has left, or was locked
	other  bool              // it is stored with another key of the same hash
}

// NewTick begins a plan. shapes are those known before.
func NewTick(p PumpParams, shapes *Shapes) *Tick {
	if p.Links == 0 {
		p.Links = DefaultLinks
	}
	return &Tick{
		Params: p, shapes: shapes,
		rows: map[task.ID]*Row{}, children: map[task.ID]*childFold{}, source: map[task.ID]source{},
		facts: map[task.ID]*Facts{}, used: map[task.GateID]int{}, gates: map[task.GateID]*gate{},
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

// FoldEvents takes events in the order of their numbers, with up to Params.Links rows; rows of an event stand in the
// order of the children.
func (t *Tick) FoldEvents(events []EventRow) {
	full := len(events) >= t.Params.Links
	t.more = t.more || full
	for i, e := range events {
		if (e.Child != task.ID{}) {
			t.foldLink(e)
		}
		switch {
		case i+1 < len(events) && events[i+1].Seq == e.Seq:
		case i+1 == len(events) && full && e.Child != (task.ID{}):
			t.Advance = append(t.Advance, EventCursor{e.Seq, e.Child})
		default:
			t.Done = append(t.Done, e.Seq)
		}
	}
}

func (t *Tick) foldLink(e EventRow) {
	c := t.children[e.Child]
	if c == nil {
		c = &childFold{}
		t.children[e.Child] = c
	}
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

// FoldGates takes the deltas, summed up for each gate, of up to MaxDeltas rows, and up to MaxDirty dirty gates behind
// Shapes.Dirty. taken counts the rows of deltas, those of gates that do not exist included.
func (t *Tick) FoldGates(deltas []GateDelta, dirty []GateRow, taken int) {
	t.Deltas = taken
	t.more = t.more || taken >= MaxDeltas
	if t.Params.SkipDirty {
		t.Result.Stuck = true
	}
	t.manyDirty = len(dirty) >= MaxDirty
	t.shapes.Dirty = math.MinInt64 // from the beginning again, unless there are more
	if t.manyDirty {
		t.shapes.Dirty = dirty[len(dirty)-1].ID
	}
	for _, d := range deltas {
		t.load(d.GateRow)
	}
	for _, g := range dirty {
		t.load(g)
	}
	for _, d := range deltas {
		t.used[d.ID] += d.Delta
	}
	if t.Params.Room.Total > 0 {
		t.wake()
	}
}

func (t *Tick) load(row GateRow) {
	if _, ok := t.gates[row.ID]; ok {
		return
	}
	t.gates[row.ID] = &gate{GateRow: row, stored: true, before: row, drain: map[task.Lane]int{}}
	t.used[row.ID] = row.Used
	t.order = append(t.order, row.ID)
}

// wake asks, at every gate with room, for those who can use it.
func (t *Tick) wake() {
	left := maxWoken
	for _, id := range t.order {
		g := t.gates[id]
		for _, lane := range g.Lanes {
			n := lane.Limit() - t.used[id]
			if n <= 0 {
				continue
			}
			if lane < 0 {
				n = wakeAll
			}
			if n = min(n, t.Params.Room.Total, left); n == 0 {
				t.more = true // its turn comes in the next tick, and must not wait
				return
			}
			left -= n
			g.drain[lane] = 0
			t.wakes = append(t.wakes, Wake{g.ID, lane, n})
		}
	}
	// Where nobody in front could start the last time, look further: they may go to a host that has no room, those behind
	// them to another.
	for i := range t.wakes {
		if w := &t.wakes[i]; t.gates[w.Gate].before.Dirty && left >= lookAhead {
			w.N += lookAhead
			left -= lookAhead
		}
	}
}

// LooksAtDirty reports whether dirty gates are to be loaded.
func (t *Tick) LooksAtDirty() bool { return t.Params.Room.Total > 0 && !t.Params.SkipDirty }

// Wakes are the parked tasks to look at.
func (t *Tick) Wakes() []Wake { return t.wakes }

// Ready takes tasks found in ready, up to [Tick.ReadyTotal], and [Tick.ReadyLimit] for each host. Where others write at the same time, what was
// read before the row was locked may be out of date: then they have ID and Host only, and Locked gets their facts.
func (t *Tick) Ready(facts []*Facts) {
	for _, f := range facts {
		t.facts[f.ID] = f
		t.source[f.ID] = source{place: queued}
		t.fetched[f.Host]++
	}
}

// Locks names the state rows to lock: of children and of ready tasks.
func (t *Tick) Locks() []task.ID {
	ids := slices.AppendSeq(make([]task.ID, 0, len(t.children)+len(t.source)), maps.Keys(t.children))
	return sortIDs(slices.AppendSeq(ids, maps.Keys(t.source)))
}

// Children names the children and how many of their dependencies have just settled; the facts of those are wanted
// that have no more unmet ones than that. A child that is to fail is wanted in any case.
func (t *Tick) Children() ([]task.ID, []int) {
	ids := sortIDs(slices.Collect(maps.Keys(t.children)))
	settled := make([]int, len(ids))
	for i, id := range ids {
		settled[i] = t.children[id].n
		if t.children[id].failed != (task.ID{}) {
			settled[i] = 1 << 30
		}
	}
	return ids, settled
}

// Locked takes the locked state rows and the wanted facts, read under the lock, and settles the children.
func (t *Tick) Locked(states []task.State, facts []*Facts) {
	for i := range states {
		t.rows[states[i].ID] = &Row{State: states[i]}
	}
	for _, f := range facts {
		t.facts[f.ID] = f
	}
	ids, _ := t.Children()
	for _, id := range ids {
		if r := t.rows[id]; r != nil {
			t.settleChild(r, t.children[id])
		}
	}
	for id := range t.source {
		if r := t.rows[id]; r == nil || r.Status != task.Pending {
			delete(t.source, id) // overtaken by a cancel or a pause
		}
	}
}

func (t *Tick) settleChild(r *Row, fold *childFold) {
	before := r.State
	changed, triggers := task.SettleDependencies(&r.State, fold.n, fold.failed, t.Now)
	if !changed {
		return
	}
	t.changed = append(t.changed, r.ID)
	if r.Status == before.Status {
		return
	}
	t.moved(before.Status, r)
	switch f := t.facts[r.ID]; {
	case r.Status == task.Pending:
		t.source[r.ID] = source{place: nowhere}
	case r.HasChildren:
		t.Changes.Ended = append(t.Changes.Ended, Ended{ID: r.ID})
		fallthrough
	default:
		t.sendFailure(r, f, triggers)
	}
}

func (t *Tick) sendFailure(r *Row, f *Facts, triggers []task.Trigger) {
	if f == nil || len(f.OnFailure) == 0 {
		return
	}
	actions, err := task.ParseActions(f.OnFailure)
	if err != nil {
		panic(fmt.Sprintf("store: on_failure of task %s: %v", r.ID, err)) // we wrote it
	}
	r.Task = &task.Task{OnFailure: actions}
	t.Changes.send(r, triggers)
}

func (t *Tick) moved(from task.Status, r *Row) {
	t.Result.Transitions[Transition{from, r.Status, r.Kind}]++
}

// Woken takes what Wakes asked for.
func (t *Tick) Woken(rows []WokenRow) {
	for i := range rows {
		w := &rows[i]
		g := t.gates[w.Gate]
		if w.State == nil { // locked by somebody: the lane is not drained
			g.drain[w.Lane] += maxWoken
			g.moved = true
			continue
		}
		g.drain[w.Lane]++
		if w.State.Status != task.Pending {
			continue
		}
		t.rows[w.ID] = &Row{State: *w.State}
		t.facts[w.ID] = w.Facts
		t.source[w.ID] = source{place: parked, wake: &Wake{Gate: w.Gate, Lane: w.Lane}}
	}
	for _, w := range t.wakes {
		if g := t.gates[w.Gate]; g.drain[w.Lane] >= w.N {
			delete(g.drain, w.Lane) // there may be more
		}
	}
}

// Count gives the new shapes what is running already.
func (t *Tick) Count(holders []Holder) {
	for _, h := range holders {
		md := task.ParseMetadata(h.Metadata)
		for _, s := range t.NewShapes {
			if s.Kind != h.Kind {
				continue
			}
			if g, ok := s.Gate(md); ok {
				t.want(g)
				t.used[g.ID]++
				t.Hold = append(t.Hold, HoldRow{h.ID, g.ID})
			}
		}
	}
}

// want makes sure that g is loaded. Until it is, used counts from 0.
func (t *Tick) want(g task.Gate) {
	if _, ok := t.gates[g.ID]; !ok {
		t.gates[g.ID] = &gate{GateRow: GateRow{Gate: g}, drain: map[task.Lane]int{}}
		t.order = append(t.order, g.ID)
	}
}

// Wanted makes candidates of all that may start, and names the gates that are to be loaded for them.
func (t *Tick) Wanted() []task.GateID {
	for id := range t.source {
		c, known := t.candidate(t.facts[id])
		if !known {
			t.keep(c)
			t.more = true
			continue
		}
		t.candidates = append(t.candidates, c)
	}
	var ids []task.GateID
	for _, id := range t.order {
		if !t.gates[id].stored {
			ids = append(ids, id)
		}
	}
	return ids
}

// candidate is false when a rule's shape was committed after this tick read them.
func (t *Tick) candidate(f *Facts) (*task.Candidate, bool) {
	c := &task.Candidate{ID: f.ID, Priority: f.Priority, Host: f.Host}
	rules := t.shapes.rules(f.Rules)
	shapes := t.shapes.ofKind(f.Kind, t.NewShapes)
	if len(rules) == 0 && len(shapes) == 0 {
		return c, true
	}
	md := task.ParseMetadata(f.Metadata)
	for _, s := range shapes {
		if g, ok := s.Gate(md); ok {
			t.want(g)
			c.Counts = append(c.Counts, g.ID)
		}
	}
	for _, r := range rules {
		check, ok := r.Check(f.Kind, md)
		if !ok {
			continue // validated when it came in
		}
		if !t.shapes.known(check.Gate.Shape, t.NewShapes) {
			return c, false
		}
		t.want(check.Gate)
		c.Checks = append(c.Checks, check)
	}
	return c, true
}

// Admit takes the gates that Wanted named, as far as they are stored, and finishes the plan.
func (t *Tick) Admit(gates []GateRow) error {
	for _, row := range gates {
		g := t.gates[row.ID]
		g.other = g.Shape != row.Shape || g.Values != row.Values
		g.GateRow, g.before, g.stored = row, row, true
		t.used[row.ID] += row.Used
	}
	// Two keys with one hash: it takes somebody who looks for them. Only their own tasks do not start.
	t.candidates = slices.DeleteFunc(t.candidates, func(c *task.Candidate) bool {
		return slices.ContainsFunc(c.Counts, func(id task.GateID) bool { return t.gates[id].other }) ||
			slices.ContainsFunc(c.Checks, func(k task.Check) bool { return t.gates[k.Gate.ID].other })
	})
	a := task.Admit(t.candidates, t.used, t.Params.Room)
	for _, c := range a.Start {
		if err := t.start(c); err != nil {
			return err
		}
	}
	for _, p := range a.Park {
		t.park(p)
	}
	for _, c := range a.Keep {
		t.keep(c)
	}
	t.finishGates()
	t.finishResult(a)
	for _, id := range t.changed {
		t.Changes.States = append(t.Changes.States, t.rows[id].State)
	}
	return nil
}

func (t *Tick) start(c *task.Candidate) error {
	r, f := t.rows[c.ID], t.facts[c.ID]
	actions, err := task.ParseActions(f.OnStart)
	if err != nil {
		return fmt.Errorf("on_start of task %s: %w", c.ID, err)
	}
	if len(actions) != 1 {
		return fmt.Errorf("on_start of task %s: %d actions", c.ID, len(actions))
	}
	r.Claim(t.Now)
	t.moved(task.Pending, r)
	t.leave(c.ID)
	if t.source[c.ID].place != nowhere {
		t.changed = append(t.changed, c.ID)
	}
	t.Claim = append(t.Claim, ClaimRow{ID: c.ID, Gates: c.Counts, Check: t.Now.Add(r.Timeout)})
	t.Result.Claims = append(t.Result.Claims, Claim{ID: c.ID, Attempt: r.Attempt, Host: f.Host, Action: actions[0]})
	return nil
}

// leave takes a task out of where it was found.
func (t *Tick) leave(id task.ID) {
	switch t.source[id].place {
	case queued:
		f := t.facts[id]
		t.Unready = append(t.Unready, ReadyKey{id, f.Host, f.Priority})
	case parked:
		t.Unpark = append(t.Unpark, id)
		t.gates[t.source[id].wake.Gate].moved = true
	}
}

func (t *Tick) park(p task.Parking) {
	g := t.gates[p.Gate.ID]
	delete(g.drain, p.Lane) // somebody is in it
	if !slices.Contains(g.Lanes, p.Lane) {
		g.Lanes = append(slices.Clone(g.Lanes), p.Lane)
		slices.Sort(g.Lanes)
	}
	src := t.source[p.ID]
	if src.place == parked && src.wake.Gate == p.Gate.ID && src.wake.Lane == p.Lane {
		return
	}
	switch src.place {
	case queued:
		t.leave(p.ID)
	case parked:
		t.gates[src.wake.Gate].moved = true
	}
	t.Park = append(t.Park, ParkRow{p.ID, p.Gate.ID, p.Lane, t.facts[p.ID].Priority})
	t.Result.Parked++
}

// keep leaves a task where it is: in ready, where it is found as soon as its host has room; or parked, at a gate that
// stays dirty.
func (t *Tick) keep(c *task.Candidate) {
	switch src := t.source[c.ID]; src.place {
	case nowhere:
		t.Changes.Enqueue = append(t.Changes.Enqueue, c.ID)
	case parked:
		g := t.gates[src.wake.Gate]
		delete(g.drain, src.wake.Lane)
		t.more = t.more || !g.before.Dirty // the next tick looks further
	}
}

// finishGates writes what has changed of the gates, and sees to it that a gate with room and waiters is dirty.
func (t *Tick) finishGates() {
	for _, id := range t.order {
		g := t.gates[id]
		g.Used = t.used[id]
		g.Lanes = slices.DeleteFunc(slices.Clone(g.Lanes), func(l task.Lane) bool {
			_, drained := g.drain[l]
			return drained
		})
		g.Dirty = slices.ContainsFunc(g.Lanes, func(l task.Lane) bool { return l.Limit() > g.Used })
		t.more = t.more || (g.Dirty || t.manyDirty) && g.moved
		t.Result.Stuck = t.Result.Stuck || g.Dirty && !g.moved
		switch empty := g.Used == 0 && len(g.Lanes) == 0; {
		case empty && g.stored:
			t.DropGates = append(t.DropGates, id)
		case !empty && (!g.stored || g.Used != g.before.Used || g.Dirty != g.before.Dirty ||
			!slices.Equal(g.Lanes, g.before.Lanes)):
			t.SetGates = append(t.SetGates, g.GateRow)
		}
	}
}

func (t *Tick) finishResult(a task.Admission) {
	started := map[string]int{}
	for _, c := range a.Start {
		started[c.Host]++
	}
	r := &t.Result
	r.Starved = len(a.Keep) > 0 || t.Params.Room.Total == 0
	r.More = t.more || len(t.Changes.Ended) > 0
	for _, n := range t.Params.Room.Busy {
		r.Starved = r.Starved || n >= t.Params.Room.PerHost // its ready tasks were not looked at
	}
	roomLeft := len(a.Start) < t.Params.Room.Total
	total := 0
	for host, n := range t.fetched {
		total += n
		if n >= t.ReadyLimit(host) {
			t.behind(roomLeft && started[host] < t.Params.Room.Host(host))
		}
	}
	if total > 0 && total >= t.ReadyTotal() {
		t.behind(roomLeft)
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
