package postgres

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"taskrunner/internal/pgtest"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// standing is the table of a model: by host, in order.
type standing map[string][]spot

func (m standing) put(host string, s spot) {
	m[host] = append(m[host], s)
	slices.SortFunc(m[host], func(a, b spot) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
}

// look fills tick.found as the statement does, and takes some of it.
func (m standing) look(t *rapid.T, tick *laneTick) (taken []store.ReadyKey) {
	tick.limits = map[string]int{}
	tick.total = rapid.IntRange(1, 6).Draw(t, "total")
	type hosted struct {
		host string
		spot
	}
	var all []hosted
	for lane, head := range tick.heads {
		host := lane.host
		limit := rapid.IntRange(0, 4).Draw(t, "limit of "+host)
		if limit == 0 {
			continue
		}
		tick.limits[host] = limit
		for _, s := range m[host] {
			if !s.before(head) && limit > 0 {
				all, limit = append(all, hosted{host, s}), limit-1
			}
		}
	}
	slices.SortFunc(all, func(a, b hosted) int {
		if a.before(b.spot) {
			return -1
		}
		return 1
	})
	for _, s := range all[:min(len(all), tick.total)] {
		facts := store.Facts{ID: s.id, Host: s.host, Priority: -int(s.rank)}
		tick.found = append(tick.found, store.Found{Facts: facts})
		if rapid.IntRange(0, 4).Draw(t, "stays") > 0 {
			taken = append(taken, store.ReadyKey{ID: s.id, Host: s.host, Priority: -int(s.rank)})
		}
	}
	return taken
}

// Whatever comes in while ticks look and take: nobody of whom this process knows stands before the head of its lane, unless the
// heads are going to be read. It knows of its own, of those that it has read, and of those of which it was notified.
func TestNobodyStandsBeforeAHead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, table := newLanes(), standing{}
		known := map[spot]bool{}
		n := 0
		come := func(own bool) {
			for range rapid.IntRange(0, 3).Draw(t, "come") {
				n++
				host := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "host")
				s := spotOf(task.ID{byte(rapid.IntRange(0, 9).Draw(t, "age")), byte(n >> 8), byte(n)}, rapid.IntRange(-1, 1).Draw(t, "priority"))
				table.put(host, s)
				if own {
					l.enter(heads{lineFor(host): s})
					known[s] = true
				}
			}
		}
		notify := func() {
			if rapid.IntRange(0, 5).Draw(t, "notify") > 0 {
				return
			}
			l.forget()
			for _, standing := range table {
				for _, s := range standing {
					known[s] = true
				}
			}
		}
		for range 20 {
			come(true)
			come(false)
			notify()
			tick := l.begin()
			if tick.read {
				for host, standing := range table {
					for _, s := range standing {
						tick.heads.lower(lineFor(host), s)
						known[s] = true
					}
				}
			}
			come(true)
			taken := table.look(t, tick)
			come(true)
			come(false)
			notify()
			if rapid.IntRange(0, 5).Draw(t, "fails") > 0 {
				for _, k := range taken {
					table[k.Host] = slices.DeleteFunc(table[k.Host], func(s spot) bool { return s.id == k.ID })
				}
				tick.advance(taken)
				l.end(tick)
			}
			for host, standing := range table {
				head, ok := l.heads[lineFor(host)]
				for _, s := range standing {
					if known[s] && (!ok || s.before(head)) && l.known == l.forgotten {
						t.Fatalf("%v stands at %s before %v (%t)", s, host, head, ok)
					}
				}
			}
		}
	})
}

// While somebody holds an old snapshot, no vacuum removes what the pump has taken out of its queues. Ticks must not walk it
// again and again.
func TestOldSnapshot(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	do(t, conn, "begin isolation level repeatable read")
	do(t, conn, "SELECT FROM task")

	const rounds, n = 60, 50
	p := pumpParams(t, s)
	p.Room = task.Room{Total: n, PerHost: n}
	for range rounds / 2 { // of parents, and as many of children; each batch is told of its ends, each task holds a gate
		b := batchOfTasks(n, task.Rule{Matcher: task.Matcher{Kind: "work", Status: task.Running}, Max: 2 * n})
		for i := range n {
			child := *b.Tasks[i]
			child.ID, child.Dependencies = store.NewID(), []task.Dependency{{Parent: b.Tasks[i].ID}}
			b.Tasks = append(b.Tasks, &child)
		}
		if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	for range rounds {
		pumped, err := s.Pump(t.Context(), p)
		if err != nil || len(pumped.Claims) != n {
			t.Fatalf("%d claims, %v", len(pumped.Claims), err)
		}
		for i := range pumped.Claims {
			if _, err := s.Settle(t.Context(), []task.Outcome{{ID: pumped.Claims[i].ID, Kind: task.Update, Status: task.Success}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	reads := 2 + int(time.Since(begun)/readEvery)               // of the heads, each of which walks all that is dead
	for _, conn := range s.engine.AcquireAllIdle(t.Context()) { // each keeps what it has counted for a while
		do(t, conn, "SELECT pg_stat_force_next_flush()")
		conn.Release()
	}
	for table, put := range map[string]int{
		"ready": rounds * n / 2, "dep_event": rounds * n / 2, "gate_delta": rounds * n, "batch_delta": rounds * n,
	} {
		var walked int
		if err := s.engine.QueryRow(t.Context(), `
			SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1 || '_pkey' AND schemaname = current_schema()`, table,
		).Scan(&walked); err != nil {
			t.Fatal(err)
		}
		if most := (3 + reads) * put; walked < put || walked > most {
			t.Errorf("%s: ticks walked %d entries, of %d that there were; %d may be", table, walked, put, most)
		}
	}
}

// What others put into ready is seen when they have notified, and what this process puts there is seen at once, also before
// the head.
func TestHeadsOfLanes(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	s.lanes.next = time.Now().Add(time.Hour)
	p := pumpParams(t, s)
	want := func(what string, n int) {
		t.Helper()
		pumped, err := s.Pump(t.Context(), p)
		if err != nil || len(pumped.Claims) != n {
			t.Errorf("%s: %d claims, %v", what, len(pumped.Claims), err)
		}
	}
	want("nothing there", 0)
	s.lanes.next = time.Now().Add(time.Hour)
	tasks := createTasks(t, s, 2)
	want("own tasks", 2)
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	back := func() { // as another process gives them back
		t.Helper()
		do(t, conn, "UPDATE task_state SET status = 2 WHERE id = $1", tasks[0].ID)
		do(t, conn, "DELETE FROM running WHERE task_id = $1", tasks[0].ID)
		do(t, conn, "INSERT INTO ready (host, rank, task_id) SELECT host, -priority, id FROM task WHERE id = $1", tasks[0].ID)
	}
	back()
	want("another's, of which nobody has told", 0)
	s.lanes.forget()
	want("another's", 1)
	paused := createTasks(t, s, 1)[0].ID
	settle := func(kind task.OutcomeKind) {
		t.Helper()
		if _, err := s.Settle(t.Context(), []task.Outcome{{ID: paused, Kind: kind}}); err != nil {
			t.Fatal(err)
		}
	}
	settle(task.Pause)
	createTasks(t, s, 1)
	want("a younger one", 1)
	settle(task.Resume)
	want("an older one, before the head", 1)
}

// Who finds another process pumping tells it, so that it does not keep to what it has put into the queues itself.
func TestBusyPumpIsTold(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	s, other := openURL(t, url), openURL(t, url)
	p, others := pumpParams(t, s), pumpParams(t, other)
	pump := func(s *Store, p store.PumpParams) store.Pumped {
		t.Helper()
		pumped, err := s.Pump(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		s.lanes.next = time.Now().Add(time.Hour)
		return pumped
	}
	pump(s, p)
	createTasks(t, other, 1)
	if pumped := pump(s, p); len(pumped.Claims) > 0 || pumped.More {
		t.Fatalf("before anybody has told: %+v", pumped)
	}
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM pump FOR UPDATE")
	if pumped := pump(other, others); !pumped.Busy {
		t.Fatalf("while another one pumps: %+v", pumped)
	}
	do(t, conn, "rollback")
	if pumped := pump(s, p); !pumped.More {
		t.Errorf("the tick that heard of it: %+v", pumped)
	}
	if pumped := pump(s, p); len(pumped.Claims) != 1 || pumped.More {
		t.Errorf("the tick after that: %+v", pumped)
	}
}
