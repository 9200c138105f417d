package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var leaseTests = []conformance{
	{"a process that leaves is succeeded", testLeave},
	{"a process whose lease ran out is succeeded", testLeaseRunsOut},
	{"a process that renews its lease keeps its claims", testHeartbeat},
	{"what was answered is not taken over", testTakeOverAnswered},
	{"slots stay taken", testTakeOverSlots},
	{"two takers get disjoint claims", testTwoTakers},
	{"a taker that dies is succeeded, too", testTakerDies},
	{"nobody succeeds itself", testLateHeartbeat},
}

var timeoutTests = []conformance{
	{"by the last activity", testDueByActivity},
	{"not while claimed", testDueWhileClaimed},
	{"activity at the last moment wins", testExpireTooLate},
	{"no more than asked for", testDueLimit},
	{"active tasks do not hide a quiet one", testDueBehindActive},
}

func (e *env) claimAs(owner task.ID) []store.Claim {
	e.Helper()
	return e.claimWith(store.PumpParams{Owner: owner, Room: ample()})
}

func testLeave(t *testing.T, e *env) {
	dying := e.process()
	k := newTask(host(hostB))
	e.create(k)
	first := e.claimAs(dying)
	if got := e.takeOver(e.owner); len(got) > 0 {
		t.Fatalf("the claims of a living process were taken over: %v", got)
	}
	if err := e.Leave(e.ctx, dying); err != nil {
		t.Fatal(err)
	}
	got := e.takeOver(e.owner)
	if len(got) != 1 || got[0].ID != k.ID || got[0].Attempt != 2 || got[0].Host != hostB || got[0].Action.URL != first[0].Action.URL {
		t.Fatalf("taken over: %+v", got)
	}
	if again := e.takeOver(e.owner); len(again) > 0 {
		t.Errorf("taken over twice: %v", again)
	}
	if s := e.detail(k.ID).State; s.Status != task.Claimed || s.Attempt != 2 || s.ClaimedAt.IsZero() {
		t.Errorf("%+v", s)
	}
	if err := e.Leave(e.ctx, newID()); err != nil {
		t.Errorf("a process that never was leaves: %v", err)
	}
	e.settle(started(k.ID), end(k.ID, task.Success))
	e.wantStatus(task.Success, k)
}

func testLeaseRunsOut(t *testing.T, e *env) {
	dying := newID()
	e.heartbeat(dying, 30*time.Second)
	tasks := newTasks(3)
	e.create(tasks...)
	e.claimAs(dying)
	e.clock.Advance(29 * time.Second)
	if got := e.takeOver(e.owner); len(got) > 0 {
		t.Fatalf("taken over a second too early: %v", got)
	}
	e.clock.Advance(2 * time.Second)
	e.sameTasks("taken over", claimIDs(e.takeOver(e.owner)), tasks)
}

func testHeartbeat(t *testing.T, e *env) {
	living := newID()
	e.heartbeat(living, 30*time.Second)
	e.create(newTask())
	e.claimAs(living)
	for range 5 {
		e.clock.Advance(20 * time.Second)
		e.heartbeat(living, 30*time.Second)
		if got := e.takeOver(e.owner); len(got) > 0 {
			t.Fatalf("taken over: %v", got)
		}
	}
}

func testTakeOverAnswered(t *testing.T, e *env) {
	dying := e.process()
	tasks := newTasks(7)
	e.create(tasks...)
	e.claimAs(dying)
	e.settle(started(tasks[0].ID), end(tasks[1].ID, task.Success), startFailed(tasks[2].ID, 1), cancel(tasks[3]),
		pause(tasks[4]), pause(tasks[5]), started(tasks[5].ID))
	if err := e.Leave(e.ctx, dying); err != nil {
		t.Fatal(err)
	}
	e.sameTasks("taken over", claimIDs(e.takeOver(e.owner)), []*task.Task{tasks[4], tasks[6]})
	e.wantStatus(task.Paused, tasks[4], tasks[5])
	e.wantStatus(task.Running, tasks[0])
	// What runs on goes on running, and times out as ever.
	e.clock.Advance(2 * time.Minute)
	if got := e.due(); !slices.Contains(got, tasks[0].ID) {
		t.Errorf("due: %v", got)
	}
}

func testTakeOverSlots(_ *testing.T, e *env) {
	dying := e.process()
	tasks := newTasks(3, limit(1))
	e.create(tasks...)
	e.claimAs(dying)
	if err := e.Leave(e.ctx, dying); err != nil {
		e.Fatalf("Leave: %v", err)
	}
	e.wantClaims()
	e.takeOver(e.owner)
	e.wantClaims()
	e.wantNoDrift()
	e.settle(started(tasks[0].ID), end(tasks[0].ID, task.Success))
	e.wantClaims(tasks[1])
}

// testLateHeartbeat: a process whose heartbeat comes late has sent its on_starts, and must not send them again.
func testLateHeartbeat(t *testing.T, e *env) {
	late := newID()
	e.heartbeat(late, time.Minute)
	k := newTask()
	e.create(k)
	e.pump(store.PumpParams{Owner: late, Room: ample()})
	e.clock.Advance(2 * time.Minute)
	if got := e.takeOver(late); len(got) > 0 {
		t.Errorf("took over its own %v", got)
	}
	e.heartbeat(late, time.Minute)
	e.heartbeat(e.owner, time.Hour)
	if got := e.takeOver(e.owner); len(got) > 0 {
		t.Errorf("took over %v of a process that lives", got)
	}
	e.clock.Advance(2 * time.Minute)
	e.sameTasks("taken over", claimIDs(e.takeOver(e.owner)), []*task.Task{k})
}

func testTwoTakers(t *testing.T, e *env) {
	const processes, each = 6, 20
	var all []*task.Task
	for range processes {
		p := e.process()
		tasks := newTasks(each)
		all = append(all, tasks...)
		e.create(tasks...)
		e.claimAs(p)
		if err := e.Leave(e.ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var got []task.ID
	for range 4 {
		taker := e.process()
		wg.Go(func() {
			for range 3 {
				claims, err := e.TakeOver(e.ctx, taker)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				got = append(got, claimIDs(claims)...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	e.sameTasks("taken over, by whomever", got, all)
	for _, k := range all[:3] {
		if n := e.detail(k.ID).State.Attempt; n != 2 {
			t.Errorf("attempt %d", n)
		}
	}
}

func testTakerDies(t *testing.T, e *env) {
	first, second := e.process(), e.process()
	k := newTask()
	e.create(k)
	e.claimAs(first)
	for i, p := range []task.ID{first, second} {
		if err := e.Leave(e.ctx, p); err != nil {
			t.Fatal(err)
		}
		taker := second
		if i == 1 {
			taker = e.owner
		}
		if got := e.takeOver(taker); len(got) != 1 || got[0].Attempt != i+2 {
			t.Fatalf("taker %d got %+v", i, got)
		}
	}
}

func testDueByActivity(t *testing.T, e *env) {
	quiet, counting, updating, slow := newTask(), newTask(), newTask(), newTask(timeout(time.Hour))
	e.create(quiet, counting, updating, slow)
	e.run()
	e.clock.Advance(40 * time.Second)
	e.settle(count(counting.ID, 1, 0), task.Outcome{ID: updating.ID, Kind: task.Update, NewFailures: 1})
	e.clock.Advance(30 * time.Second)
	e.sameTasks("due", e.due(), []*task.Task{quiet})
	settled := e.settle(expire(quiet), expire(counting), expire(updating), expire(slow))
	if s := settled.Results[0].State; s.Status != task.Failure || s.FailureReason != "Timeout" {
		t.Errorf("%+v", s)
	}
	e.wantStatus(task.Running, counting, updating, slow)
	e.clock.Advance(40 * time.Second)
	e.sameTasks("due", e.due(), []*task.Task{counting, updating})
	e.settle(end(counting.ID, task.Success), pause(updating))
	if got := e.due(); len(got) > 0 {
		t.Errorf("due: %v", got)
	}
}

func testDueWhileClaimed(t *testing.T, e *env) {
	k := newTask()
	e.create(k)
	e.claim()
	e.clock.Advance(10 * time.Minute)
	if got := e.due(); len(got) > 0 {
		t.Fatalf("a claimed task is due")
	}
	e.settle(expire(k))
	e.wantStatus(task.Claimed, k)
	e.settle(started(k.ID))
	e.clock.Advance(50 * time.Second)
	if got := e.due(); len(got) > 0 {
		t.Errorf("due 50 s after on_start was accepted")
	}
	e.clock.Advance(20 * time.Second)
	e.sameTasks("due", e.due(), []*task.Task{k})
}

func testExpireTooLate(t *testing.T, e *env) {
	k := e.running(1, limit(1), endActions(1))[0]
	e.clock.Advance(2 * time.Minute)
	e.sameTasks("due", e.due(), []*task.Task{k})
	e.settle(count(k.ID, 1, 0))
	e.settle(expire(k))
	e.wantStatus(task.Running, k)
	e.clock.Advance(2 * time.Minute)
	e.sameTasks("due", e.due(), []*task.Task{k})
	if settled := e.settle(expire(k)); !settled.Pump || !settled.Outbox {
		t.Errorf("a time-out gives no work: %+v", settled)
	}
	e.wantStatus(task.Failure, k)
	if got := e.detail(k.ID).Deliveries; len(got) != 1 || got[0].Trigger != task.TriggerFailure {
		t.Errorf("deliveries %+v", got)
	}
}

// testDueBehindActive: those that were active are looked at later, and do not hide a quiet one from a small limit.
func testDueBehindActive(t *testing.T, e *env) {
	active := e.running(10)
	quiet := e.running(1, timeout(61*time.Second))
	e.clock.Advance(30 * time.Second)
	for _, k := range active {
		e.settle(count(k.ID, 1, 0))
	}
	e.clock.Advance(40 * time.Second)
	var found []task.ID
	for more := true; more; {
		var ids []task.ID
		var err error
		if ids, more, err = e.Due(e.ctx, 3); err != nil {
			t.Fatal(err)
		}
		found = append(found, ids...)
	}
	e.sameTasks("due", found, quiet)
}

func testDueLimit(t *testing.T, e *env) {
	tasks := e.running(10)
	e.clock.Advance(2 * time.Minute)
	seen := map[task.ID]bool{}
	for len(seen) < len(tasks) {
		ids, more, err := e.Due(e.ctx, 3)
		if err != nil || len(ids) == 0 || more != (len(ids) == 3) {
			t.Fatalf("Due(3) gave %d, more %t, %v, after %d", len(ids), more, err, len(seen))
		}
		var outcomes []task.Outcome
		for _, id := range ids {
			seen[id] = true
			outcomes = append(outcomes, task.Outcome{ID: id, Kind: task.Expire})
		}
		e.settle(outcomes...)
	}
	if got := e.due(); len(got) > 0 {
		t.Errorf("due: %v", got)
	}
}
