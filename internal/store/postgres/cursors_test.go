package postgres

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"taskrunner/internal/pgtest"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// standing is the table of a model: by host, in order.
type standing map[string][]spot

func (m standing) put(host string, s spot) {
	m[host] = append(m[host], s)
	slices.SortFunc(m[host], spot.compare)
}

func (m standing) remove(keys []store.ReadyKey) {
	for _, k := range keys {
		m[k.Host] = slices.DeleteFunc(m[k.Host], func(s spot) bool { return s.id == k.ID })
	}
}

func readyKey(f *store.Found) store.ReadyKey {
	return store.ReadyKey{ID: f.Facts.ID, Host: f.Facts.Host, Priority: f.Facts.Priority}
}

// first are the first total, and most(host) of a host.
func (m standing) first(most func(string) int, total int) (first []store.Found) {
	for host, standing := range m {
		for _, s := range standing[:min(len(standing), most(host))] {
			first = append(first, store.Found{Facts: store.Facts{ID: s.id, Host: host, Priority: -int(s.rank)}})
		}
	}
	slices.SortFunc(first, func(a, b store.Found) int {
		return spotOf(a.Facts.ID, a.Facts.Priority).compare(spotOf(b.Facts.ID, b.Facts.Priority))
	})
	return first[:min(len(first), total)]
}

// look fills tick as the statement does.
func (m standing) look(tick *pass, most func(string) int, total int) {
	tick.choose(most, total)
	read, n := standing{}, map[string]int{}
	for _, l := range tick.lanes {
		read[l.host] = slices.DeleteFunc(slices.Clone(m[l.host]), func(s spot) bool { return s.before(l.head) })
		n[l.host] = l.n + tick.more
	}
	tick.found = read.first(func(host string) int { return n[host] }, tick.asked())
}

// limits draws how many of a host a tick may look at.
func limits(t *rapid.T, hosts []string) func(string) int {
	limits := map[string]int{}
	for _, host := range hosts {
		limits[host] = rapid.SampledFrom([]int{0, 1, 4, 100}).Draw(t, "limit of "+host)
	}
	return func(host string) int { return limits[host] }
}

// take draws which of those that a tick looks at it takes.
func take(t *rapid.T, first []store.Found) (taken []store.ReadyKey) {
	for i := range first {
		if rapid.IntRange(0, 4).Draw(t, "stays") > 0 {
			taken = append(taken, readyKey(&first[i]))
		}
	}
	return taken
}

// Wherever the heads of lanes are, a tick finds the first of all of them in their order, or knows that there are others. Where they
// are right it finds not much less than it looks for; they are, wherever it has looked.
func TestFirstOfAllLanes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table, tick := standing{}, &pass{heads: heads{}}
		var hosts []string
		for h := range rapid.IntRange(1, 40).Draw(t, "hosts") {
			host := fmt.Sprint("h", h)
			hosts = append(hosts, host)
			from := byte(rapid.IntRange(0, 50).Draw(t, "age of "+host)) // a batch of each, or all at once
			for n := range rapid.IntRange(0, 60).Draw(t, "tasks of "+host) {
				table.put(host, spotOf(task.ID{from + byte(n), byte(h)}, rapid.SampledFrom([]int{0, 0, 0, 9}).Draw(t, "priority")))
			}
			if len(table[host]) > 0 {
				tick.heads[readyOf(host)] = table[host][0]
			}
			if n := rapid.IntRange(0, 5).Draw(t, "gone"); n < 2 {
				tick.heads[readyOf(host)] = spotOf(task.ID{byte(n)}, 10)
			}
		}
		total := rapid.SampledFrom([]int{1, 2, 5, 20, 100}).Draw(t, "total")
		most := limits(t, hosts)
		empty := 0
		for range 50 {
			right := true
			for q, head := range tick.heads {
				right = right && len(table[q.host]) > 0 && table[q.host][0] == head
			}
			want := table.first(most, total)
			table.look(tick, most, total)
			got, cut := tick.first()
			if diff := cmp.Diff(want[:min(len(want), len(got))], got, cmpopts.EquateEmpty()); diff != "" || len(got) < len(want) && !cut {
				t.Fatalf("found %d of %d, cut %t: %s", len(got), len(want), cut, diff)
			}
			if few := 2 * math.Sqrt(2*float64(total)); right && float64(len(got)) < min(few, float64(len(want))) {
				t.Fatalf("found %d of %d", len(got), len(want))
			}
			if len(got) == 0 {
				if empty++; empty > len(hosts)/total+1 {
					t.Fatalf("nothing found again and again")
				}
				if !cut {
					break
				}
			}
			taken := take(t, got)
			table.remove(taken)
			tick.advance(taken)
			tick = &pass{heads: tick.heads}
		}
	})
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
			table.look(tick, limits(t, []string{"a", "b", "c"}), rapid.IntRange(1, 6).Draw(t, "total"))
			first, _ := tick.first()
			taken := take(t, first)
			come(true)
			come(false)
			notify()
			if rapid.IntRange(0, 5).Draw(t, "fails") > 0 {
				table.remove(taken)
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

// openWithSnapshot opens a store of which somebody holds an old snapshot to the end of the test.
func openWithSnapshot(t *testing.T) *Store {
	t.Helper()
	s := openForCommits(t)
	conn := lend(t, s)
	do(t, conn, "begin isolation level repeatable read")
	do(t, conn, "SELECT FROM task")
	return s
}

// While somebody holds an old snapshot, no vacuum removes what the pump has taken out of its queues. Ticks must not walk it
// again and again.
func TestOldSnapshot(t *testing.T) {
	t.Parallel()
	s := openWithSnapshot(t)

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
	s := openWithSnapshot(t)

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
	for table, put := range put {
		walked := indexRead(t, s, table+"_pkey")
		if most := 3 * put; walked < put || walked > most {
			t.Errorf("%s: ticks walked %d entries, of %d that there were; %d may be", table, walked, put, most)
		}
	}
}

// What a tick reads of ready depends on what it may start, not on the number of hosts.
func TestManyHosts(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	const hosts, room, rounds = 1000, 32, 20
	b := batchOfTasks(20 * hosts)
	for i, k := range b.Tasks {
		k.OnStart.URL = fmt.Sprintf("http://h%d.test/run", i%hosts)
	}
	if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	p.Room = task.Room{Total: room, PerHost: room}
	started := 0
	read := func(ticks int) (read int) {
		for range ticks {
			pumped, err := s.Pump(t.Context(), p)
			if err != nil || len(pumped.Claims) != room {
				t.Fatalf("%d claims, %v", len(pumped.Claims), err)
			}
			for i := range pumped.Claims {
				if pumped.Claims[i].ID != b.Tasks[started].ID {
					t.Fatalf("task %d is not the next one", started)
				}
				started++
			}
			readOnlyIfTold(s)
		}
		return indexRead(t, s, "ready_pkey")
	}
	before := read(1) // it reads all heads
	if n, most := read(rounds)-before, 16*room*rounds; n < room*rounds || n > most {
		t.Errorf("%d ticks read %d entries, of %d hosts; %d may be", rounds, n, hosts, most)
	}
}

// indexRead counts the entries of an index that were read.
func indexRead(t *testing.T, s *Store, index string) (n int) {
	t.Helper()
	flushStatistics(t, s)
	err := s.engine.QueryRow(t.Context(),
		"SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1 AND schemaname = current_schema()", index).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
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
