package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// fakeStore is an outbox in memory, and settles.
type fakeStore struct {
	mu sync.Mutex
	// due are not claimed yet; attempts and outcomes were reported, by call.
	due      []store.Delivery
	attempts [][]store.Attempt
	outcomes []task.Outcome
	lastAt   time.Time // when the last outcome was
	claims   []store.ClaimDeliveriesParams
	// tasks are what the database says of some; of others it says nothing.
	tasks map[task.ID]task.State
	// err fails every call.
	err error
	// gate, when set, holds FinishDeliveries up; during is called by ClaimDeliveries.
	gate   chan struct{}
	during func()
}

func (f *fakeStore) ClaimDeliveries(_ context.Context, p store.ClaimDeliveriesParams) (store.ClaimedDeliveries, error) {
	if f.during != nil {
		f.during()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return store.ClaimedDeliveries{}, f.err
	}
	f.claims = append(f.claims, p)
	var claimed store.ClaimedDeliveries
	hosts := map[string]int{}
	f.due = slices.DeleteFunc(f.due, func(d store.Delivery) bool {
		if len(claimed.Deliveries) >= p.Room.Total || hosts[d.Host] >= p.Room.Host(d.Host) {
			claimed.More = true
			return false
		}
		hosts[d.Host]++
		claimed.Deliveries = append(claimed.Deliveries, d)
		return true
	})
	return claimed, nil
}

func (f *fakeStore) FinishDeliveries(_ context.Context, attempts []store.Attempt) error {
	if f.gate != nil {
		<-f.gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.attempts = append(f.attempts, slices.Clone(attempts))
	return nil
}

func (f *fakeStore) Settle(_ context.Context, outcomes ...task.Outcome) ([]store.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.outcomes = append(f.outcomes, outcomes...)
	f.lastAt = time.Now()
	return make([]store.Result, len(outcomes)), nil
}

func (f *fakeStore) Task(_ context.Context, id task.ID) (*store.Detail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.tasks[id]; ok && f.err == nil {
		return &store.Detail{Item: store.Item{State: s}}, nil
	}
	if f.err != nil {
		return nil, f.err
	}
	return nil, store.ErrNotFound
}

func (f *fakeStore) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeStore) settled() []task.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.outcomes)
}

func (f *fakeStore) finished() []store.Attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Concat(f.attempts...)
}

// network answers requests in memory.
type network func(r *http.Request) (*http.Response, error)

func (n network) RoundTrip(r *http.Request) (*http.Response, error) { return n(r) }

func respond(status int, body string, header ...string) (*http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}, nil
}

// hang answers when the request is given up.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

type fixture struct {
	*Dispatcher
	store *fakeStore
	log   *bytes.Buffer
	reg   *prometheus.Registry
}

// newFixture returns a dispatcher over f's store whose requests go to n. Call it in a bubble.
func newFixture(t *testing.T, o Options, n network) *fixture {
	t.Helper()
	f := &fixture{store: &fakeStore{}, log: &bytes.Buffer{}, reg: prometheus.NewRegistry()}
	o.Store, o.Settler, o.HostURL, o.Registry = f.store, f.store, "http://runner", f.reg
	o.Log = slog.New(slog.NewTextHandler(f.log, nil))
	f.Dispatcher = New(o)
	f.sender.transport = n
	t.Cleanup(func() {
		given, up := context.WithCancel(context.Background())
		up()
		_ = f.Drain(given)
	})
	return f
}

// run runs the outbox loop until the test ends.
func (f *fixture) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// count is the value of a counter or gauge.
func (f *fixture) count(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := 0; i < len(labels); i += 2 {
		want[labels[i]] = labels[i+1]
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			got := map[string]string{}
			for _, l := range m.GetLabel() {
				got[l.GetName()] = l.GetValue()
			}
			if maps.Equal(got, want) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func claim(host string) store.Claim {
	return store.Claim{ID: uuid.New(), Attempt: 1, Host: host, Action: task.Action{Verb: "Post", URL: "http://" + host + "/", Body: json.RawMessage(`{}`)}}
}

func delivery(host string, trigger task.Trigger) store.Delivery {
	return store.Delivery{ID: uuid.New(), Source: uuid.New(), Trigger: trigger, Host: host, Action: task.Action{Verb: "Get", URL: "http://" + host + "/"}}
}

func TestStartOutcomes(t *testing.T) {
	t.Parallel()
	cancel := task.Action{Verb: "Delete", URL: "https://worker/cancel/17"}
	tests := []struct {
		name    string
		action  task.Action // what it says of timeout and retry
		rand    func() uint64
		answers []network // the last one stands
		want    task.Outcome
		within  [2]time.Duration
		ignored float64
		counts  map[string]float64
	}{
		{name: "accepted", answers: []network{func(*http.Request) (*http.Response, error) { return respond(202, "") }},
			want: task.Outcome{Kind: task.Started, StartStatus: 202}, counts: map[string]float64{"done": 1}},
		{name: "cancel action", answers: []network{func(*http.Request) (*http.Response, error) {
			return respond(200, `{"kind":"Webhook","params":{"url":"https://worker/cancel/17","verb":"Delete"}}`)
		}}, want: task.Outcome{Kind: task.Started, StartStatus: 200, OnCancel: []task.Action{cancel}}, counts: map[string]float64{"done": 1}},
		{name: "other answer", answers: []network{func(*http.Request) (*http.Response, error) { return respond(200, `{"ok":true}`) }},
			want: task.Outcome{Kind: task.Started, StartStatus: 200}},
		{name: "cancel action to this machine", ignored: 1, answers: []network{func(*http.Request) (*http.Response, error) {
			return respond(200, `{"kind":"Webhook","params":{"url":"http://127.0.0.1/cancel","verb":"Delete"}}`)
		}}, want: task.Outcome{Kind: task.Started, StartStatus: 200}},
		{name: "cancel action without verb", ignored: 1, answers: []network{func(*http.Request) (*http.Response, error) {
			return respond(200, `{"kind":"Webhook","params":{"url":"https://worker/"}}`)
		}}, want: task.Outcome{Kind: task.Started, StartStatus: 200}},
		{name: "accepted at last", answers: []network{
			func(*http.Request) (*http.Response, error) { return respond(503, "") },
			func(*http.Request) (*http.Response, error) { return nil, io.EOF },
			func(*http.Request) (*http.Response, error) { return respond(200, "") },
		}, want: task.Outcome{Kind: task.Started, StartStatus: 200, StartFailures: 2},
			within: [2]time.Duration{200 * time.Millisecond, 3 * time.Second}, counts: map[string]float64{"done": 1, "retry": 2}},
		{name: "never accepted", answers: []network{func(*http.Request) (*http.Response, error) { return respond(503, "") }},
			want: task.Outcome{Kind: task.StartFailed, StartStatus: 503, StartFailures: 3, StartError: "503 Service Unavailable",
				FailureReason: "on_start failed after 3 attempts: 503"},
			within: [2]time.Duration{200 * time.Millisecond, 3 * time.Second}, counts: map[string]float64{"retry": 2, "failed": 1}},
		{name: "own policy", action: task.Action{Retry: task.Retry{MaxAttempts: 5, Initial: time.Minute, Factor: 2, Max: 3 * time.Minute}},
			answers: []network{func(*http.Request) (*http.Response, error) { return respond(500, "") }},
			want: task.Outcome{Kind: task.StartFailed, StartStatus: 500, StartFailures: 5, StartError: "500 Internal Server Error",
				FailureReason: "on_start failed after 5 attempts: 500"},
			within: [2]time.Duration{3 * time.Second, 9 * time.Minute}, counts: map[string]float64{"retry": 4, "failed": 1}},
		{name: "retries off", action: task.Action{Retry: task.Retry{MaxAttempts: 1}},
			answers: []network{func(*http.Request) (*http.Response, error) { return nil, io.EOF }},
			want: task.Outcome{Kind: task.StartFailed, StartFailures: 1, StartError: "EOF",
				FailureReason: "on_start failed after 1 attempt: EOF"}, counts: map[string]float64{"failed": 1}},
		{name: "given up after an hour", action: task.Action{
			Timeout: time.Minute, Retry: task.Retry{MaxAttempts: 100, Initial: 10 * time.Minute, Factor: 1, Max: 10 * time.Minute},
		}, rand: func() uint64 { return uint64(10*time.Minute - minPause) }, answers: []network{hang},
			want: task.Outcome{Kind: task.StartFailed, StartFailures: 6, StartError: "no answer within 1m0s",
				FailureReason: "on_start failed after 6 attempts: no answer within 1m0s"},
			within: [2]time.Duration{56 * time.Minute, 56 * time.Minute}},
		{name: "own timeout", action: task.Action{Timeout: 2 * time.Second, Retry: task.Retry{MaxAttempts: 1}}, answers: []network{hang},
			want: task.Outcome{Kind: task.StartFailed, StartFailures: 1, StartError: "no answer within 2s",
				FailureReason: "on_start failed after 1 attempt: no answer within 2s"},
			within: [2]time.Duration{2 * time.Second, 2 * time.Second}},
		{name: "cancel action with its own", answers: []network{func(*http.Request) (*http.Response, error) {
			return respond(200, `{"kind":"Webhook","params":{"url":"https://worker/cancel/17","verb":"Delete"},"timeout":60,"retry":{"max_attempts":2}}`)
		}}, want: task.Outcome{Kind: task.Started, StartStatus: 200, OnCancel: []task.Action{
			{Verb: "Delete", URL: "https://worker/cancel/17", Timeout: time.Minute, Retry: task.Retry{MaxAttempts: 2}},
		}}},
		{name: "cancel action with a policy that is none", ignored: 1, answers: []network{func(*http.Request) (*http.Response, error) {
			return respond(200, `{"kind":"Webhook","params":{"url":"https://worker/","verb":"Delete"},"retry":{"max_attempts":0}}`)
		}}, want: task.Outcome{Kind: task.Started, StartStatus: 200}},
		{name: "retry later", answers: []network{
			func(*http.Request) (*http.Response, error) { return respond(429, "", "Retry-After", "9") },
			func(*http.Request) (*http.Response, error) { return respond(200, "") },
		}, want: task.Outcome{Kind: task.Started, StartStatus: 200, StartFailures: 1},
			within: [2]time.Duration{9 * time.Second, 9 * time.Second}},
		{name: "given up at once", answers: []network{func(*http.Request) (*http.Response, error) { return respond(404, "") }},
			want: task.Outcome{Kind: task.StartFailed, StartStatus: 404, StartFailures: 1, StartError: "404 Not Found",
				FailureReason: "on_start failed after 1 attempt: 404"}, counts: map[string]float64{"failed": 1}},
		{name: "hangs", answers: []network{hang},
			want: task.Outcome{Kind: task.StartFailed, StartFailures: 3, StartError: "no answer within 10s",
				FailureReason: "on_start failed after 3 attempts: no answer within 10s"},
			within: [2]time.Duration{30*time.Second + 200*time.Millisecond, 33 * time.Second}},
		{name: "refused", answers: []network{func(*http.Request) (*http.Response, error) {
			return nil, newGuard(t).Control("tcp", "10.0.0.1:80", nil)
		}}, want: task.Outcome{Kind: task.StartFailed, StartFailures: 1,
			StartError:    "10.0.0.1 is a private address, which WEBHOOK_ALLOWED_NETWORKS does not let in",
			FailureReason: "on_start failed after 1 attempt: 10.0.0.1 is a private address, which WEBHOOK_ALLOWED_NETWORKS does not let in",
		}, counts: map[string]float64{"refused": 1}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var keys []string
				f := newFixture(t, Options{Rand: c.rand}, func(r *http.Request) (*http.Response, error) {
					keys = append(keys, r.Header.Get("Idempotency-Key"))
					return c.answers[min(len(keys), len(c.answers))-1](r)
				})
				began := time.Now()
				cl := claim("worker")
				cl.Attempt, cl.Action.Timeout, cl.Action.Retry = 4, c.action.Timeout, c.action.Retry
				f.Start([]store.Claim{cl})
				f.waitIdle()
				took := f.store.lastAt.Sub(began)
				c.want.ID, c.want.Attempt = cl.ID, 4
				if diff := cmp.Diff([]task.Outcome{c.want}, f.store.settled()); diff != "" {
					t.Error(diff)
				}
				if took < c.within[0] || took > c.within[1] {
					t.Errorf("took %v", took)
				}
				want := c.want.StartFailures
				if c.want.Kind == task.Started {
					want++
				}
				if len(keys) != want ||
					slices.ContainsFunc(keys, func(k string) bool { return k != cl.ID.String()+":start" }) {
					t.Errorf("keys %q, want %d", keys, want)
				}
				if got := f.count(t, "cancel_actions_ignored_total"); got != c.ignored || (got > 0) != strings.Contains(f.log.String(), "ignore the cancel action") {
					t.Errorf("%v cancel actions ignored, log %s", got, f.log)
				}
				for outcome, want := range c.counts {
					if got := f.count(t, "webhook_requests_total", "trigger", "start", "outcome", outcome); got != want {
						t.Errorf("%s: %v, want %v", outcome, got, want)
					}
				}
				if got := f.count(t, "webhooks_in_flight", "trigger", "start"); got != 0 {
					t.Errorf("%v in flight", got)
				}
			})
		})
	}
}

// waitIdle lets the time of a bubble go on until no send is live.
func (f *fixture) waitIdle() {
	synctest.Wait()
	for f.liveNow() > 0 {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
}

func (f *fixture) liveNow() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live
}

func TestSettleUntilTheDatabaseIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{Window: 4, HostWindow: 4}, func(*http.Request) (*http.Response, error) { return respond(200, "") })
		f.store.err = errors.New("database is away")
		f.Start([]store.Claim{claim("a"), claim("b"), claim("c")})
		time.Sleep(10 * time.Minute)
		if got := f.Room().Total; got != 4 {
			t.Errorf("room %d: settling keeps places", got)
		}
		f.store.set(func() { f.store.err = nil })
		time.Sleep(maxStorePause)
		synctest.Wait()
		if got := len(f.store.settled()); got != 3 {
			t.Errorf("%d settled", got)
		}
		if log := f.log.String(); strings.Count(log, "database is away") != 1 || strings.Count(log, "works again") != 1 {
			t.Errorf("log %s", log)
		}
	})
}

// traffic counts what is out, and lets it go one by one.
type traffic struct {
	mu       sync.Mutex
	out, max map[string]int
	release  map[string]chan struct{}
}

func newTraffic(hosts ...string) *traffic {
	tr := &traffic{out: map[string]int{}, max: map[string]int{}, release: map[string]chan struct{}{}}
	for _, host := range hosts {
		tr.release[host] = make(chan struct{})
	}
	return tr
}

func (tr *traffic) send(r *http.Request) (*http.Response, error) {
	tr.mu.Lock()
	for _, key := range []string{r.URL.Host, "total"} {
		tr.out[key]++
		tr.max[key] = max(tr.max[key], tr.out[key])
	}
	tr.mu.Unlock()
	<-tr.release[r.URL.Host]
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.out[r.URL.Host]--
	tr.out["total"]--
	return respond(200, "")
}

func (tr *traffic) now(host string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.out[host]
}

func TestWindows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic("slow", "fast")
		var rooms atomic.Int32
		f := newFixture(t, Options{Window: 5, HostWindow: 3, Timeout: time.Hour, OnRoom: func() { rooms.Add(1) }}, tr.send)
		if diff := cmp.Diff(task.Room{Total: 5, Window: 5, PerHost: 3, Busy: map[string]int{}, Shut: map[string]int{}}, f.Room()); diff != "" {
			t.Error(diff)
		}
		for range 10 { // more than there is room for
			f.Start([]store.Claim{claim("slow"), claim("fast")})
		}
		synctest.Wait()
		// Of the 3 that one leaves the other one has two: another host finds room.
		if tr.now("total") != 4 || f.Room().Host("other") != 1 || f.Room().Host("slow") != 0 || f.Room().Busy["slow"] != 10 {
			t.Errorf("%v out, room %+v", tr.out, f.Room())
		}
		for range 10 { // the slow host does not answer at all, and holds up nobody
			tr.release["fast"] <- struct{}{}
			synctest.Wait()
		}
		if got := len(f.store.settled()); got != 10 || tr.now("slow") != 3 {
			t.Errorf("%d settled, %d out to the slow host", got, tr.now("slow"))
		}
		if diff := cmp.Diff(task.Room{Total: 2, Window: 5, PerHost: 3, Busy: map[string]int{"slow": 10}, Shut: map[string]int{}}, f.Room()); diff != "" {
			t.Error(diff)
		}
		before := rooms.Load()
		for range 10 {
			tr.release["slow"] <- struct{}{}
			synctest.Wait()
		}
		if tr.max["total"] != 5 || tr.max["slow"] != 3 || tr.max["fast"] > 3 {
			t.Errorf("at most %v out", tr.max)
		}
		if diff := cmp.Diff(task.Room{Total: 5, Window: 5, PerHost: 3, Busy: map[string]int{}, Shut: map[string]int{}}, f.Room()); diff != "" {
			t.Error(diff)
		}
		// 10 to 3 were full, the last two releases freed nothing that was short.
		if got := rooms.Load() - before; got != 8 {
			t.Errorf("OnRoom was called %d times", got)
		}
	})
}

func TestRetryKeepsItsPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, func(*http.Request) (*http.Response, error) { return respond(503, "") })
		f.Start([]store.Claim{claim("a")})
		synctest.Wait()
		// At its host, so that no more is claimed than that can take; nothing is out, so nobody else waits for it.
		if got := f.Room(); got.Busy["a"] != 1 || got.Total != 2048 {
			t.Errorf("room %+v", got)
		}
		if f.outbox.room().Total != 2048 {
			t.Error("on_start takes the outbox's room")
		}
	})
}

func TestOutboxResults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{Rand: func() uint64 { return uint64(216*time.Second - minPause) }}, func(r *http.Request) (*http.Response, error) {
			switch r.URL.Host {
			case "good":
				return respond(200, "thank you")
			case "gone":
				return respond(410, "no such order: hidden")
			case "silent":
				return nil, io.EOF
			}
			return respond(500, "", "Retry-After", "100")
		})
		good, bad, last, gone, silent := delivery("good", task.TriggerSuccess), delivery("bad", task.TriggerFailure),
			delivery("bad", task.TriggerCancel), delivery("gone", task.TriggerSuccess), delivery("silent", task.TriggerSuccess)
		batch := delivery("bad", task.TriggerBatchComplete)
		again := delivery("bad", task.TriggerBatchComplete)
		bad.Place, bad.Failures, last.Failures, silent.Failures = 2, 4, 9, 3
		again.Failures, again.EarlierFailures = 10, 10
		gone.Action.Headers = map[string]string{"Authorization": "hidden"}
		f.store.due = []store.Delivery{good, bad, last, gone, silent, batch, again}
		f.run(t)
		synctest.Wait()
		now := time.Now()
		attempt := func(d store.Delivery, state store.DeliveryState, retry time.Duration, status int, text, answer string) store.Attempt {
			return store.Attempt{Delivery: d.ID, State: state, Retry: retry, AttemptRecord: store.AttemptRecord{
				At: now, Status: status, Error: text, Answer: answer,
			}}
		}
		got := f.store.finished()
		slices.SortFunc(got, func(a, b store.Attempt) int { return bytes.Compare(a.Delivery[:], b.Delivery[:]) })
		want := []store.Attempt{
			attempt(good, store.DeliveryDone, 0, 200, "", "thank you"),
			attempt(bad, store.DeliveryPending, 216*time.Second, 500, "500 Internal Server Error", ""),
			attempt(last, store.DeliveryDead, 0, 500, "500 Internal Server Error", ""),
			attempt(gone, store.DeliveryDead, 0, 410, "410 Gone", "no such order: …"),
			attempt(silent, store.DeliveryPending, 216*time.Second, 0, "EOF", ""),
			attempt(batch, store.DeliveryPending, 100*time.Second, 500, "500 Internal Server Error", ""),
			attempt(again, store.DeliveryPending, 100*time.Second, 500, "500 Internal Server Error", ""), // the first of a new round
		}
		slices.SortFunc(want, func(a, b store.Attempt) int { return bytes.Compare(a.Delivery[:], b.Delivery[:]) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for labels, want := range map[[2]string]float64{
			{"end", "done"}: 1, {"end", "retry"}: 2, {"end", "failed"}: 1, {"cancel", "failed"}: 1, {"batch", "retry"}: 2,
		} {
			if got := f.count(t, "webhook_requests_total", "trigger", labels[0], "outcome", labels[1]); got != want {
				t.Errorf("%v: %v, want %v", labels, got, want)
			}
		}
		if f.count(t, "deliveries_dead_total", "trigger", "end") != 1 || f.count(t, "deliveries_dead_total", "trigger", "cancel") != 1 {
			t.Error("dead deliveries are not counted")
		}
		if lease := f.store.claims[0].Lease; lease != 30*time.Second {
			t.Errorf("lease %v", lease)
		}
	})
}

// What an action says counts for it alone, and the server's policy for what it leaves out.
func TestOutboxPolicies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := Options{
			Retry: task.Retry{MaxAttempts: 4, Initial: 50 * time.Second, Factor: 2, Max: time.Hour},
			Rand:  func() uint64 { return 0 }, Timeout: 3 * time.Second,
		}
		began, waited := time.Now(), map[string]time.Duration{}
		var mu sync.Mutex
		f := newFixture(t, o, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			mu.Lock()
			defer mu.Unlock()
			waited[r.URL.Host] = time.Since(began)
			return nil, r.Context().Err()
		})
		want := map[string]store.Attempt{}
		add := func(host string, a task.Action, failures int, state store.DeliveryState, err string) {
			d := delivery(host, task.TriggerSuccess)
			d.Action.Timeout, d.Action.Retry, d.Failures = a.Timeout, a.Retry, failures
			f.store.due = append(f.store.due, d)
			took := a.Timeout
			if took == 0 {
				took = o.Timeout
			}
			r := store.Attempt{Delivery: d.ID, State: state, AttemptRecord: store.AttemptRecord{At: began, Took: took, Error: err}}
			if state == store.DeliveryPending {
				r.Retry = minPause
			}
			want[host] = r
		}
		add("plain", task.Action{}, 2, store.DeliveryPending, "no answer within 3s")
		add("plain-last", task.Action{}, 3, store.DeliveryDead, "no answer within 3s")
		add("long", task.Action{Timeout: time.Minute, Retry: task.Retry{MaxAttempts: 9}}, 7, store.DeliveryPending, "no answer within 1m0s")
		add("long-last", task.Action{Timeout: time.Second, Retry: task.Retry{MaxAttempts: 9}}, 8, store.DeliveryDead, "no answer within 1s")
		add("off", task.Action{Retry: task.Retry{MaxAttempts: 1}}, 0, store.DeliveryDead, "no answer within 3s")
		f.run(t)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		got := map[string]store.Attempt{}
		for _, a := range f.store.finished() {
			for host, w := range want {
				if w.Delivery == a.Delivery {
					got[host] = a
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		times := map[string]time.Duration{"plain": 3 * time.Second, "plain-last": 3 * time.Second, "long": time.Minute, "long-last": time.Second, "off": 3 * time.Second}
		if diff := cmp.Diff(times, waited); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// An on_start that failed is not sent again to a task that has ended or started meanwhile, or whose claim another process
// has. If the database does not tell, it is.
func TestStartIsNotRepeatedForNothing(t *testing.T) {
	t.Parallel()
	claimed := task.State{Status: task.Claimed, ClaimedAt: time.Unix(1, 0), Attempt: 1}
	with := func(change func(s *task.State)) *task.State {
		s := claimed
		change(&s)
		return &s
	}
	for name, c := range map[string]struct {
		state *task.State
		err   error
		sent  int
	}{
		"claimed":    {state: &claimed, sent: 3},
		"paused":     {state: with(func(s *task.State) { s.Status = task.Paused }), sent: 3},
		"canceled":   {state: with(func(s *task.State) { s.Status = task.Canceled }), sent: 1},
		"failed":     {state: with(func(s *task.State) { s.Status = task.Failure }), sent: 1},
		"started":    {state: with(func(s *task.State) { s.Status, s.StartedAt = task.Running, time.Unix(2, 0) }), sent: 1},
		"taken over": {state: with(func(s *task.State) { s.Attempt = 2 }), sent: 1},
		"not told":   {err: errors.New("database is away"), sent: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				f := newFixture(t, Options{}, func(*http.Request) (*http.Response, error) {
					sent++
					return respond(503, "")
				})
				cl := claim("worker")
				if f.store.err = c.err; c.state != nil {
					f.store.tasks = map[task.ID]task.State{cl.ID: *c.state}
				}
				f.Start([]store.Claim{cl})
				time.Sleep(time.Minute)
				f.store.set(func() { f.store.err = nil })
				f.waitIdle()
				if settled := len(f.store.settled()); sent != c.sent || settled != sent/3 {
					t.Errorf("sent %d times, settled %d, want %d and %d", sent, settled, c.sent, c.sent/3)
				}
				if failures, _, _ := f.Failing(cl.ID); failures != 0 || f.Room().Total != 2048 {
					t.Errorf("it is not forgotten: %d failures, room %+v", failures, f.Room())
				}
			})
		})
	}
}

// Claims that are taken over may be more than there is room for. What ends while it waits is not started.
func TestWhatEndsInTheQueueIsNotStarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic("worker")
		f := newFixture(t, Options{HostWindow: 1, Timeout: time.Hour}, tr.send)
		claims := []store.Claim{claim("worker"), claim("worker"), claim("worker")}
		waiting := task.State{Status: task.Claimed, ClaimedAt: time.Unix(1, 0), Attempt: 1}
		ended := waiting
		ended.Status = task.Canceled
		f.store.tasks = map[task.ID]task.State{claims[0].ID: ended, claims[1].ID: ended, claims[2].ID: waiting} // the first is out by then
		f.Start(claims)
		for range claims {
			synctest.Wait()
			select {
			case tr.release["worker"] <- struct{}{}:
			default:
			}
		}
		f.waitIdle()
		var settled []task.ID
		for _, o := range f.store.settled() {
			settled = append(settled, o.ID)
		}
		if !slices.Equal(settled, []task.ID{claims[0].ID, claims[2].ID}) {
			t.Errorf("settled %v of %v, %v and %v", settled, claims[0].ID, claims[1].ID, claims[2].ID)
		}
		if room := f.Room(); room.Total != 2048 || len(room.Busy) > 0 {
			t.Errorf("room %+v", room)
		}
	})
}

func TestOutboxBatchesResults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, func(*http.Request) (*http.Response, error) { return respond(200, "") })
		f.store.gate = make(chan struct{})
		for i := range 100 {
			f.store.due = append(f.store.due, delivery(fmt.Sprint("host", i%4), task.TriggerSuccess))
		}
		f.run(t)
		synctest.Wait()
		close(f.store.gate)
		synctest.Wait()
		if got := len(f.store.finished()); got != 100 || len(f.store.attempts) > 2 {
			t.Errorf("%d results in %d calls", got, len(f.store.attempts))
		}
	})
}

func TestOutboxWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, func(*http.Request) (*http.Response, error) { return respond(200, "") })
		f.run(t)
		synctest.Wait()
		add := func() { f.store.set(func() { f.store.due = append(f.store.due, delivery("a", task.TriggerSuccess)) }) }
		add()
		synctest.Wait()
		if len(f.store.finished()) != 0 {
			t.Fatal("sent without a hint")
		}
		f.WakeOutbox()
		f.WakeOutbox()
		synctest.Wait()
		if len(f.store.finished()) != 1 {
			t.Error("not sent on a hint")
		}
		time.Sleep(time.Hour)
		if claims := len(f.store.claims); claims > 3 {
			t.Errorf("%d claims in an idle hour", claims)
		}
	})
}

// A slow host fills its window; the others' deliveries go out as soon as there is room, without waiting for a tick.
func TestOutboxUsesRoomAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic("slow", "fast")
		f := newFixture(t, Options{Window: 6, HostWindow: 3, Timeout: time.Hour}, tr.send)
		for range 20 {
			f.store.due = append(f.store.due, delivery("slow", task.TriggerSuccess), delivery("fast", task.TriggerSuccess))
		}
		f.run(t)
		began := time.Now()
		synctest.Wait()
		for range 20 {
			tr.release["fast"] <- struct{}{}
			synctest.Wait()
		}
		if got := len(f.store.finished()); got != 20 || time.Since(began) != 0 {
			t.Errorf("%d recorded after %v", got, time.Since(began))
		}
		claims := len(f.store.claims)
		if claims > 25 {
			t.Errorf("%d claims", claims)
		}
		for range 20 {
			tr.release["slow"] <- struct{}{}
			synctest.Wait()
		}
		if got := len(f.store.finished()); got != 40 || time.Since(began) != 0 {
			t.Errorf("%d recorded after %v", got, time.Since(began))
		}
		if tr.max["slow"] != 3 || tr.max["total"] != 5 {
			t.Errorf("at most %v out", tr.max)
		}
	})
}

// A place that is freed while deliveries are claimed was not short yet, so that its end is no signal.
func TestOutboxSeesRoomFreedWhileClaiming(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic("a")
		f := newFixture(t, Options{HostWindow: 2, Timeout: time.Hour}, tr.send)
		f.store.due = []store.Delivery{delivery("a", task.TriggerSuccess)}
		f.run(t)
		synctest.Wait()
		f.store.during = func() {
			f.store.during = nil
			tr.release["a"] <- struct{}{}
			for f.outbox.room().Busy["a"] != 0 {
				time.Sleep(time.Microsecond)
			}
		}
		f.store.due = []store.Delivery{delivery("a", task.TriggerSuccess), delivery("a", task.TriggerSuccess)}
		f.WakeOutbox()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if tr.now("a") != 2 {
			t.Errorf("%d out", tr.now("a"))
		}
		close(tr.release["a"])
		synctest.Wait()
	})
}

func TestOutboxGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, func(*http.Request) (*http.Response, error) { return respond(200, "") })
		f.store.err = errors.New("database is away")
		f.run(t)
		time.Sleep(10 * time.Minute)
		f.store.set(func() { f.store.err, f.store.due = nil, []store.Delivery{delivery("a", task.TriggerSuccess)} })
		time.Sleep(maxStorePause)
		synctest.Wait()
		if len(f.store.finished()) != 1 {
			t.Error("not sent")
		}
		if log := f.log.String(); strings.Count(log, "database is away") != 1 || strings.Count(log, "works again") != 1 {
			t.Errorf("log %s", log)
		}
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic("a", "b")
		f := newFixture(t, Options{Window: 2, HostWindow: 1, Timeout: time.Hour}, func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "failing" {
				return respond(503, "")
			}
			return tr.send(r)
		})
		f.Start([]store.Claim{claim("failing")})
		synctest.Wait()
		f.Start([]store.Claim{claim("a"), claim("a")}) // the second one has to wait
		f.store.due = []store.Delivery{delivery("b", task.TriggerSuccess)}
		f.run(t)
		synctest.Wait()
		f.store.err = errors.New("database is away")
		drained := make(chan error, 1)
		go func() { drained <- f.Drain(t.Context()) }()
		synctest.Wait()
		f.Start([]store.Claim{claim("b")})
		tr.release["a"] <- struct{}{}
		tr.release["b"] <- struct{}{}
		time.Sleep(time.Minute)
		select {
		case err := <-drained:
			t.Fatalf("drained before all was reported: %v", err)
		default:
		}
		f.store.set(func() { f.store.err = nil })
		if err := <-drained; err != nil {
			t.Error(err)
		}
		if len(f.store.settled()) != 1 || len(f.store.finished()) != 1 || tr.max["a"] != 1 || tr.max["b"] != 1 {
			t.Errorf("settled %v, recorded %v, sent %v", f.store.settled(), f.store.finished(), tr.max)
		}
		if err := f.Drain(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// An on_start that rests between attempts, or waits for a place or for its host, is not sent any more when sending ends.
func TestDrainSendsNothingAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		claims int
		full   bool // another host has the only place
	}{
		"rests": {claims: 1}, "waits for a place": {claims: 1, full: true}, "waits for its host": {claims: breakAfter + 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var sent atomic.Int64
				tr := newTraffic("slow")
				window := breakAfter + 2
				if c.full {
					window = 1
				}
				f := newFixture(t, Options{Window: window, HostWindow: window, Timeout: 2 * time.Hour}, func(r *http.Request) (*http.Response, error) {
					if r.URL.Host == "slow" {
						return tr.send(r)
					}
					sent.Add(1)
					return respond(503, "")
				})
				for range c.claims {
					f.Start([]store.Claim{claim("failing")})
				}
				synctest.Wait()
				if c.full {
					f.Start([]store.Claim{claim("slow")})
					time.Sleep(time.Minute) // the pause is over
				}
				synctest.Wait()
				before := sent.Load()
				drained := make(chan error, 1)
				go func() { drained <- f.Drain(t.Context()) }()
				synctest.Wait()
				close(tr.release["slow"])
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := sent.Load(); before == 0 || got != before {
					t.Errorf("sent %d times, %d of them after the end", got, got-before)
				}
				select {
				case err := <-drained:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Error("not drained")
				}
				for _, o := range f.store.settled() {
					if o.Kind != task.Started { // of the slow host
						t.Errorf("settled %+v", o)
					}
				}
			})
		})
	}
}

func TestDrainGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, hang)
		f.store.due = []store.Delivery{delivery("b", task.TriggerSuccess)}
		f.run(t)
		f.Start([]store.Claim{claim("a")})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 left") {
			t.Errorf("drain: %v", err)
		}
		synctest.Wait()
		// What was abandoned is no failed attempt: it is sent again by another process.
		if f.liveNow() != 0 || len(f.store.settled()) != 0 || len(f.store.finished()) != 0 {
			t.Errorf("%d live, settled %v, recorded %v", f.liveNow(), f.store.settled(), f.store.finished())
		}
	})
}

func TestLeaseOutlastsARequest(t *testing.T) {
	t.Parallel()
	if d := New(Options{Timeout: time.Minute}); d.lease != 2*time.Minute {
		t.Errorf("lease %v", d.lease)
	}
}

// The whole way, over real connections: on_start and the outbox to one receiver.
func TestOverTheNetwork(t *testing.T) {
	t.Parallel()
	base, _ := receive(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) })
	host := strings.TrimPrefix(base, "http://")
	s := &fakeStore{}
	var claims []store.Claim
	for range 300 {
		claims = append(claims, claim(host))
		s.due = append(s.due, delivery(host, task.TriggerSuccess))
	}
	d := New(Options{Store: s, Settler: s, HostURL: "http://runner", Guard: newGuard(t, "loopback"), HostWindow: 8})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	d.Start(claims)
	for ctx.Err() == nil && (len(s.settled()) < 300 || len(s.finished()) < 300) {
		time.Sleep(time.Millisecond)
	}
	if err := d.Drain(ctx); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, o := range s.settled() {
		if o.Kind != task.Started || o.StartFailures != 0 {
			t.Errorf("outcome %+v", o)
		}
	}
	for _, a := range s.finished() {
		if a.State != store.DeliveryDone {
			t.Errorf("attempt %+v", a)
		}
	}
}
