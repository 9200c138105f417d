package dispatch

import (
	"container/list"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"taskrunner/internal/task"
)

const (
	// maxIdleHosts is how many hosts are remembered to which nothing is out; those that were called last are.
	maxIdleHosts = 4096
	// maxLatencies is over how many requests to a host percentiles are taken.
	maxLatencies = 128
	// probeTurn is how long those that are claimed leave a probe to one that is not, and, in turns, the other way round: it may be
	// for another worker behind the same host, and fail for none of their reasons.
	probeTurn = 100 * time.Millisecond
)

// hosts remembers how requests to hosts went, and keeps a breaker for each. Safe for concurrent use.
type hosts struct {
	random func() uint64
	// onChange is called, outside of the lock, when a host may be called again.
	onChange func()
	openings prometheus.Counter

	mu     sync.Mutex
	byName map[string]*host
	shut   map[string]*host // for which not just any number may be claimed
	idle   *list.List       // of *host: nothing is out to it; the front one was called last
}

type host struct {
	breaker
	name             string
	inFlight         int
	idle             *list.Element // nil: something is out
	changed          chan struct{} // closed when the breaker changes; nil: nobody waits for that
	timer            *time.Timer   // until the next probe
	requests, absent uint64
	lastError        string
	took             []time.Duration // the last maxLatencies, as a ring
	next             int             // place in took
}

func newHosts(r prometheus.Registerer, random func() uint64, onChange func()) *hosts {
	auto := promauto.With(r)
	h := &hosts{
		random: random, onChange: onChange, byName: map[string]*host{}, shut: map[string]*host{}, idle: list.New(),
		openings: auto.NewCounter(prometheus.CounterOpts{
			Name: "webhook_breaker_openings_total",
			Help: "How often the breaker of a host has opened, failed probes included.",
		}),
	}
	for _, state := range []task.Breaker{task.BreakerClosed, task.BreakerOpen, task.BreakerHalfOpen} {
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "webhook_hosts", Help: "Hosts that webhooks go to and that are remembered, by the state of their breakers.",
			ConstLabels: prometheus.Labels{"breaker": state.String()},
		}, func() float64 { return float64(h.count(state)) })
	}
	return h
}

func (h *hosts) count(state task.Breaker) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, k := range h.byName {
		if k.state == state {
			n++
		}
	}
	return n
}

// admit counts a request to a host as out, or returns what is closed when it is worth to ask again.
func (h *hosts) admit(name string) (changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.byName[name]
	if k == nil {
		k = &host{name: name}
		h.byName[name] = k
	}
	if !k.admit() {
		if k.changed == nil {
			k.changed = make(chan struct{})
		}
		return k.changed
	}
	k.inFlight++
	if k.idle != nil {
		h.idle.Remove(k.idle)
		k.idle = nil
	}
	h.updateShut(k)
	return nil
}

// report takes what became of a request that was admitted. down: the host's breaker is not closed now, so that a failure
// says nothing of the request.
func (h *hosts) report(name string, p presence, a *answer) (down bool) {
	h.mu.Lock()
	k := h.byName[name]
	before, openings := k.more(), k.openings
	k.report(p, time.Now(), h.random())
	k.remember(p, a)
	if k.openings > openings {
		h.open(k)
	}
	if down = k.state != task.BreakerClosed; !down && k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
	k.inFlight--
	h.updateShut(k)
	if k.inFlight == 0 {
		k.idle = h.idle.PushFront(k)
		h.forget()
	}
	eased := before >= 0 && k.more() != 0 && k.more() != before
	if eased {
		k.wake()
	}
	h.mu.Unlock()
	if eased {
		h.onChange()
	}
	return down
}

// open begins the pause of a breaker that has opened. The probe after it is offered to those that are claimed then, and after
// probeTurn to those that wait; the next one the other way round, for there may always be some that fail to claim.
func (h *hosts) open(k *host) {
	h.openings.Inc()
	first, then := h.onChange, func() { h.wake(k) }
	if k.openings%2 == 0 {
		first, then = then, first
	}
	k.timer = time.AfterFunc(time.Until(k.probe), func() {
		h.mu.Lock()
		k.due(time.Now())
		k.timer = time.AfterFunc(probeTurn, then)
		h.mu.Unlock()
		first()
	})
}

// more is how many more may be claimed for it: -1 for any number. One that fails is given no more than it takes to open its
// breaker, after which all that is claimed for it has to wait.
func (k *host) more() int {
	if k.state == task.BreakerClosed && k.failures >= breakAfter/2 {
		return max(0, breakAfter-k.failures-k.inFlight)
	}
	return k.room()
}

// updateShut is called when what k.more says may have changed.
func (h *hosts) updateShut(k *host) {
	if k.more() < 0 {
		delete(h.shut, k.name)
	} else {
		h.shut[k.name] = k
	}
}

func (h *hosts) wake(k *host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k.wake()
}

// wake tells those who wait that it is worth to ask again.
func (k *host) wake() {
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// forget keeps the hosts that are remembered in bounds. One whose breaker is not closed has nothing out just because of that:
// it goes after all others but the last one called, which would be forgotten with each call.
func (h *hosts) forget() {
	for h.idle.Len() > maxIdleHosts {
		oldest := h.idle.Back()
		for e := oldest; e != h.idle.Front(); e = e.Prev() {
			if e.Value.(*host).state == task.BreakerClosed {
				oldest = e
				break
			}
		}
		k := h.idle.Remove(oldest).(*host)
		delete(h.byName, k.name)
		delete(h.shut, k.name)
		if k.timer != nil {
			k.timer.Stop()
		}
		k.wake()
	}
}

func (k *host) remember(p presence, a *answer) {
	switch p {
	case absent:
		k.requests++
		k.absent++
		k.lastError = a.text
	case present:
		k.requests++
		if len(k.took) < maxLatencies {
			k.took = append(k.took, a.took)
		} else {
			k.took[k.next] = a.took
			k.next = (k.next + 1) % maxLatencies
		}
	}
}

// room is how many more may be claimed for those hosts for which not just any number may.
func (h *hosts) room() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	room := make(map[string]int, len(h.shut))
	for name, k := range h.shut {
		room[name] = k.more()
	}
	return room
}

// state is that of a host; one that is not remembered is closed.
func (h *hosts) state(name string) task.HostState {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.byName[name]
	if k == nil {
		return task.HostState{Name: name}
	}
	s := task.HostState{
		Name: name, Breaker: k.state, InFlight: k.inFlight, Failures: k.failures, Requests: k.requests,
		Failed: k.absent, LastError: k.lastError, NextProbe: k.probe,
	}
	if n := len(k.took); n > 0 {
		took := slices.Sorted(slices.Values(k.took))
		s.P50, s.P99 = took[(n-1)/2], took[(n*99+99)/100-1]
	}
	return s
}

func (h *hosts) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.byName))
}
