package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var groupTests = []conformance{
	{"batches of one transaction read back as if each came alone", testGroupReadBack},
	{"one that cannot be created fails all, and leaves nothing", testGroupFails},
	{"keys of one transaction: fresh, known, reused, and twice the same", testGroupKeys},
	{"a key that is too old, twice in one transaction", testGroupOldKey},
	{"groups with the same keys at once make one batch of each", testGroupsAtOnce},
	{"batches of one transaction each hear of their own end", testGroupCompletes},
}

// createGroup creates in one transaction and wants none refused.
func (e *env) createGroup(creates ...store.Create) []store.Created {
	e.Helper()
	created, err := e.Store.Create(e.ctx, creates)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	if len(created) != len(creates) {
		e.Fatalf("Create: %d answers to %d creates", len(created), len(creates))
	}
	return created
}

// wantCreated wants creates to be answered with what they brought.
func (e *env) wantCreated(creates []store.Create, created []store.Created) {
	e.Helper()
	for i, c := range created {
		b := creates[i].Batch
		if !c.Fresh() || c.Batch != b.ID || !slices.Equal(c.Kept, b.Tasks) {
			e.Fatalf("create %d: batch %s, replayed %t, %v; want %s created", i, c.Batch, c.Replayed, c.Err, b.ID)
		}
		for k := range c.Kept {
			if c.State(k).ID != b.Tasks[k].ID {
				e.Errorf("create %d: state %d is of another task", i, k)
			}
		}
	}
}

func testGroupReadBack(t *testing.T, e *env) {
	root := newTask(limit(5, "v"), metadata(`{"v":1}`))
	plain, ruled := newTask(kind("other")), newTask(limit(5, "v"), limit(7), metadata(`{"v":2}`))
	labeled := batchOf(plain, newTask())
	labeled.Requester, labeled.Scope, labeled.Metadata = "somebody", "a scope", []byte(`{"x":1}`)
	creates := []store.Create{
		{Batch: batchOf(root, newTask(after(root), endActions(2)))},
		{Batch: labeled, Key: keyed("key", "body")},
		{Batch: batchOf()},
		{Batch: batchOf(), Key: keyed("nothing", "[]")},
		{Batch: batchOf(ruled)},
	}
	created := e.createGroup(creates...)
	e.wantCreated(creates, created)
	for i, c := range creates {
		for k, want := range c.Batch.Tasks {
			got := e.detail(want.ID)
			if diff := cmp.Diff(*want, got.Task); diff != "" || !want.CreatedAt.Equal(root.CreatedAt) {
				t.Errorf("batch %d, task %d (-sent +read):\n%s", i, k, diff)
			}
			if diff := cmp.Diff(created[i].State(k), got.State); diff != "" {
				t.Errorf("batch %d, state %d (-answer of Create +read):\n%s", i, k, diff)
			}
		}
		summary, err := e.Batch(e.ctx, c.Batch.ID)
		if none := errors.Is(err, store.ErrNotFound); none != (len(c.Batch.Tasks) == 0) {
			t.Fatalf("batch %d: %v", i, err)
		} else if !none && (summary.Tasks != len(c.Batch.Tasks) || summary.Scope != c.Batch.Scope ||
			summary.Requester != c.Batch.Requester || string(summary.Metadata) != string(c.Batch.Metadata)) {
			t.Errorf("batch %d: %+v", i, summary)
		}
	}
	page, err := e.Batches(e.ctx, store.Filter{Kind: "other", Limit: 10})
	if err != nil || len(page.Items) != 1 || page.Items[0].ID != labeled.ID || !slices.Equal(page.Items[0].Kinds, []string{"other", "work"}) {
		t.Errorf("the batches with a kind that one of them has: %+v, %v", page.Items, err)
	}
	e.wantReplay(labeled, keyed("key", "body"))
	e.wantReplay(batchOfID(creates[3].Batch.ID), keyed("nothing", "[]"))
	e.wantClaims(root, plain, labeled.Tasks[1], ruled)
	e.wantNoDrift()
}

// batchOfID is the empty batch of that id.
func batchOfID(id task.ID) *task.Batch {
	b := batchOf()
	b.ID = id
	return b
}

func testGroupFails(t *testing.T, e *env) {
	there := e.create(newTask()).Tasks[0]
	again := *there
	creates := []store.Create{
		{Batch: batchOf(newTask()), Key: keyed("first", "body")},
		{Batch: batchOf(&again)},
		{Batch: batchOf(newTask(), newTask())},
	}
	if created, err := e.Store.Create(e.ctx, creates); err == nil {
		t.Fatalf("a task was created twice: %+v", created)
	}
	e.wantMissing(creates[0].Batch)
	e.wantMissing(creates[2].Batch)
	others := []store.Create{creates[0], creates[2]}
	e.wantCreated(others, e.createGroup(others...))
}

func testGroupKeys(t *testing.T, e *env) {
	known := batchOf(newTask())
	e.wantFresh(known, keyed("known", "body"))
	creates := []store.Create{
		{Batch: batchOf(newTask()), Key: keyed("known", "body")},
		{Batch: batchOf(newTask()), Key: keyed("z", "body")},
		{Batch: batchOf(newTask()), Key: keyed("known", "other body")},
		{Batch: batchOf(newTask())},
		{Batch: batchOf(newTask()), Key: keyed("z", "body")},
		{Batch: batchOf(newTask()), Key: keyed("a", "body")},
		{Batch: batchOf(newTask()), Key: keyed("z", "other body")},
	}
	created := e.createGroup(creates...)
	type answer struct {
		Batch    task.ID
		Replayed bool
		Reused   bool
		States   int
	}
	id := func(i int) task.ID { return creates[i].Batch.ID }
	want := []answer{
		{known.ID, true, false, 0}, {id(1), false, false, 1}, {id(2), false, true, 0}, {id(3), false, false, 1},
		{id(1), true, false, 0}, {id(5), false, false, 1}, {id(6), false, true, 0},
	}
	var got []answer
	for _, c := range created {
		got = append(got, answer{c.Batch, c.Replayed, errors.Is(c.Err, store.ErrKeyReused), len(c.Kept)})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, i := range []int{0, 2, 4, 6} {
		e.wantMissing(creates[i].Batch)
	}
	e.wantReplay(creates[1].Batch, keyed("z", "body"))
	e.wantReplay(creates[5].Batch, keyed("a", "body"))
	e.wantClaims(known.Tasks[0], creates[1].Batch.Tasks[0], creates[3].Batch.Tasks[0], creates[5].Batch.Tasks[0])
}

func testGroupOldKey(t *testing.T, e *env) {
	e.wantFresh(batchOf(newTask()), keyed("key", "body"))
	e.clock.Advance(store.KeyLife)
	fresh, again, other := batchOf(newTask()), batchOf(newTask()), batchOf(newTask())
	created := e.createGroup(
		store.Create{Batch: fresh, Key: keyed("key", "new body")},
		store.Create{Batch: again, Key: keyed("key", "new body")},
		store.Create{Batch: other, Key: keyed("key", "body")},
	)
	if !created[0].Fresh() || !created[1].Replayed || created[1].Batch != fresh.ID || !errors.Is(created[2].Err, store.ErrKeyReused) {
		t.Errorf("%+v", created)
	}
	e.wantMissing(again)
	e.wantMissing(other)
	e.wantReplay(fresh, keyed("key", "new body"))
}

// Groups name the same keys in all orders, from two processes where there can be.
func testGroupsAtOnce(t *testing.T, e *env) {
	const groups, keys = 8, 10
	stores := []store.Store{e.Store, e.another()}
	for round := range size(10) {
		creates, created := make([][]store.Create, groups), make([][]store.Created, groups)
		var creators sync.WaitGroup
		begin := make(chan struct{})
		for g := range groups {
			for i := range keys {
				k := (g*3 + i) % keys
				if g%2 == 0 {
					k = keys - 1 - k
				}
				creates[g] = append(creates[g], store.Create{
					Batch: batchOf(newTask(kind(fmt.Sprint("kind ", k)), limit(k+1))), Key: keyed(fmt.Sprint(round, " ", k), "body"),
				})
			}
			creators.Go(func() {
				<-begin
				var err error
				if created[g], err = stores[g%2].Create(e.ctx, creates[g]); err != nil {
					t.Errorf("Create: %v", err)
				}
			})
		}
		close(begin)
		creators.Wait()
		of, fresh := map[string]task.ID{}, 0
		for g := range groups {
			for i, c := range created[g] {
				key := creates[g][i].Key.Key
				if before, ok := of[key]; ok && before != c.Batch || c.Err != nil {
					t.Errorf("key %s stands for batches %s and %s, %v", key, before, c.Batch, c.Err)
				}
				of[key] = c.Batch
				if c.Fresh() {
					fresh++
				}
			}
		}
		if fresh != keys {
			t.Errorf("%d batches were created with %d keys", fresh, keys)
		}
	}
}

func testGroupCompletes(t *testing.T, e *env) {
	small, large, silent := newTasks(1), newTasks(3), newTask()
	creates := []store.Create{{Batch: telling(small)}, {Batch: batchOf(silent)}, {Batch: telling(large)}}
	e.wantCreated(creates, e.createGroup(creates...))
	e.run()
	complete := func(b *task.Batch) int {
		t.Helper()
		e.claim() // folds
		summary, err := e.Batch(e.ctx, b.ID)
		if err != nil {
			t.Fatal(err)
		}
		return len(summary.Deliveries)
	}
	e.finish(task.Success, silent, small[0], large[0], large[1])
	if s, l := complete(creates[0].Batch), complete(creates[2].Batch); s != 1 || l != 0 {
		t.Errorf("%d deliveries of the batch that has ended, %d of the one that has not", s, l)
	}
	e.finish(task.Success, large[2])
	if n := complete(creates[2].Batch); n != 1 {
		t.Errorf("%d deliveries of the batch that has ended last", n)
	}
}
