package storetest

import (
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// That work is found where there is some, every test sees that does it: see env.work.
var workTests = []conformance{
	{"what waits, is parked or runs is none", testNoWork},
	{"time-outs when they are due", testWorkDue},
	{"deliveries when they are due", testWorkOutbox},
	{"processes when they are dead", testWorkDead},
}

func (e *env) wantWork(when string, want store.Work) {
	e.Helper()
	if got := e.work(); got != want {
		e.Fatalf("%s: %+v, want %+v", when, got, want)
	}
}

func testNoWork(_ *testing.T, e *env) {
	e.wantWork("empty", store.Work{})
	parked := newTasks(3, limit(1))
	e.create(append(newTasks(2, after(parked[0])), parked...)...)
	e.wantWork("one may start", store.Work{Pump: true})
	e.run()
	e.wantWork("one runs, two are parked, two wait", store.Work{})
	e.finish(task.Success, parked[0])
	e.wantWork("two may start, for one of which there is room", store.Work{Pump: true})
	e.run()
	e.wantWork("all but one run", store.Work{})
	k := newTask(limitKind("other", 1))
	e.create(k)
	e.settle(cancel(k))
	e.wantWork("a rule that nobody has counted", store.Work{Pump: true})
	e.run()
	e.wantWork("when it is counted", store.Work{})
}

func testWorkDue(_ *testing.T, e *env) {
	k := e.running(1)[0]
	e.clock.Advance(50 * time.Second)
	e.wantWork("after 50 s of 60", store.Work{})
	e.settle(count(k.ID, 1, 0))
	e.clock.Advance(20 * time.Second)
	e.wantWork("after its time-out, but for a report", store.Work{Due: true})
	e.due()
	e.wantWork("when it was looked at", store.Work{})
	e.clock.Advance(time.Minute)
	e.settle(pause(k))
	e.wantWork("when it is paused", store.Work{})
}

func testWorkOutbox(_ *testing.T, e *env) {
	e.ended(1, 2)
	e.wantWork("two to send", store.Work{Outbox: true})
	sent := e.claimDeliveries(ample()).Deliveries
	e.wantWork("two on their way", store.Work{})
	e.finishDeliveries(attempt(sent[0], store.DeliveryPending, 500, "no", time.Hour), attempt(sent[1], store.DeliveryDone, 200, "", 0))
	e.wantWork("one to send in an hour", store.Work{})
	e.clock.Advance(59 * time.Minute)
	e.heartbeat(e.owner, time.Hour)
	e.wantWork("one to send in a minute", store.Work{})
	e.clock.Advance(2 * time.Minute)
	e.wantWork("one that is due", store.Work{Outbox: true})
	e.claimDeliveries(ample())
	e.clock.Advance(time.Hour)
	e.wantWork("one whose lease has run out", store.Work{Outbox: true})
}

func testWorkDead(_ *testing.T, e *env) {
	other := newID()
	e.heartbeat(other, 30*time.Second)
	e.heartbeat(e.owner, time.Second)
	e.clock.Advance(20 * time.Second)
	e.wantWork("another that lives, and this one, which is late", store.Work{})
	e.clock.Advance(20 * time.Second)
	e.wantWork("another that is dead", store.Work{Dead: true})
	e.heartbeat(e.owner, time.Hour)
	e.takeOver(e.owner)
	e.wantWork("when it was succeeded", store.Work{})
}
