package storetest

import (
	"errors"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var followTests = []conformance{
	{"what an end lets start is claimed with it", testFollow},
	{"no tick follows what leaves nothing to do, or when it is nobody's turn", testFollowsNothing},
	{"a tick that fails changes nothing", testFollowFails},
	{"what else outcomes let start is not left behind", testFollowBeside},
	{"a tick that follows does no more than it may", testFollowBounds},
}

// follow settles outcomes with a tick that may follow them, unless the store has reasons to make it later.
func (e *env) follow(p store.PumpParams, outcomes ...task.Outcome) (store.Settled, *store.Pumped) {
	e.Helper()
	settled, pumped, err := e.SettleAndPump(e.ctx, outcomes, func() (store.PumpParams, bool) { return p, true })
	if errors.Is(err, store.ErrUndone) && pumped == nil {
		settled, err = e.Settle(e.ctx, outcomes)
	}
	if err != nil || len(settled.Results) != len(outcomes) {
		e.Fatalf("SettleAndPump: %d results, %v", len(settled.Results), err)
	}
	if pumped != nil && (pumped.Busy || !settled.Pump) {
		e.Errorf("SettleAndPump: %t, and then %+v", settled.Pump, pumped)
	}
	return settled, pumped
}

func testFollow(t *testing.T, e *env) {
	const hops = 60
	parent := newTask(limit(1))
	chain := []*task.Task{parent}
	for range hops {
		chain = append(chain, newTask(after(chain[len(chain)-1]), limit(1)))
	}
	e.createBatch(telling(chain))
	other := newTask(limit(1)) // which waits for a slot until all others have ended
	e.create(other)
	e.wantClaims(parent)
	followed := 0
	for i, k := range chain {
		next := other
		if i+1 < len(chain) {
			next = chain[i+1]
		}
		settled, pumped := e.follow(store.PumpParams{Owner: e.owner, Room: ample()}, started(k.ID), end(k.ID, task.Success))
		if pumped == nil {
			if !settled.Pump {
				t.Fatalf("the pump has nothing to do after the end of %s", k.LocalID)
			}
			if i+1 == len(chain) { // it is the last one, which lets other start
				e.wantClaims(other)
				break
			}
			e.claim()
			e.wantStatus(task.Claimed, next)
			continue
		}
		claims := pumped.Claims
		followed += len(claims)
		if pumped.More {
			claims = append(claims, e.claim()...)
		}
		if i+1 < len(chain) && len(claims) == 1 && claims[0].ID == other.ID {
			t.Fatalf("%s has overtaken %s, which is older", other.LocalID, next.LocalID)
		}
		e.sameTasks("claimed", claimIDs(claims), []*task.Task{next})
		if n := pumped.Propagated[task.Success]; i+1 < len(chain) && n != 1 {
			t.Errorf("%d dependencies were settled", n)
		}
		if last := i+1 == len(chain); pumped.Outbox != last {
			t.Errorf("the batch tells its end: %t, at its last task: %t", pumped.Outbox, last)
		}
		e.wantClaims()
	}
	if followed < hops/2 { // the others came just when the store had to look around
		t.Errorf("a tick has followed %d of %d ends", followed, len(chain))
	}
	e.wantStatus(task.Success, chain...)
	e.wantStatus(task.Claimed, other)
}

func testFollowsNothing(t *testing.T, e *env) {
	parent, alone := newTask(), newTask()
	child := newTask(after(parent))
	e.create(parent, child, alone)
	e.run()
	for what, o := range map[string]task.Outcome{
		"a count": count(parent.ID, 1, 0), "an end for which nobody waits": end(alone.ID, task.Success), "a pause": pause(child),
	} {
		_, pumped, err := e.SettleAndPump(e.ctx, []task.Outcome{o}, func() (store.PumpParams, bool) {
			t.Errorf("%s: it was asked whose turn it is", what)
			return store.PumpParams{}, false
		})
		if err != nil || pumped != nil {
			t.Errorf("%s: %+v, %v", what, pumped, err)
		}
	}
	e.wantStatus(task.Success, alone)
	e.settle(resume(child))
	settled, pumped, err := e.SettleAndPump(e.ctx, []task.Outcome{end(parent.ID, task.Success)}, func() (store.PumpParams, bool) {
		return store.PumpParams{}, false
	})
	if err != nil || pumped != nil || !settled.Pump || settled.Results[0].State.Status != task.Success {
		t.Errorf("an end, and no turn: %+v, %+v, %v", settled, pumped, err)
	}
	e.wantStatus(task.Waiting, child)
	e.wantClaims(child)
}

// testFollowFails has an owner without a lease, whom a store may refuse.
func testFollowFails(t *testing.T, e *env) {
	parent := newTask()
	child := newTask(after(parent))
	e.create(parent, child)
	e.run()
	outcomes := []task.Outcome{end(parent.ID, task.Success)}
	settled, pumped, err := e.SettleAndPump(e.ctx, outcomes, func() (store.PumpParams, bool) {
		return store.PumpParams{Owner: newID(), Room: ample()}, true
	})
	switch {
	case errors.Is(err, store.ErrUndone):
		e.wantStatus(task.Running, parent)
		e.wantStatus(task.Waiting, child)
		settled = e.settle(outcomes...)
	case err != nil:
		t.Fatal(err)
	case pumped != nil:
		e.sameTasks("claimed", claimIDs(pumped.Claims), []*task.Task{child})
		e.wantStatus(task.Success, parent)
		return
	}
	if !settled.Pump {
		t.Error("the pump has nothing to do")
	}
	e.wantStatus(task.Success, parent)
	e.wantClaims(child)
}

// testFollowBeside resumes a task by the outcomes that a tick follows.
func testFollowBeside(t *testing.T, e *env) {
	parent, paused := newTask(), newTask()
	child := newTask(after(parent))
	e.create(parent, child)
	e.run()
	e.create(paused)
	e.settle(pause(paused))
	e.claim()
	settled, pumped := e.follow(store.PumpParams{Owner: e.owner, Room: ample()}, end(parent.ID, task.Success), resume(paused))
	if !settled.Pump {
		t.Error("the pump has nothing to do")
	}
	if pumped != nil && len(pumped.Claims) < 2 && !pumped.More {
		t.Errorf("one is left behind: %+v", pumped)
	}
	e.claim()
	e.wantStatus(task.Claimed, child, paused)
}

func testFollowBounds(t *testing.T, e *env) {
	parent := newTask()
	children := newTasks(10, after(parent))
	e.create(append(children, parent)...)
	paused := newTask()
	e.create(paused)
	e.run()
	e.settle(pause(paused))
	p := store.PumpParams{Owner: e.owner, Room: task.Room{Total: 3, PerHost: 2}, Links: 4}
	_, pumped := e.follow(p, end(parent.ID, task.Success), resume(paused))
	if pumped != nil && (len(pumped.Claims) > 2 || !pumped.More || pumped.Propagated[task.Success] != 4) {
		t.Errorf("claimed %v, %+v", claimIDs(pumped.Claims), pumped)
	}
	e.claim()
	e.wantStatus(task.Claimed, children...)
	e.wantStatus(task.Running, paused)
}
