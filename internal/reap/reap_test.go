package reap

import (
	"bytes"
	"context"
	"encoding/binary"
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
	"github.com/prometheus/client_golang/prometheus"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// fake is a store, a settler and a starter.
type fake struct {
	mu      sync.Mutex
	began   time.Time
	calls   map[string][]time.Duration
	order   []string
	fail    map[string]error
	hang    map[string]bool
	due     []task.ID
	active  int  // tasks before those that are due, of which Due finds that they are not
	stuck   bool // what is due does not end
	settled []int
	expired []task.Outcome
	orphans []store.Claim
	started []store.Claim
	drift   int
	dead    []task.ID
	others  bool // the pump and the outbox have work

	pumped, sent int // how often they were woken
}

func newFake() *fake {
	return &fake{began: time.Now(), calls: map[string][]time.Duration{}, fail: map[string]error{}, hang: map[string]bool{}}
}

func (f *fake) call(ctx context.Context, name string) error {
	f.mu.Lock()
	f.calls[name] = append(f.calls[name], time.Since(f.began))
	f.order = append(f.order, name)
	err, hang := f.fail[name], f.hang[name]
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// Work finds what there is; with failing or hanging duties, always some for them.
func (f *fake) Work(ctx context.Context, owner task.ID) (store.Work, error) {
	if owner != (task.ID{7}) {
		return store.Work{}, errors.New("wrong owner")
	}
	if err := f.call(ctx, "Work"); err != nil {
		return store.Work{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	some := func(name string, n int) bool { return n > 0 || f.fail[name] != nil || f.hang[name] }
	return store.Work{
		Pump: f.others, Outbox: f.others,
		Due: some("Due", f.active+len(f.due)), DeadEnds: some("DeadEnds", len(f.dead)), Dead: some("TakeOver", len(f.orphans)),
	}, nil
}

func (f *fake) Due(ctx context.Context, limit int) ([]task.ID, bool, error) {
	if err := f.call(ctx, "Due"); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	active := min(f.active, limit)
	f.active -= active
	n := min(limit-active, len(f.due))
	return slices.Clone(f.due[:n]), active+n == limit, nil
}

func (f *fake) DeadEnds(ctx context.Context, limit int) ([]task.ID, bool, error) {
	if err := f.call(ctx, "DeadEnds"); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dead[:min(limit, len(f.dead))]), len(f.dead) > limit, nil
}

func (f *fake) Settle(ctx context.Context, outcomes ...task.Outcome) ([]store.Result, error) {
	if err := f.call(ctx, "Settle"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = append(f.settled, len(outcomes))
	f.expired = append(f.expired, outcomes...)
	results := make([]store.Result, len(outcomes))
	if len(outcomes) > 0 && outcomes[0].Kind == task.DeadEnd {
		f.dead = f.dead[len(outcomes):]
		return results, nil
	}
	if !f.stuck {
		f.due = f.due[len(outcomes):]
		for i := range results {
			results[i].State.Status = task.Failure
		}
	}
	return results, nil
}

func (f *fake) TakeOver(ctx context.Context, _ task.ID) ([]store.Claim, error) {
	if err := f.call(ctx, "TakeOver"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	orphans := f.orphans
	f.orphans = nil
	return orphans, nil
}

func (f *fake) Start(claims []store.Claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = append(f.started, claims...)
}

func (f *fake) Heartbeat(ctx context.Context, owner task.ID, lease time.Duration) error {
	if owner != (task.ID{7}) || lease != 30*time.Second {
		return errors.New("wrong heartbeat")
	}
	return f.call(ctx, "Heartbeat")
}

func (f *fake) Leave(ctx context.Context, owner task.ID) error {
	if owner != (task.ID{7}) {
		return errors.New("wrong owner")
	}
	return f.call(ctx, "Leave")
}

func (f *fake) Drift(ctx context.Context) (int, error) { return f.drift, f.call(ctx, "Drift") }
func (f *fake) Maintain(ctx context.Context) error     { return f.call(ctx, "Maintain") }

func (f *fake) Expire(ctx context.Context, _ time.Duration, _ int) (store.Removed, error) {
	return store.Removed{}, f.call(ctx, "Expire")
}

func (f *fake) Purge(ctx context.Context, _ int) (store.Removed, error) {
	return store.Removed{}, f.call(ctx, "Purge")
}

func (f *fake) expect(t *testing.T, name string, want ...time.Duration) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(want, f.calls[name]); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

type fixture struct {
	*Reaper
	reg *prometheus.Registry
	log bytes.Buffer
}

// run runs f's reaper until the test ends. Call it in a bubble.
func run(t *testing.T, f *fake) *fixture {
	t.Helper()
	x := &fixture{reg: prometheus.NewRegistry()}
	x.Reaper = New(Options{Store: f, Settler: f, Starter: f, Owner: task.ID{7}, Registry: x.reg,
		OnPump: func() { f.pumped++ }, OnOutbox: func() { f.sent++ },
		Log: slog.New(slog.NewTextHandler(&x.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return x
}

func TestDuties(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.orphans = []store.Claim{{Host: "a"}, {Host: "b"}}
		run(t, f)
		synctest.Wait()
		if len(f.started) != 2 {
			t.Errorf("started %v", f.started)
		}
		time.Sleep(20 * time.Second)
		f.expect(t, "Heartbeat", 0, 10*time.Second, 20*time.Second)
		f.expect(t, "TakeOver", 0)
		f.expect(t, "Due")
	})
}

// Whoever may have missed a hint is told by the look; nobody else looks.
func TestIdleHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		run(t, f)
		time.Sleep(time.Hour - time.Millisecond)
		synctest.Wait()
		f.mu.Lock()
		got := map[string]int{}
		for name, calls := range f.calls {
			got[name] = len(calls)
		}
		f.mu.Unlock()
		if diff := cmp.Diff(map[string]int{"Work": 3600, "Maintain": 3600, "Heartbeat": 360, "Drift": 60}, got); diff != "" {
			t.Error(diff)
		}
		if f.pumped+f.sent > 0 {
			t.Errorf("the pump was woken %d times, the outbox %d times", f.pumped, f.sent)
		}
	})
}

func TestLookWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		run(t, f)
		time.Sleep(1500 * time.Millisecond)
		f.mu.Lock()
		f.others, f.due, f.dead, f.orphans = true, make([]task.ID, 1), make([]task.ID, 1), make([]store.Claim, 1)
		f.mu.Unlock()
		time.Sleep(time.Second)
		for _, name := range []string{"Due", "DeadEnds", "TakeOver"} {
			f.mu.Lock()
			calls := f.calls[name]
			f.mu.Unlock()
			if len(calls) == 0 || calls[0] != 2*time.Second {
				t.Errorf("%s at %v", name, calls)
			}
		}
		if f.pumped != 1 || f.sent != 1 {
			t.Errorf("the pump was woken %d times, the outbox %d times", f.pumped, f.sent)
		}
	})
}

func TestExpireInChunks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		for i := range uint32(2500) {
			var id task.ID
			binary.BigEndian.PutUint32(id[:], i)
			f.due = append(f.due, id)
		}
		want := slices.Clone(f.due)
		run(t, f)
		synctest.Wait()
		if diff := cmp.Diff([]int{1000, 1000, 500}, f.settled); diff != "" {
			t.Error(diff)
		}
		for i, o := range f.expired {
			if o.Kind != task.Expire || o.ID != want[i] {
				t.Fatalf("outcome %d: %+v", i, o)
			}
		}
		f.expect(t, "Due", 0, 0, 0)
	})
}

func TestDeadEndsInChunks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.dead = make([]task.ID, 2*chunk+1)
		for i := range f.dead {
			f.dead[i] = task.ID{1: byte(i >> 8), 2: byte(i), 3: 1}
		}
		want := slices.Clone(f.dead)
		run(t, f)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		var got []task.ID
		for _, o := range f.expired {
			if o.Kind != task.DeadEnd {
				t.Errorf("outcome of kind %d", o.Kind)
			}
			got = append(got, o.ID)
		}
		if diff := cmp.Diff([]int{chunk, chunk, 1}, f.settled); diff != "" {
			t.Errorf("chunks: %s", diff)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// However many tasks there are whose time-out has moved on, one that is quiet behind them is found by the same look.
func TestExpireBehindActive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.active, f.due = 10*chunk+1, make([]task.ID, 1)
		run(t, f)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.expired) != 1 {
			t.Errorf("%d outcomes after %d looks", len(f.expired), len(f.calls["Work"]))
		}
	})
}

// Tasks that are due but do not end are looked at again in the next interval, not at once.
func TestExpireDoesNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.due, f.stuck = make([]task.ID, 2*chunk), true
		run(t, f)
		time.Sleep(time.Second)
		f.expect(t, "Settle", 0, time.Second)
	})
}

func TestDriftGauge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.drift = 3
		x := run(t, f)
		synctest.Wait()
		families, err := x.reg.Gather()
		if err != nil || len(families) != 1 || families[0].GetName() != "gate_drift" || families[0].GetMetric()[0].GetGauge().GetValue() != 3 {
			t.Errorf("%v %v", families, err)
		}
		time.Sleep(time.Minute)
		f.expect(t, "Drift", 0, time.Minute)
		if !strings.Contains(x.log.String(), "gates=3") {
			t.Errorf("log %s", x.log.String())
		}
	})
}

func TestFailingDuties(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		away := errors.New("database is away")
		for _, name := range []string{"Heartbeat", "Due", "Maintain", "Drift"} {
			f.fail[name] = away
		}
		x := run(t, f)
		time.Sleep(5 * time.Second)
		f.expect(t, "Heartbeat", 0, time.Second, 2*time.Second, 3*time.Second, 4*time.Second, 5*time.Second)
		f.mu.Lock()
		clear(f.fail)
		f.due = make([]task.ID, 1) // as before
		f.mu.Unlock()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if text := x.log.String(); strings.Count(text, "database is away") != 4 || strings.Count(text, "works again") != 4 {
			t.Error(text)
		}
	})
}

// Housekeeping that hangs costs nobody the lease, nor does a heartbeat that hangs cost the next.
func TestHangingDuties(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		for _, name := range []string{"Maintain", "Drift", "Due", "DeadEnds", "TakeOver"} {
			f.hang[name] = true
		}
		run(t, f)
		time.Sleep(10 * time.Second)
		f.expect(t, "Heartbeat", 0, 10*time.Second)
		f.mu.Lock()
		f.hang["Heartbeat"] = true
		f.mu.Unlock()
		time.Sleep(21 * time.Second) // the one at 20 s hangs until 30 s
		f.expect(t, "Heartbeat", 0, 10*time.Second, 20*time.Second, 31*time.Second)
		f.mu.Lock()
		f.hang["Heartbeat"], f.hang["Work"] = false, true
		looks := len(f.calls["Work"])
		f.mu.Unlock()
		time.Sleep(22 * time.Second) // the one at 31 s hangs until 41 s
		f.mu.Lock()
		if n := len(f.calls["Work"]) - looks; n < 2 || n > 3 {
			t.Errorf("%d looks in 22 s, each of which hangs", n)
		}
		f.mu.Unlock()
		f.expect(t, "Heartbeat", 0, 10*time.Second, 20*time.Second, 31*time.Second, 42*time.Second, 52*time.Second)
	})
}

// However long the lease is.
func TestHangingLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hang["Work"] = true
		r := New(Options{Store: f, Settler: f, Starter: f, Owner: task.ID{7}, Lease: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(30 * time.Second)
		f.expect(t, "Work", 0, 11*time.Second, 22*time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A process that stops sends nothing, so it takes nothing over, but does all else until the end.
func TestDrainingTakesNothingOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		r := run(t, f)
		synctest.Wait()
		r.Drain()
		f.mu.Lock()
		f.orphans, f.due = make([]store.Claim, 1), make([]task.ID, 1)
		f.mu.Unlock()
		time.Sleep(time.Minute)
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := len(f.calls["TakeOver"]); n != 0 || len(f.calls["Due"]) == 0 {
			t.Errorf("%d take-overs, %d looks at time-outs", n, len(f.calls["Due"]))
		}
	})
}

func TestRegisterAndStop(t *testing.T) {
	t.Parallel()
	f := newFake()
	r := New(Options{Store: f, Owner: task.ID{7}})
	if err := r.Register(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"Heartbeat", "Leave"}, f.order); diff != "" {
		t.Error(diff)
	}
	r = New(Options{Store: f, Owner: uuid.Nil})
	if r.Register(t.Context()) == nil || r.Stop(t.Context()) == nil {
		t.Error("errors are lost")
	}
}
