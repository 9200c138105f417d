package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The benchmarks measure the whole: this process is the service, the worker and the client, over real HTTP, and the
// database is beside it. Everything shares the machine's cores. See docs/bench.

// benchWorker accepts on_start at once and reports Success on the handle, with few goroutines and kept connections: it
// is not what is measured.
type benchWorker struct {
	url     string
	client  *http.Client
	handles chan string
	started func(handle string)
	ended   chan string // handles whose report was answered 200
	repeats atomic.Int64
	refused atomic.Int64
	seen    sync.Map
}

func newBenchWorker(b *testing.B) *benchWorker {
	b.Helper()
	w := &benchWorker{
		client:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}},
		handles: make(chan string, 1<<20),
		ended:   make(chan string, 1<<20),
	}
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	w.url = "http://" + listener.Addr().String()
	server := &http.Server{Handler: w, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // until Close
	var reporters sync.WaitGroup
	for range 256 {
		reporters.Go(w.report)
	}
	b.Cleanup(func() {
		close(w.handles)
		reporters.Wait()
		_ = server.Close()
	})
	return w
}

func (w *benchWorker) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	handle := r.URL.Query().Get("handle")
	if _, repeated := w.seen.LoadOrStore(handle, true); repeated {
		w.repeats.Add(1)
	}
	if w.started != nil {
		w.started(handle)
	}
	w.handles <- handle
}

func (w *benchWorker) report() {
	for handle := range w.handles {
		w.patch(handle)
		w.ended <- handle
	}
}

func (w *benchWorker) patch(handle string) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPatch, handle, strings.NewReader(`{"status":"Success"}`))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		w.refused.Add(1)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		w.refused.Add(1)
	}
}

// check fails a fast wrong run.
func (w *benchWorker) check(b *testing.B) {
	b.Helper()
	if n := w.repeats.Load(); n > 0 {
		b.Errorf("%d tasks were started twice", n)
	}
	if n := w.refused.Load(); n > 0 {
		b.Errorf("%d reports were refused", n)
	}
}

func (w *benchWorker) flatBatch(n int) []byte {
	var buf bytes.Buffer
	buf.WriteByte('[')
	for i := range n {
		if i > 0 {
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, `{"id":"t%d","name":"Task %d","kind":"bench","metadata":{"tenant_id":%d,"note":"some words that a task carries"},`+
			`"on_start":{"kind":"Webhook","trigger":"Start","params":{"url":"%s/run","verb":"Post","body":{"input":"s3://bucket/key-%d"}}}}`,
			i, i, i%100, w.url, i)
	}
	buf.WriteByte(']')
	return buf.Bytes()
}

// BenchmarkFlat runs independent tasks end to end, POSTs of 1 000: POST, webhook, PATCH, Success.
func BenchmarkFlat(b *testing.B) {
	const total, perPost = 20_000, 1000
	for _, db := range databases {
		b.Run("driver="+db, func(b *testing.B) {
			s := startService(b, databaseURL(b, db), nil)
			w := newBenchWorker(b)
			body := w.flatBatch(perPost)
			for b.Loop() {
				var posts sync.WaitGroup
				for range 2 {
					posts.Go(func() {
						for range total / perPost / 2 {
							a, err := s.try(context.Background(), http.MethodPost, "/task", body, "Prefer", "return=minimal")
							if err != nil || a.status != http.StatusCreated {
								b.Errorf("create: %v %d", err, a.status)
							}
						}
					})
				}
				for range total {
					<-w.ended
				}
				posts.Wait()
			}
			w.check(b)
			perTask := b.Elapsed() / time.Duration(b.N*total)
			b.ReportMetric(float64(time.Second)/float64(perTask), "tasks/s")
			b.ReportMetric(float64(perTask.Microseconds()), "µs/task")
		})
	}
}

// BenchmarkHop measures, in one chain, the time from a parent's PATCH being sent to the child's webhook arriving.
func BenchmarkHop(b *testing.B) {
	const length = 200
	for _, db := range databases {
		b.Run("driver="+db, func(b *testing.B) {
			s := startService(b, databaseURL(b, db), nil)
			w := newBenchWorker(b)
			var last time.Time
			var hops []time.Duration
			w.started = func(string) {
				if !last.IsZero() {
					hops = append(hops, time.Since(last))
				}
				last = time.Now() // the reporter sends the PATCH now
			}
			var body bytes.Buffer
			body.WriteByte('[')
			for i := range length {
				if i > 0 {
					fmt.Fprintf(&body, `,`)
				}
				deps := ""
				if i > 0 {
					deps = fmt.Sprintf(`"dependencies":[{"id":"t%d"}],`, i-1)
				}
				fmt.Fprintf(&body, `{"id":"t%d","name":"Task","kind":"hop",%s"on_start":{"kind":"Webhook","params":{"url":"%s/run","verb":"Post"}}}`, i, deps, w.url)
			}
			body.WriteByte(']')
			for b.Loop() {
				last = time.Time{}
				if a := s.do(http.MethodPost, "/task", body.Bytes()); a.status != http.StatusCreated {
					b.Fatalf("create: %d %s", a.status, a.body)
				}
				for range length {
					<-w.ended
				}
			}
			w.check(b)
			slices.Sort(hops)
			b.ReportMetric(float64(hops[len(hops)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(hops[len(hops)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkFloor is what HTTP alone costs here: for each task a webhook and a callback against handlers that do nothing,
// with the clients and the concurrency of BenchmarkFlat.
func BenchmarkFloor(b *testing.B) {
	const total = 20_000
	nothing := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(nothing), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // until Close
	defer func() { _ = server.Close() }()
	w := newBenchWorker(b)
	for b.Loop() {
		var tasks atomic.Int64
		var senders sync.WaitGroup
		for range 256 {
			senders.Go(func() {
				for tasks.Add(1) <= total {
					w.patch("http://" + listener.Addr().String() + "/run")
					w.patch("http://" + listener.Addr().String() + "/task")
				}
			})
		}
		senders.Wait()
	}
	w.check(b)
	perTask := b.Elapsed() / time.Duration(b.N*total)
	b.ReportMetric(float64(time.Second)/float64(perTask), "tasks/s")
	b.ReportMetric(float64(perTask.Microseconds()), "µs/task")
}
