package settle_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/settle"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// fakeStore answers each outcome with the number of its priority, and tells what work there is.
type fakeStore struct {
	settled store.Settled
	err     error
	undone  bool // whatever a tick follows
}

func (f *fakeStore) Settle(_ context.Context, outcomes []task.Outcome) (store.Settled, error) {
	s := f.settled
	s.Results = make([]store.Result, len(outcomes))
	for i := range outcomes {
		s.Results[i].State.Success = outcomes[i].NewSuccess
	}
	return s, f.err
}

// SettleAndPump has a tick where there is work for the pump and a turn.
func (f *fakeStore) SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (store.Settled, *store.Pumped, error) {
	s, err := f.Settle(ctx, outcomes)
	if f.undone {
		return store.Settled{}, nil, store.ErrUndone
	}
	if err == nil && s.Pump {
		if p, ok := turn(); ok {
			return s, &store.Pumped{Claims: []store.Claim{{ID: p.Owner}}}, nil
		}
	}
	return s, nil, err
}

func (f *fakeStore) ToEdit(context.Context, task.ID, string, []task.Rule) (store.ToEdit, error) {
	return store.ToEdit{}, f.err
}

func (f *fakeStore) ToStop(context.Context, task.ID) (*store.ToStop, error) { return nil, f.err }

func TestSettle(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	tests := []struct {
		name         string
		store        fakeStore
		pump, outbox int
		err          error
	}{
		{"no work", fakeStore{}, 0, 0, nil},
		{"work for the pump", fakeStore{settled: store.Settled{Pump: true}}, 1, 0, nil},
		{"work for the outbox", fakeStore{settled: store.Settled{Outbox: true}}, 0, 1, nil},
		{"not committed", fakeStore{settled: store.Settled{Pump: true, Outbox: true}, err: away}, 0, 0, away},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var pump, outbox int // touched by the one goroutine that commits, and read when it has ended
			s := settle.New(settle.Options{Store: &test.store, WakePump: func() { pump++ }, WakeOutbox: func() { outbox++ }})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			results, err := s.Settle(t.Context(), task.Outcome{NewSuccess: 1}, task.Outcome{NewSuccess: 2})
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if err == nil && (len(results) != 2 || results[0].State.Success != 1 || results[1].State.Success != 2) {
				t.Errorf("results %+v are not in their places", results)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if pump != test.pump || outbox != test.outbox {
				t.Errorf("woke the pump %d and the outbox %d times, want %d and %d", pump, outbox, test.pump, test.outbox)
			}
		})
	}
}

// A tick follows few outcomes, and then the pump need not be woken.
func TestFollow(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for _, test := range []struct {
		name            string
		outcomes        int
		work, turn      bool
		undone          bool
		err             error
		followed, woken int
	}{
		{"as many as may be", 64, true, true, false, nil, 1, 0},
		{"too many", 65, true, true, false, nil, 0, 1},
		{"no turn", 1, true, false, false, nil, 0, 1},
		{"no work", 1, false, true, false, nil, 0, 0},
		{"undone", 1, true, true, true, nil, 0, 1},
		{"not committed", 1, true, true, false, away, 0, 0},
		{"undone, and not committed without a tick either", 1, true, true, true, away, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var followed, woken int
			s := settle.New(settle.Options{
				Store: &fakeStore{settled: store.Settled{Pump: test.work}, err: test.err, undone: test.undone}, WakePump: func() { woken++ }, WakeOutbox: func() {},
				Follow: func(do func(store.Turn) (*store.Pumped, error)) error {
					pumped, err := do(func() (store.PumpParams, bool) { return store.PumpParams{Owner: task.ID{7}}, test.turn })
					if pumped != nil {
						followed++
						if len(pumped.Claims) != 1 || pumped.Claims[0].ID != (task.ID{7}) {
							t.Errorf("the tick is %+v", pumped)
						}
					}
					return err
				},
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			results, err := s.Settle(t.Context(), make([]task.Outcome, test.outcomes)...)
			if !errors.Is(err, test.err) || err == nil && len(results) != test.outcomes {
				t.Errorf("%d results, error %v", len(results), err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if followed != test.followed || woken != test.woken {
				t.Errorf("%d ticks followed and %d were asked for, want %d and %d", followed, woken, test.followed, test.woken)
			}
		})
	}
}

// countingStore notes how many outcomes each transaction has. The first one takes until it is released.
type countingStore struct {
	fakeStore
	begun    chan int
	released chan struct{}
}

func (c *countingStore) Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error) {
	c.begun <- len(outcomes)
	<-c.released
	return c.fakeStore.Settle(ctx, outcomes)
}

// Arrays that come while another is committed share the next transaction, as single outcomes do.
func TestArraysShareATransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &countingStore{begun: make(chan int, 5), released: make(chan struct{})}
		s := settle.New(settle.Options{Store: c, WakePump: func() {}, WakeOutbox: func() {}})
		ctx, cancel := context.WithCancel(t.Context())
		var running, calls sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		for range 5 {
			calls.Go(func() {
				if results, err := s.Settle(t.Context(), make([]task.Outcome, 1000)...); err != nil || len(results) != 1000 {
					t.Errorf("%d results, error %v", len(results), err)
				}
			})
			synctest.Wait() // the first is being committed, the others wait
		}
		close(c.released)
		calls.Wait()
		cancel()
		running.Wait()
		if first, then := <-c.begun, <-c.begun; first != 1000 || then != 4000 {
			t.Errorf("transactions of %d and %d outcomes, want 1000 and 4000", first, then)
		}
	})
}

// An answer to on_start leaves time for the worker's report, and nothing else waits.
func TestOnlyAnswersLinger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := settle.New(settle.Options{Store: &fakeStore{}, WakePump: func() {}, WakeOutbox: func() {}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		started := task.Outcome{Kind: task.Started}
		for name, outcomes := range map[string][]task.Outcome{
			"an answer": {started}, "one with a cancel action": {{Kind: task.Started, OnCancel: []task.Action{{}}}},
			"a failed start": {{Kind: task.StartFailed}}, "a report": {{Kind: task.Update}}, "an answer and a count": {started, {Kind: task.Count}},
		} {
			begun := time.Now()
			if _, err := s.Settle(t.Context(), outcomes...); err != nil || (time.Since(begun) > 0) != (name == "an answer") {
				t.Errorf("%s is settled after %s, %v", name, time.Since(begun), err)
			}
		}
		cancel()
		running.Wait()
	})
}

// endingStore ends what it is told to end, and writes down the kinds of the outcomes it gets.
type endingStore struct {
	fakeStore
	got []task.OutcomeKind
}

func (f *endingStore) Settle(_ context.Context, outcomes []task.Outcome) (store.Settled, error) {
	var s store.Settled
	for _, o := range outcomes {
		f.got = append(f.got, o.Kind)
		r := store.Result{From: task.Claimed, State: task.State{ID: o.ID, Status: task.Running}}
		if o.Status.Terminal() {
			r.State.Status = o.Status
		}
		s.Results = append(s.Results, r)
	}
	return s, nil
}

// The answer to an on_start whose task the transaction before has ended needs none of its own.
func TestLateStart(t *testing.T) {
	t.Parallel()
	f := &endingStore{}
	s := settle.New(settle.Options{Store: f, WakePump: func() {}, WakeOutbox: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	a, b := task.ID{1}, task.ID{2}
	started := func(id task.ID) task.Outcome { return task.Outcome{ID: id, Kind: task.Started} }
	withCancel := started(a)
	withCancel.OnCancel = []task.Action{{}}
	for i, step := range []struct {
		outcomes []task.Outcome
		asked    []task.OutcomeKind
		statuses []task.Status
	}{
		{
			[]task.Outcome{{ID: a, Kind: task.Update, Status: task.Success}},
			[]task.OutcomeKind{task.Update}, []task.Status{task.Success},
		},
		{[]task.Outcome{started(a)}, nil, []task.Status{task.Success}},
		{
			[]task.Outcome{started(a), started(b), started(a), {ID: a, Kind: task.Count}},
			[]task.OutcomeKind{task.Started, task.Count}, []task.Status{task.Success, task.Running, task.Success, task.Running},
		},
		{[]task.Outcome{started(a)}, []task.OutcomeKind{task.Started}, []task.Status{task.Running}}, // that was long ago
		{
			[]task.Outcome{{ID: a, Kind: task.Update, Status: task.Success}},
			[]task.OutcomeKind{task.Update}, []task.Status{task.Success},
		},
		{[]task.Outcome{withCancel}, []task.OutcomeKind{task.Started}, []task.Status{task.Running}}, // it may have been canceled
	} {
		f.got = nil
		results, err := s.Settle(t.Context(), step.outcomes...)
		if err != nil || len(results) != len(step.outcomes) {
			t.Fatalf("step %d: %d results, error %v", i, len(results), err)
		}
		if !slices.Equal(f.got, step.asked) {
			t.Errorf("step %d: the store was asked for %v, want %v", i, f.got, step.asked)
		}
		for j, r := range results {
			if r.Err != nil || r.State.Status != step.statuses[j] || r.State.ID != step.outcomes[j].ID {
				t.Errorf("step %d: result %d is %+v, want status %v", i, j, r, step.statuses[j])
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
