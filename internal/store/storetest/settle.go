package storetest

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var settleTests = []conformance{
	{"a fast worker ends before on_start is answered", testFastWorker},
	{"a repeat of the same end changes nothing", testRepeatedEnd},
	{"a different end conflicts", testDifferentEnd},
	{"counts are kept after the end", testCountsAfterEnd},
	{"unknown ids leave the others alone", testUnknownID},
	{"outcomes of one task are merged in their order", testMerged},
	{"nothing to settle", testSettleNothing},
	{"a thousand outcomes in one call", testManyOutcomes},
	{"counts stop at the greatest number", testCappedCounts},
	{"hints tell who has work", testHints},
	{"concurrent counts are exact", testConcurrentCounts},
	{"one of many concurrent ends wins", testConcurrentEnds},
}

// running is n tasks whose on_start was accepted.
func (e *env) running(n int, options ...func(*task.Task)) []*task.Task {
	e.Helper()
	tasks := newTasks(n, options...)
	e.create(tasks...)
	e.run()
	return tasks
}

func testFastWorker(t *testing.T, e *env) {
	fast := newTask()
	e.create(fast)
	e.claim()
	e.settle(end(fast.ID, task.Success))
	ended := e.detail(fast.ID)
	if s := ended.State; s.Status != task.Success || !s.StartedAt.Equal(s.ClaimedAt) || s.StartedAt.IsZero() {
		t.Errorf("ended before on_start was answered: %+v", s)
	}
	e.settle(startedWithCancel(fast.ID), startFailed(fast.ID, 1))
	if diff := cmp.Diff(ended, e.detail(fast.ID)); diff != "" {
		t.Errorf("an answer to on_start after the end changed the task:\n%s", diff)
	}
}

func testRepeatedEnd(t *testing.T, e *env) {
	for _, status := range []task.Status{task.Success, task.Failure} {
		k := e.running(1, endActions(1))[0]
		first := end(k.ID, status)
		first.NewSuccess = 5
		e.settle(first)
		before := e.detail(k.ID)
		first.FailureReason += " again"
		e.settle(first)
		if diff := cmp.Diff(before, e.detail(k.ID)); diff != "" {
			t.Errorf("the second %s changed the task:\n%s", status, diff)
		}
	}
}

func testDifferentEnd(_ *testing.T, e *env) {
	tasks := e.running(3)
	e.settle(end(tasks[0].ID, task.Success), end(tasks[1].ID, task.Failure), cancel(tasks[2]))
	for i, k := range tasks {
		for j, o := range []task.Outcome{end(k.ID, task.Success), end(k.ID, task.Failure), cancel(k)} {
			if i != j || i == 2 { // a second DELETE is refused
				e.refuse(task.Conflict, o)
			}
		}
		e.refuse(task.Conflict, pause(k))
		e.refuse(task.Conflict, resume(k))
		e.refuse(task.Conflict, setPriority(k, 5))
	}
}

func testCountsAfterEnd(t *testing.T, e *env) {
	tasks := e.running(3)
	e.settle(end(tasks[0].ID, task.Success), end(tasks[1].ID, task.Failure), cancel(tasks[2]))
	for _, k := range tasks {
		update := task.Outcome{ID: k.ID, Kind: task.Update, NewSuccess: 10}
		e.settle(count(k.ID, 1, 2), update)
		if s := e.detail(k.ID).State; s.Success != 11 || s.Failures != 2 {
			t.Errorf("counts of a %s task: %d and %d, want 11 and 2", s.Status, s.Success, s.Failures)
		}
	}
}

func testUnknownID(t *testing.T, e *env) {
	k := e.running(1)[0]
	unknown := newID()
	results := e.settleAll(count(unknown, 1, 0), count(k.ID, 1, 0), end(unknown, task.Success), end(k.ID, task.Success)).Results
	for i, want := range []task.RefusalCode{task.NotFound, 0, task.NotFound, 0} {
		if got := code(results[i].Err); got != want || (want == 0) != (results[i].Err == nil) {
			t.Errorf("outcome %d: %v, want code %d", i, results[i].Err, want)
		}
	}
	if s := e.detail(k.ID).State; s.Success != 1 || s.Status != task.Success {
		t.Errorf("the task that exists: %+v", s)
	}
	// Whoever has a handle only is told the same of a task that is not there and of one that ended too long ago.
	byHandle := func(id task.ID, grace time.Duration) task.Outcome {
		o := count(id, 1, 0)
		o.Handle = &task.Handle{Attempt: 1, Grace: grace}
		return o
	}
	results = e.settleAll(byHandle(unknown, time.Hour), byHandle(k.ID, -time.Hour), byHandle(k.ID, time.Hour)).Results
	for i, want := range []task.RefusalCode{task.Unauthorized, task.Unauthorized, 0} {
		if got := code(results[i].Err); got != want || (want == 0) != (results[i].Err == nil) {
			t.Errorf("outcome %d by a handle: %v, want code %d", i, results[i].Err, want)
		}
	}
	if s := e.detail(k.ID).State; s.Success != 2 {
		t.Errorf("counted by handles: %+v", s)
	}
}

func testMerged(t *testing.T, e *env) {
	k := e.running(1)[0]
	withCounts := func(o task.Outcome, n int64) task.Outcome {
		o.NewSuccess = n
		return o
	}
	steps := []struct {
		outcome  task.Outcome
		from, to task.Status
		code     task.RefusalCode
	}{
		{count(k.ID, 1, 0), task.Running, task.Running, 0},
		{pause(k), task.Running, task.Paused, 0},
		{count(k.ID, 10, 0), task.Paused, task.Paused, 0},
		{pause(k), task.Paused, task.Paused, task.Conflict},
		{resume(k), task.Paused, task.Running, 0},
		{setMetadata(k, `{"v":1}`), task.Running, task.Running, 0},
		{withCounts(end(k.ID, task.Success), 100), task.Running, task.Success, 0},
		{withCounts(end(k.ID, task.Success), 1_000), task.Success, task.Success, 0}, // a repeat: adds nothing
		{withCounts(end(k.ID, task.Failure), 10_000), task.Success, task.Success, task.Conflict},
		{count(k.ID, 100_000, 0), task.Success, task.Success, 0},
		{cancel(k), task.Success, task.Success, task.Conflict},
	}
	var outcomes []task.Outcome
	for _, s := range steps {
		outcomes = append(outcomes, s.outcome)
	}
	for i, r := range e.settleAll(outcomes...).Results {
		if want := steps[i]; r.From != want.from || r.State.Status != want.to || code(r.Err) != want.code {
			t.Errorf("outcome %d: %s → %s, %v; want %s → %s, code %d", i, r.From, r.State.Status, r.Err, want.from, want.to, want.code)
		}
	}
	got := e.detail(k.ID)
	if got.State.Success != 100_111 || string(got.Task.Metadata) != `{"v":1}` {
		t.Errorf("in the end: %d, %s", got.State.Success, got.Task.Metadata)
	}

	// The other order: whoever is first wins.
	k = e.running(1)[0]
	results := e.settleAll(cancel(k), end(k.ID, task.Success)).Results
	if results[0].Err != nil || code(results[1].Err) != task.Conflict {
		t.Errorf("cancel, then success: %v, %v", results[0].Err, results[1].Err)
	}

	// Pausing and resuming in one call leaves a waiting task where it was, and a change of order moves it.
	x, y := newTask(), newTask()
	e.create(x, y)
	e.settle(pause(x), resume(x), pause(y), setPriority(y, 5), resume(y))
	if got := claimIDs(e.tick(ample()).Claims); len(got) != 2 || got[0] != y.ID {
		t.Errorf("claimed %v, want both, the more urgent one first", got)
	}
}

func testSettleNothing(t *testing.T, e *env) {
	if s := e.settle(); s.Pump || s.Outbox {
		t.Errorf("nothing settled gives work: %+v", s)
	}
}

func testManyOutcomes(t *testing.T, e *env) {
	tasks := e.running(500)
	var outcomes []task.Outcome
	for _, i := range rand.Perm(len(tasks)) { // in no order of ids
		outcomes = append(outcomes, count(tasks[i].ID, int64(i), 1))
	}
	for _, i := range rand.Perm(len(tasks)) {
		outcomes = append(outcomes, end(tasks[i].ID, task.Success))
	}
	settled := e.settle(outcomes...)
	for i, o := range outcomes {
		if settled.Results[i].State.ID != o.ID {
			t.Fatalf("result %d is of another task", i)
		}
	}
	for _, item := range e.list(store.Filter{}) {
		if s := item.State; s.Status != task.Success || s.Failures != 1 {
			t.Fatalf("%+v", s)
		}
	}
	for _, i := range []int{0, 1, 250, 499} {
		if got := e.detail(tasks[i].ID).State.Success; got != int64(i) {
			t.Errorf("task %d counts %d", i, got)
		}
	}
}

func testCappedCounts(t *testing.T, e *env) {
	k := newTask()
	e.create(k)
	e.settle(count(k.ID, math.MaxInt64-1, 0), count(k.ID, math.MaxInt64, 1))
	if s := e.detail(k.ID).State; s.Success != math.MaxInt64 || s.Failures != 1 {
		t.Errorf("counts %d and %d", s.Success, s.Failures)
	}
}

func testHints(t *testing.T, e *env) {
	k := e.running(1, endActions(1))[0]
	if s := e.settle(count(k.ID, 1, 1)); s.Pump || s.Outbox {
		t.Errorf("a count gives work: %+v", s)
	}
	if s := e.settle(end(k.ID, task.Success)); !s.Pump || !s.Outbox {
		t.Errorf("the end of a task with an action: %+v", s)
	}
	if s := e.settle(end(k.ID, task.Success)); s.Pump || s.Outbox {
		t.Errorf("the repeat of an end gives work: %+v", s)
	}
	if pumped := e.tick(ample()); pumped.More || pumped.Starved || pumped.Blocked || pumped.Busy || pumped.Outbox {
		t.Errorf("a tick without work: %+v", pumped)
	}
	x := newTask()
	e.create(x)
	if s := e.settle(count(x.ID, 1, 0)); !s.Pump {
		t.Error("the pump may have passed over a task because its row was locked, and is not woken")
	}
	e.settle(pause(x))
	if s := e.settle(resume(x)); !s.Pump {
		t.Error("a resumed task does not wake the pump")
	}
}

func testConcurrentCounts(t *testing.T, e *env) {
	const callers, calls, each = 20, 10, 5
	tasks := newTasks(7)
	e.create(tasks...)
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	for range callers {
		wg.Go(func() {
			for range calls {
				var outcomes []task.Outcome
				for range each {
					outcomes = append(outcomes, count(tasks[rand.IntN(len(tasks))].ID, 1, 2))
				}
				if _, err := e.Settle(e.ctx, outcomes); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	var success, failures int64
	for _, k := range tasks {
		s := e.detail(k.ID).State
		success, failures = success+s.Success, failures+s.Failures
	}
	if want := int64(callers * calls * each); success != want || failures != 2*want {
		t.Errorf("counted %d and %d, want %d and %d", success, failures, want, 2*want)
	}
}

func testConcurrentEnds(t *testing.T, e *env) {
	const callers = 20
	parents := newTasks(10, limit(10))
	child := newTask(afterAny(parents...))
	e.create(append(parents, child)...)
	e.run()
	var mu sync.Mutex
	var wg sync.WaitGroup
	winner := map[task.ID]task.Status{}
	won := func(k *task.Task, status task.Status) {
		mu.Lock()
		defer mu.Unlock()
		if other, ok := winner[k.ID]; ok {
			t.Errorf("task %s ended in %s and in %s", k.LocalID, other, status)
		}
		winner[k.ID] = status
	}
	for c := range callers {
		wg.Go(func() {
			for _, i := range rand.Perm(len(parents)) {
				k := parents[i]
				o := []task.Outcome{end(k.ID, task.Success), end(k.ID, task.Failure), cancel(k)}[c%3]
				settled, err := e.Settle(e.ctx, []task.Outcome{o})
				if err != nil {
					t.Error(err)
					return
				}
				r := settled.Results[0]
				switch {
				case !r.State.Status.Terminal():
					t.Errorf("left in %s: %v", r.State.Status, r.Err)
				case r.Err == nil && !r.From.Terminal():
					won(k, r.State.Status)
				}
			}
		})
	}
	wg.Wait()
	for _, k := range parents {
		if got := e.detail(k.ID).State.Status; got != winner[k.ID] {
			t.Errorf("task %s is %s, the winner was %s", k.LocalID, got, winner[k.ID])
		}
	}
	e.wantClaims(child)
}
