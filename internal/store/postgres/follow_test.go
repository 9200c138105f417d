package postgres

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// follow settles outcomes with a tick that may follow them. Heads are not due to be read, unless somebody has told of something.
// undone: the tick was, and they are settled without it.
func follow(t *testing.T, s *Store, p store.PumpParams, outcomes ...task.Outcome) (settled store.Settled, pumped *store.Pumped, undone error) {
	t.Helper()
	readOnlyIfTold(s)
	settled, pumped, err := s.SettleAndPump(t.Context(), outcomes, func() (store.PumpParams, bool) { return p, true })
	if errors.Is(err, store.ErrUndone) {
		undone = err
		settled, err = s.Settle(t.Context(), outcomes)
	}
	if err != nil || len(settled.Results) != len(outcomes) {
		t.Fatalf("%+v, %v", settled, err)
	}
	for _, r := range settled.Results {
		if r.Err != nil || r.From == r.State.Status {
			t.Fatalf("%+v", r)
		}
	}
	return settled, pumped, undone
}

// undone follows and wants the tick undone for a reason, and the outcomes settled.
func undone(t *testing.T, s *Store, p store.PumpParams, reason string, outcomes ...task.Outcome) {
	t.Helper()
	settled, pumped, err := follow(t, s, p, outcomes...)
	if pumped != nil || !settled.Pump || err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("%+v, %+v, undone: %v, want for %q", settled, pumped, err, reason)
	}
}

func wantClaim(t *testing.T, s *Store, p store.PumpParams, k *task.Task) {
	t.Helper()
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 1 || pumped.Claims[0].ID != k.ID {
		t.Errorf("%+v, %v", pumped, err)
	}
}

// A hop is one transaction: the next task is claimed by the tick that follows the end of the one before.
func TestHopIsOneTransaction(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	for parents := range 3 {
		ends, child := createFamily(t, s, p, parents+1)
		before := committed(t, s)
		settled, pumped, _ := follow(t, s, p, ends...)
		if pumped == nil || len(pumped.Claims) != 1 || pumped.Claims[0].ID != child.ID || pumped.More {
			t.Errorf("%+v, %+v", settled, pumped)
		}
		if n := committed(t, s) - before; n != 1 {
			t.Errorf("%d transactions were committed", n)
		}
		if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) > 0 || pumped.More {
			t.Errorf("the tick after it: %+v, %v", pumped, err)
		}
	}
}

// The callers of outcomes do not wait for a child that somebody else has locked, which may wait for their tasks.
func TestFollowingTickGivesWay(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	ends, child := createFamily(t, s, p, 1)
	conn := lend(t, s)
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM task_state WHERE id = $1 FOR UPDATE", child.ID)
	undone(t, s, p, "lock timeout", ends...)
	do(t, conn, "rollback")
	wantClaim(t, s, p, child)
}

// It follows nothing while another tick is under way, here or elsewhere, or heads are to be read.
func TestNothingFollows(t *testing.T) {
	t.Parallel()
	for name, while := range map[string]func(t *testing.T, s *Store) (over func()){
		"another process pumps": func(t *testing.T, s *Store) func() {
			t.Helper()
			conn := lend(t, s)
			do(t, conn, "begin")
			do(t, conn, "SELECT FROM pump FOR UPDATE")
			return func() { do(t, conn, "rollback") }
		},
		"this process pumps": func(t *testing.T, s *Store) func() {
			t.Helper()
			s.pumping.Lock()
			return s.pumping.Unlock
		},
		"heads are due": func(t *testing.T, s *Store) func() {
			t.Helper()
			s.cursors.forget()
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openForCommits(t)
			p := pumpParams(t, s)
			ends, child := createFamily(t, s, p, 1)
			over := while(t, s)
			settled, pumped, err := follow(t, s, p, ends...)
			if pumped != nil || !settled.Pump || err != nil {
				t.Errorf("%+v, %+v, undone: %v", settled, pumped, err)
			}
			over()
			wantClaim(t, s, p, child)
		})
	}
}

// A tick without a lease, or with shapes of another time, takes no outcomes with it.
func TestFollowingTickIsRefused(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	ends, child := createFamily(t, s, p, 1)
	stranger := p
	stranger.Owner = store.NewID()
	undone(t, s, stranger, errNoLease.Error(), ends...)
	wantClaim(t, s, p, child)

	ends, child = createFamily(t, s, p, 1)
	do(t, lend(t, s), "UPDATE pump SET epoch = epoch + 1")
	undone(t, s, p, errEpoch.Error(), ends...)
	wantClaim(t, s, p, child)
}

// Outcomes that fail by themselves are not to be settled once more.
func TestOutcomesThatFail(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	ends, _ := createFamily(t, s, p, 1)
	conn := lend(t, s)
	do(t, conn, "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''broken''; END'")
	do(t, conn, "CREATE TRIGGER fail BEFORE INSERT ON dep_event FOR EACH ROW EXECUTE FUNCTION fail()")
	_, pumped, err := s.SettleAndPump(t.Context(), ends, func() (store.PumpParams, bool) { return p, false })
	if err == nil || pumped != nil || errors.Is(err, store.ErrUndone) {
		t.Errorf("%+v, %v", pumped, err)
	}
	readOnlyIfTold(s)
	_, pumped, err = s.SettleAndPump(t.Context(), ends, func() (store.PumpParams, bool) { return p, true })
	if !errors.Is(err, store.ErrUndone) || pumped != nil { // it cannot tell whose fault it is
		t.Errorf("%+v, %v", pumped, err)
	}
}

// After a fail-over numbers may begin before those that were taken out. Then what outcomes have put there is left to the next tick.
func TestNumbersGoBack(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	for range 5 {
		ends, _ := createFamily(t, s, p, 1)
		if _, pumped, err := follow(t, s, p, ends...); pumped == nil {
			t.Fatal(err)
		}
	}
	do(t, lend(t, s), "ALTER SEQUENCE dep_event_seq_seq RESTART WITH 1")
	ends, child := createFamily(t, s, p, 1)
	_, pumped, err := follow(t, s, p, ends...)
	if pumped == nil || len(pumped.Claims) > 0 || !pumped.More {
		t.Errorf("%+v, undone: %v", pumped, err)
	}
	readOnlyIfTold(s)
	wantClaim(t, s, p, child)
}

func TestExpectedRows(t *testing.T) {
	t.Parallel()
	p := newCursors().begin()
	p.heads[gateDeltas] = spot{seq: 3}
	p.behind(gateDeltas, taken{n: 2, last: 8}, 2)
	p.behind(events, taken{n: 1, last: 5}, 2)
	for _, q := range []queue{gateDeltas, events, batchDeltas} {
		p.expect(q, 1)
	}
	if want := (heads{gateDeltas: {seq: 8}, events: {seq: 5}, batchDeltas: {}}); !maps.Equal(p.heads, want) {
		t.Errorf("heads are %v, want %v", p.heads, want)
	}
	p.behind(gateDeltas, taken{}, 2)
	p.expect(gateDeltas, 0)
	if _, some := p.heads[gateDeltas]; some {
		t.Errorf("nothing is expected, but the heads are %v", p.heads)
	}
}

// A transaction that began before a shape was there must not mark it as seen by all that have later ids.
func TestFollowingTickLearnsNoShapes(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]task.Rule{
		"slots":   {Matcher: task.Matcher{Kind: "work", Status: task.Running}, Max: 1},
		"tallied": {Matcher: task.Matcher{Kind: "work", Status: task.Failure}, Max: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openForCommits(t)
			p := pumpParams(t, s)
			ends, child := createFamily(t, s, p, 1)
			createTasks(t, s, 1, rule)
			undone(t, s, p, errNew.Error(), ends...)
			var learned int
			if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM shape WHERE version > 0 OR horizon IS NOT NULL").Scan(&learned); err != nil || learned > 0 {
				t.Errorf("%d shapes, %v", learned, err)
			}
			claimed := map[task.ID]bool{}
			for s.shapes.Version == 0 || s.expected[ofShapes] { // others' transactions may have to end first; the last tick finds no more
				pumped, err := s.Pump(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range pumped.Claims {
					claimed[c.ID] = true
				}
			}
			if !claimed[child.ID] {
				t.Errorf("claimed %v", claimed)
			}
			ends[0].ID = child.ID
			if _, pumped, err := follow(t, s, p, ends...); pumped == nil {
				t.Errorf("nothing follows though the shape is known; undone: %v", err)
			}
		})
	}
}

// What a tick that follows finds of its own transaction stands behind all that was ever taken out, and is not looked for there.
func TestOldSnapshotAndFollowingTicks(t *testing.T) {
	t.Parallel()
	s := openWithSnapshot(t)
	p := pumpParams(t, s)
	const hops = 200
	b := batchOfTasks(hops, task.Rule{Matcher: task.Matcher{Kind: "work", Status: task.Running}, Max: 2})
	for i, k := range b.Tasks[1:] {
		k.Dependencies = []task.Dependency{{Parent: b.Tasks[i].ID}}
	}
	if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	wantClaim(t, s, p, b.Tasks[0])
	if _, err := s.Pump(t.Context(), p); err != nil { // which finds no more shapes
		t.Fatal(err)
	}
	for i, k := range b.Tasks[:hops-1] {
		_, pumped, _ := follow(t, s, p, task.Outcome{ID: k.ID, Kind: task.Update, Status: task.Success})
		if pumped == nil || len(pumped.Claims) != 1 || pumped.Claims[0].ID != b.Tasks[i+1].ID || pumped.More {
			t.Fatalf("hop %d: %+v", i, pumped)
		}
	}
	walked(t, s, map[string]int{"dep_event": hops, "gate_delta": hops})
}
