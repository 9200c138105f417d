package postgres

import (
	"context"
	"slices"
	"sync"
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
func (m standing) look(t *rapid.T, tick *pass) (taken []store.ReadyKey) {
	tick.limits = map[string]int{}
	tick.total = rapid.IntRange(1, 6).Draw(t, "total")
	type hosted struct {
		host string
		spot
	}
	var all []hosted
	for q, head := range tick.heads {
		host := q.host
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

// Whatever comes in while ticks look and take: nobody of whom this process knows stands before the head of a queue, unless the
// heads are going to be read. It knows of its own, of those that it has read, and of those of which it was notified.
func TestNobodyStandsBeforeAHead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, table := newCursors(), standing{}
		known := map[spot]bool{}
		n := 0
		come := func(own bool) {
			for range rapid.IntRange(0, 3).Draw(t, "come") {
				n++
				host := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "host")
				s := spotOf(task.ID{byte(rapid.IntRange(0, 9).Draw(t, "age")), byte(n >> 8), byte(n)}, rapid.IntRange(-1, 1).Draw(t, "priority"))
				table.put(host, s)
				if own {
					c.enter(heads{readyOf(host): s})
					known[s] = true
				}
			}
		}
		notify := func() {
			if rapid.IntRange(0, 5).Draw(t, "notify") > 0 {
				return
			}
			c.forget()
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
			tick := c.begin()
			if tick.read {
				for host, standing := range table {
					for _, s := range standing {
						tick.heads.lower(readyOf(host), s)
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
				c.end(tick)
			}
			for host, standing := range table {
				head, ok := c.heads[readyOf(host)]
				for _, s := range standing {
					if known[s] && (!ok || s.before(head)) && c.known == c.forgotten {
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
	conn := lend(t, s)
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
		readOnlyIfTold(s)
	}
	walked(t, s, map[string]int{"ready": rounds * n / 2, "dep_event": rounds * n / 2, "gate_delta": rounds * n, "batch_delta": rounds * n})
}

// Nor where there is more in a queue than a tick takes: the next one begins behind what this one took.
func TestOldSnapshotAndFullTicks(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	conn := lend(t, s)
	do(t, conn, "begin isolation level repeatable read")
	do(t, conn, "SELECT FROM task")

	const n, few = 300, 10
	p := pumpParams(t, s)
	p.Room = task.Room{Total: n, PerHost: n}
	creates, ends := make([]store.Create, n), make([]task.Outcome, n)
	for i := range n {
		b := batchOfTasks(2)
		b.Tasks[1].Dependencies = []task.Dependency{{Parent: b.Tasks[0].ID}}
		creates[i].Batch, ends[i] = b, task.Outcome{ID: b.Tasks[0].ID, Kind: task.Update, Status: task.Success}
	}
	if _, err := s.Create(t.Context(), creates); err != nil {
		t.Fatal(err)
	}
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != n {
		t.Fatalf("%d claims, %v", len(pumped.Claims), err)
	}
	if _, err := s.Settle(t.Context(), ends); err != nil {
		t.Fatal(err)
	}
	p.Links, p.BatchDeltas = few, few
	claims := 0
	for more := true; more; {
		readOnlyIfTold(s)
		pumped, err := s.Pump(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		claims, more = claims+len(pumped.Claims), pumped.More
	}
	if claims != n {
		t.Errorf("%d children were claimed, %d parents had ended", claims, n)
	}
	walked(t, s, map[string]int{"dep_event": n, "batch_delta": n})
}

// flushStatistics has connections tell what they have counted, which each keeps for a while.
func flushStatistics(t *testing.T, s *Store) {
	t.Helper()
	for _, conn := range append(s.engine.AcquireAllIdle(t.Context()), s.pool.AcquireAllIdle(t.Context())...) {
		do(t, conn, "SELECT pg_stat_force_next_flush()")
		conn.Release()
	}
}

// walked checks that ticks have not walked far more in the queues than was put into them.
func walked(t *testing.T, s *Store, put map[string]int) {
	t.Helper()
	flushStatistics(t, s)
	for table, put := range put {
		var walked int
		if err := s.engine.QueryRow(t.Context(), `
			SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1 || '_pkey' AND schemaname = current_schema()`, table,
		).Scan(&walked); err != nil {
			t.Fatal(err)
		}
		if most := 3 * put; walked < put || walked > most {
			t.Errorf("%s: ticks walked %d entries, of %d that there were; %d may be", table, walked, put, most)
		}
	}
}

// readOnlyIfTold makes ticks read the heads only if somebody has told of something, however slow the machine is.
func readOnlyIfTold(s *Store) { s.cursors.next, s.cursors.took = time.Now().Add(time.Hour), 0 }

// What others put into ready is seen when they have notified, and what this process puts there is seen at once, also before
// the head.
func TestHeadsOfQueues(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	want := func(what string, n int) {
		t.Helper()
		pumped, err := s.Pump(t.Context(), p)
		if err != nil || len(pumped.Claims) != n {
			t.Errorf("%s: %d claims, %v", what, len(pumped.Claims), err)
		}
		readOnlyIfTold(s)
	}
	want("nothing there", 0)
	tasks := createTasks(t, s, 2)
	want("own tasks", 2)
	conn := lend(t, s)
	back := func() { // as another process gives them back
		t.Helper()
		do(t, conn, "UPDATE task_state SET status = 2 WHERE id = $1", tasks[0].ID)
		do(t, conn, "DELETE FROM running WHERE task_id = $1", tasks[0].ID)
		do(t, conn, "INSERT INTO ready (host, rank, task_id) SELECT host, -priority, id FROM task WHERE id = $1", tasks[0].ID)
	}
	back()
	want("another's, of which nobody has told", 0)
	s.cursors.forget()
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

// Who finds another process pumping tells it, so that it does not keep to what it has put into the queues itself. Who fails to
// tell it does so the next time.
func TestBusyPumpIsTold(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	s, other := openURL(t, url), openURL(t, url)
	p, others := pumpParams(t, s), pumpParams(t, other)
	conn := lend(t, s)
	do(t, conn, "SELECT setval('pump_busy', 2)")
	pump := func() store.Pumped {
		t.Helper()
		pumped, err := s.Pump(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		readOnlyIfTold(s)
		return pumped
	}
	busy := func() error { // another process finds this one pumping
		t.Helper()
		do(t, conn, "begin")
		do(t, conn, "SELECT FROM pump FOR UPDATE")
		pumped, err := other.Pump(t.Context(), others)
		if err == nil && !pumped.Busy {
			t.Fatalf("while another one pumps: %+v", pumped)
		}
		readOnlyIfTold(other)
		do(t, conn, "rollback")
		return err
	}
	pump()
	createTasks(t, other, 1)
	if pumped := pump(); len(pumped.Claims) > 0 || pumped.More {
		t.Fatalf("before anybody has told: %+v", pumped)
	}
	do(t, conn, "ALTER SEQUENCE pump_busy MAXVALUE 2")
	if err := busy(); err == nil {
		t.Error("no error although there are no more numbers")
	}
	do(t, conn, "ALTER SEQUENCE pump_busy NO MAXVALUE")
	if err := busy(); err != nil {
		t.Fatal(err)
	}
	if pumped := pump(); !pumped.More {
		t.Errorf("the tick that heard of it: %+v", pumped)
	}
	if pumped := pump(); len(pumped.Claims) != 1 || pumped.More {
		t.Errorf("the tick after that: %+v", pumped)
	}
	if err := busy(); err != nil {
		t.Fatal(err)
	}
	if pumped := pump(); pumped.More {
		t.Errorf("a tick was told of nothing: %+v", pumped)
	}
}

// What others have put into queues is found by whoever looks for work, and at once by a process that they notify.
func TestOthersAreFound(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	s, other := openURL(t, url), openURL(t, url)
	p := pumpParams(t, s)
	pump := func() int {
		t.Helper()
		pumped, err := s.Pump(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		readOnlyIfTold(s)
		return len(pumped.Claims)
	}
	pump()
	createTasks(t, other, 1)
	work := func() bool {
		t.Helper()
		w, err := s.Work(t.Context(), p.Owner)
		if err != nil {
			t.Fatal(err)
		}
		return w.Pump
	}
	if work() {
		t.Error("found before the heads are due")
	}
	s.cursors.next = time.Time{}
	if !work() || pump() != 1 || work() {
		t.Error("not found once the heads are due, or found again")
	}

	heard := make(chan struct{}, 1)
	listening, stop := context.WithCancel(t.Context())
	var listener sync.WaitGroup
	listener.Go(func() { s.Listen(listening, func() { heard <- struct{}{} }) })
	defer listener.Wait()
	defer stop()
	<-heard // as it begins: something may have been missed
	pump()
	createTasks(t, other, 1)
	if n := pump(); n != 0 {
		t.Errorf("%d claims before anybody has notified", n)
	}
	if err := other.Notify(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-heard
	if n := pump(); n != 1 {
		t.Errorf("%d claims after a notification", n)
	}
}

// Heads are read seldom while that takes long, but never for long not at all.
func TestHeadsAreReadLessWhileThatTakesLong(t *testing.T) {
	t.Parallel()
	c := newCursors()
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond: readEvery, 50 * time.Millisecond: time.Second, time.Minute: readAtMost,
	} {
		c.forget()
		c.next = time.Time{}
		p := c.begin()
		p.took = took
		c.end(p)
		if pause := time.Until(c.next); pause > want || pause < want-10*time.Second || !p.read {
			t.Errorf("a pause of %s after %s", pause, took)
		}
		c.next = time.Now().Add(time.Hour)
		c.forget()
		if read := c.begin().read; read != (took < readCheap) {
			t.Errorf("told of something after a read of %s: %t", took, read)
		}
	}
}
