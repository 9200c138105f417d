package storetest

import (
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var followTests = []conformance{
	{"what an end lets start is claimed with it", testFollow},
	{"no tick follows what leaves nothing to do, or when it is nobody's turn", testFollowsNothing},
	{"outcomes are settled whatever becomes of the tick", testFollowFails},
	{"a tick that follows does no more than it may", testFollowBounds},
}

// follow settles outcomes with a tick that may follow them, unless the store has reasons to make it later.
func (e *env) follow(p store.PumpParams, outcomes ...task.Outcome) (store.Settled, *store.Pumped) {
	e.Helper()
	settled, pumped, err := e.SettleAndPump(e.ctx, outcomes, func() (store.PumpParams, bool) { return p, true })
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
	parent := newTask()
	child := newTask(after(parent))
	e.create(parent, child)
	e.run()
	settled, pumped, err := e.SettleAndPump(e.ctx, []task.Outcome{count(parent.ID, 1, 0)}, func() (store.PumpParams, bool) {
		t.Error("it was asked whose turn it is")
		return store.PumpParams{}, false
	})
	if err != nil || pumped != nil || settled.Pump || settled.Results[0].State.Success != 1 {
		t.Errorf("a count: %+v, %+v, %v", settled, pumped, err)
	}
	settled, pumped, err = e.SettleAndPump(e.ctx, []task.Outcome{end(parent.ID, task.Success)}, func() (store.PumpParams, bool) {
		return store.PumpParams{}, false
	})
	if err != nil || pumped != nil || !settled.Pump || settled.Results[0].State.Status != task.Success {
		t.Errorf("an end, and no turn: %+v, %+v, %v", settled, pumped, err)
	}
	e.wantStatus(task.Waiting, child)
	e.wantClaims(child)
}

// testFollowFails has no lease, or no valid owner, and so a store may refuse the tick.
func testFollowFails(t *testing.T, e *env) {
	parent := newTask()
	child := newTask(after(parent))
	e.create(parent, child)
	e.run()
	settled, pumped := e.follow(store.PumpParams{Owner: newID(), Room: ample()}, end(parent.ID, task.Success))
	if settled.Results[0].State.Status != task.Success {
		t.Errorf("%+v", settled)
	}
	e.wantStatus(task.Success, parent)
	if pumped != nil {
		e.sameTasks("claimed", claimIDs(pumped.Claims), []*task.Task{child})
		return
	}
	if !settled.Pump {
		t.Error("the pump has nothing to do")
	}
	e.wantClaims(child)
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
