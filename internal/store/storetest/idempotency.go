package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var idempotencyTests = []conformance{
	{"a repeat is answered with what is there now", testReplay},
	{"a repeat knows edits, deliveries and cancel actions", testReplayDetails},
	{"a key with another request is refused", testKeyReused},
	{"other keys, and none, create", testOtherKeys},
	{"a batch without tasks has its key, too", testReplayEmpty},
	{"a create that fails leaves no key", testFailureLeavesNoKey},
	{"a key is as good as none after a day", testKeyExpires},
	{"old keys are purged, and no others", testKeysArePurged},
	{"creates with one key at once make one batch", testOneKeyAtOnce},
	{"an old key is replaced once", testOldKeyAtOnce},
	{"a create that waits for one that fails goes on", testKeyOfFailuresAtOnce},
}

// keyed is a key with the digest of body.
func keyed(key, body string) *store.Idempotency {
	return &store.Idempotency{Key: key, Digest: sha256.Sum256([]byte(body))}
}

func (e *env) createKeyed(b *task.Batch, key *store.Idempotency) store.Created {
	e.Helper()
	created, err := e.Create(e.ctx, b, key)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	return created
}

// wantFresh wants b to be created.
func (e *env) wantFresh(b *task.Batch, key *store.Idempotency) {
	e.Helper()
	created := e.createKeyed(b, key)
	if created.Replayed || created.Batch != b.ID || len(created.Kept) != len(b.Tasks) {
		e.Fatalf("Create: replayed %t, batch %s, %d tasks; want %s created", created.Replayed, created.Batch, len(created.Kept), b.ID)
	}
}

// wantReplay wants a create with key to make nothing and to answer with batch b, as it is now.
func (e *env) wantReplay(b *task.Batch, key *store.Idempotency) {
	e.Helper()
	again := batchOf(newTasks(len(b.Tasks))...)
	created := e.createKeyed(again, key)
	if !created.Replayed || created.Batch != b.ID || created.Kept != nil {
		e.Fatalf("Create: replayed %t, batch %s, tasks %v; want %s replayed", created.Replayed, created.Batch, created.Kept, b.ID)
	}
	var want []store.Detail
	for _, t := range b.Tasks {
		want = append(want, *e.detail(t.ID))
	}
	if diff := cmp.Diff(want, e.details(created.Batch)); diff != "" {
		e.Errorf("the tasks of a replay (-what Task says +got):\n%s", diff)
	}
	e.wantMissing(again)
}

// wantMissing wants nothing of b to be there.
func (e *env) wantMissing(b *task.Batch) {
	e.Helper()
	if _, err := e.Batch(e.ctx, b.ID); !errors.Is(err, store.ErrNotFound) {
		e.Errorf("Batch: %v, want ErrNotFound", err)
	}
	for _, t := range b.Tasks {
		if _, err := e.Task(e.ctx, t.ID); !errors.Is(err, store.ErrNotFound) {
			e.Errorf("Task: %v, want ErrNotFound", err)
		}
	}
}

func testReplay(_ *testing.T, e *env) {
	root := newTask(limit(5, "v"), metadata(`{"v":1}`))
	left, right := newTask(after(root)), newTask(afterAny(root), endActions(2))
	join := newTask(after(left, right))
	b, key := batchOf(root, left, right, join), keyed("key", "body")
	e.wantFresh(b, key)
	e.wantReplay(b, key)
	e.run()
	e.settle(count(root.ID, 3, 4))
	e.wantReplay(b, key)
	e.finish(task.Success, root)
	e.wantClaims(left, right)
	e.wantReplay(b, key)
}

func testReplayDetails(_ *testing.T, e *env) {
	edited, ended, canceled := newTask(), newTask(endActions(2)), newTask()
	b, key := batchOf(edited, ended, canceled), keyed("key", "body")
	e.wantFresh(b, key)
	e.claim()
	e.settle(startedWithCancel(canceled.ID), started(ended.ID))
	e.settle(setMetadata(edited, `{"new":true}`), cancel(canceled), end(ended.ID, task.Failure))
	e.wantReplay(b, key)
}

func testKeyReused(t *testing.T, e *env) {
	b, key := batchOf(newTask()), keyed("key", "body")
	e.wantFresh(b, key)
	other := batchOf(newTask())
	if created, err := e.Create(e.ctx, other, keyed("key", "other body")); !errors.Is(err, store.ErrKeyReused) {
		t.Errorf("Create: %+v, %v; want ErrKeyReused", created, err)
	}
	e.wantMissing(other)
	e.wantReplay(b, key) // it still stands for the first one
	e.wantClaims(b.Tasks...)
}

func testOtherKeys(_ *testing.T, e *env) {
	var all []*task.Task
	for _, key := range []*store.Idempotency{keyed("key", "body"), keyed("Key", "body"), keyed("key ", "body"), nil, nil} {
		b := batchOf(newTask())
		e.wantFresh(b, key)
		all = append(all, b.Tasks...)
	}
	e.wantClaims(all...)
}

func testReplayEmpty(t *testing.T, e *env) {
	b, key := batchOf(), keyed("key", "[]")
	e.wantFresh(b, key)
	e.wantReplay(b, key)
	if _, err := e.Create(e.ctx, batchOf(newTask()), keyed("key", "[{}]")); !errors.Is(err, store.ErrKeyReused) {
		t.Errorf("Create: %v, want ErrKeyReused", err)
	}
}

func testFailureLeavesNoKey(t *testing.T, e *env) {
	there := e.create(newTask())
	key := keyed("key", "body")
	if _, err := e.Create(e.ctx, batchOf(newTask(), there.Tasks[0]), key); err == nil {
		t.Fatal("a task was created twice")
	}
	there.Tasks[0].BatchID = there.ID
	b := batchOf(newTask())
	e.wantFresh(b, key)
	e.wantReplay(b, key)
}

func testKeyExpires(_ *testing.T, e *env) {
	first, second, key := batchOf(newTask()), batchOf(newTask()), keyed("key", "body")
	e.wantFresh(first, key)
	e.clock.Advance(store.KeyLife - time.Minute)
	e.wantReplay(first, key)
	e.clock.Advance(time.Minute)
	e.wantFresh(second, keyed("key", "other body"))
	e.wantReplay(second, keyed("key", "other body"))
	e.clock.Advance(store.KeyLife - time.Minute)
	e.wantReplay(second, keyed("key", "other body")) // the day begins anew
	e.heartbeat(e.owner, time.Hour)
	e.wantClaims(first.Tasks[0], second.Tasks[0])
}

func testKeysArePurged(t *testing.T, e *env) {
	const old, creators = 1500, 10 // more than one transaction deletes
	var creating sync.WaitGroup
	for first := range creators {
		creating.Go(func() {
			for i := first; i < old; i += creators {
				if _, err := e.Create(e.ctx, batchOf(), keyed(fmt.Sprint("old ", i), "body")); err != nil {
					t.Errorf("Create: %v", err)
				}
			}
		})
	}
	creating.Wait()
	e.clock.Advance(store.KeyLife)
	young := batchOf(newTask())
	e.wantFresh(young, keyed("young", "body"))
	if err := e.Maintain(e.ctx); err != nil {
		t.Fatal(err)
	}
	e.clock.Advance(-store.KeyLife) // those that are still there count again
	for _, i := range []int{0, 1, old / 2, old - 1} {
		e.wantFresh(batchOf(newTask()), keyed(fmt.Sprint("old ", i), "body"))
	}
	e.wantReplay(young, keyed("young", "body"))
}

// createAtOnce creates n batches with one key at once, from two processes where there can be, and returns them with what
// became of each.
func (e *env) createAtOnce(t *testing.T, n int, key *store.Idempotency) ([]*task.Batch, []store.Created) {
	t.Helper()
	batches, created := make([]*task.Batch, n), make([]store.Created, n)
	stores := []store.Store{e.Store, e.another()}
	var creators sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		batches[i] = batchOf(newTask(), newTask())
		creators.Go(func() {
			<-begin
			var err error
			if created[i], err = create(e.ctx, stores[i%2], batches[i], key); err != nil {
				t.Errorf("Create: %v", err)
			}
		})
	}
	close(begin)
	creators.Wait()
	return batches, created
}

func testOneKeyAtOnce(t *testing.T, e *env) {
	for round := range 5 {
		e.wantOneOf(e.createAtOnce(t, 20, keyed(fmt.Sprint("key ", round), "body")))
	}
}

func testOldKeyAtOnce(t *testing.T, e *env) {
	key := keyed("key", "body")
	e.wantFresh(batchOf(), key)
	for range 3 {
		e.clock.Advance(store.KeyLife)
		e.wantOneOf(e.createAtOnce(t, 20, key))
	}
}

// testKeyOfFailuresAtOnce: every other create fails after it has taken the key, if it gets that far.
func testKeyOfFailuresAtOnce(t *testing.T, e *env) {
	there := e.create(newTask()).Tasks[0]
	stores := []store.Store{e.Store, e.another()}
	for round := range 5 {
		const n = 20
		var creators sync.WaitGroup
		var fresh, failed atomic.Int64
		for i := range n {
			again := *there
			batch := batchOf(newTask())
			if fails := i%2 == 0; fails {
				batch = batchOf(newTask(), &again)
			}
			creators.Go(func() {
				created, err := create(e.ctx, stores[i/2%2], batch, keyed(fmt.Sprint("key ", round), "body"))
				switch {
				case err != nil && i%2 == 0:
					failed.Add(1)
				case err != nil:
					t.Errorf("Create: %v", err)
				case !created.Replayed && i%2 == 0:
					t.Error("a task was created twice")
				case !created.Replayed:
					fresh.Add(1)
				}
			})
		}
		creators.Wait()
		if fresh.Load() != 1 {
			t.Errorf("%d batches were created, want 1; %d creates failed", fresh.Load(), failed.Load())
		}
	}
}

// wantOneOf wants one of the batches to be created, and the other creates to be answered with it.
func (e *env) wantOneOf(batches []*task.Batch, created []store.Created) {
	e.Helper()
	first := slices.IndexFunc(created, func(c store.Created) bool { return !c.Replayed })
	if first < 0 {
		e.Fatalf("nothing was created")
	}
	for i, c := range created {
		if c.Batch != batches[first].ID {
			e.Errorf("create %d is answered with batch %s, want %s", i, c.Batch, batches[first].ID)
		}
		if i != first {
			e.wantMissing(batches[i])
		}
	}
	tasks := e.details(batches[first].ID)
	if len(tasks) != 2 || tasks[0].Task.ID != batches[first].Tasks[0].ID || tasks[1].Task.ID != batches[first].Tasks[1].ID {
		e.Errorf("the batch has tasks %+v", tasks)
	}
}
