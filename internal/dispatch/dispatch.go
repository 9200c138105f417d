package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"taskrunner/client"
	"taskrunner/internal/handle"
	"taskrunner/internal/http1"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Store is what dispatch needs of [store.Store].
type Store interface {
	ClaimDeliveries(ctx context.Context, p store.ClaimDeliveriesParams) (store.ClaimedDeliveries, error)
	FinishDeliveries(ctx context.Context, attempts []store.Attempt) error
	Task(ctx context.Context, id task.ID) (*store.Detail, error)
}

// Settler takes outcomes and returns when they are durable.
type Settler interface {
	Settle(ctx context.Context, outcomes ...task.Outcome) ([]store.Result, error)
}

// Options of a [Dispatcher]. Store, Settler and HostURL are required.
type Options struct {
	Store   Store
	Settler Settler
	// Guard is asked before every connection. Nil allows public addresses only.
	Guard *Guard
	// HostURL is where workers reach this service.
	HostURL string
	// Handles make the tokens of handles. None: handles have no tokens.
	Handles handle.Keys
	// Secrets sign every webhook, each of them. None: webhooks are not signed.
	Secrets []client.Secret
	// Window bounds the requests that are out over all hosts (0: 2048), HostWindow those to one host (0: 256). Each
	// bounds on_start and the outbox for itself.
	Window, HostWindow int
	// Timeout bounds one request with its answer, where its action does not say. 0: 10 s.
	Timeout time.Duration
	// Lease is how long a claimed delivery is kept from other processes. 0: 30 s; at least twice Timeout, or twice that of
	// the action if that is longer.
	Lease time.Duration
	// StartRetry is the policy of on_start, Retry that of every other action, where the action does not say. What they
	// leave out is as of [task.DefaultRetry].
	StartRetry, Retry task.Retry
	// Registry takes the metrics. Nil: they are kept nowhere.
	Registry prometheus.Registerer
	// Log is nil for none.
	Log *slog.Logger
	// OnRoom is called when an on_start has ended and room was short before, and when a host may be called again. It must
	// not block. Nil: nobody asks.
	OnRoom func()
	// Rand returns uniform random numbers, for concurrent use. Nil: math/rand/v2.
	Rand func() uint64
}

func (o *Options) fill() {
	if o.Guard == nil {
		o.Guard = &Guard{}
	}
	if o.Window <= 0 {
		o.Window = 2048
	}
	if o.HostWindow <= 0 {
		o.HostWindow = 256
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Lease <= 0 {
		o.Lease = 30 * time.Second
	}
	o.Lease = max(o.Lease, 2*o.Timeout)
	o.StartRetry = o.StartRetry.Or(task.DefaultRetry(task.TriggerStart))
	o.Retry = o.Retry.Or(task.DefaultRetry(task.TriggerSuccess))
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
}

// Dispatcher sends webhooks. Safe for concurrent use.
type Dispatcher struct {
	store   Store
	settler Settler
	guard   *Guard
	log     *slog.Logger
	random  func() uint64
	lease   time.Duration
	metrics *metrics

	startRetry, retry task.Retry

	sender    *sender
	transport *http1.Transport
	starts    *windows
	outbox    *windows
	hosts     *hosts

	hint     chan struct{} // the outbox has something
	roomFree chan struct{} // the outbox's windows have room again
	finished finished

	settling, claiming, finishing trouble

	failing failing

	// work ends when the process gives up waiting for what is in flight.
	work    context.Context
	abandon context.CancelFunc

	mu       sync.Mutex
	live     int // sends that have begun and are not yet reported
	draining bool
	stopping chan struct{} // closed when draining begins
	idle     chan struct{} // closed when draining and nothing is live
}

// New returns a dispatcher. It sends what [Dispatcher.Start] is given at once, and the outbox while
// [Dispatcher.Run] runs.
func New(o Options) *Dispatcher {
	o.fill()
	transport := newTransport(&o, newDialer(&o))
	work, abandon := context.WithCancel(context.Background())
	d := &Dispatcher{
		store: o.Store, settler: o.Settler, guard: o.Guard, log: o.Log, random: o.Rand, lease: o.Lease,
		startRetry: o.StartRetry, retry: o.Retry,
		metrics:   newMetrics(o.Registry),
		transport: transport,
		sender: &sender{
			transport: transport, timeout: o.Timeout, random: o.Rand,
			handle: url.QueryEscape(strings.TrimRight(o.HostURL, "/") + "/task/"), handles: o.Handles, secrets: o.Secrets,
		},
		hint: make(chan struct{}, 1), roomFree: make(chan struct{}, 1),
		settling:  trouble{log: o.Log, what: "settle on_start"},
		claiming:  trouble{log: o.Log, what: "claim deliveries"},
		finishing: trouble{log: o.Log, what: "record deliveries"},
		work:      work, abandon: abandon,
		stopping: make(chan struct{}), idle: make(chan struct{}),
	}
	d.hosts = newHosts(o.Registry, o.Rand, func() {
		d.WakeOutbox()
		if o.OnRoom != nil {
			o.OnRoom()
		}
	})
	workers := newWorkers(d.stopping)
	d.starts = newWindows(o.Window, o.HostWindow, d.hosts.room, workers, o.OnRoom)
	d.outbox = newWindows(o.Window, o.HostWindow, d.hosts.room, workers, func() { signal(d.roomFree) })
	return d
}

// signal leaves a hint in c, a channel of capacity 1; one that is there already will do.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Room is how many claims may be started now. The caller may keep and change it.
func (d *Dispatcher) Room() task.Room { return d.starts.room() }

// Host is how the target of webhooks stands, by host and port.
func (d *Dispatcher) Host(name string) task.HostState {
	s := d.hosts.state(name)
	for _, w := range []*windows{d.starts, d.outbox} {
		s.Queued += w.queued(name)
	}
	return s
}

// Hosts are those that are remembered, by name, up to limit of them after a name.
func (d *Dispatcher) Hosts(after string, limit int) []task.HostState {
	names := slices.Concat(d.hosts.names(), d.starts.hosts(), d.outbox.hosts())
	names = slices.DeleteFunc(names, func(name string) bool { return name <= after })
	slices.Sort(names)
	names = slices.Compact(names)
	states := make([]task.HostState, min(limit, len(names)))
	for i := range states {
		states[i] = d.Host(names[i])
	}
	return states
}

// Drain ends all sending: nothing new goes out, what waits for another attempt is left to whoever takes it over, and
// it returns when everything in flight was answered and reported. When ctx ends first, that is abandoned.
func (d *Dispatcher) Drain(ctx context.Context) error {
	d.mu.Lock()
	if !d.draining {
		d.draining = true
		close(d.stopping)
		if d.live == 0 {
			close(d.idle)
		}
	}
	d.mu.Unlock()
	defer d.transport.CloseIdleConnections()
	defer d.abandon()
	select {
	case <-d.idle:
		return nil
	default:
	}
	select {
	case <-d.idle:
		return nil
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		return fmt.Errorf("drain webhooks: %d left: %w", d.live, context.Cause(ctx))
	}
}

// begin counts a send as live, unless no new ones may go out.
func (d *Dispatcher) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return false
	}
	d.live++
	return true
}

// end says that n sends were reported.
func (d *Dispatcher) end(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live -= n; d.live == 0 && d.draining {
		close(d.idle)
	}
}

// admit waits until the host's breaker lets a request through, which has its place in w and gives it back meanwhile. It
// is not ok when that takes until a given time, if it is not zero, or no more requests go out.
func (d *Dispatcher) admit(w *windows, host string, until time.Time) (waited, ok bool) {
	for until.IsZero() || time.Now().Before(until) {
		changed := d.hosts.admit(host)
		if changed == nil {
			return waited, true
		}
		waited = true
		w.pause(host)
		var late <-chan time.Time
		if !until.IsZero() {
			late = time.After(time.Until(until))
		}
		select {
		case <-changed:
		case <-late:
		case <-d.stopping:
		}
		if !w.resume(host, d.stopping) {
			break
		}
	}
	return waited, false
}

// attempt sends c once, which was admitted. The verdict is 0 when the process gave up meanwhile.
func (d *Dispatcher) attempt(c *call) (answer, Verdict) {
	m := d.metrics.of(c.trigger)
	m.inFlight.Inc()
	a := d.sender.send(d.work, c)
	m.inFlight.Dec()
	if a.err != nil && d.work.Err() != nil {
		d.hosts.report(c.host, nothingKnown, &a)
		return a, 0
	}
	a.down = d.hosts.report(c.host, presenceOf(a.status, a.err), &a)
	m.duration.Observe(a.took.Seconds())
	return a, Classify(a.status, a.err)
}

// after decides how to go on after a failed attempt, and counts it.
func (d *Dispatcher) after(c *call, a *answer, v Verdict, f failed) (pause time.Duration, again bool) {
	if v == Retry {
		p := d.policy(c)
		f.retryAfter = a.retryAfter
		pause, again = p.pause(f, d.random())
	}
	r := resultFailed
	switch {
	case again:
		r = resultRetry
	case refused(a.err):
		r = resultRefused
	}
	d.metrics.of(c.trigger).requests[r].Inc()
	return pause, again
}

// sleep returns false when one of the two was closed before the time was up.
func sleep(d time.Duration, stop, orStop <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
	case <-orStop:
	}
	return false
}
