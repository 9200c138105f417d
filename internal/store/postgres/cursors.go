package postgres

import (
	"bytes"
	"cmp"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

const (
	// readEvery is how often heads are read from the tables where nobody asks for it.
	readEvery = 100 * time.Millisecond
	// readShare bounds what that takes of the time, to a twentieth: where nobody may vacuum, it takes longer and longer.
	readShare = 20
	// readAtMost bounds the pause: what took long may have been something else.
	readAtMost = 5 * time.Second
	// readCheap is what it may take so that heads are read whenever others have told of something.
	readCheap = 20 * time.Millisecond
)

// queue is the part of ready that is a host's, or the whole of another table that the pump empties, which has no hosts.
type queue struct{ table, host string }

func readyOf(host string) queue { return queue{"ready", host} }

// The others, which may be a moment late. What tallied rules count may not, so tally_event is none of them.
var (
	events      = queue{table: "dep_event"}
	gateDeltas  = queue{table: "gate_delta"}
	batchDeltas = queue{table: "batch_delta"}
)

// spot is a place in a queue: rank and id in ready, seq in the others.
type spot struct {
	rank int16
	seq  int64
	id   task.ID
}

func spotOf(id task.ID, priority int) spot { return spot{rank: int16(-priority), id: id} }

func (s spot) compare(other spot) int {
	return cmp.Or(cmp.Compare(s.rank, other.rank), cmp.Compare(s.seq, other.seq), bytes.Compare(s.id[:], other.id[:]))
}

func (s spot) before(other spot) bool { return s.compare(other) < 0 }

// heads say where queues begin: nothing stands before that. One without a head is empty.
type heads map[queue]spot

func (h heads) lower(q queue, s spot) {
	if head, ok := h[q]; !ok || s.before(head) {
		h[q] = s
	}
}

func (h heads) lowerAll(by heads) {
	for q, s := range by {
		h.lower(q, s)
	}
}

// cursors remember where the pump goes on in its queues. What it has taken out stays in the index until a vacuum, which comes
// late, and does nothing while somebody holds an old snapshot, as a backup does: each tick would walk all of it.
//
// What this process puts into a queue lowers the heads as soon as its transaction is over. What others put there shows when
// they notify this one, or find it pumping, and else when the heads are read again. There are no more heads than there were queues when
// they were read, and queues that this process has put something into since. Safe for concurrent use.
type cursors struct {
	mu      sync.Mutex
	heads   heads
	entered heads // since the last tick began
	emptied heads // where queues other than ready ended that were empty
	untold  bool  // some of it since the last tick of this process, or since it found another one pumping
	// The heads are good if they were read when forget had been called as often as by now.
	forgotten, known int
	took             time.Duration // by reading them
	next             time.Time     // when they are to be read in any case
	busy             int64         // how often anybody had found another one pumping by the last tick; 0: there was none
}

func newCursors() *cursors {
	return &cursors{heads: heads{}, entered: heads{}, emptied: heads{}, forgotten: 1}
}

// enter is told what has come in, once the transaction is over that put it there.
func (c *cursors) enter(came heads) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads.lowerAll(came)
	c.entered.lowerAll(came)
	c.untold = c.untold || len(came) > 0
}

// forget is told that something may stand before the heads.
func (c *cursors) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten++
}

// tell reports whether the process that pumps is to be told of what this one has put into queues. Then it is not to be told again,
// unless that fails.
func (c *cursors) tell() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	untold := c.untold
	c.untold = false
	return untold
}

// notTold is told that the process that pumps could not be told.
func (c *cursors) notTold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untold = true
}

// look reports whether there is something in a queue as far as is known, and whether the next tick reads the heads.
func (c *cursors) look() (some, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.heads) > 0, c.due()
}

// readsHeads reports whether the next tick reads the heads.
func (c *cursors) readsHeads() bool {
	_, due := c.look()
	return due
}

func (c *cursors) due() bool {
	return c.known != c.forgotten && c.took < readCheap || !time.Now().Before(c.next)
}

// pass is what a tick makes of the queues. Its heads are its own.
type pass struct {
	heads     heads
	emptied   heads
	read      bool          // they have to be read
	took      time.Duration // by that
	forgotten int
	busy      int64
	// Of ready:
	lanes []lane
	total int           // how many tasks the tick may look at, of all of them
	left  *spot         // the first head of those that are not read; nil: there are none
	more  int           // how many more are read of each lane, so that it is known where it goes on: 1 if some are not read
	found []store.Found // what is there, in its order
}

func (c *cursors) begin() *pass {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entered)
	if c.due() {
		return &pass{heads: heads{}, emptied: maps.Clone(c.emptied), read: true, forgotten: c.forgotten}
	}
	return &pass{heads: maps.Clone(c.heads), emptied: maps.Clone(c.emptied)}
}

// end is told that the tick is committed, and reports whether another one is to follow, because others have found this process
// pumping since the one before.
func (c *cursors) end(p *pass) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.heads.lowerAll(c.entered)
	c.heads, c.emptied, c.untold = p.heads, p.emptied, len(c.entered) > 0
	if p.read {
		c.known, c.took = p.forgotten, p.took
		c.next = time.Now().Add(min(max(readEvery, readShare*p.took), readAtMost))
	}
	told := c.busy != p.busy && c.busy > 0
	if told {
		c.forgotten++
	}
	c.busy = p.busy
	return told && c.due()
}

// taken are rows that were taken out of a queue, from its head on.
type taken struct {
	n    int
	last int64
}

func (t *taken) add(n int, last int64) { t.n, t.last = t.n+n, max(t.last, last) }

// behind moves the head of a queue behind what was taken, of up to limit rows.
func (p *pass) behind(q queue, t taken, limit int) {
	last := spot{seq: t.last}
	if t.n >= limit {
		p.heads[q] = last
		return
	}
	delete(p.heads, q)
	if t.n > 0 {
		p.emptied[q] = last
	}
}

// expect is told that the transaction itself has put up to n rows into q. They got the last numbers.
func (p *pass) expect(q queue, n int) {
	if _, some := p.heads[q]; n > 0 && !some {
		p.heads[q] = p.emptied[q]
	}
}

// enter queues a statement that puts rows into a queue, and gives the first of them, or null for none.
func (t *tx) enter(q queue, name string, args ...any) {
	t.rows(name, args, func(rows pgx.Rows) error {
		var first *int64
		err := rows.Scan(&first)
		if first != nil {
			t.entered.lower(q, spot{seq: *first})
		}
		return err
	})
}

// readHeads queues the reading of the heads.
func (t *tx) readHeads(into heads) {
	t.s.sent.Add(-1) // it depends on the time, not on what there is to do
	t.rows("queue_heads", nil, func(rows pgx.Rows) error {
		var q queue
		var s spot
		err := rows.Scan(&q.table, &q.host, &s.rank, &s.seq, (*[16]byte)(&s.id))
		into.lower(q, s)
		return err
	})
}

// insertReady queues what puts tasks into ready.
func (t *tx) insertReady(keys []store.ReadyKey) {
	n := len(keys)
	if n == 0 {
		return
	}
	hosts, ranks, ids := make([]string, n), make([]int16, n), make(uuids, n)
	for i, k := range keys {
		s := spotOf(k.ID, k.Priority)
		hosts[i], ranks[i], ids[i] = k.Host, s.rank, s.id
		t.entered.lower(readyOf(k.Host), s)
	}
	t.exec("insert_ready", hosts, ranks, ids)
}

// enqueue is insertReady for tasks of which only the table knows where they belong.
func (t *tx) enqueue(ids []task.ID) {
	if len(ids) == 0 {
		return
	}
	t.rows("enqueue", []any{uuids(ids)}, func(rows pgx.Rows) error {
		var host string
		var s spot
		err := rows.Scan(&host, &s.rank, (*[16]byte)(&s.id))
		t.entered.lower(readyOf(host), s)
		return err
	})
}
