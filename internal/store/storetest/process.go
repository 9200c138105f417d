package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var processTests = []conformance{
	{"migrating again and concurrently", testMigrate},
	{"health and housekeeping", testHealth},
	{"listening ends with its context", testListenEnds},
	{"one process hears of the other", testNotify},
	{"a shape that one process made known binds the other", testShapeAcross},
	{"calls without time change nothing", testCanceledContext},
}

// Another is implemented by stores that can be opened again on the same database, as by another process. It is closed
// when the test ends.
type Another interface{ Another() store.Store }

// another is a second store on the same database, or the same store where there cannot be one.
func (e *env) another() store.Store {
	if a, ok := e.Store.(Another); ok {
		return a.Another()
	}
	return e.Store
}

func testMigrate(t *testing.T, e *env) {
	k := newTask()
	e.create(k)
	var wg sync.WaitGroup
	for range 4 {
		s := e.another()
		wg.Go(func() {
			if err := s.Migrate(e.ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	e.wantClaims(k)
}

func testHealth(t *testing.T, e *env) {
	h, err := e.Health(e.ctx)
	if err != nil || h.PoolSize < 1 || h.PoolIdle < 0 || h.PoolIdle > h.PoolSize {
		t.Errorf("%+v, %v", h, err)
	}
	if err := e.Maintain(e.ctx); err != nil {
		t.Error(err)
	}
	if err := e.Notify(e.ctx); err != nil {
		t.Error(err)
	}
}

func testListenEnds(t *testing.T, e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Listen(ctx, func() {})
	}()
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("Listen goes on")
	}
}

func testNotify(t *testing.T, e *env) {
	other := e.another()
	if other == e.Store {
		return // there is nobody else to hear of
	}
	ctx, cancel := context.WithCancel(e.ctx)
	woken := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		e.Listen(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	})
	wait := func(what string) {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(patience):
			t.Errorf("not woken %s", what)
		}
	}
	wait("once it listens")
	for range 3 {
		if err := other.Notify(e.ctx); err != nil {
			t.Error(err)
		}
		wait("by the other")
	}
	cancel()
	wg.Wait()
}

func testShapeAcross(t *testing.T, e *env) {
	other, owner := e.another(), e.process()
	pumpOther := func() []store.Claim {
		t.Helper()
		pumped, err := other.Pump(e.ctx, store.PumpParams{Owner: owner, Room: ample()})
		if err != nil {
			t.Fatal(err)
		}
		return pumped.Claims
	}
	// Nobody has notified the other, so it may take a second until it sees what has come in, or ended.
	seenByOther := func() (claims []store.Claim) {
		t.Helper()
		for begun := time.Now(); len(claims) == 0 && time.Since(begun) < patience; {
			claims = pumpOther()
		}
		return claims
	}
	for i := range 3 {
		name := []string{"x", "y", "z"}[i]
		free := newTask(metadata(`{"x":1,"y":1,"z":1}`), kind(name))
		ruled := newTask(metadata(`{"x":1,"y":1,"z":1}`), kind(name), limitKind(name, 1, name))
		e.create(free)
		if got := seenByOther(); len(got) != 1 {
			t.Fatalf("the other claimed %v", got)
		}
		e.create(ruled)
		e.wantClaims()
		if got := pumpOther(); len(got) > 0 {
			t.Fatalf("the other claimed %v", got)
		}
		second := newTask(metadata(`{"x":1,"y":1,"z":1}`), kind(name), limitKind(name, 1, name))
		e.create(second)
		e.settle(end(free.ID, task.Success))
		if got := seenByOther(); len(got) != 1 || got[0].ID != ruled.ID {
			t.Fatalf("the other claimed %v", got)
		}
		e.finish(task.Success, ruled)
		e.wantClaims(second)
	}
}

func testCanceledContext(t *testing.T, e *env) {
	k := newTask()
	e.create(k)
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if _, err := e.Settle(ctx, []task.Outcome{count(k.ID, 1, 0)}); err == nil {
		t.Error("Settle worked without time")
	}
	if _, err := e.Pump(ctx, store.PumpParams{Owner: e.owner, Room: ample()}); err == nil {
		t.Error("Pump worked without time")
	}
	if _, err := e.Create(ctx, batchOf(newTask()), nil); err == nil {
		t.Error("Create worked without time")
	}
	if s := e.detail(k.ID).State; s.Success != 0 || s.Status != task.Pending {
		t.Errorf("%+v", s)
	}
	e.wantClaims(k)
}
