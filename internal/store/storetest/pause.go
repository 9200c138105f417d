package storetest

import (
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var pauseTests = []conformance{
	{"resumes into where it was", testResumes},
	{"keeps the slots it held", testPausedKeepsSlots},
	{"gives no slot to one that had none", testPausedWithoutSlots},
	{"stops its time-out and starts a fresh one", testPauseTimeout},
	{"on_start accepted while paused", testAcceptedWhilePaused},
	{"on_start failed while paused", testRefusedWhilePaused},
	{"ends while paused", testEndWhilePaused},
	{"is listed while it is, however often", testPausedListed},
	{"cancel from every state", testCancelEverywhere},
	{"a cancel action that comes after the cancel is sent", testLateCancelAction},
	{"the answer of an older attempt is ignored", testOlderAttempt},
}

func testResumes(t *testing.T, e *env) {
	var at []stand
	for _, s := range stands() {
		if s.status == task.Paused {
			at = append(at, s)
		}
	}
	tasks := e.bring(at)
	for i, k := range tasks {
		e.refuse(task.Conflict, pause(k))
		want := at[i].from
		if at[i].late {
			want = task.Running
		}
		if i%2 == 0 {
			e.settle(resume(k))
		} else {
			e.settle(end(k.ID, task.Pending)) // PATCH {"status":"Pending"}
		}
		if got := e.detail(k.ID).State.Status; got != want {
			t.Errorf("%s: resumed into %s", at[i], got)
		}
		e.refuse(task.Conflict, resume(k))
	}
	for i, k := range tasks {
		if at[i].from == task.Pending {
			e.wantClaims(k)
		}
	}
}

func testPausedListed(t *testing.T, e *env) {
	failing := newTask()
	child, waiting, running := newTask(after(failing)), newTask(after(failing)), newTask()
	e.create(failing, child, waiting, running)
	e.run()
	want := func(paused ...*task.Task) {
		t.Helper()
		var got []task.ID
		for _, item := range e.list(store.Filter{Statuses: []task.Status{task.Paused}}) {
			got = append(got, item.Task.ID)
		}
		e.sameTasks("Paused", got, paused)
	}
	for range 3 {
		e.settle(pause(child), pause(running))
		want(child, running)
		e.settle(resume(child), pause(waiting))
		want(running, waiting)
		e.settle(resume(running), resume(waiting))
		want()
		e.settle(pause(running), resume(running), pause(child), resume(child), pause(child), resume(child)) // nothing came of it
		want()
	}
	e.settle(pause(child), pause(waiting), pause(running))
	e.finish(task.Failure, failing)
	e.claim() // which tells the children
	e.settle(end(running.ID, task.Success))
	want()
	e.wantStatus(task.Failure, child, waiting)
	if ids, _, err := e.DeadEnds(e.ctx, 1000); err != nil || len(ids) > 0 { // it forgets those that have ended
		t.Errorf("dead ends: %v, %v", ids, err)
	}
	e.clock.Advance(kept)
	e.expire()
	for e.purge(1000).More {
	}
	for table, n := range e.rows() {
		if n > 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
}

func testPausedKeepsSlots(_ *testing.T, e *env) {
	claimed, accepted := newTask(limit(2)), newTask(limit(2))
	e.create(claimed, accepted)
	e.wantClaims(claimed, accepted)
	e.settle(started(accepted.ID), pause(claimed), pause(accepted))
	next := newTasks(3, limit(2))
	e.create(next...)
	e.wantClaims()
	e.wantNoDrift()
	e.settle(resume(claimed), resume(accepted))
	e.wantClaims()
	e.settle(pause(accepted), cancel(accepted))
	e.wantClaims(next[0])
	e.settle(pause(claimed), end(claimed.ID, task.Success))
	e.wantClaims(next[1])
}

func testPausedWithoutSlots(_ *testing.T, e *env) {
	first, second := newTask(limit(1)), newTask(limit(1))
	e.create(first, second)
	e.settle(pause(first))
	e.wantClaims(second)
	e.settle(resume(first))
	e.wantClaims()
	e.finish(task.Success, second)
	e.wantClaims(first)
}

func testPauseTimeout(t *testing.T, e *env) {
	k := e.running(1, timeout(time.Minute))[0]
	e.clock.Advance(50 * time.Second)
	e.settle(pause(k))
	e.clock.Advance(24 * time.Hour)
	if got := e.due(); len(got) > 0 {
		t.Errorf("a paused task is due")
	}
	e.settle(expire(k))
	e.wantStatus(task.Paused, k)
	e.settle(resume(k))
	e.clock.Advance(50 * time.Second)
	if got := e.due(); len(got) > 0 {
		t.Errorf("due 50 s after it was resumed, its time-out is a minute")
	}
	e.clock.Advance(20 * time.Second)
	if got := e.due(); len(got) != 1 {
		t.Errorf("%d due, 70 s after it was resumed", len(got))
	}
	e.settle(expire(k))
	e.wantStatus(task.Failure, k)
}

func testAcceptedWhilePaused(_ *testing.T, e *env) {
	k, early := newTask(), newTask()
	e.create(k, early)
	e.claim()
	e.settle(pause(k), started(k.ID), pause(early))
	e.wantStatus(task.Paused, k)
	e.settle(resume(k), resume(early))
	e.wantStatus(task.Running, k)
	e.wantStatus(task.Claimed, early)
	e.settle(started(early.ID))
	e.wantStatus(task.Running, early)
}

func testRefusedWhilePaused(t *testing.T, e *env) {
	k, next := newTask(limit(1), endActions(1)), newTask(limit(1))
	child := newTask(after(k))
	e.create(k, next, child)
	e.wantClaims(k)
	e.settle(pause(k))
	e.settle(startFailed(k.ID, 1))
	d := e.detail(k.ID)
	if s := d.State; s.Status != task.Failure || s.StartFailures != 3 || s.StartStatus != 503 || s.StartError != "refused" {
		t.Errorf("%+v", s)
	}
	if len(d.Deliveries) != 1 || d.Deliveries[0].Trigger != task.TriggerFailure {
		t.Errorf("deliveries %+v", d.Deliveries)
	}
	e.wantClaims(next)
	e.wantStatus(task.Failure, child)
}

func testEndWhilePaused(_ *testing.T, e *env) {
	at := []stand{{status: task.Paused, from: task.Running}, {status: task.Paused, from: task.Claimed},
		{status: task.Paused, from: task.Pending}, {status: task.Paused, from: task.Waiting}}
	tasks := e.bring(at)
	e.finish(task.Success, tasks[:2]...)
	e.refuse(task.Conflict, end(tasks[2].ID, task.Success))
	e.refuse(task.Conflict, end(tasks[3].ID, task.Failure))
	e.wantStatus(task.Success, tasks[:2]...)
}

func testCancelEverywhere(t *testing.T, e *env) {
	var at []stand
	for _, s := range stands() {
		if !s.status.Terminal() {
			at = append(at, s)
		}
	}
	tasks := e.bring(at, endActions(1))
	for i, k := range tasks {
		s := at[i]
		held := s.status == task.Claimed || s.status == task.Running || s.from == task.Claimed || s.from == task.Running
		if held { // the answer to on_start brings the cancel action; for some it is the second answer
			e.settle(startedWithCancel(k.ID))
		}
		settled := e.settle(cancel(k))
		if settled.Outbox != held {
			t.Errorf("cancel of a task in %s: outbox %t", s, settled.Outbox)
		}
		d := e.detail(k.ID)
		if d.State.Status != task.Canceled || d.State.EndedAt.IsZero() {
			t.Errorf("cancel of a task in %s: %+v", s, d.State)
		}
		switch {
		case !held && len(d.Deliveries) > 0:
			t.Errorf("cancel of a task in %s sends %+v", s, d.Deliveries)
		case held && (len(d.Deliveries) != 1 || d.Deliveries[0].Trigger != task.TriggerCancel):
			t.Errorf("cancel of a task in %s sends %+v, want its cancel action", s, d.Deliveries)
		}
		e.refuse(task.Conflict, cancel(k))
	}
	e.wantClaims()
}

func testLateCancelAction(t *testing.T, e *env) {
	k, next, never := newTask(limit(1)), newTask(limit(1)), newTask()
	e.create(k, next, never)
	e.wantClaims(k, never)
	e.settle(cancel(k), cancel(never))
	e.wantClaims(next) // its slot is free, whatever on_start answers
	if settled := e.settle(startedWithCancel(k.ID)); !settled.Outbox {
		t.Error("no work for the outbox")
	}
	e.settle(startedWithCancel(k.ID)) // the answer is settled again
	e.settle(started(never.ID))
	got := e.claimDeliveries(ample()).Deliveries
	if len(got) != 1 || got[0].Source != k.ID || got[0].Trigger != task.TriggerCancel || got[0].Action.URL != "http://"+hostB+"/cancel" {
		t.Errorf("deliveries %+v", got)
	}
	e.wantStatus(task.Canceled, k, never)
}

func testOlderAttempt(t *testing.T, e *env) {
	k := newTask()
	e.create(k)
	dying := e.process()
	e.claimWith(store.PumpParams{Owner: dying, Room: ample()})
	if err := e.Leave(e.ctx, dying); err != nil {
		t.Fatal(err)
	}
	if claims := e.takeOver(e.owner); len(claims) != 1 || claims[0].Attempt != 2 {
		t.Fatalf("taken over: %+v", claims)
	}
	e.settle(startFailed(k.ID, 1))
	e.wantStatus(task.Claimed, k)
	e.settle(startFailed(k.ID, 2))
	e.wantStatus(task.Failure, k)
}
