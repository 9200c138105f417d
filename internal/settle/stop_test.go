package settle_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"taskrunner/internal/settle"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// batchStore has a batch of which some tasks have ended, and takes each cancel in its own way.
type batchStore struct {
	fakeStore
	toStop store.ToStop
	toEdit store.ToEdit
	err    error // of the third transaction
	seen   []task.Outcome
	sizes  []int
}

func (b *batchStore) ToStop(context.Context, task.ID) (*store.ToStop, error) {
	if b.toStop.Tasks == 0 {
		return nil, store.ErrNotFound
	}
	return &b.toStop, nil
}

func (b *batchStore) ToEdit(_ context.Context, _ task.ID, kind string, rules []task.Rule) (store.ToEdit, error) {
	if kind != "k" || len(rules) != len(newRules) {
		return store.ToEdit{}, store.ErrNotFound
	}
	return b.toEdit, nil
}

// Settle cancels one task as Running, the next as Waiting, and finds the third to have ended.
func (b *batchStore) Settle(_ context.Context, outcomes []task.Outcome) (store.Settled, error) {
	if b.err != nil && len(b.sizes) == 2 {
		return store.Settled{}, b.err
	}
	b.sizes = append(b.sizes, len(outcomes))
	s := store.Settled{Results: make([]store.Result, len(outcomes))}
	for i := range outcomes {
		s.Results[i].From = []task.Status{task.Running, task.Waiting, task.Success}[len(b.seen)%3]
		if len(b.seen)%3 == 2 {
			s.Results[i].Err = &task.Refusal{Code: task.Conflict}
		}
		b.seen = append(b.seen, outcomes[i])
	}
	return s, nil
}

func stop(t *testing.T, b *batchStore) (stopped store.Stopped, err error) {
	t.Helper()
	with(t, b, func(s *settle.Settler) { stopped, err = s.StopBatch(t.Context(), task.ID{1}) })
	return stopped, err
}

// with runs a settler on b for as long as do takes.
func with(t *testing.T, b *batchStore, do func(s *settle.Settler)) {
	t.Helper()
	s := settle.New(settle.Options{Store: b, WakePump: func() {}, WakeOutbox: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	do(s)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStopBatch(t *testing.T) {
	t.Parallel()
	b := &batchStore{toStop: store.ToStop{Tasks: 2010, IDs: make([]task.ID, 1800)}}
	for i := range b.toStop.IDs {
		b.toStop.IDs[i] = task.ID{byte(i >> 8), byte(i)}
	}
	stopped, err := stop(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[task.Status]int{task.Running: 600, task.Waiting: 600}; !maps.Equal(stopped.Canceled, want) || stopped.Ended != 810 {
		t.Errorf("%+v, want %v and 810 that had ended", stopped, want)
	}
	for i, o := range b.seen {
		if o.ID != b.toStop.IDs[i] || o.Kind != task.Cancel || o.FailureReason != "Batch stopped" {
			t.Fatalf("outcome %d: %+v", i, o)
		}
	}
	if len(b.seen) != 1800 || slices.Max(b.sizes) > 500 {
		t.Errorf("%d outcomes in transactions of %v, want 1800 in small ones", len(b.seen), b.sizes)
	}
}

func TestStopBatchFails(t *testing.T) {
	t.Parallel()
	if _, err := stop(t, &batchStore{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such batch: %v", err)
	}
	away := errors.New("away")
	b := &batchStore{toStop: store.ToStop{Tasks: 1800, IDs: make([]task.ID, 1800)}, err: away}
	if _, err := stop(t, b); !errors.Is(err, away) || len(b.sizes) != 2 {
		t.Errorf("half done: %v after %d transactions", err, len(b.sizes))
	}
}
