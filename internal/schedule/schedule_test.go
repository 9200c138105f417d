package schedule

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// fake is a store and a starter. It answers ticks from a list, and then with nothing to do.
type fake struct {
	mu       sync.Mutex
	ticks    []store.Pumped
	errs     []error                // of the ticks, in their order
	took     time.Duration          // by each tick
	during   func(store.PumpParams) // each tick
	params   []store.PumpParams
	at       []time.Duration // of the ticks, since began
	notified []time.Duration
	started  []store.Claim
	room     task.Room
	began    time.Time
}

func newFake(ticks ...store.Pumped) *fake {
	return &fake{ticks: ticks, began: time.Now(), room: task.Room{Total: 10, PerHost: 5}}
}

func (f *fake) Pump(_ context.Context, p store.PumpParams) (store.Pumped, error) {
	if f.took > 0 {
		time.Sleep(f.took)
	}
	if f.during != nil {
		f.during(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.params)
	f.params = append(f.params, p)
	f.at = append(f.at, time.Since(f.began))
	if n < len(f.errs) && f.errs[n] != nil {
		return store.Pumped{}, f.errs[n]
	}
	if n < len(f.ticks) {
		return f.ticks[n], nil
	}
	return store.Pumped{}, nil
}

func (f *fake) Notify(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notified = append(f.notified, time.Since(f.began))
	return nil
}

func (f *fake) Room() task.Room {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.room
}

func (f *fake) Start(claims []store.Claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = append(f.started, claims...)
}

func (f *fake) times() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.at)
}

// pump runs f's pump until the test ends. Call it in a bubble.
func pump(t *testing.T, f *fake, change func(*Options)) *Pump {
	t.Helper()
	o := Options{Store: f, Starter: f, Owner: uuid.UUID{1}}
	if change != nil {
		change(&o)
	}
	p := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// ms are times in milliseconds.
func ms(n ...int) []time.Duration {
	times := []time.Duration{}
	for _, n := range n {
		times = append(times, time.Duration(n)*time.Millisecond)
	}
	return times
}

func (f *fake) expect(t *testing.T, want []time.Duration) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, f.times()); diff != "" {
		t.Errorf("ticks: %s", diff)
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		p := pump(t, f, nil)
		f.expect(t, ms(0)) // at once: there may be work from before
		p.Wake()
		p.Wake()
		f.expect(t, ms(0, 0))
		time.Sleep(time.Hour)
		f.expect(t, ms(0, 0)) // none without a hint
		p.Wake()
		f.expect(t, ms(0, 0, 3_600_000))
		if diff := cmp.Diff(store.PumpParams{Owner: uuid.UUID{1}, Room: f.room, Links: store.DefaultLinks}, f.params[0]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHintDuringATickCausesAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.took = 10 * time.Millisecond
		p := pump(t, f, nil)
		synctest.Wait() // the first tick is at work
		p.Wake()
		time.Sleep(100 * time.Millisecond)
		f.expect(t, ms(10, 20))
	})
}

func TestMoreGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		claims := []store.Claim{{ID: uuid.UUID{1}, Host: "a"}, {ID: uuid.UUID{2}, Host: "b"}}
		f := newFake(store.Pumped{More: true, Claims: claims[:1]}, store.Pumped{More: true, Claims: claims[1:], Outbox: true})
		outbox := 0
		pump(t, f, func(o *Options) { o.OnOutbox = func() { outbox++ } })
		f.expect(t, ms(0, 0, 0))
		if diff := cmp.Diff(claims, f.started); diff != "" || outbox != 1 {
			t.Errorf("outbox %d, started %s", outbox, diff)
		}
	})
}

func TestBusyTriesAgainWhileTheHintStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := store.Pumped{Busy: true}
		f := newFake(busy, busy, busy, busy, busy, busy, busy, store.Pumped{}, busy, store.Pumped{})
		p := pump(t, f, nil)
		time.Sleep(time.Second)
		f.expect(t, ms(0, 2, 6, 14, 30, 62, 112, 162))
		p.Wake()
		time.Sleep(time.Second)
		f.expect(t, ms(0, 2, 6, 14, 30, 62, 112, 162, 1000, 1002))
	})
}

func TestBlockedLooksFurther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		blocked := store.Pumped{Blocked: true, More: true}
		f := newFake(blocked, blocked, blocked, blocked, blocked, store.Pumped{More: true}, blocked)
		pump(t, f, nil)
		synctest.Wait()
		var got []int
		for _, p := range f.params {
			got = append(got, p.Fetch)
		}
		if diff := cmp.Diff([]int{0, 256, 512, 1024, 2000, 2000, 0}, got[:7]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestStarvedNotifiesOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		starved := store.Pumped{Starved: true}
		f := newFake(starved, starved, starved, starved, starved)
		p := pump(t, f, nil)
		for range 4 {
			time.Sleep(20 * time.Millisecond)
			p.Wake()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		// At once for the tick at 0; those of 20 and 40 are owed together at 50, those of 60 and 80 at 100.
		if diff := cmp.Diff(ms(0, 50, 100), f.notified); diff != "" {
			t.Error(diff)
		}
	})
}

func TestStarvedWakesWhenRoomIsFreed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		before, after task.Room
		claims        []store.Claim
		again         bool
	}{
		{"nothing freed", task.Room{Total: 2, PerHost: 5}, task.Room{Total: 0, PerHost: 5}, []store.Claim{{Host: "a"}, {Host: "b"}}, false},
		{"freed during the tick", task.Room{Total: 2, PerHost: 5}, task.Room{Total: 1, PerHost: 5}, []store.Claim{{Host: "a"}, {Host: "b"}}, true},
		{"another host freed", task.Room{Total: 9, PerHost: 5, Busy: map[string]int{"a": 4, "b": 3}},
			task.Room{Total: 9, PerHost: 5, Busy: map[string]int{"a": 5, "b": 2}}, []store.Claim{{Host: "a"}}, false},
		{"the host freed during the tick", task.Room{Total: 9, PerHost: 5, Busy: map[string]int{"a": 4}},
			task.Room{Total: 9, PerHost: 5, Busy: map[string]int{"a": 4}}, []store.Claim{{Host: "a"}}, true},
		{"no map", task.Room{Total: 9, PerHost: 1}, task.Room{Total: 9, PerHost: 1}, []store.Claim{{Host: "a"}}, true},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(store.Pumped{Starved: true, Claims: c.claims})
				f.room = c.before
				f.during = func(store.PumpParams) { f.mu.Lock(); defer f.mu.Unlock(); f.room = c.after }
				pump(t, f, nil)
				want := ms(0)
				if c.again {
					want = ms(0, 0)
				}
				f.expect(t, want)
			})
		})
	}
}

func TestErrorsBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("database is away")
		f := newFake()
		f.errs = slices.Repeat([]error{away}, 10)
		var log bytes.Buffer
		p := pump(t, f, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		synctest.Wait()
		p.Wake() // does not make it sooner
		time.Sleep(5 * time.Second)
		f.expect(t, ms(0, 10, 30, 70, 150, 310, 630, 1270, 2270, 3270, 4270))
		if text := log.String(); strings.Count(text, "database is away") != 1 || strings.Count(text, "works again") != 1 {
			t.Error(text)
		}
	})
}

// A tick that is under way when the pump is stopped is not broken off, and its claims are started.
func TestStopFinishesTheTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(store.Pumped{More: true, Claims: []store.Claim{{Host: "a"}}})
		f.took = time.Second
		ctx, cancel := context.WithCancel(t.Context())
		p := New(Options{Store: f, Starter: f})
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || len(f.started) != 1 || len(f.at) != 1 {
			t.Errorf("%v, started %v after %d ticks", err, f.started, len(f.at))
		}
	})
}

// hung is a database that does not answer at all.
type hung struct{ fake }

func (*hung) Pump(ctx context.Context, _ store.PumpParams) (store.Pumped, error) {
	<-ctx.Done()
	return store.Pumped{}, ctx.Err()
}

func TestStopGivesUpOnAHungTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hung{}
		ctx, cancel := context.WithCancel(t.Context())
		p := New(Options{Store: h, Starter: h})
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := <-ended; err != nil || time.Since(began) != grace {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// What a tick folds is bounded by what it takes.
func TestLinksFollowWhatTheyTake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what         string
		link, others time.Duration
		want         []int // links of the ticks
	}{
		{"a cheap link", time.Microsecond, 0, []int{1000, 2000, 2000, 2000}},
		{"a link as usual", 15 * time.Microsecond, 2 * time.Millisecond, []int{1000, 1000, 1000}},
		{"a dear link", 30 * time.Microsecond, 2 * time.Millisecond, []int{1000, 500, 500}},
		{"a slow database", 15 * time.Microsecond, 100 * time.Millisecond, []int{1000, 500, 500}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.during = func(p store.PumpParams) { time.Sleep(c.others + time.Duration(p.Links)*c.link) }
			for _, links := range c.want {
				f.ticks = append(f.ticks, store.Pumped{More: true, Propagated: map[task.Status]int{task.Success: links}})
			}
			pump(t, f, nil)
			time.Sleep(time.Second)
			synctest.Wait()
			var got []int
			for _, p := range f.params[:len(c.want)] {
				got = append(got, p.Links)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: the ticks may fold %v, want %v", c.what, got, c.want)
			}
		})
	}
}

// While a process stops, what follows from reports is for others to do, who are told as soon as they may be, and once more in the end.
func TestPassOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		p := New(Options{Store: f, Starter: f, Owner: uuid.UUID{1}})
		stopped, stop := context.WithCancel(t.Context())
		stop()
		if err := p.Run(stopped); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.PassOn(ctx) }()
		synctest.Wait()
		for range 3 {
			p.Wake()
			time.Sleep(20 * time.Millisecond) // 0, 20, 40
		}
		time.Sleep(time.Second)
		p.Wake()
		time.Sleep(10 * time.Millisecond)
		p.Wake()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ms(0, 50, 1060, 1070), f.notified); diff != "" || len(f.params) > 0 {
			t.Errorf("notified (-want +got): %s; %d ticks", diff, len(f.params))
		}
	})
}
