package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jackc/pgx/v5"
)

// run is one run of one variant: the service, and what is found out about it.
type run struct {
	*bench
	receiver *receiver
	urls     []string // of the service: of each replica
	asked    atomic.Uint64
	unit     string // what is counted: task, count, request
	servers  []*process
	database *pgx.Conn // for a look at PostgreSQL; nil: there is none of ours
	db       string    // its DATABASE_URL
	postgres int       // process id of its postmaster

	figures []Figure
}

// Figure is what was found of one quantity in one run.
type Figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// Floor is the least, or of rates the most, that it could be; 0: there is no floor to it.
	Floor float64 `json:"floor,omitempty"`
	// More is better, as of rates; else less is.
	More bool `json:"more_is_better,omitempty"`

	floor func(floor) float64
}

// Efficiency is how near the floor it is: 1 is there. 0: there is no floor.
func (f Figure) Efficiency() float64 {
	switch {
	case f.Floor == 0 || f.Value == 0:
		return 0
	case f.More:
		return f.Value / f.Floor
	default:
		return f.Floor / f.Value
	}
}

func (r *run) figure(f Figure) { r.figures = append(r.figures, f) }

// measured runs v on a service.
func (r *run) measured(ctx context.Context, v variant) (err error) {
	if r.URL != "" {
		r.urls = []string{r.URL}
	} else {
		defer func() { err = errors.Join(err, r.stop()) }()
		if err := r.start(ctx, v); err != nil {
			return err
		}
	}
	r.receiver.services = r.urls
	// A service that died says more about it than what its clients saw then.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, server := range r.servers {
		go func() {
			select {
			case <-server.ended:
				cancel(server.failed("ended with " + server.cmd.ProcessState.String()))
			case <-ctx.Done():
			}
		}()
	}
	if err := v.run(ctx, r); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	if len(r.servers) > 1 {
		if err := r.pumped(ctx); err != nil {
			return err
		}
	}
	peak := int64(0)
	for _, server := range r.servers {
		peak = max(peak, peakMemory(server.cmd.Process.Pid))
	}
	if peak > 0 {
		r.figure(Figure{Name: "peak memory of the server", Unit: "MB", Value: float64(peak) / 1e6})
	}
	return nil
}

// pumped says how the ticks of the pump were spread over the replicas.
func (r *run) pumped(ctx context.Context) error {
	var most, all float64
	for i, url := range r.urls {
		var metrics []byte
		if err := r.do(ctx, request{method: http.MethodGet, path: url + "/metrics", want: http.StatusOK, raw: &metrics}); err != nil {
			return err
		}
		_, after, _ := bytes.Cut(metrics, []byte("\nworker_loop_duration_seconds_count "))
		count, _, _ := bytes.Cut(after, []byte("\n"))
		ticks, err := strconv.ParseFloat(string(count), 64)
		if err != nil {
			return fmt.Errorf("replica %d does not say how often it has pumped: %w", i+1, err)
		}
		most, all = max(most, ticks), all+ticks
	}
	r.figure(Figure{Name: "ticks of the pump by the busiest replica", Unit: "%", Value: 100 * most / all})
	return nil
}

// start starts a service as v wants it on an empty database, and waits until it is ready.
func (r *run) start(ctx context.Context, v variant) error {
	var err error
	if r.db, err = r.newDatabase(ctx); err != nil {
		return err
	}
	if r.Database == "postgres" {
		if r.database, err = pgx.Connect(ctx, r.db); err != nil {
			return fmt.Errorf("connect to PostgreSQL: %w", err)
		}
		var backend int
		if err := r.database.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
			return fmt.Errorf("find the processes of PostgreSQL: %w", err)
		}
		_, _, r.postgres = cpuTime(backend)
	}
	var settings []string
	if v.settings != nil {
		settings = v.settings(r.bench)
	}
	for range max(v.replicas, 1) {
		if err := r.startReplica(ctx, settings); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) startReplica(ctx context.Context, settings []string) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	url := "http://" + address
	server, err := spawn(r.Program, []string{"serve"}, append(settings[:len(settings):len(settings)],
		"DATABASE_URL="+r.db, "LISTEN_ADDR="+address, "HOST_URL="+url, "WEBHOOK_ALLOWED_NETWORKS=loopback", "WEBHOOK_ALLOWED_PORTS=any",
		"LOG_LEVEL=warn",
		"MAX_TASKS_PER_BATCH=1000000", "MAX_BODY_BYTES=1000000000", "WEBHOOK_TIMEOUT=60s", "AUTH_TOKEN="+r.Token,
	))
	if err != nil {
		return err
	}
	server.watch()
	r.urls, r.servers = append(r.urls, url), append(r.servers, server)
	for ctx.Err() == nil {
		select {
		case <-server.ended:
			return server.failed("ended with " + server.cmd.ProcessState.String())
		case <-time.After(5 * time.Millisecond):
		}
		if err := r.do(ctx, request{method: http.MethodGet, path: url + "/ready", want: http.StatusOK}); err == nil {
			return nil
		}
	}
	return ctx.Err()
}

func (r *run) stop() error {
	r.transport.CloseIdleConnections() // one that was never used would hold up the stop
	var errs []error
	for _, server := range r.servers {
		errs = append(errs, server.stop())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if r.database != nil {
		errs = append(errs, r.database.Close(ctx))
	}
	return errors.Join(append(errs, r.dropDatabase(ctx, r.db))...)
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// request is one to the service.
type request struct {
	method, path string
	body         []byte
	want         int     // status of the answer
	into         any     // where its JSON goes; nil: nowhere
	raw          *[]byte // where it goes as it is; nil: nowhere
	batch, next  *string // where X-Batch-ID and the target of Link go
}

// do sends a request; replicas take turns. Any other answer than the one that is wanted is an error.
func (r *run) do(ctx context.Context, q request) error {
	url := q.path
	if !strings.HasPrefix(url, "http") {
		url = r.urls[r.asked.Add(1)%uint64(len(r.urls))] + url
	}
	req, err := http.NewRequestWithContext(ctx, q.method, url, bytes.NewReader(q.body))
	if err != nil {
		return err
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "return=minimal")
	a, err := r.exchange(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", q.method, q.path, err)
	}
	if a.code != q.want {
		return fmt.Errorf("%s %s: %s, want %d: %.300s", q.method, q.path, a.status, q.want, a.body)
	}
	if q.batch != nil {
		*q.batch = a.header.Get("X-Batch-ID")
	}
	if q.next != nil {
		*q.next, _ = strings.CutSuffix(strings.TrimPrefix(a.header.Get("Link"), "<"), `>; rel="next"`)
	}
	if q.raw != nil {
		*q.raw = a.body
	}
	if q.into != nil {
		if err := json.Unmarshal(a.body, q.into); err != nil {
			return fmt.Errorf("%s %s: %w", q.method, q.path, err)
		}
	}
	return nil
}

// answer is a response that has been read to its end.
type answer struct {
	code   int
	status string
	header http.Header
	body   []byte
}

// exchange sends req and reads the answer, within patience.
func (b *bench) exchange(req *http.Request) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(req.Context(), b.patience(), fmt.Errorf("no answer within %s", b.patience()))
	defer cancel()
	resp, err := b.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Status, resp.Header, body}, errors.Join(err, resp.Body.Close())
}

// usage is what has been used up to a moment.
type usage struct {
	at                          time.Time
	server, database, generator time.Duration
	wal, transactions           int64
}

func (r *run) usage(ctx context.Context) (u usage, err error) {
	for _, server := range r.servers {
		used, _, _ := cpuTime(server.cmd.Process.Pid)
		u.server += used
	}
	if r.database != nil {
		u.database = treeTime(r.postgres)
		// Both are exact at once. The statistics views are behind by up to ten seconds, and count transactions that wrote
		// nothing.
		err = r.database.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot())::text::bigint`).
			Scan(&u.wal, &u.transactions)
	}
	u.generator, _, _ = cpuTime(os.Getpid())
	u.at = time.Now()
	return u, err
}

// measure does something and finds what it cost. It returns how many units were done.
func (r *run) measure(ctx context.Context, work func() (int, error)) error {
	from, err := r.usage(ctx)
	if err != nil {
		return err
	}
	n, err := work()
	if err != nil {
		return err
	}
	to, err := r.usage(ctx)
	if err != nil {
		return err
	}
	units := float64(n)
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / units }
	r.figure(Figure{Name: r.unit + "s a second", Unit: "/s", Value: units / to.at.Sub(from.at).Seconds(), More: true, floor: floor.rate})
	if len(r.servers) > 0 {
		server, database := micros(to.server-from.server), micros(to.database-from.database)
		r.figure(Figure{Name: "CPU of server and database", Unit: "µs/" + r.unit, Value: server + database, floor: floor.cpu})
		if r.database != nil {
			r.figure(Figure{Name: "CPU of the server", Unit: "µs/" + r.unit, Value: server, floor: floor.httpCPU})
			r.figure(Figure{Name: "CPU of the database", Unit: "µs/" + r.unit, Value: database, floor: floor.sqlCPU})
		}
	}
	r.figure(Figure{Name: "CPU of the generator", Unit: "µs/" + r.unit, Value: micros(to.generator - from.generator)})
	if r.database != nil {
		r.figure(Figure{Name: "WAL", Unit: "B/" + r.unit, Value: float64(to.wal-from.wal) / units, floor: func(f floor) float64 { return f.wal }})
		r.figure(Figure{Name: "transactions that wrote", Unit: "/" + r.unit, Value: float64(to.transactions-from.transactions) / units})
	}
	return nil
}

// latency adds p50 and p99 of what h holds.
func (r *run) latency(name string, h *latencies, p50, p99 func(floor) float64) {
	hist := h.snapshot()
	r.figure(Figure{Name: name + " p50", Unit: "ms", Value: millis(hist, 50), floor: p50})
	r.figure(Figure{Name: name + " p99", Unit: "ms", Value: millis(hist, 99), floor: p99})
}

func millis(h *hdrhistogram.Histogram, percentile float64) float64 {
	return float64(h.ValueAtPercentile(percentile)) / 1e3
}
