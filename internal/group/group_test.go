package group_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/group"
)

// recorder doubles numbers and remembers which came together.
type recorder struct {
	mu     sync.Mutex
	groups [][]int
	takes  time.Duration
	fail   func(items []int) error
}

func (r *recorder) do(ctx context.Context, items []int) ([]int, error) {
	r.mu.Lock()
	r.groups = append(r.groups, slices.Clone(items))
	r.mu.Unlock()
	select {
	case <-time.After(r.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r.fail != nil {
		if err := r.fail(items); err != nil {
			return nil, err
		}
	}
	out := make([]int, len(items))
	for i, item := range items {
		out[i] = 2 * item
	}
	return out, nil
}

func always(error) bool { return true }

// start runs g until the test's bubble ends it.
func start(t *testing.T, g *group.Group[int, int]) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestCrowdSharesOneCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Millisecond}
		g := group.New(group.Options[int, int]{Limit: 1000, Do: r.do, Split: always})
		defer start(t, g)()
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				out, err := g.Do(t.Context(), i, i+1000)
				if err != nil || !slices.Equal(out, []int{2 * i, 2 * (i + 1000)}) {
					t.Errorf("Do(%d) = %v, %v", i, out, err)
				}
			})
		}
		callers.Wait()
		if n := len(r.groups); n > 3 {
			t.Errorf("100 callers at once needed %d commits", n)
		}
	})
}

func TestLoneCallerDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := group.New(group.Options[int, int]{Limit: 1000, Do: (&recorder{takes: time.Millisecond}).do, Split: always})
		defer start(t, g)()
		begun := time.Now()
		if _, err := g.Do(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != time.Millisecond {
			t.Errorf("took %s, the commit alone takes 1ms", took)
		}
	})
}

// What is in no hurry comes with what is, or alone in the end.
func TestLinger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const lingers = 10 * time.Millisecond
		r := &recorder{takes: time.Millisecond}
		g := group.New(group.Options[int, int]{Limit: 1000, Do: r.do, Split: always, Linger: func(items []int) time.Duration {
			if items[0] < 100 {
				return lingers
			}
			return 0
		}})
		stop := start(t, g)
		var callers sync.WaitGroup
		// do is answered after took.
		do := func(item int, took time.Duration) {
			callers.Go(func() {
				begun := time.Now()
				if _, err := g.Do(t.Context(), item); err != nil || time.Since(begun) != took {
					t.Errorf("%d took %s, want %s; %v", item, time.Since(begun), took, err)
				}
			})
			synctest.Wait()
		}
		do(1, lingers+time.Millisecond) // alone
		callers.Wait()
		do(2, lingers+time.Millisecond) // with a second one that came later
		time.Sleep(lingers / 2)
		do(3, lingers/2+time.Millisecond)
		callers.Wait()
		do(4, lingers/2+time.Millisecond) // with one that is in a hurry
		time.Sleep(lingers / 2)
		do(100, time.Millisecond)
		callers.Wait()
		do(101, time.Millisecond) // not behind one that is in a hurry, if it came too late for that
		do(5, lingers+time.Millisecond)
		callers.Wait()
		do(6, time.Millisecond) // until it stops
		stop()
		callers.Wait()
		if want := [][]int{{1}, {2, 3}, {4, 100}, {101}, {5}, {6}}; !slices.EqualFunc(r.groups, want, slices.Equal) {
			t.Errorf("carried out %v, want %v", r.groups, want)
		}
	})
}

func TestLimitBoundsGroups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Millisecond}
		g := group.New(group.Options[int, int]{Limit: 10, Do: r.do, Split: always})
		defer start(t, g)()
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				if _, err := g.Do(t.Context(), i); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		for _, items := range r.groups {
			if len(items) > 10 {
				t.Errorf("a group of %d", len(items))
			}
		}
	})
}

func TestWeightBoundsGroups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Millisecond}
		weigh := func(item int) int { return item }
		g := group.New(group.Options[int, int]{Limit: 10, Weigh: weigh, Do: r.do, Split: always})
		var callers sync.WaitGroup
		for _, items := range [][]int{{4}, {1, 5}, {1}, {30}, {9}} {
			callers.Go(func() {
				if _, err := g.Do(t.Context(), items...); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		defer start(t, g)()
		callers.Wait()
		if want := [][]int{{4, 1, 5}, {1}, {30}, {9}}; !slices.EqualFunc(r.groups, want, slices.Equal) {
			t.Errorf("groups %v, want %v", r.groups, want)
		}
	})
}

func TestOneCallersFaultIsItsOwn(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad item")
	for _, test := range []struct {
		name     string
		split    func(error) bool
		survives bool
	}{{"split", always, true}, {"not split", func(error) bool { return false }, false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{takes: time.Millisecond, fail: func(items []int) error {
					if slices.Contains(items, 13) {
						return bad
					}
					return nil
				}}
				g := group.New(group.Options[int, int]{Limit: 1000, Do: r.do, Split: test.split})
				defer start(t, g)()
				go func() { _, _ = g.Do(t.Context(), 0) }() // keeps the group busy while the others gather
				synctest.Wait()
				var callers sync.WaitGroup
				for i := 10; i < 20; i++ {
					callers.Go(func() {
						_, err := g.Do(t.Context(), i)
						if want := i == 13 || !test.survives; errors.Is(err, bad) != want {
							t.Errorf("Do(%d): %v", i, err)
						}
					})
				}
				callers.Wait()
			})
		})
	}
}

func TestWhatWasAcceptedIsCarriedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := group.New(group.Options[int, int]{Limit: 10, Do: (&recorder{takes: time.Second}).do, Split: always})
		stop := start(t, g)
		var callers sync.WaitGroup
		for i := range 5 {
			callers.Go(func() {
				if out, err := g.Do(t.Context(), i); err != nil || out[0] != 2*i {
					t.Errorf("Do(%d) = %v, %v", i, out, err)
				}
			})
		}
		synctest.Wait()
		stop()
		callers.Wait()
		if _, err := g.Do(t.Context(), 1); !errors.Is(err, group.ErrStopped) {
			t.Errorf("after the stop: %v", err)
		}
	})
}

func TestStopEndsWhatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := group.New(group.Options[int, int]{Limit: 10, Do: (&recorder{takes: time.Hour}).do, Split: always})
		stop := start(t, g)
		answered := make(chan error, 1)
		go func() {
			_, err := g.Do(t.Context(), 1)
			answered <- err
		}()
		synctest.Wait()
		stop()
		if err := <-answered; err == nil {
			t.Error("an item that was not carried out was acknowledged")
		}
	})
}

func TestCallerMayLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := group.New(group.Options[int, int]{Limit: 10, Do: (&recorder{takes: time.Hour}).do, Split: always})
		defer start(t, g)()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Do(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do: %v", err)
		}
	})
}

func TestWaitForAHangingGroupIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Minute}
		g := group.New(group.Options[int, int]{Limit: 10, Wait: 10 * time.Second, Do: r.do, Split: always})
		stop := start(t, g)
		var callers sync.WaitGroup
		callers.Go(func() {
			if _, err := g.Do(t.Context(), 1); err != nil {
				t.Errorf("a call that was begun in time: %v", err)
			}
		})
		synctest.Wait()
		begun := time.Now()
		if _, err := g.Do(t.Context(), 2); !errors.Is(err, group.ErrBusy) || time.Since(begun) != 10*time.Second {
			t.Errorf("a call that could not begin: %v after %s", err, time.Since(begun))
		}
		callers.Wait()
		if _, err := g.Do(t.Context(), 3); err != nil {
			t.Errorf("a call after it: %v", err)
		}
		stop()
		if len(r.groups) != 2 {
			t.Errorf("carried out %v, want 1 and 3 alone: 2 was refused", r.groups)
		}
	})
}
