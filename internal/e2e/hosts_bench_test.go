package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkHosts measures how soon the webhooks of eight healthy hosts arrive, at 100 tasks a second in an open loop: an
// on_start after the time at which its create was to be sent, an on_success after the report. Beside them is nothing, or
// eight hosts that never answer, with 500 tasks each, or one that refuses connections, with 100 000. They are at it when
// the measurement begins: the hosts that hang hold all the requests they get, and all of these time out while it lasts.
// Whatever is beside, p99 should not be half as long again. One run is one iteration: -benchtime 1x.
func BenchmarkHosts(b *testing.B) {
	for _, db := range databases {
		for _, beside := range []string{"nothing", "hanging", "dead"} {
			b.Run("driver="+db+"/beside="+beside, func(b *testing.B) {
				s := startService(b, databaseURL(b, db), nil)
				for b.Loop() {
					switch beside {
					case "hanging":
						var held atomic.Int64
						release := make(chan struct{})
						defer close(release)
						for range 8 {
							hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
								held.Add(1)
								<-release
							}))
							b.Cleanup(hanging.Close)
							s.createBeside(b, hanging.URL, 500)
						}
						for before := int64(-1); before < held.Load(); time.Sleep(time.Second) {
							before = held.Load()
						}
						b.ReportMetric(float64(held.Load()), "held")
					case "dead":
						dead := httptest.NewServer(nil)
						dead.Close()
						for range 10 {
							s.createBeside(b, dead.URL, 10_000)
						}
						time.Sleep(3 * time.Second) // SQLite writes back what the creates have left in its log
					}
					newTrickle(b, s).run(b)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// createBeside creates n tasks of one host that come before all others.
func (s *service) createBeside(b *testing.B, url string, n int) {
	b.Helper()
	var body bytes.Buffer
	body.WriteByte('[')
	for i := range n {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"id":"t%d","name":"Task","kind":"beside","priority":100,"timeout":86400,`+
			`"on_start":{"kind":"Webhook","params":{"url":"%s/run","verb":"Post"}}}`, i, url)
	}
	body.WriteByte(']')
	a, err := s.try(context.Background(), http.MethodPost, "/task", body.Bytes(), "Prefer", "return=minimal")
	if err != nil || a.status != http.StatusCreated {
		b.Fatalf("create: %v %d %s", err, a.status, a.body)
	}
}

// trickle sends tasks one at a time, whatever becomes of those before.
type trickle struct {
	s    *service
	urls []string
	done sync.WaitGroup

	mu           sync.Mutex
	began        []time.Time // when the create of a task was to be sent
	reported     []time.Time
	starts, ends []time.Duration
}

const (
	trickleTasks = 3000
	trickleEvery = 10 * time.Millisecond
)

func newTrickle(b *testing.B, s *service) *trickle {
	b.Helper()
	t := &trickle{s: s, began: make([]time.Time, trickleTasks), reported: make([]time.Time, trickleTasks)}
	for range 8 {
		listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		server := &http.Server{Handler: t, ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(listener) }() // until Close
		b.Cleanup(func() { _ = server.Close() })
		t.urls = append(t.urls, "http://"+listener.Addr().String())
	}
	return t
}

func (t *trickle) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	now := time.Now()
	_, _ = io.Copy(io.Discard, r.Body)
	i, err := strconv.Atoi(r.URL.Query().Get("task"))
	if err != nil {
		panic(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.URL.Path == "/end" {
		t.ends = append(t.ends, now.Sub(t.reported[i]))
		t.done.Done()
		return
	}
	t.starts = append(t.starts, now.Sub(t.began[i]))
	handle := r.URL.Query().Get("handle")
	go func() {
		t.mu.Lock()
		t.reported[i] = time.Now()
		t.mu.Unlock()
		a, err := t.s.try(context.Background(), http.MethodPatch, strings.TrimPrefix(handle, t.s.url), []byte(`{"status":"Success"}`))
		if err != nil || a.status != http.StatusOK {
			panic(fmt.Sprint("report: ", err, a.status))
		}
	}()
}

func (t *trickle) run(b *testing.B) {
	b.Helper()
	start := time.Now()
	t.done.Add(trickleTasks)
	for i := range trickleTasks {
		at := start.Add(time.Duration(i) * trickleEvery)
		time.Sleep(time.Until(at))
		t.mu.Lock()
		t.began[i] = at
		t.mu.Unlock()
		go func() {
			action := func(path string) string {
				return fmt.Sprintf(`{"kind":"Webhook","params":{"url":"%s%s?task=%d","verb":"Post"}}`, t.urls[i%len(t.urls)], path, i)
			}
			body := fmt.Appendf(nil, `[{"id":"t","name":"Task","kind":"trickle","on_start":%s,"on_success":[%s]}]`, action("/run"), action("/end"))
			a, err := t.s.try(context.Background(), http.MethodPost, "/task", body)
			if err != nil || a.status != http.StatusCreated {
				panic(fmt.Sprint("create: ", err, a.status))
			}
		}()
	}
	t.done.Wait()
	for name, took := range map[string][]time.Duration{"start": t.starts, "end": t.ends} {
		if len(took) != trickleTasks {
			b.Errorf("%d webhooks of %s", len(took), name)
		}
		slices.Sort(took)
		ms := func(share int) float64 { return float64(took[len(took)*share/100].Microseconds()) / 1000 }
		b.ReportMetric(ms(50), name+"-p50-ms")
		b.ReportMetric(ms(99), name+"-p99-ms")
	}
}
