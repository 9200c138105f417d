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
	// shut is how many may go to hosts whose breakers are not closed.
	shut func() map[string]int

	mu    sync.Mutex
	out   int
	lanes map[string]*lane // hosts without anything are left out
	turn  []*lane          // those where somebody waits, in the order in which they get a place
}

// lane is what is held for a host: what is out, what waits for a place, and what has given its place back for a while.
type lane struct {
	held, out int
	waiting   []func()
}

func newWindows(total, perHost int, shut func() map[string]int, onRoom func()) *windows {
	return &windows{total: total, perHost: perHost, shut: shut, onRoom: onRoom, lanes: map[string]*lane{}}
}

// room is how much more may be claimed. The caller may keep and change it.
func (w *windows) room() task.Room {
	shut := w.shut()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := task.Room{
		Total: max(0, w.total-w.out), Window: w.total, PerHost: w.perHost, Busy: make(map[string]int, len(w.lanes)), Shut: shut,
	}
	for host, l := range w.lanes {
		r.Busy[host] = l.held
	}
	return r
}

// held is how much is out to host and how much waits.
func (w *windows) held(host string) (out, waiting int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.lanes[host]; l != nil {
		return l.out, l.held - l.out
	}
	return 0, 0
}

func (w *windows) hosts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.lanes))
}

// enter runs send in a goroutine as soon as there is a place for it. send must call leave once.
func (w *windows) enter(host string, send func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lanes[host]
	if l == nil {
		l = &lane{}
		w.lanes[host] = l
	}
	l.held++
	w.wait(l, func() { go send() })
}

// wait calls enter, which must not block, as soon as there is a place.
func (w *windows) wait(l *lane, enter func()) {
	if l.waiting = append(l.waiting, enter); len(l.waiting) == 1 {
		w.turn = append(w.turn, l)
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
	w.wait(w.lanes[host], func() { close(entered) })
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
	l := w.lanes[host]
	before := task.Room{Total: w.total - w.out, Window: w.total, PerHost: w.perHost}
	missed := before.Total <= 0 || l.held >= before.Share(l.held)
	w.out--
	l.out--
	l.held -= held
	// The share of others grows when something is free; it matters when there is more out than one of them may have.
	after := before
	after.Total++
	missed = missed || w.out >= w.perHost && after.Share(0) > before.Share(0)
	if l.held == 0 {
		delete(w.lanes, host)
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
		l := w.turn[i]
		room := task.Room{Total: w.total - w.out, Window: w.total, PerHost: w.perHost}
		if l.out >= room.Share(l.out) {
			i++
			continue
		}
		w.turn = slices.Delete(w.turn, i, i+1)
		enter := l.waiting[0]
		if l.waiting = l.waiting[1:]; len(l.waiting) > 0 {
			w.turn = append(w.turn, l)
		}
		w.out++
		l.out++
		enter()
	}
}
