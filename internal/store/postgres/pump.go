package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Pump is as in store.Store. The order of its statements is that of [store.Tick].
func (s *Store) Pump(ctx context.Context, p store.PumpParams) (store.Pumped, error) {
	s.pumping.Lock()
	defer s.pumping.Unlock()
	var k *ticking
	epoch := s.shapes.Epoch
	pool := conns{s.engine.Pool, max(s.patience, s.engine.patience)}
	begun := time.Now()
	err := s.runOn(ctx, &pool, func(ctx context.Context, t *tx) error {
		if epoch != s.shapes.Epoch {
			s.shapes = store.NewShapes()
			s.shapes.Epoch = epoch
		}
		k = s.newTicking(p)
		err := t.tick(ctx, k)
		epoch = k.epoch
		if err == nil && k.Result.Busy {
			return errNothing
		}
		return err
	})
	s.patience = 0
	if err != nil {
		if time.Since(begun) >= pool.patience { // a new rule has to look at all that runs, and must come to an end some time
			s.patience = min(2*pool.patience, maxPatience)
		}
		return store.Pumped{}, fmt.Errorf("pump: %w", err)
	}
	if k.Result.Busy {
		if s.cursors.tell() {
			if err := s.exec(ctx, "tell_pump"); err != nil {
				s.cursors.notTold()
				return store.Pumped{}, fmt.Errorf("pump: %w", err)
			}
		}
		return k.Result, nil
	}
	s.ticked(k)
	return k.Result, nil
}

// ticking is a tick in a transaction. It belongs to whoever holds Store.pumping.
type ticking struct {
	*store.Tick
	found rare
	pass  *pass
	epoch int // of the shapes that are in the database
	// follows: outcomes come before it in its transaction. unseen: they have put into queues what it has not looked at.
	follows, unseen bool
}

func (s *Store) newTicking(p store.PumpParams) *ticking {
	return &ticking{Tick: store.NewTick(p, s.shapes), pass: s.cursors.begin(), epoch: s.shapes.Epoch}
}

// follow is a tick that follows c in its transaction, or nil if there is none now. Rows are locked, so it waits for nobody. Unlock
// s.pumping once the transaction is over.
//
// A tick that has to learn shapes follows nothing (errNew), nor does one that reads heads, for that takes its time.
func (s *Store) follow(c store.Changes, turn store.Turn) *ticking {
	if !s.pumping.TryLock() {
		return nil
	}
	rules := s.shapes.Version > 0 // else no task holds a gate, as far as is known
	if c.LetStart(rules) && !s.cursors.readsHeads() {
		if p, ok := turn(); ok {
			k := s.newTicking(p)
			k.follows = true
			k.pass.expect(events, len(c.Ended))
			k.pass.expect(batchDeltas, len(c.BatchEnds))
			if rules {
				k.pass.expect(gateDeltas, len(c.Release))
			}
			return k
		}
	}
	s.pumping.Unlock()
	return nil
}

// tick makes k, unless another process is pumping, and leaves its last statements queued.
func (t *tx) tick(ctx context.Context, k *ticking) error {
	if err := t.fold(ctx, k); err != nil || k.Result.Busy {
		return err
	}
	t.s.shapes.Add(k.found.shapes.version, k.found.shapes.shapes...) // committed by others, whatever becomes of this tick
	if err := t.loadMore(ctx, k.Tick); err != nil {
		return err
	}
	return t.admit(ctx, k.Tick, k.Params.Owner, &k.found.shapes)
}

// ticked is told that k is committed.
func (s *Store) ticked(k *ticking) {
	k.pass.advance(k.Unready)
	k.Result.More = s.cursors.end(k.pass) || k.unseen || k.Result.More
	s.shapes.Add(k.found.shapes.marked, k.NewShapes...)
	deleted := len(k.Unready) + len(k.Done) + len(k.Unpark) + k.Deltas + k.TalliesTaken + len(k.DropTallies)
	s.deletions.add(deleted + 1) // and a mark
}

var (
	// errEpoch: what is known of shapes is of another time.
	errEpoch = errors.New("shapes have been deleted")
	// errNew: there are shapes to learn, which a tick that follows outcomes must not do. They may have asked which kinds are tallied
	// before a shape was there, so their transaction must not be the one that marks its horizon.
	errNew = errors.New("shapes are new")
)

// shapesRead are shapes with the versions they came with.
type shapesRead struct {
	shapes  []task.Shape
	version int64
	marked  int64 // the version that new ones were given
}

// fold locks the pump, and loads what has happened and who may start. It is one round trip: those statements that
// lock or delete do nothing unless the first one got the lock; what the others give counts for nothing then. Once in a while
// there is a round trip more, for the heads, or for what is rare.
// Where shapes have been deleted, k.epoch says so, and it is to be done again from the beginning.
//
// What limits a task must be read after what lets it start, each statement sees more than the one before: so tally events and new
// shapes come behind events, deltas and ready.
func (t *tx) fold(ctx context.Context, k *ticking) error {
	tick, pass, found := k.Tick, k.pass, &k.found
	locked, leased := false, false
	t.rows("lock_pump", []any{tick.Params.Owner, k.follows}, func(rows pgx.Rows) error {
		locked = true
		return rows.Scan(nil, nil, &leased, &k.epoch)
	})
	if pass.read {
		t.readHeads(pass.heads)
		begun := time.Now()
		if err := t.flush(ctx); err != nil {
			return err
		}
		pass.took = time.Since(begun)
		if tick.Result.Busy = !locked; !locked {
			return nil
		}
	}
	var came folded
	t.fromQueues(tick, pass.heads, &came)
	t.ready(tick, pass)
	loads := t.loads(tick, found)
	for i, expected := range t.s.expected {
		if expected {
			loads[i]()
		}
	}
	var there sorts
	t.lookForRare(&there, &pass.busy)
	if err := t.flush(ctx); err != nil {
		return err
	}
	switch {
	case !locked:
		tick.Result.Busy = true
		return nil
	case !leased:
		return errNoLease
	case k.epoch != t.s.shapes.Epoch:
		return &connError{errEpoch}
	case k.follows && there[ofShapes]:
		return &connError{errNew}
	}
	for q, head := range pass.heads { // the others it has not read
		if !t.entered[q].before(head) {
			delete(t.entered, q)
		}
	}
	k.unseen = len(t.entered) > 0
	for i, expected := range t.s.expected {
		if there[i] && !expected {
			loads[i]()
		}
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	t.s.expected = found.found(tick)
	tick.Now = t.now
	pass.behind(gateDeltas, came.gates, store.MaxDeltas)
	pass.behind(batchDeltas, came.batches, tick.Params.BatchDeltas)
	pass.behind(events, came.ends, tick.Params.Links)
	tick.FoldGates(came.deltas, found.dirty, came.gates.n)
	tick.FoldEvents(came.events)
	tick.FoldBatches(came.complete, came.batches.n)
	tick.Ready(pass.first())
	tick.TallyEvents(found.changed)
	return nil
}

// folded is what a tick takes out of queues other than ready.
type folded struct {
	deltas               []store.GateDelta
	complete             []store.CompleteBatch
	events               []store.EventRow
	gates, batches, ends taken // the rows of each
}

// fromQueues queues the loading of what stands in queues that are not empty.
func (t *tx) fromQueues(tick *store.Tick, heads heads, into *folded) {
	if head, some := heads[gateDeltas]; some {
		t.takeDeltas(head, into)
	}
	if head, some := heads[batchDeltas]; some {
		t.foldBatches(head, tick.Params.BatchDeltas, into)
	}
	if head, some := heads[events]; some {
		t.events(head, tick.Params.Links, into)
	}
}

func (t *tx) takeDeltas(head spot, into *folded) {
	t.rows("take_deltas", []any{store.MaxDeltas, head.seq}, func(rows pgx.Rows) error {
		var g gateScan
		var delta, n int32
		var last int64
		err := rows.Scan(append(g.into(), &delta, &n, &last)...)
		into.gates.add(int(n), last)
		into.deltas = append(into.deltas, store.GateDelta{GateRow: g.get(), Delta: int(delta)})
		return err
	})
}

func (t *tx) foldBatches(head spot, limit int, into *folded) {
	t.rows("fold_batches", []any{limit, head.seq}, func(rows pgx.Rows) error {
		var b store.CompleteBatch
		var n int
		var last int64
		var complete bool
		err := rows.Scan((*[16]byte)(&b.ID), &n, &last, &complete, &b.OnComplete)
		into.batches.add(n, last)
		if complete {
			into.complete = append(into.complete, b)
		}
		return err
	})
}

func (t *tx) events(head spot, limit int, into *folded) {
	var e store.EventRow
	var f store.Facts
	var known bool
	var scan lockedScan
	columns := append([]any{
		&e.Seq, (*[16]byte)(&e.Parent), &e.Succeeded, &e.RequiresSuccess,
		&known, &f.Priority, &f.Host, &f.Metadata, &f.Rules, &f.OnStart, &f.ExpectedCount,
	}, scan.into()...)
	t.rows("events", []any{limit, head.seq}, func(rows pgx.Rows) error {
		err := rows.Scan(columns...)
		e.Child, e.Facts = scan.maybe(t), nil
		if known {
			facts := f
			facts.ID, facts.Kind = e.Child.ID, e.Child.Kind
			e.Facts = &facts
		}
		into.ends.add(1, e.Seq) // a row for each child
		into.events = append(into.events, e)
		return err
	})
}

// ready looks at the queues of hosts that have room, from their heads on.
func (t *tx) ready(tick *store.Tick, pass *pass) {
	if tick.Params.Room.Total <= 0 {
		return
	}
	pass.choose(tick.ReadyLimit, tick.ReadyTotal())
	n := len(pass.lanes)
	if n == 0 {
		return
	}
	hosts, ranks, ids, counts := make([]string, n), make([]int16, n), make(uuids, n), make([]int32, n)
	for i, l := range pass.lanes {
		hosts[i], ranks[i], ids[i], counts[i] = l.host, l.head.rank, l.head.id, int32(l.n+pass.more)
	}
	t.rows("ready", []any{hosts, ranks, ids, counts, pass.asked()}, func(rows pgx.Rows) error {
		var place pgtype.TID
		f, err := t.found(rows, &place)
		t.lined[f.Facts.ID] = place
		pass.found = append(pass.found, f)
		return err
	})
}

func (t *tx) readShapes(tick *store.Tick, learned *shapesRead) {
	t.rows("unknown_shapes", []any{t.s.shapes.Version}, func(rows pgx.Rows) error {
		var scan shapeScan
		var version int64
		var tally store.NewTally
		err := rows.Scan(append(scan.into(), &version, &tally.Marked, &tally.Seen, (*[16]byte)(&tally.After))...)
		if err != nil {
			return err
		}
		shape, err := scan.get()
		switch {
		case version > 0:
			learned.shapes = append(learned.shapes, shape)
			learned.version = max(learned.version, version)
		case shape.Tallied():
			tally.Shape = shape
			tick.NewTallies = append(tick.NewTallies, tally)
		default:
			tick.NewShapes = append(tick.NewShapes, shape)
		}
		return err
	})
}

func (t *tx) gates(name string, args []any, into *[]store.GateRow) {
	t.rows(name, args, func(rows pgx.Rows) error {
		var g gateScan
		err := rows.Scan(g.into()...)
		*into = append(*into, g.get())
		return err
	})
}

// loadMore loads what follows from what was loaded before. Without dependencies and rules it is nothing.
func (t *tx) loadMore(ctx context.Context, tick *store.Tick) error {
	if err := t.walk(ctx, tick); err != nil {
		return err
	}
	var facts []*store.Facts
	if ids := tick.Missing(); len(ids) > 0 {
		t.rows("pump_facts", []any{uuids(ids)}, func(rows pgx.Rows) error {
			f := &store.Facts{}
			facts = append(facts, f)
			return rows.Scan(append(intoFacts(f), &f.OnFailure)...)
		})
	}
	var holders []store.Holder
	if len(tick.NewShapes) > 0 {
		var kinds []string
		for _, shape := range tick.NewShapes {
			kinds = append(kinds, shape.Kind)
		}
		t.rows("holders", []any{kinds}, func(rows pgx.Rows) error {
			var h store.Holder
			err := rows.Scan((*[16]byte)(&h.ID), &h.Kind, &h.Metadata)
			holders = append(holders, h)
			return err
		})
	}
	var woken []store.WokenRow
	if wakes := tick.Wakes(); len(wakes) > 0 {
		t.woken(wakes, tick.Params.Room, &woken)
	}
	var unfolded store.Unfolded
	if ids := tick.Tallies(); len(ids) > 0 {
		t.tallies(ids, &unfolded)
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	tick.Facts(facts)
	tick.Count(holders)
	tick.Woken(woken)
	tick.FoldTallies(&unfolded)
	return nil
}

func (t *tx) woken(wakes []store.Wake, room task.Room, into *[]store.WokenRow) {
	n := len(wakes)
	gates, lanes, counts := make([]int64, n), make([]int64, n), make([]int32, n)
	for i, w := range wakes {
		gates[i], lanes[i], counts[i] = int64(w.Gate), int64(w.Lane), int32(w.N)
	}
	t.rows("woken", []any{gates, lanes, counts, room.Host(""), room.ByHost()}, func(rows pgx.Rows) error {
		var w store.WokenRow
		var err error
		w.Found, err = t.found(rows, (*int64)(&w.Gate), &w.Lane)
		*into = append(*into, w)
		return err
	})
}

func intoFacts(f *store.Facts) []any {
	return []any{(*[16]byte)(&f.ID), &f.Kind, &f.Priority, &f.Host, &f.Metadata, &f.Rules, &f.OnStart, &f.ExpectedCount}
}

// found reads the columns of more, and then those of a task that was found and perhaps locked.
func (t *tx) found(rows pgx.Rows, more ...any) (store.Found, error) {
	var f store.Found
	var scan lockedScan
	err := rows.Scan(append(append(more, intoFacts(&f.Facts)...), scan.into()...)...)
	f.State = scan.maybe(t)
	return f, err
}

// admit decides and queues everything that is to be written.
func (t *tx) admit(ctx context.Context, tick *store.Tick, owner task.ID, learned *shapesRead) error {
	var gates []store.GateRow
	if ids := tick.Wanted(); len(ids) > 0 {
		t.gates("gates", []any{bigints(ids)}, &gates)
		if err := t.flush(ctx); err != nil {
			return err
		}
	}
	if err := tick.Admit(gates); err != nil {
		return err
	}
	if len(tick.NewShapes) > 0 {
		ids := make([]int64, len(tick.NewShapes))
		for i, shape := range tick.NewShapes {
			ids[i] = int64(shape.ID)
		}
		t.rows("mark_shapes", []any{ids}, func(rows pgx.Rows) error { return rows.Scan(&learned.marked) })
	}
	t.write(&tick.Changes)
	t.writeTallies(tick)
	t.writePlaces(tick, owner)
	t.writeGates(tick)
	if len(tick.Done) > 0 {
		t.exec("delete_events", tick.Done)
	}
	if a := tick.Advance; a != nil {
		t.exec("advance_event", a.Seq, a.After)
	}
	return nil
}

func (t *tx) writePlaces(tick *store.Tick, owner task.ID) {
	if n := len(tick.Unready); n > 0 {
		places := make(tids, n)
		for i, r := range tick.Unready {
			places[i] = t.lined[r.ID]
		}
		t.exec("delete_ready", places)
	}
	t.insertReady(tick.Lined)
	if len(tick.Unpark) > 0 {
		t.exec("unqueue_parked", uuids(tick.Unpark))
	}
	if n := len(tick.Park); n > 0 {
		ids, gates, lanes := make(uuids, n), make([]int64, n), make([]int64, n)
		hosts, ranks := make([]string, n), make([]int16, n)
		for i, p := range tick.Park {
			ids[i], gates[i], lanes[i] = p.ID, int64(p.Gate), int64(p.Lane)
			hosts[i], ranks[i] = p.Host, int16(-p.Priority)
		}
		t.exec("upsert_parked", ids, gates, lanes, hosts, ranks)
	}
	if n := len(tick.Claim); n > 0 {
		ids, gates, checks := make(uuids, n), make([]string, n), make([]time.Time, n)
		for i, c := range tick.Claim {
			ids[i], gates[i], checks[i] = c.ID, arrayText(c.Gates), c.Check
		}
		t.exec("insert_running", owner, ids, gates, checks)
	}
}

func (t *tx) writeGates(tick *store.Tick) {
	if n := len(tick.Hold); n > 0 {
		ids, gates := make(uuids, n), make([]int64, n)
		for i, h := range tick.Hold {
			ids[i], gates[i] = h.ID, int64(h.Gate)
		}
		t.exec("hold_gates", ids, gates)
	}
	if n := len(tick.SetGates); n > 0 {
		ids, shapes, values := make([]int64, n), make([]int64, n), make([]string, n)
		used, lanes, dirty := make([]int64, n), make([]string, n), make([]bool, n)
		for i, g := range tick.SetGates {
			ids[i], shapes[i], values[i] = int64(g.ID), int64(g.Shape), g.Values
			used[i], lanes[i], dirty[i] = int64(g.Used), arrayText(g.Lanes), g.Dirty
		}
		t.exec("upsert_gates", ids, shapes, values, used, lanes, dirty)
	}
	if len(tick.DropGates) > 0 {
		t.exec("delete_gates", bigints(tick.DropGates))
	}
}
