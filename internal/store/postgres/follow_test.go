package postgres

import (
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// follow settles outcomes with a tick that may follow them. Heads are not due to be read, unless somebody has told of something.
func follow(t *testing.T, s *Store, p store.PumpParams, outcomes ...task.Outcome) (store.Settled, *store.Pumped) {
	t.Helper()
	readOnlyIfTold(s)
	settled, pumped, err := s.SettleAndPump(t.Context(), outcomes, func() (store.PumpParams, bool) { return p, true })
	if err != nil || len(settled.Results) != len(outcomes) {
		t.Fatalf("%+v, %v", settled, err)
	}
	for _, r := range settled.Results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return settled, pumped
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
		settled, pumped := follow(t, s, p, ends...)
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
	settled, pumped := follow(t, s, p, ends...)
	if pumped != nil || !settled.Pump {
		t.Errorf("%+v, %+v", settled, pumped)
	}
	do(t, conn, "rollback")
	wantClaim(t, s, p, child)
}

func TestNothingFollowsWhileAnotherProcessPumps(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	ends, child := createFamily(t, s, p, 1)
	conn := lend(t, s)
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM pump FOR UPDATE")
	settled, pumped := follow(t, s, p, ends...)
	if pumped != nil || !settled.Pump {
		t.Errorf("%+v, %+v", settled, pumped)
	}
	do(t, conn, "rollback")
	wantClaim(t, s, p, child)
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
			settled, pumped := follow(t, s, p, ends...)
			if pumped != nil || !settled.Pump {
				t.Errorf("%+v, %+v", settled, pumped)
			}
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
			if _, pumped := follow(t, s, p, ends...); pumped == nil {
				t.Error("nothing follows though the shape is known")
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
		_, pumped := follow(t, s, p, task.Outcome{ID: k.ID, Kind: task.Update, Status: task.Success})
		if pumped == nil || len(pumped.Claims) != 1 || pumped.Claims[0].ID != b.Tasks[i+1].ID || pumped.More {
			t.Fatalf("hop %d: %+v", i, pumped)
		}
	}
	walked(t, s, map[string]int{"dep_event": hops, "gate_delta": hops})
}
