package dispatch

import (
	"sync"

	"taskrunner/internal/task"
)

// failing remembers the on_starts that have failed and are sent again: the database hears of them only in the end. Safe
// for concurrent use; the zero value remembers none.
type failing struct {
	mu    sync.Mutex
	tasks map[task.ID]task.Outcome // so far
}

func (f *failing) remember(o *task.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tasks == nil {
		f.tasks = map[task.ID]task.Outcome{}
	}
	f.tasks[o.ID] = *o
}

// forget costs nothing where nothing failed.
func (f *failing) forget(o *task.Outcome) {
	if o.StartFailures == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tasks, o.ID)
}

// Failing counts the requests of a task's on_start that have failed so far, with the last status and error; zero when
// there is none, or when another process sends them.
func (d *Dispatcher) Failing(id task.ID) (failures, status int, text string) {
	d.failing.mu.Lock()
	defer d.failing.mu.Unlock()
	o := d.failing.tasks[id]
	return o.StartFailures, o.StartStatus, o.StartError
}
