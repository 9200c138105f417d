package dispatch

import (
	"maps"
	"slices"
	"sync"

	"taskrunner/internal/task"
)

// windows bound how many requests are out, over all hosts and to each. What comes beyond waits, in order for its host,
// and the hosts in turn. Safe for concurrent use.
type windows struct {
	total, perHost int
	// onRoom is called, outside of the lock, when a place becomes free that somebody may have missed.
	onRoom func()
	// shut is how many more may be claimed for hosts that fail.
	shut    func() map[string]int
	workers *workers

	mu     sync.Mutex
	out    int
	byHost map[string]*window // hosts without anything are left out
	turn   []*window          // those where somebody waits, in the order in which they get a place
}

// window is what is held for a host: what is out, what waits for a place, and what has given its place back for a while.
type window struct {
	held, out int
	waiting   []func()
}

func newWindows(total, perHost int, shut func() map[string]int, workers *workers, onRoom func()) *windows {
	return &windows{total: total, perHost: perHost, shut: shut, onRoom: onRoom, workers: workers, byHost: map[string]*window{}}
}

// room is how much more may be claimed. The caller may keep and change it.
func (w *windows) room() task.Room {
	shut := w.shut()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.left()
	r.Busy, r.Shut = make(map[string]int, len(w.byHost)), shut
	for host, h := range w.byHost {
		r.Busy[host] = h.held
	}
	return r
}

// left is how much more may be out, whatever is held for each host.
func (w *windows) left() task.Room {
	return task.Room{Total: w.total - w.out, Window: w.total, PerHost: w.perHost}
}

// queued is how much is held for host that is not out.
func (w *windows) queued(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.byHost[host]; h != nil {
		return h.held - h.out
	}
	return 0
}

func (w *windows) hosts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.byHost))
}

// enter runs send in a goroutine as soon as there is a place for it, and tells it whether there was none at first. send must call leave
// once.
func (w *windows) enter(host string, send func(waited bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.byHost[host]
	if h == nil {
		h = &window{}
		w.byHost[host] = h
	}
	h.held++
	waited := false
	w.wait(h, func() {
		waited := waited // as of now: enter is still at it, or not
		w.workers.run(func() { send(waited) })
	})
	waited = true
}

// wait calls enter, which must not block, as soon as there is a place.
func (w *windows) wait(h *window, enter func()) {
	if h.waiting = append(h.waiting, enter); len(h.waiting) == 1 {
		w.turn = append(w.turn, h)
	}
	w.promote()
}

// pause gives the place of one that is out back, but for the claim on its host: no more is claimed for a host than it
// can take, and nobody else waits for what is not out.
func (w *windows) pause(host string) {
	w.free(host, 0)
}

// resume takes a place again once there is one. It is false when stop is closed before: then places do not matter any more,
// and nothing is to be sent.
func (w *windows) resume(host string, stop <-chan struct{}) bool {
	entered := make(chan struct{})
	w.mu.Lock()
	w.wait(w.byHost[host], func() { close(entered) })
	w.mu.Unlock()
	select {
	case <-stop:
		return false
	default:
	}
	select {
	case <-entered:
		return true
	case <-stop:
		return false
	}
}

// leave gives a place at host back.
func (w *windows) leave(host string) {
	w.free(host, 1)
}

// free gives up a place over all hosts, and what is held for host. One that waits has it.
func (w *windows) free(host string, held int) {
	w.mu.Lock()
	h := w.byHost[host]
	before := w.left()
	missed := before.Total <= 0 || h.held >= before.Share(h.held)
	w.out--
	h.out--
	h.held -= held
	// The share of others grows when something is free; it matters when there is more out than one of them may have. Those
	// that have some are told with those that have none, a few places later: to ask each would cost more than the delay.
	missed = missed || w.out >= w.perHost && w.left().Share(0) > before.Share(0)
	if h.held == 0 {
		delete(w.byHost, host)
	}
	w.promote()
	w.mu.Unlock()
	if missed && w.onRoom != nil {
		w.onRoom()
	}
}

// promote gives places to those who wait, as long as there are any: the hosts take turns.
func (w *windows) promote() {
	for i := 0; i < len(w.turn) && w.out < w.total; {
		h := w.turn[i]
		if h.out >= w.left().Share(h.out) {
			i++
			continue
		}
		w.turn = slices.Delete(w.turn, i, i+1)
		enter := h.waiting[0]
		if h.waiting = h.waiting[1:]; len(h.waiting) > 0 {
			w.turn = append(w.turn, h)
		}
		w.out++
		h.out++
		enter()
	}
}
