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
	// readEvery is how often the heads of lanes are read from the table.
	readEvery = time.Second
	// readShare bounds what that takes of the time, to a twentieth: where nobody may vacuum, it takes longer and longer.
	readShare = 20
)

// lane is the part of ready that is a host's, or the whole of another queue of the pump, which has no hosts.
type lane struct{ table, host string }

func lineFor(host string) lane { return lane{"ready", host} }

// The queues that may be a moment late. What tallied rules count may not, so tally_event is none of them.
var (
	events      = lane{table: "dep_event"}
	gateDeltas  = lane{table: "gate_delta"}
	batchDeltas = lane{table: "batch_delta"}
)

// spot is a place in a lane: rank and id in ready, seq in the others.
type spot struct {
	rank int16
	seq  int64
	id   task.ID
}

func spotOf(id task.ID, priority int) spot { return spot{rank: int16(-priority), id: id} }

func (s spot) before(other spot) bool {
	return cmp.Or(cmp.Compare(s.rank, other.rank), cmp.Compare(s.seq, other.seq), bytes.Compare(s.id[:], other.id[:])) < 0
}

// heads say where lanes begin: nothing stands before that. A lane without a head is empty.
type heads map[lane]spot

func (h heads) lower(l lane, s spot) {
	if head, ok := h[l]; !ok || s.before(head) {
		h[l] = s
	}
}

func (h heads) lowerAll(by heads) {
	for l, s := range by {
		h.lower(l, s)
	}
}

// lanes remember where the pump goes on. What it has taken out of a queue stays in the index until a vacuum, which comes
// late, and does nothing while somebody holds an old snapshot, as a backup does: each tick would walk all of it.
//
// What this process puts into a queue lowers the heads as soon as its transaction is over. What others put there shows when
// they notify this one, or find it pumping, and else when the heads are read again. Safe for concurrent use.
type lanes struct {
	mu      sync.Mutex
	heads   heads
	entered heads // since the last tick began
	// The heads are good if they were read when forget had been called as often as by now.
	forgotten, known int
	next             time.Time // when they are to be read in any case
	told             int64     // how often anybody had found another one pumping by the last tick; 0: there was none
}

func newLanes() *lanes { return &lanes{heads: heads{}, entered: heads{}, forgotten: 1} }

// enter is told what has come in, once the transaction is over that put it there.
func (l *lanes) enter(came heads) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heads.lowerAll(came)
	l.entered.lowerAll(came)
}

// forget is told that something may stand before the heads.
func (l *lanes) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgotten++
}

// look reports whether there is something in a lane as far as is known, and whether the next tick reads the heads.
func (l *lanes) look() (some, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.heads) > 0, l.unknown()
}

func (l *lanes) unknown() bool { return l.known != l.forgotten || !time.Now().Before(l.next) }

// laneTick is what a tick makes of the lanes. Its heads are its own.
type laneTick struct {
	heads     heads
	read      bool          // they have to be read
	took      time.Duration // by that
	forgotten int
	limits    map[string]int // of how many it looks at in each lane; none of the others
	total     int            // in all lanes
	found     []store.Found  // what is there, in its order
	told      int64
}

func (l *lanes) begin() *laneTick {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.entered)
	if l.unknown() {
		return &laneTick{heads: heads{}, read: true, forgotten: l.forgotten}
	}
	return &laneTick{heads: maps.Clone(l.heads)}
}

// end is told that the tick is committed, and reports whether others have found this process pumping since the last one: then the
// next one reads the heads.
func (l *lanes) end(t *laneTick) (told bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.heads.lowerAll(l.entered)
	l.heads = t.heads
	if t.read {
		l.known, l.next = t.forgotten, time.Now().Add(max(readEvery, readShare*t.took))
	}
	if told = l.told != t.told && l.told > 0; told {
		l.forgotten++
	}
	l.told = t.told
	return told
}

// advance moves the heads of ready behind what the tick takes.
func (t *laneTick) advance(taken []store.ReadyKey) {
	gone := make(map[task.ID]bool, len(taken))
	for _, k := range taken {
		gone[k.ID] = true
	}
	ends := maps.Clone(t.limits) // less what is found, as long as all of it goes; 0: something stays, or may be behind it
	for i := range t.found {
		f := &t.found[i].Facts
		if ends[f.Host] > 0 {
			t.heads[lineFor(f.Host)] = spotOf(f.ID, f.Priority)
			ends[f.Host]--
			if !gone[f.ID] {
				ends[f.Host] = 0
			}
		}
	}
	if len(t.found) == t.total {
		return // of any lane there may be more
	}
	for host, n := range ends {
		if n > 0 {
			delete(t.heads, lineFor(host))
		}
	}
}

// taken are rows that were taken out of a queue, from its head on.
type taken struct {
	n    int
	last int64
}

func (t *taken) add(n int, last int64) { t.n, t.last = t.n+n, max(t.last, last) }

// behind moves the head of a queue behind what was taken, of up to limit rows.
func (h heads) behind(queue lane, t taken, limit int) {
	if t.n < limit {
		delete(h, queue)
	} else {
		h[queue] = spot{seq: t.last}
	}
}

// enter queues a statement that puts rows into a queue, and gives the first of them, or null for none.
func (t *tx) enter(queue lane, name string, args ...any) {
	t.rows(name, args, func(rows pgx.Rows) error {
		var first *int64
		err := rows.Scan(&first)
		if first != nil {
			t.entered.lower(queue, spot{seq: *first})
		}
		return err
	})
}

// readHeads queues the reading of the heads.
func (t *tx) readHeads(into heads) {
	t.s.sent.Add(-1) // it depends on the time, not on what there is to do
	t.rows("heads", nil, func(rows pgx.Rows) error {
		var l lane
		var s spot
		err := rows.Scan(&l.table, &l.host, &s.rank, &s.seq, (*[16]byte)(&s.id))
		into.lower(l, s)
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
		t.entered.lower(lineFor(k.Host), s)
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
		t.entered.lower(lineFor(host), s)
		return err
	})
}
