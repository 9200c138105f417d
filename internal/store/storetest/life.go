package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var lifeTests = []conformance{
	{"the whole way of a parent and its child", testWholeWay},
	{"every row of the state machine is reached", testEveryTransition},
	{"every outcome in every state does what the domain says", testEveryOutcome},
	{"metadata of a started task changes and its slots stay", testEditStarted},
}

func testWholeWay(t *testing.T, e *env) {
	parent := newTask(func(t *task.Task) {
		t.OnStart = task.Action{
			Verb: "Patch", URL: "https://b.test:8080/x?y=z", Headers: map[string]string{"X-Y": "z"}, Body: []byte(`{"a":1}`),
		}
	})
	child := newTask(after(parent), kind("next"))
	b := e.create(parent, child)

	pumped := e.tick(ample())
	want := []store.Claim{{ID: parent.ID, Attempt: 1, Host: hostB, Action: parent.OnStart}}
	if diff := cmp.Diff(want, pumped.Claims); diff != "" {
		t.Fatalf("claims (-want +got):\n%s", diff)
	}
	wantTransitions := map[store.Transition]int{{From: task.Pending, To: task.Claimed, Kind: "work"}: 1}
	if diff := cmp.Diff(wantTransitions, pumped.Transitions); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	claimed := e.detail(parent.ID).State
	if claimed.Status != task.Claimed || claimed.ClaimedAt.IsZero() || !claimed.StartedAt.IsZero() || claimed.Attempt != 1 {
		t.Errorf("after the claim: %+v", claimed)
	}
	if again := e.tick(ample()); len(again.Claims) > 0 || again.More {
		t.Errorf("the next tick claims %d, more %t", len(again.Claims), again.More)
	}

	accepted := e.settle(started(parent.ID))
	if r := accepted.Results[0]; r.From != task.Claimed || r.State.Status != task.Running || r.State.StartedAt.IsZero() ||
		r.State.StartStatus != 202 {
		t.Errorf("after on_start was accepted: %+v", r)
	}
	done := end(parent.ID, task.Success)
	done.NewSuccess, done.NewFailures = 3, 1
	finished := e.settle(done)
	if !finished.Pump {
		t.Error("the end of a parent does not wake the pump")
	}
	got := finished.Results[0].State
	if got.Status != task.Success || got.Success != 3 || got.Failures != 1 || got.EndedAt.IsZero() || got.FailureReason != "" {
		t.Errorf("after the end: %+v", got)
	}
	if diff := cmp.Diff(got, e.detail(parent.ID).State); diff != "" {
		t.Errorf("the answer differs from what is stored (-answer +stored):\n%s", diff)
	}
	e.wantStatus(task.Waiting, child)

	pumped = e.tick(ample())
	wantTransitions = map[store.Transition]int{
		{From: task.Waiting, To: task.Pending, Kind: "next"}: 1, {From: task.Pending, To: task.Claimed, Kind: "next"}: 1,
	}
	if diff := cmp.Diff(wantTransitions, pumped.Transitions); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	if len(pumped.Claims) != 1 || pumped.Claims[0].ID != child.ID || pumped.Propagated[task.Success] != 1 {
		t.Fatalf("the tick after the parent's end gave %+v", pumped)
	}
	e.settle(started(child.ID), end(child.ID, task.Failure))
	if got := e.detail(child.ID); got.State.FailureReason != "broken" || got.Parents[0] != task.Success {
		t.Errorf("the child in the end: %+v", got)
	}
	e.wantCounts(b, map[task.Status]int{task.Success: 1, task.Failure: 1})
}

// stand is where a task can be before something happens to it.
type stand struct {
	status task.Status
	from   task.Status // of a Paused task: where it was
	late   bool        // of a task that was paused while Claimed: on_start was accepted meanwhile
}

func (s stand) String() string {
	switch {
	case s.late:
		return fmt.Sprintf("Paused from %s, accepted since", s.from)
	case s.status == task.Paused:
		return fmt.Sprintf("Paused from %s", s.from)
	}
	return s.status.String()
}

func stands() []stand {
	var all []stand
	for _, s := range task.Statuses() {
		if s != task.Paused {
			all = append(all, stand{status: s})
			continue
		}
		for _, from := range []task.Status{task.Waiting, task.Pending, task.Claimed, task.Running} {
			all = append(all, stand{status: s, from: from})
		}
		all = append(all, stand{status: s, from: task.Claimed, late: true})
	}
	return all
}

// bring creates a task for every place in at and takes it there. It claims whatever else is Pending.
func (e *env) bring(at []stand, options ...func(*task.Task)) []*task.Task {
	e.Helper()
	blocker := newTask(kind("blocker"))
	tasks := make([]*task.Task, len(at))
	var early, late []*task.Task
	for i, s := range at {
		tasks[i] = newTask(options...)
		origin := s.from
		if origin == 0 {
			origin = s.status
		}
		switch origin {
		case task.Waiting:
			after(blocker)(tasks[i])
			early = append(early, tasks[i])
		case task.Pending:
			late = append(late, tasks[i])
		default:
			early = append(early, tasks[i])
		}
	}
	e.create(append(early, blocker)...)
	e.claim()
	if len(late) > 0 {
		e.create(late...)
	}
	var outcomes []task.Outcome
	for i, s := range at {
		outcomes = append(outcomes, s.way(tasks[i])...)
	}
	if len(outcomes) > 0 {
		e.settle(outcomes...)
	}
	for i, s := range at {
		e.wantStatus(s.status, tasks[i])
	}
	return tasks
}

// way leads a task to s that is Waiting or Pending where s begins there, and otherwise Claimed.
func (s stand) way(t *task.Task) []task.Outcome {
	switch {
	case s.late:
		return []task.Outcome{pause(t), started(t.ID)}
	case s.from == task.Running:
		return []task.Outcome{started(t.ID), pause(t)}
	case s.status == task.Paused:
		return []task.Outcome{pause(t)}
	case s.status == task.Running:
		return []task.Outcome{started(t.ID)}
	case s.status == task.Success, s.status == task.Failure:
		return []task.Outcome{started(t.ID), end(t.ID, s.status)}
	case s.status == task.Canceled:
		return []task.Outcome{cancel(t)}
	}
	return nil
}

func testEveryTransition(t *testing.T, e *env) {
	for _, row := range task.Transitions() {
		got := e.reach(row)
		if got.Status != row.To {
			t.Errorf("%s from %s: the task is %s, want %s", row.Cause, row.From, got.Status, row.To)
		}
		e.wantHistoryTo(got.ID, row)
	}
}

// reach takes a task along one row of the state machine and returns where it is then.
func (e *env) reach(row task.Transition) task.State {
	e.Helper()
	if row.Cause == task.Created {
		parent := newTask()
		child := newTask(after(parent))
		states := e.createBatch(batchOf(parent, child))
		if row.To == task.Waiting {
			return states[1]
		}
		return states[0]
	}
	parent := newTask()
	x := newTask(timeout(time.Second))
	s := startOf(row)
	if s.status == task.Waiting || s.from == task.Waiting {
		after(parent)(x)
	}
	owner := e.process()
	e.create(parent, x)
	if s.status != task.Pending && s.from != task.Pending {
		e.claimWith(store.PumpParams{Owner: owner, Room: ample()})
	}
	if way := s.way(x); len(way) > 0 {
		e.settle(way...)
	}
	e.wantStatus(row.From, x)
	switch row.Cause {
	case task.DependenciesMet:
		e.settle(end(parent.ID, task.Success))
		e.tick(task.Room{}) // without room nothing is claimed
	case task.ParentFailed:
		e.settle(cancel(parent))
		e.claim()
	case task.ClaimedBySchedule:
		e.claim()
	case task.StartAccepted:
		e.settle(started(x.ID))
	case task.StartRefused:
		e.settle(startFailed(x.ID, 1))
	case task.Finished:
		e.settle(end(x.ID, row.To))
	case task.TimedOut:
		e.clock.Advance(2 * time.Second)
		e.settle(expire(x))
	case task.CanceledByClient:
		e.settle(cancel(x))
	case task.LeadsNowhere:
		e.settle(task.Outcome{ID: x.ID, Kind: task.DeadEnd})
	case task.PausedByClient:
		e.settle(pause(x))
	case task.ResumedByClient:
		e.settle(resume(x))
	case task.ClaimTakenOver:
		if err := e.Leave(e.ctx, owner); err != nil {
			e.Fatalf("Leave: %v", err)
		}
		e.takeOver(e.owner)
		if got := e.detail(x.ID).State.Attempt; got != 2 {
			e.Errorf("a claim that was taken over has attempt %d, want 2", got)
		}
	default:
		e.Fatalf("the suite does not know the cause %q", row.Cause)
	}
	return e.detail(x.ID).State
}

// startOf is a place from which the row can be taken.
func startOf(row task.Transition) stand {
	if row.From != task.Paused {
		return stand{status: row.From}
	}
	s := stand{status: task.Paused, from: task.Running}
	switch row.Cause {
	case task.ResumedByClient:
		s.from = row.To
	case task.ParentFailed:
		s.from = task.Waiting
	case task.StartRefused, task.ClaimTakenOver:
		s.from = task.Claimed
	}
	return s
}

// happening is an outcome by name.
type happening struct {
	name string
	of   func(t *task.Task) task.Outcome
}

const (
	late       = "time-out that has come"
	lateSecond = 2 * time.Second
)

func happenings() []happening {
	update := func(name string, edit func(o *task.Outcome)) happening {
		return happening{name, func(t *task.Task) task.Outcome {
			o := task.Outcome{ID: t.ID, Kind: task.Update}
			edit(&o)
			return o
		}}
	}
	return []happening{
		update("update of nothing", func(*task.Outcome) {}),
		update("update of counts", func(o *task.Outcome) { o.NewSuccess, o.NewFailures = 2, 3 }),
		update("success", func(o *task.Outcome) { o.Status, o.NewSuccess = task.Success, 4 }),
		update("failure", func(o *task.Outcome) { o.Status, o.FailureReason = task.Failure, "because" }),
		update("pending", func(o *task.Outcome) { o.Status = task.Pending }),
		update("metadata", func(o *task.Outcome) { o.Metadata = []byte(`{"x":2}`) }),
		update("metadata without the rule's field", func(o *task.Outcome) { o.Metadata = []byte(`{"y":1}`) }),
		update("priority", func(o *task.Outcome) { o.Priority = new(7) }),
		update("expected count", func(o *task.Outcome) { o.ExpectedCount = new(int64(9)) }),
		update("success with everything else", func(o *task.Outcome) {
			o.Status, o.Metadata, o.Priority, o.ExpectedCount = task.Success, []byte(`{"x":3}`), new(-1), new(int64(1))
		}),
		{"count", func(t *task.Task) task.Outcome { return count(t.ID, 5, 6) }},
		{"cancel", cancel},
		{"pause", pause},
		{"resume", resume},
		{"started", func(t *task.Task) task.Outcome { return started(t.ID) }},
		{"started with a cancel action", func(t *task.Task) task.Outcome { return startedWithCancel(t.ID) }},
		{"start failed", func(t *task.Task) task.Outcome { return startFailed(t.ID, 1) }},
		{"start failed of another attempt", func(t *task.Task) task.Outcome { return startFailed(t.ID, 2) }},
		{"time-out that has not come", expire},
		{late, expire},
	}
}

func testEveryOutcome(t *testing.T, e *env) {
	var at []stand
	var what []happening
	for _, s := range stands() {
		for _, h := range happenings() {
			at, what = append(at, s), append(what, h)
		}
	}
	i := -1
	tasks := e.bring(at, endActions(1), metadata(`{"x":1}`), limit(1000, "x"), func(k *task.Task) {
		i++
		k.Timeout = time.Hour
		if what[i].name == late {
			k.Timeout = time.Second
		}
	})
	e.clock.Advance(lateSecond)
	outcomes := make([]task.Outcome, len(tasks))
	before := make([]*store.Detail, len(tasks))
	for i, k := range tasks {
		outcomes[i], before[i] = what[i].of(k), e.detail(k.ID)
	}
	results := e.settleAll(outcomes...).Results
	for i := range tasks {
		if diff := e.compareWithApply(before[i], &outcomes[i], results[i]); diff != "" {
			t.Errorf("%s, task %s (-want +got):\n%s", what[i].name, at[i], diff)
		}
	}
	e.claim()
}

// compareWithApply says where the store differs from the domain about one outcome.
func (e *env) compareWithApply(before *store.Detail, o *task.Outcome, got store.Result) string {
	e.Helper()
	want := *before
	triggers, err := task.Apply(&want.State, &want.Task, o, e.clock.Now())
	if code(err) != code(got.Err) {
		return fmt.Sprintf("-%v\n+%v", err, got.Err)
	}
	if got.From != before.State.Status {
		return fmt.Sprintf("-from %s\n+from %s", before.State.Status, got.From)
	}
	for _, trigger := range triggers {
		for place := range want.Task.Actions(trigger) {
			want.Deliveries = append(want.Deliveries,
				store.DeliveryRecord{Trigger: trigger, Place: place, State: store.DeliveryPending})
		}
	}
	after := e.detail(o.ID)
	for i := range after.Deliveries[min(len(before.Deliveries), len(after.Deliveries)):] {
		d := &after.Deliveries[len(before.Deliveries)+i]
		d.ID, d.NextAt = task.ID{}, time.Time{}
	}
	if diff := cmp.Diff(got.State, after.State); diff != "" {
		return "the answer differs from what is stored:\n" + diff
	}
	want.State = withoutTimes(want.State, before.State)
	after.State = withoutTimes(after.State, before.State)
	return cmp.Diff(&want, after)
}

func code(err error) task.RefusalCode {
	if refusal, ok := errors.AsType[*task.Refusal](err); ok {
		return refusal.Code
	}
	return 0
}

// withoutTimes replaces times that are new since before by one and the same.
func withoutTimes(s, before task.State) task.State {
	for _, at := range [][2]*time.Time{
		{&s.ClaimedAt, &before.ClaimedAt}, {&s.StartedAt, &before.StartedAt},
		{&s.EndedAt, &before.EndedAt}, {&s.LastUpdated, &before.LastUpdated},
	} {
		if !at[0].IsZero() && !at[0].Equal(*at[1]) {
			*at[0] = time.Unix(1, 0)
		}
	}
	return s
}

func testEditStarted(t *testing.T, e *env) {
	first := newTask(limit(1, "x"), metadata(`{"x":1}`))
	e.create(first)
	e.wantClaims(first)
	e.settle(started(first.ID), setMetadata(first, `{"x":2}`))
	one, two := newTask(limit(1, "x"), metadata(`{"x":1}`)), newTask(limit(1, "x"), metadata(`{"x":2}`))
	e.create(one, two)
	e.wantClaims(two) // the slot of x=1 stays taken, and none of x=2 was
	e.finish(task.Success, first)
	e.wantClaims(one)
}
