package schedule

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"taskrunner/internal/store"
)

// follow lets a tick follow, if it is given a turn, which comes to pumped or fails. It returns what it was given.
func follow(t *testing.T, p *Pump, pumped *store.Pumped, failed error) (params store.PumpParams, given bool) {
	t.Helper()
	err := p.Follow(func(turn store.Turn) (*store.Pumped, error) {
		if params, given = turn(); !given {
			return nil, failed
		}
		return pumped, failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("%v, want %v", err, failed)
	}
	return params, given
}

func TestFollow(t *testing.T) {
	t.Parallel()
	away := errors.New("database is away")
	claims := []store.Claim{{ID: uuid.UUID{1}, Host: "a"}}
	for _, c := range []struct {
		name   string
		pumped *store.Pumped
		failed error
		ticks  int  // of the loop, because of it
		idle   bool // another tick may follow at once, before the loop has had its turn
	}{
		{"nothing is left", &store.Pumped{Claims: claims}, nil, 0, true},
		{"there is more to do", &store.Pumped{Claims: claims, More: true}, nil, 1, false},
		{"there was no room for all", &store.Pumped{Claims: claims, Starved: true}, nil, 1, false},
		{"there are new rules", &store.Pumped{Uncounted: true}, nil, 1, false},
		{"the outbox has work", &store.Pumped{Outbox: true}, nil, 0, true},
		{"there was no tick after all", nil, nil, 1, false},
		{"it failed", nil, away, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, outbox := newFake(), 0
				p := pump(t, f, func(o *Options) { o.OnOutbox = func() { outbox++ } })
				synctest.Wait()
				params, given := follow(t, p, c.pumped, c.failed)
				if diff := cmp.Diff(store.PumpParams{Owner: uuid.UUID{1}, Room: f.room, Links: followingLinks}, params); !given || diff != "" {
					t.Errorf("given %t: %s", given, diff)
				}
				if _, given := follow(t, p, &store.Pumped{}, nil); given != c.idle {
					t.Errorf("the next one is given a turn: %t", given)
				}
				synctest.Wait()
				if n := len(f.at) - 1; n != c.ticks {
					t.Errorf("%d ticks because of it, want %d", n, c.ticks)
				}
				started, told := []store.Claim(nil), 0
				if c.pumped != nil && len(c.pumped.Claims) > 0 {
					started = claims
				}
				if c.pumped != nil && c.pumped.Outbox {
					told = 1
				}
				if diff := cmp.Diff(started, f.started); diff != "" || outbox != told {
					t.Errorf("outbox %d, started %s", outbox, diff)
				}
				if _, given := follow(t, p, &store.Pumped{}, nil); !given {
					t.Error("none is given a turn any more")
				}
			})
		})
	}
}

// Nothing follows while the loop has something to do, or to wait for.
func TestFollowsOnlyWhileTheLoopIsIdle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last store.Pumped
		err  error
	}{
		"starved":        {last: store.Pumped{Starved: true}},
		"another pumps":  {last: store.Pumped{Busy: true}},
		"new rules wait": {last: store.Pumped{Uncounted: true}},
		"failed":         {err: errors.New("database is away")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(store.Pumped{}, c.last)
				f.errs = []error{nil, c.err}
				p := pump(t, f, nil)
				synctest.Wait()
				p.Wake()
				synctest.Wait()
				if _, given := follow(t, p, &store.Pumped{}, nil); given {
					t.Error("a tick follows")
				}
				time.Sleep(time.Second)
				p.Wake() // of another tick nothing is left
				synctest.Wait()
				if _, given := follow(t, p, &store.Pumped{}, nil); !given {
					t.Error("no tick follows any more")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		p := New(Options{Store: f, Starter: f})
		if _, given := follow(t, p, &store.Pumped{}, nil); given {
			t.Error("a tick follows before the first of the loop, which may have room to spare")
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, given := follow(t, p, &store.Pumped{}, nil); given {
			t.Error("a tick follows after the last of the loop")
		}
	})
}

// One tick at a time: none follows during a tick of the loop, which waits for one that does; and so does the end of the loop.
func TestFollowTakesTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.took = time.Second
		ctx, stop := context.WithCancel(t.Context())
		p := New(Options{Store: f, Starter: f})
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		if _, given := follow(t, p, &store.Pumped{}, nil); given {
			t.Error("a tick follows during another one")
		}
		time.Sleep(2 * time.Second)
		err := p.Follow(func(turn store.Turn) (*store.Pumped, error) {
			if _, given := turn(); !given {
				t.Error("no tick follows")
			}
			p.Wake()
			time.Sleep(10 * time.Second)
			stop()
			synctest.Wait()
			if len(f.times()) != 1 || len(ended) > 0 {
				t.Errorf("%d ticks; ended: %d", len(f.times()), len(ended))
			}
			return &store.Pumped{Claims: []store.Claim{{Host: "a"}}}, nil
		})
		if err != nil || len(f.started) != 1 {
			t.Errorf("%v, %v", f.started, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A tick that follows outcomes while the database does not answer holds up the end of the loop no longer than one of its own.
func TestStopGivesUpOnAHungFollowingTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		ctx, stop := context.WithCancel(t.Context())
		p := New(Options{Store: f, Starter: f})
		ended := make(chan time.Time, 1)
		go func() {
			_ = p.Run(ctx)
			ended <- time.Now()
		}()
		synctest.Wait()
		err := p.Follow(func(turn store.Turn) (*store.Pumped, error) {
			if _, given := turn(); !given {
				t.Error("no tick follows")
			}
			p.Wake()
			synctest.Wait() // the loop waits, too
			stopped := time.Now()
			stop()
			if d := (<-ended).Sub(stopped); d != grace {
				t.Errorf("the loop has ended after %v", d)
			}
			return nil, store.ErrUndone
		})
		if !errors.Is(err, store.ErrUndone) {
			t.Error(err)
		}
		if _, given := follow(t, p, &store.Pumped{}, nil); given {
			t.Error("a tick follows after the last of the loop")
		}
	})
}
