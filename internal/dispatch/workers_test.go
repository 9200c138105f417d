package dispatch

import (
	"testing"
	"testing/synctest"
	"time"
)

// A goroutine waits for more work, for a while or until it is stopped.
func TestWorkersAreUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		w := newWorkers(stop)
		ran := 0
		waits := func() bool {
			synctest.Wait()
			select {
			case w.idle <- func() { ran++ }:
				synctest.Wait()
				return true
			default:
				return false
			}
		}
		if waits() {
			t.Error("somebody waits before anything was run")
		}
		w.run(func() { ran++ })
		for range 3 {
			time.Sleep(idleTime - 1)
			if !waits() {
				t.Error("the goroutine does not wait for more work")
			}
		}
		time.Sleep(idleTime + 1)
		if waits() {
			t.Error("the goroutine waits for too long")
		}
		w.run(func() { ran++ })
		synctest.Wait()
		close(stop)
		if waits() {
			t.Error("the goroutine waits although it was stopped")
		}
		if ran != 5 {
			t.Errorf("%d functions ran, want 5", ran)
		}
	})
}

// Who is at work does not keep others waiting.
func TestWorkersRunAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(t.Context().Done())
		release := make(chan struct{})
		begun := make(chan bool, 3)
		for range 3 {
			w.run(func() {
				begun <- true
				<-release
			})
		}
		synctest.Wait()
		if len(begun) != 3 {
			t.Errorf("%d of 3 have begun", len(begun))
		}
		close(release)
	})
}
