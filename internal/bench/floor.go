package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/google/uuid"
)

// floorShape is what the floor of a workload consists of.
type floorShape struct {
	what    step
	clients int // exchanges at once
	// perRequest is how many units a request brings, and bytes how long its body is; 0: one, and short. Of counts only.
	perRequest, bytes int
	// perCommit is how many units share a transaction, and rows how many rows they are in; 0: as many.
	perCommit, rows int
	// serial: latencies are those of one exchange after the other, whatever clients is.
	serial bool
}

// step is what is done for one unit.
type step int

const (
	life     step = iota // a webhook and its callback; the rows of a task from its creation to its end
	existing             // life without the creation
	creation             // a request, or a part of one; the creation alone
	count                // a request, or a part of one; an update of a row
	page                 // a request; a read of 50 rows
	end                  // no request; an update of a row
)

// floor is what one unit costs without a service: HTTP, and SQL. All times are in microseconds of CPU, or in milliseconds
// where they are latencies. Zero: not known.
type floor struct {
	stub, generator  float64 // HTTP
	client, database float64 // SQL
	wal              float64 // bytes
	httpP50, httpP99 float64
	sqlP50, sqlP99   float64
}

// rate is what all cores could do if they did nothing else.
func (f floor) rate() float64 {
	sum := f.stub + f.generator + f.client + f.database
	if sum == 0 { // too little to be seen
		return 0
	}
	return float64(runtime.NumCPU()) * 1e6 / sum
}

func (f floor) cpu() float64     { return f.stub + f.client + f.database }
func (f floor) httpCPU() float64 { return f.stub + f.client }
func (f floor) sqlCPU() float64  { return f.database }

// p50 and p99 of an exchange and a commit. The p99 of a sum is less than the sum of p99s: this is a high floor.
func (f floor) p50() float64 { return f.httpP50 + f.sqlP50 }
func (f floor) p99() float64 { return f.httpP99 + f.sqlP99 }

// mean is the floor between two looks at it.
func (f floor) mean(g floor) floor {
	half := func(a, b float64) float64 { return (a + b) / 2 }
	return floor{
		stub: half(f.stub, g.stub), generator: half(f.generator, g.generator), client: half(f.client, g.client), database: half(f.database, g.database),
		wal: half(f.wal, g.wal), httpP50: half(f.httpP50, g.httpP50), httpP99: half(f.httpP99, g.httpP99),
		sqlP50: half(f.sqlP50, g.sqlP50), sqlP99: half(f.sqlP99, g.sqlP99),
	}
}

// measuring is from which scale on figures are meant to be good: with fewer exchanges a floor is too rough.
const measuring = 0.05

// floor measures that of a shape.
func (b *bench) floor(ctx context.Context, receiver *receiver, shape floorShape) (floor, error) {
	b.progress.now("floor")
	shape.perRequest, shape.perCommit = max(shape.perRequest, 1), max(shape.perCommit, 1)
	shape.rows = cmp.Or(shape.rows, shape.perCommit)
	n := b.count(20_000, 100)
	if b.Scale >= measuring {
		n = max(n, 6000)
	}
	switch {
	case shape.perRequest > 1 || shape.what == end:
		n *= 10 // they are cheap
	case shape.clients < 20:
		n = b.count(4_000, 50) // the machine is idle most of the time
	}
	var f floor
	var err error
	if shape.what != end {
		f, err = b.httpFloor(ctx, receiver, shape, n)
	}
	if err == nil && b.URL == "" {
		err = b.sqlFloor(ctx, shape, n, &f)
	}
	if err == nil && shape.serial {
		var one floor
		one, err = b.floor(ctx, receiver, alone)
		f.httpP50, f.httpP99, f.sqlP50, f.sqlP99 = one.httpP50, one.httpP99, one.sqlP50, one.sqlP99
	}
	return f, err
}

// httpFloor has the stub do n exchanges.
func (b *bench) httpFloor(ctx context.Context, receiver *receiver, shape floorShape, n int) (f floor, err error) {
	p, err := spawn(b.Program, []string{"bench", "stub"}, nil)
	if err != nil {
		return floor{}, err
	}
	defer func() {
		b.transport.CloseIdleConnections()
		err = errors.Join(err, p.in.Close()) // which ends it
		p.watch()
		<-p.ended
	}()
	var stub string
	if _, err := fmt.Fscanln(p.out, &stub); err != nil {
		return floor{}, p.failed("did not start")
	}
	if shape.what <= existing { // connections and processes are new
		if _, err := b.pairs(ctx, p, receiver, min(shape.clients, n), n/4); err != nil {
			return floor{}, err
		}
	}
	stubFrom, _, _ := cpuTime(p.cmd.Process.Pid)
	ownFrom, _, _ := cpuTime(os.Getpid())
	took := newLatencies()
	units := float64(n)
	if shape.what <= existing {
		took, err = b.pairs(ctx, p, receiver, min(shape.clients, n), n)
	} else {
		n = max(n/shape.perRequest, shape.clients)
		units = float64(n * shape.perRequest)
		err = b.requests(ctx, stub, shape, n, took)
	}
	if err != nil {
		return floor{}, err
	}
	stubTo, _, _ := cpuTime(p.cmd.Process.Pid)
	ownTo, _, _ := cpuTime(os.Getpid())
	hist := took.snapshot()
	return floor{
		stub: micros(stubTo-stubFrom) / units, generator: micros(ownTo-ownFrom) / units,
		httpP50: millis(hist, 50), httpP99: millis(hist, 99),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// pairs has the stub send webhooks as clients do that each wait for the callback, and returns how long it took from each
// callback to the next webhook.
func (b *bench) pairs(ctx context.Context, p *process, receiver *receiver, clients, n int) (*latencies, error) {
	l := &load{kind: "floor", tasks: clients, may: func(int) (int, int) { return 0, n }}
	l.since = func(task int) (int, bool) { return task, l.sent[task].Load() > 0 } // but for the first of each client
	receiver.newLoad(l)
	fmt.Fprintln(p.in, clients, n, fmt.Sprintf("%s/%d/", receiver.url, l.place))
	var done int
	if _, err := fmt.Fscanln(p.out, &done); err != nil {
		return nil, p.failed("did not end its exchanges")
	}
	if done != n {
		return nil, fmt.Errorf("the stub made %d exchanges instead of %d", done, n)
	}
	if err := b.wait(ctx, "callbacks answered", l.reported, n); err != nil {
		return nil, err
	}
	return l.arrived, l.seen()
}

// requests sends n requests to the stub.
func (b *bench) requests(ctx context.Context, stub string, shape floorShape, n int, took *latencies) error {
	r := &run{bench: b, urls: []string{stub}}
	body := make([]byte, shape.bytes)
	return each(ctx, shape.clients, n, func(ctx context.Context, _ int) error {
		sent := time.Now()
		defer func() { took.record(time.Since(sent)) }()
		return r.do(ctx, request{method: "PUT", path: "/task", body: body, want: 200})
	})
}

// floorRows are ids and facts of tasks.
type floorRows struct {
	ids              []uuid.UUID
	metadata, starts []string
}

func newFloorRows(n int) floorRows {
	var r floorRows
	for i := range n {
		r.ids = append(r.ids, uuid.Must(uuid.NewV7()))
		r.metadata = append(r.metadata, fmt.Sprintf(`{"tenant_id":%d,"note":"some words that a task carries"}`, i%100))
		r.starts = append(r.starts, fmt.Sprintf(
			`[{"kind":"Webhook","params":{"url":"http://127.0.0.1:40000/1/%d","verb":"Post","body":{"input":"s3://bucket/key-%d"}}}]`, i, i))
	}
	return r
}

// floorStore is a database of the floor.
type floorStore interface {
	// run runs named statements for rows in one transaction.
	run(ctx context.Context, rows floorRows, statements ...string) error
	close(ctx context.Context) error
	// cpu is what the database has used in other processes; wal is in bytes.
	used(ctx context.Context) (cpu time.Duration, wal int64, err error)
}

// sqlFloor does what a shape says for n rows, by hand.
func (b *bench) sqlFloor(ctx context.Context, shape floorShape, n int, f *floor) (err error) {
	url, err := b.newDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.dropDatabase(context.WithoutCancel(ctx), url)) }()
	s, err := b.openFloor(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if err := s.run(ctx, floorRows{}, "create_task", "create_state", "create_ready", "create_running"); err != nil {
		return err
	}
	stored := newFloorRows(max(shape.rows, 50))
	if err := s.run(ctx, stored, "insert_tasks", "insert_states"); err != nil {
		return err
	}
	transactions := (n + shape.perCommit - 1) / shape.perCommit
	chunks := make([]floorRows, transactions)
	for i := range chunks {
		if chunks[i] = stored; shape.what <= creation {
			chunks[i] = newFloorRows(shape.rows)
		}
		if shape.what == existing {
			if err := s.run(ctx, chunks[i], create...); err != nil {
				return err
			}
		}
	}
	cpuFrom, walFrom, err := s.used(ctx)
	if err != nil {
		return err
	}
	ownFrom, _, _ := cpuTime(os.Getpid())
	took := newLatencies()
	for _, rows := range chunks {
		if err := shape.what.write(ctx, s, rows, took); err != nil {
			return err
		}
	}
	ownTo, _, _ := cpuTime(os.Getpid())
	cpuTo, walTo, err := s.used(ctx)
	if err != nil {
		return err
	}
	units, hist := float64(transactions*shape.perCommit), took.snapshot()
	f.client, f.database, f.wal = micros(ownTo-ownFrom)/units, micros(cpuTo-cpuFrom)/units, float64(walTo-walFrom)/units
	f.sqlP50, f.sqlP99 = millis(hist, 50), millis(hist, 99)
	return nil
}

// The statements of a task's life, a transaction each.
var (
	create = []string{"insert_tasks", "insert_states", "insert_ready"}
	claim  = []string{"take_ready", "insert_running", "set_claimed", "read_claimed"}
	start  = []string{"set_running"}
	finish = []string{"delete_running", "set_ended"}
)

// write does a step for rows. It records how long that part of it took that somebody waits for: all of it, but of a life the
// end of one task and the claim of the next.
func (s step) write(ctx context.Context, db floorStore, rows floorRows, took *latencies) error {
	transactions, waited := [][]string{create, claim, start, finish}, []bool{false, true, false, true}
	switch s {
	case existing:
		transactions, waited = transactions[1:], waited[1:]
	case creation:
		transactions, waited = transactions[:1], []bool{true}
	case count:
		transactions, waited = [][]string{{"add_counts"}}, []bool{true}
	case page:
		transactions, waited, rows = [][]string{{"read_page"}}, []bool{true}, floorRows{ids: rows.ids[:1]}
	case end:
		transactions, waited = [][]string{{"set_ended"}}, []bool{true}
	}
	var sum time.Duration
	for i, statements := range transactions {
		begun := time.Now()
		if err := db.run(ctx, rows, statements...); err != nil {
			return err
		}
		if waited[i] {
			sum += time.Since(begun)
		}
	}
	took.record(sum)
	return nil
}
