//go:build long

package e2e

import (
	"testing"
	"time"
)

// perTask is what a small machine may take for a task, its worker and its client. It bounds the workflows that are wide and
// short, a thousand tasks in 11 ms, and adds little to the others.
const perTask = time.Millisecond

// TestWorkflowMakespan: each workflow alone takes no more than half as long again as its critical path, and perTask. It
// measures the machine as well: the best of three counts, and it is not part of "make test".
func TestWorkflowMakespan(t *testing.T) {
	for _, db := range databases { // one after the other
		t.Run(db, func(t *testing.T) {
			s := startService(t, databaseURL(t, db), nil)
			for _, w := range workflows(t) {
				bound := w.criticalPath()*3/2 + time.Duration(len(w.steps))*perTask
				best := patience
				for tries := 0; tries < 3 && best > bound; tries++ {
					r := newReceiver(t)
					best = min(best, w.run(t, s, r, w.begin(r)))
				}
				t.Logf("%-11s makespan %8v: %.2f", w.name, best.Round(time.Millisecond), float64(best)/float64(w.criticalPath()))
				if best > bound {
					t.Errorf("%s: took %v, more than %v", w.name, best, bound)
				}
			}
		})
	}
}
