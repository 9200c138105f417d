package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var explainTests = []conformance{
	{"the parents that have not ended", testExplainParents},
	{"a gate with what holds it, as of this moment", testExplainGate},
	{"a rule that the pump has not counted yet", testExplainNewRule},
	{"gates of several rules", testExplainRules},
	{"holders and places are counted up to a bound", testExplainBounds},
	{"the line for a host", testExplainLine},
	{"a claim whose process has died", testExplainOrphan},
	{"limits are those in use", testLimits},
	{"limits in pages, and of a kind", testLimitPages},
	{"limits of those who wait now", testLimitLanes},
}

func (e *env) explain(t *task.Task) *store.Situation {
	e.Helper()
	s, err := e.Explain(e.ctx, t.ID)
	if err != nil {
		e.Fatalf("Explain: %v", err)
	}
	want := e.detail(t.ID).Item
	want.Task.Dependencies = nil
	if diff := cmp.Diff(want, s.Item); diff != "" {
		e.Errorf("the task is not as Task has it:\n%s", diff)
	}
	return s
}

func testExplainParents(t *testing.T, e *env) {
	if s, err := e.Explain(e.ctx, newID()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown task: %v, %v", s, err)
	}
	parents := newTasks(store.MaxUnmet + 3)
	child := newTask(after(parents[1:]...), afterAny(parents[0]))
	e.create(append(parents, child)...)
	wantUnmet := func(all int, first, second store.UnmetParent) {
		t.Helper()
		s := e.explain(child)
		if s.State.Unmet != all || len(s.Unmet) != min(all, store.MaxUnmet) {
			t.Errorf("%d parents listed of %d, want %d of %d", len(s.Unmet), s.State.Unmet, min(all, store.MaxUnmet), all)
		}
		if diff := cmp.Diff([]store.UnmetParent{first, second}, s.Unmet[:2]); diff != "" {
			t.Error(diff)
		}
		if s.Now.IsZero() || s.Parked != nil || s.Orphaned || s.Ahead != 0 {
			t.Errorf("%+v", s)
		}
	}
	unmet := func(i int, status task.Status) store.UnmetParent {
		return store.UnmetParent{ID: parents[i].ID, Name: "a task", Status: status, RequiresSuccess: i > 0}
	}
	wantUnmet(len(parents), unmet(0, task.Pending), unmet(1, task.Pending))
	e.run()
	e.settle(pause(parents[1]))
	wantUnmet(len(parents), unmet(0, task.Running), unmet(1, task.Paused))
	e.finish(task.Failure, parents[0])
	e.finish(task.Success, parents[3:]...)
	s := e.explain(child) // not folded yet
	if s.State.Unmet != len(parents) || len(s.Unmet) != 2 {
		t.Errorf("%d listed of %d", len(s.Unmet), s.State.Unmet)
	}
	e.claim()
	wantUnmet(2, unmet(1, task.Paused), unmet(2, task.Running))
	e.finish(task.Success, parents[1:3]...)
	e.claim()
	if s := e.explain(child); len(s.Unmet) != 0 || s.State.Status != task.Claimed {
		t.Errorf("%+v", s)
	}
}

func testExplainGate(t *testing.T, e *env) {
	tasks := newTasks(5, limit(2, "v"), metadata(`{"v":[1, {"x":2.0}]}`))
	e.create(tasks...)
	e.run()
	wantGate := func(k *task.Task, parked bool, ahead, used int, holders ...*task.Task) {
		t.Helper()
		s := e.explain(k)
		if len(s.Gates) != 1 || (s.Parked != nil) != parked || s.Ahead != ahead {
			t.Fatalf("%d gates, parked at %v behind %d; want it behind %d", len(s.Gates), s.Parked, s.Ahead, ahead)
		}
		g := s.Gates[0]
		if parked && *s.Parked != g.Gate.ID {
			t.Errorf("parked at %d, want %d", *s.Parked, g.Gate.ID)
		}
		shape := task.Shape{ID: g.Gate.Shape, Kind: "work", Status: task.Running, Fields: []string{"v"}}
		if diff := cmp.Diff(shape, g.Shape); diff != "" {
			t.Error(diff)
		}
		if !g.Counted || g.Used != used || g.Limit != 2 || g.Gate.Values != `[[1,{"x":2}]]` || !slices.Equal(g.Holders, idsOf(holders...)) {
			t.Errorf("%+v, want %d used by %v", g, used, idsOf(holders...))
		}
	}
	wantGate(tasks[2], true, 0, 2, tasks[0], tasks[1])
	wantGate(tasks[4], true, 2, 2, tasks[0], tasks[1])
	wantGate(tasks[0], false, 0, 2, tasks[0], tasks[1])
	e.settle(setPriority(tasks[4], 1))
	e.claim()
	wantGate(tasks[2], true, 1, 2, tasks[0], tasks[1])
	wantGate(tasks[4], true, 0, 2, tasks[0], tasks[1])
	e.settle(pause(tasks[1])) // keeps its slot
	e.finish(task.Success, tasks[0])
	wantGate(tasks[4], true, 0, 1, tasks[1]) // given back, and not folded yet
	e.wantClaims(tasks[4])
	wantGate(tasks[2], true, 0, 2, tasks[1], tasks[4])
	e.settle(cancel(tasks[1]), cancel(tasks[4]), cancel(tasks[2]), cancel(tasks[3]))
	wantGate(tasks[2], false, 0, 0)
	e.claim()
	wantGate(tasks[2], false, 0, 0)
}

func testExplainNewRule(t *testing.T, e *env) {
	running := newTask()
	e.create(running)
	e.run()
	waiter := newTask(limit(1))
	e.create(waiter)
	if s := e.explain(waiter); s.Gates[0].Counted || s.Parked != nil {
		t.Errorf("%+v, want a gate that is not counted", s)
	}
	e.claim()
	s := e.explain(waiter)
	if g := s.Gates[0]; !g.Counted || g.Used != 1 || !slices.Equal(g.Holders, idsOf(running)) || s.Parked == nil {
		t.Errorf("%+v, want it held by %s", s, running.ID)
	}
}

func testExplainRules(t *testing.T, e *env) {
	other, first := newTask(kind("other")), newTask(metadata(`{"v":1}`))
	e.create(other, first)
	e.run()
	k := newTask(limit(2, "v"), limitKind("other", 1), limitKind("other", 2), limit(1, "v"), limit(9), metadata(`{"v":1}`))
	e.create(k)
	e.claim()
	s := e.explain(k)
	var got [][2]int
	for _, g := range s.Gates {
		got = append(got, [2]int{g.Used, g.Limit})
		want := idsOf(first)
		if g.Shape.Kind == "other" {
			want = idsOf(other)
		}
		if !g.Counted || !slices.Equal(g.Holders, want) {
			t.Errorf("%+v, want it held by %v", g, want)
		}
	}
	if want := [][2]int{{1, 2}, {1, 2}, {1, 3}, {1, 1}, {1, 9}}; !slices.Equal(got, want) {
		t.Errorf("used and limit %v, want %v", got, want)
	}
	if s.Parked == nil || *s.Parked != s.Gates[3].Gate.ID {
		t.Errorf("parked at %v, want %d", s.Parked, s.Gates[3].Gate.ID)
	}
}

func testExplainBounds(t *testing.T, e *env) {
	const slots = store.MaxHolders + 5
	tasks := newTasks(slots+store.MaxAhead+10, limit(slots))
	e.create(tasks...)
	e.run()
	last := e.explain(tasks[len(tasks)-1])
	if last.Ahead != store.MaxAhead+1 || last.Gates[0].Used != slots {
		t.Errorf("%d ahead, %d used", last.Ahead, last.Gates[0].Used)
	}
	holders, running := last.Gates[0].Holders, idsOf(tasks[:slots]...)
	strange := func(id task.ID) bool { return !slices.Contains(running, id) }
	if len(holders) != store.MaxHolders || !slices.IsSortedFunc(holders, compareIDs) || slices.ContainsFunc(holders, strange) {
		t.Errorf("holders %v", holders)
	}
	if s := e.explain(tasks[slots+store.MaxAhead]); s.Ahead != store.MaxAhead {
		t.Errorf("%d ahead, want %d", s.Ahead, store.MaxAhead)
	}
	l := e.limits(store.LimitFilter{})
	if len(l.Gates) != 1 || l.Gates[0].Waiting != store.MaxAhead+1 || l.Gates[0].Used != slots {
		t.Errorf("%+v", l)
	}
}

func testExplainLine(t *testing.T, e *env) {
	tasks := newTasks(4)
	tasks[3].Priority = 1
	elsewhere := newTask(host(hostB), priority(2))
	e.create(append(tasks, elsewhere)...)
	for i, want := range []int{1, 2, 3, 0} {
		if s := e.explain(tasks[i]); s.Ahead != want || s.Parked != nil || len(s.Gates) != 0 {
			t.Errorf("task %d: %+v, want %d in front", i, s, want)
		}
	}
	if s := e.explain(elsewhere); s.Ahead != 0 {
		t.Errorf("%d in front at another host", s.Ahead)
	}
	e.run()
	if s := e.explain(tasks[2]); s.Ahead != 0 {
		t.Errorf("%d in front of one that runs", s.Ahead)
	}
}

func testExplainOrphan(t *testing.T, e *env) {
	k := newTask()
	e.create(k)
	mortal := newID()
	e.heartbeat(mortal, time.Minute)
	e.pump(store.PumpParams{Owner: mortal, Room: ample()})
	if s := e.explain(k); s.State.Status != task.Claimed || s.Orphaned {
		t.Errorf("%+v", s)
	}
	e.clock.Advance(2 * time.Minute)
	before := e.explain(k)
	if !before.Orphaned {
		t.Errorf("not orphaned though the lease has run out: %+v", before)
	}
	e.heartbeat(e.owner, time.Hour)
	e.takeOver(e.owner)
	if s := e.explain(k); s.Orphaned || s.State.Attempt != 2 || s.Now.Before(before.Now) {
		t.Errorf("%+v", s)
	}
}

func (e *env) limits(f store.LimitFilter) *store.Limits {
	e.Helper()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	if f.After == 0 {
		f.After = store.FirstGate
	}
	l, err := e.Limits(e.ctx, f)
	if err != nil {
		e.Fatalf("Limits: %v", err)
	}
	return l
}

func testLimits(t *testing.T, e *env) {
	if l := e.limits(store.LimitFilter{}); len(l.Gates) != 0 || l.Next != nil {
		t.Errorf("%+v", l)
	}
	tasks := newTasks(4, limit(2, "b", "a"), metadata(`{"a":1,"b":"x"}`))
	wide := newTask(limit(3, "a", "b"), metadata(`{"a":1,"b":"x"}`))
	e.create(append(tasks, wide)...)
	e.run()
	wantOne := func(used, waiting int, lanes ...task.Lane) {
		t.Helper()
		l := e.limits(store.LimitFilter{})
		if len(l.Gates) != 1 {
			t.Fatalf("%+v", l)
		}
		g := l.Gates[0]
		if g.Used != used || g.Waiting != waiting || !slices.Equal(g.Lanes, lanes) || g.Values != `[1,"x"]` {
			t.Errorf("%+v, want %d used, %d waiting in %v", g, used, waiting, lanes)
		}
		want := task.Shape{ID: g.GateRow.Shape, Kind: "work", Status: task.Running, Fields: []string{"a", "b"}}
		if diff := cmp.Diff(want, g.Shape); diff != "" {
			t.Error(diff)
		}
	}
	wantOne(3, 2, 2) // wide came last, and may be the third
	e.finish(task.Success, wide, tasks[0])
	wantOne(1, 2, 2) // not folded yet
	e.claim()
	wantOne(2, 1, 2)
	e.settle(cancel(tasks[1]), cancel(tasks[2]), cancel(tasks[3]))
	if l := e.limits(store.LimitFilter{}); len(l.Gates) != 0 {
		t.Errorf("%+v, want none that nobody uses", l)
	}
	e.claim()
}

// testLimitLanes: a lane that nobody waits in any more says nothing.
func testLimitLanes(t *testing.T, e *env) {
	tasks := newTasks(8, limit(1))
	e.create(tasks...)
	e.wantClaims(tasks[0])
	for _, most := range []int{3, 6} {
		e.settle(allEdited(tasks, limit(most))...)
		e.claim()
		l := e.limits(store.LimitFilter{})
		if len(l.Gates) != 1 || l.Gates[0].Used != most || !slices.Equal(l.Gates[0].Lanes, []task.Lane{task.Lane(most)}) {
			t.Errorf("limit %d: %+v", most, l.Gates)
		}
	}
}

func testLimitPages(t *testing.T, e *env) {
	var tasks []*task.Task
	for v := range 30 {
		name := []string{"work", "works", "rest"}[v%3]
		tasks = append(tasks, newTask(kind(name), limitKind(name, 1, "v"), metadata(`{"v":%d}`, v)))
	}
	e.create(tasks...)
	e.run()
	for _, c := range []struct {
		filter store.LimitFilter
		want   int
	}{
		{store.LimitFilter{}, 30}, {store.LimitFilter{Kind: "work"}, 10}, {store.LimitFilter{KindPrefix: "work"}, 20},
		{store.LimitFilter{Kind: "wor"}, 0}, {store.LimitFilter{KindPrefix: "%"}, 0},
	} {
		var got []task.GateID
		pages := 0
		for f := c.filter; ; pages++ {
			f.Limit = 4
			l := e.limits(f)
			for _, g := range l.Gates {
				if g.Used != 1 || g.Waiting != 0 {
					t.Errorf("%+v", g)
				}
				got = append(got, g.ID)
			}
			if l.Next == nil {
				break
			}
			if len(l.Gates) != 4 {
				t.Errorf("%d on a page", len(l.Gates))
			}
			f.After = *l.Next
		}
		if len(got) != c.want || !slices.IsSorted(got) || pages != max(0, (c.want-1)/4) {
			t.Errorf("%+v: %d in %d pages, want %d", c.filter, len(got), pages+1, c.want)
		}
	}
}
