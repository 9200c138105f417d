package create_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/create"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// recorder answers what is created, and remembers which came together, in numbers of tasks.
type recorder struct {
	mu     sync.Mutex
	groups [][]int
	takes  time.Duration
	answer func(creates []store.Create) ([]store.Created, error)
}

func (r *recorder) Create(_ context.Context, creates []store.Create) ([]store.Created, error) {
	var group []int
	for _, c := range creates {
		group = append(group, len(c.Batch.Tasks))
	}
	r.mu.Lock()
	r.groups = append(r.groups, group)
	r.mu.Unlock()
	time.Sleep(r.takes)
	if r.answer != nil {
		return r.answer(creates)
	}
	created := make([]store.Created, len(creates))
	for i, c := range creates {
		created[i] = store.Created{Batch: c.Batch.ID, Kept: c.Batch.Tasks}
	}
	return created, nil
}

// service is a creator that runs until the test's bubble ends it, and whom it woke.
type service struct {
	*create.Creator
	pump, outbox atomic.Int64
}

func start(t *testing.T, r *recorder) *service {
	t.Helper()
	s := &service{}
	s.Creator = create.New(create.Options{
		Store: r, WakePump: func() { s.pump.Add(1) }, WakeOutbox: func() { s.outbox.Add(1) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func batchOf(n int, change ...func(*task.Task)) *task.Batch {
	b := &task.Batch{ID: store.NewID()}
	for range n {
		k := &task.Task{ID: store.NewID(), BatchID: b.ID}
		for _, c := range change {
			c(k)
		}
		b.Tasks = append(b.Tasks, k)
	}
	return b
}

func TestSmallCreatesShareATransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Millisecond}
		s := start(t, r)
		large := func(k *task.Task) { k.Metadata = make([]byte, 64<<10) }
		verbose := func(k *task.Task) {
			long := strings.Repeat("x", 1<<10)
			k.Rules = []task.Rule{{Matcher: task.Matcher{Fields: []string{long}}}}
			k.OnFailure = []task.Action{{URL: long, Headers: map[string]string{long: long}}}
		}
		dedupes := func(k *task.Task) { k.Dedupe = []task.Matcher{{Kind: "work"}} }
		told := batchOf(8)
		told.OnComplete = []task.Action{{Body: make([]byte, 64<<10)}}
		begun := time.Now()
		var callers sync.WaitGroup
		for _, b := range []*task.Batch{
			batchOf(7), // the others gather meanwhile
			batchOf(1), batchOf(2), batchOf(3), batchOf(1000), batchOf(4, large), batchOf(5, dedupes), batchOf(6), batchOf(15, verbose), told,
		} {
			callers.Go(func() {
				created, err := s.Create(t.Context(), b, nil)
				if err != nil || created.Batch != b.ID || !slices.Equal(created.Kept, b.Tasks) {
					t.Errorf("Create: %+v, %v", created, err)
				}
			})
			synctest.Wait()
		}
		callers.Wait()
		if took := time.Since(begun); took != 2*time.Millisecond {
			t.Errorf("took %s, want two commits of 1ms", took)
		}
		if want := [][]int{{7}, {1000}, {4}, {5}, {15}, {8}, {1, 2, 3, 6}}; !slices.EqualFunc(r.groups, want, slices.Equal) {
			t.Errorf("shared transactions: %v, want %v", r.groups, want)
		}
		if pump, outbox := s.pump.Load(), s.outbox.Load(); pump != int64(len(r.groups)) || outbox != 0 {
			t.Errorf("woke the pump %d and the outbox %d times after %d commits", pump, outbox, len(r.groups))
		}
	})
}

// Who has the key of a large create waits for that one, and nobody else does.
func TestKeyOfALargeCreate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Second}
		s := start(t, r)
		var callers sync.WaitGroup
		create := func(n int, key *store.Idempotency) {
			callers.Go(func() {
				if _, err := s.Create(t.Context(), batchOf(n), key); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		key := &store.Idempotency{Key: "k"}
		create(1000, key)
		create(1, key)
		create(2, &store.Idempotency{Key: "other"})
		if want := [][]int{{1000}, {1}, {2}}; !slices.EqualFunc(r.groups, want, slices.Equal) {
			t.Errorf("transactions at once: %v, want %v", r.groups, want)
		}
		callers.Wait()
		create(3, key)
		create(4, key)
		create(5, nil)
		callers.Wait()
		if want := [][]int{{1000}, {1}, {2}, {3}, {4, 5}}; !slices.EqualFunc(r.groups, want, slices.Equal) {
			t.Errorf("transactions: %v, want %v: the key is free again", r.groups, want)
		}
	})
}

func TestAnswersAreTheirOwn(t *testing.T) {
	t.Parallel()
	bad, away := errors.New("bad"), store.ErrUnavailable
	for _, test := range []struct {
		name     string
		of       error
		survives bool
	}{{"one's fault", bad, true}, {"the database's", away, false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{takes: time.Millisecond, answer: func(creates []store.Create) ([]store.Created, error) {
					created := make([]store.Created, len(creates))
					for i, c := range creates {
						switch len(c.Batch.Tasks) {
						case 3:
							return nil, test.of
						case 4:
							created[i].Err = store.ErrKeyReused
						case 5:
							created[i] = store.Created{Kept: make([]*task.Task, 5), Outbox: true}
						}
					}
					return created, nil
				}}
				s := start(t, r)
				var callers sync.WaitGroup
				for _, n := range []int{1, 2, 3, 4, 5} { // 1 keeps the creator busy while the others gather
					callers.Go(func() {
						_, err := s.Create(t.Context(), batchOf(n), &store.Idempotency{Key: "k"})
						want := map[int]error{3: test.of, 4: store.ErrKeyReused}[n]
						if !test.survives && n > 1 {
							want = test.of
						}
						if !errors.Is(err, want) {
							t.Errorf("the create of %d tasks: %v, want %v", n, err, want)
						}
					})
					synctest.Wait()
				}
				callers.Wait()
				var woken int64
				if test.survives {
					woken = 1
				}
				if pump, outbox := s.pump.Load(), s.outbox.Load(); pump != woken || outbox != woken {
					t.Errorf("woke the pump %d and the outbox %d times, want %d", pump, outbox, woken)
				}
			})
		})
	}
}

// What a client that has gone away left is created, and somebody has to start it.
func TestClientMayLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, &recorder{takes: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Create(ctx, batchOf(1), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Create: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if n := s.pump.Load(); n != 1 {
			t.Errorf("woke the pump %d times, want once", n)
		}
	})
}

func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, &recorder{takes: time.Minute})
		var first sync.WaitGroup
		first.Go(func() {
			if _, err := s.Create(t.Context(), batchOf(1), nil); err != nil {
				t.Errorf("a create that was begun in time: %v", err)
			}
		})
		synctest.Wait()
		if _, err := s.Create(t.Context(), batchOf(1), nil); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a create that could not begin: %v, want ErrUnavailable", err)
		}
		first.Wait()
	})
}
