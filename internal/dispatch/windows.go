package dispatch

import (
	"maps"
	"sync"

	"taskrunner/internal/task"
)

// windows bound how many sends are out, over all hosts and to each. What comes beyond waits, in order for its host.
// Safe for concurrent use.
type windows struct {
	total, perHost int
	// onRoom is called, outside of the lock, when a place becomes free that somebody may have missed.
	onRoom func()

	mu      sync.Mutex
	used    int            // places taken, by what is out and what waits
	busy    map[string]int // the same by host; hosts without any are left out
	queued  int
	waiting map[string][]func()
}

func newWindows(total, perHost int, onRoom func()) *windows {
	return &windows{
		total: total, perHost: perHost, onRoom: onRoom,
		busy: map[string]int{}, waiting: map[string][]func(){},
	}
}

// room is how much more may be claimed. The caller may keep and change it.
func (w *windows) room() task.Room {
	w.mu.Lock()
	defer w.mu.Unlock()
	return task.Room{Total: max(0, w.total-w.used), PerHost: w.perHost, Busy: maps.Clone(w.busy)}
}

// enter runs send in a goroutine as soon as there is a place for it. send must call leave once.
func (w *windows) enter(host string, send func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used++
	w.busy[host]++
	if w.used-w.queued > w.total || w.busy[host]-len(w.waiting[host]) > w.perHost {
		w.queued++
		w.waiting[host] = append(w.waiting[host], send)
		return
	}
	go send()
}

// leave gives a place at host back and lets one that waits have it.
func (w *windows) leave(host string) {
	w.mu.Lock()
	short := w.used >= w.total || w.busy[host] >= w.perHost
	w.used--
	if w.busy[host]--; w.busy[host] == 0 {
		delete(w.busy, host)
	}
	w.promote()
	w.mu.Unlock()
	if short && w.onRoom != nil {
		w.onRoom()
	}
}

// promote gives the place over all hosts that has just been left to one that waits, of any host that has a place too:
// the order of hosts is that of the map, at random.
func (w *windows) promote() {
	for host, sends := range w.waiting {
		if w.busy[host]-len(sends) >= w.perHost {
			continue
		}
		w.queued--
		if w.waiting[host] = sends[1:]; len(sends) == 1 {
			delete(w.waiting, host)
		}
		go sends[0]()
		return
	}
}
