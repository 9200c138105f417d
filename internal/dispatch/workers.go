package dispatch

import "time"

// workers run functions in goroutines that are used again: the stack of a new one would have to grow for each request,
// for a twenty-fifth of the server's CPU under load. Safe for concurrent use.
type workers struct {
	idle chan func()     // without a buffer: who receives waits for work
	stop <-chan struct{} // from its closing on nobody waits
}

// idleTime is how long a goroutine waits for more work.
const idleTime = time.Second

func newWorkers(stop <-chan struct{}) *workers { return &workers{idle: make(chan func()), stop: stop} }

// run runs fn in a goroutine. It does not block.
func (w *workers) run(fn func()) {
	select {
	case w.idle <- fn:
	default:
		go w.work(fn)
	}
}

func (w *workers) work(fn func()) {
	late := time.NewTimer(idleTime)
	defer late.Stop()
	for {
		fn()
		late.Reset(idleTime)
		select {
		case fn = <-w.idle:
		case <-late.C:
			return
		case <-w.stop:
			return
		}
	}
}
