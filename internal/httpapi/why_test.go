package httpapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// stuck is a Pending task with two rules of its own kind and one about another, that nothing holds back.
func stuck(change ...func(w *why)) *why {
	rule := func(kind string, n int, fields ...string) task.Rule {
		return task.Rule{Max: n, Matcher: task.Matcher{Kind: kind, Status: task.Running, Fields: fields}}
	}
	k := &task.Task{
		ID: testID(2), Kind: "load", Metadata: json.RawMessage(`{"tenant":7,"zone":"x"}`),
		Rules:   []task.Rule{rule("load", 2, "tenant", "zone"), rule("import", 3), rule("load", 9)},
		OnStart: task.Action{Verb: "Post", URL: "https://h.test/run"},
	}
	w := &why{
		Situation: store.NewSituation(k, &task.State{ID: k.ID, Status: task.Pending, Timeout: time.Minute}),
		room:      task.Room{Total: 10, PerHost: 4, Busy: map[string]int{}},
	}
	w.Now = start
	for i := range w.Gates {
		w.Gates[i].Counted = true
	}
	for _, c := range change {
		c(w)
	}
	return w
}

func used(i, n int) func(*why) { return func(w *why) { w.Gates[i].Used = n } }

// of makes the rule i one of that type and status, with the limit that it has then.
func of(i int, what task.RuleType, status task.Status) func(*why) {
	return func(w *why) {
		r := &w.Task.Rules[i]
		r.Type, r.Matcher.Status = what, status
		check, _ := r.Check(w.Task.Kind, task.ParseMetadata(w.Task.Metadata))
		w.Gates[i].Check, w.Gates[i].Shape = check, r.Shape()
	}
}

func ahead(n int) func(*why) { return func(w *why) { w.Ahead = n } }
func parkedAt(i int) func(*why) {
	return func(w *why) { w.Parked = &w.Gates[i].Gate.ID }
}

func status(s task.Status, change ...func(*task.State)) func(*why) {
	return func(w *why) {
		w.State.Status = s
		for _, c := range change {
			c(&w.State)
		}
	}
}

func claimedState(s *task.State) { s.ClaimedAt, s.Attempt = start, 1 }

func runningState(s *task.State) {
	claimedState(s)
	s.StartedAt, s.LastUpdated = start, start.Add(time.Second)
}

func endedState(reason string) func(*task.State) {
	return func(s *task.State) { s.EndedAt, s.FailureReason = start, reason }
}

// unmet has n parents that are told of, of all.
func unmet(n, all int) func(*why) {
	return func(w *why) {
		w.State.Unmet = all
		for i := range n {
			w.Unmet = append(w.Unmet, store.UnmetParent{ID: testID(10 + i), Name: "P", Status: task.Claimed, RequiresSuccess: i > 0})
		}
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	parent := func(n int) string { return testID(10 + n).String() }
	inFront := "Those in front of it start first, unless it gets a higher priority"
	room := "A request that is on its way is answered, so that there is room to send another"
	resume := "It is resumed: PATCH /task/resume/" + testID(2).String()
	busy := func(n int) func(*why) { return func(w *why) { w.room.Busy["h.test"] = n } }
	for _, c := range []struct {
		why      *why
		sentence string
		toStart  []string
	}{
		{stuck(), "Nothing holds it back; it starts with one of the next ticks of the pump.", nil},
		{stuck(ahead(2)), "Nothing holds it back; it starts with one of the next ticks of the pump. 2 tasks stand in front of it.", nil},
		{stuck(used(0, 1), used(1, 3), used(2, 8)), "Nothing holds it back; it starts with one of the next ticks of the pump.", nil},
		{stuck(used(0, 2), parkedAt(0)), `A rule holds it back: 2 tasks of kind "load" with the same tenant, zone are at work, and no more than 2 may be.`,
			[]string{"1 of the 2 tasks that hold a slot of rules[0] end"}},
		{stuck(used(0, 5), ahead(1)), `A rule holds it back: 5 tasks of kind "load" with the same tenant, zone are at work, and no more than 2 may be. One task stands in front of it.`,
			[]string{"4 of the 5 tasks that hold a slot of rules[0] end", inFront}},
		{stuck(used(1, 4), ahead(1001)), `A rule holds it back: 4 tasks of kind "import" are at work, and it may start while no more than 3 are. More than 1000 tasks stand in front of it.`,
			[]string{"1 of the 4 tasks that hold a slot of rules[1] end", inFront}},
		{stuck(used(0, 2), used(2, 9)), `2 rules hold it back; the first: 2 tasks of kind "load" with the same tenant, zone are at work, and no more than 2 may be.`,
			[]string{"1 of the 2 tasks that hold a slot of rules[0] end", "1 of the 9 tasks that hold a slot of rules[2] end"}},
		{stuck(used(2, 1), func(w *why) { w.Task.Rules[2].Max, w.Gates[2].Limit = 1, 1 }), `A rule holds it back: 1 task of kind "load" is at work, and no more than 1 may be.`,
			[]string{"The task that holds the slot of rules[2] ends"}},
		{stuck(used(0, 9), func(w *why) { w.Gates[0].Counted = false }), "A rule of it is new; the pump still counts what there is already.", nil},
		{stuck(used(2, 9), busy(4), func(w *why) { w.Gates[0].Counted = false }), `A rule holds it back: 9 tasks of kind "load" are at work, and no more than 9 may be.`,
			[]string{"1 of the 9 tasks that hold a slot of rules[2] end"}},
		{stuck(of(0, task.Capacity, task.Running), used(0, 5)), `A rule holds it back: the tasks of kind "load" with the same tenant, zone at work have 5 left to do, and it may start once that is less than 2.`,
			[]string{"4 of the work of 5 at rules[0] is done"}},
		{stuck(of(0, task.Concurrency, task.Failure), used(0, 2)), `A rule holds it back: 2 tasks of kind "load" with the same tenant, zone are in Failure, and it may start while no more than 1 are.`,
			[]string{"rules[0] is edited: the 2 tasks in Failure that it counts stay so"}},
		{stuck(of(0, task.Concurrency, task.Pending), used(0, 4)), `A rule holds it back: 4 tasks of kind "load" with the same tenant, zone are in Pending, and it may start while no more than 2 are.`,
			[]string{"2 of the 4 tasks in Pending that rules[0] counts leave it"}},
		{stuck(busy(3)), "Nothing holds it back; it starts with one of the next ticks of the pump.", nil},
		{stuck(busy(4), ahead(3)), "No rule holds it back, but its host h.test has no room: 4 of 4 requests are on their way to it. 3 tasks stand in front of it.", []string{room}},
		{stuck(busy(4), used(0, 1), shut(task.BreakerOpen, start)), "No rule holds it back, but its host h.test is failing: 10 requests in a row failed, the last with: EOF. It is tried again at 2026-01-01T00:00:00Z.",
			[]string{"Its host answers a request again"}},
		{stuck(shut(task.BreakerHalfOpen, time.Time{}), ahead(1)), "No rule holds it back, but its host h.test is failing: 10 requests in a row failed, the last with: EOF. A request to try it is next, or on its way. One task stands in front of it.",
			[]string{"Its host answers a request again"}},
		{stuck(status(task.Claimed, claimedState), shut(task.BreakerOpen, start)), "It was claimed, but its host h.test is failing: 10 requests in a row failed, the last with: EOF. It is tried again at 2026-01-01T00:00:00Z.",
			[]string{"on_start is answered with 2xx"}},
		{stuck(busy(3), func(w *why) { w.room.Window, w.room.Total = 16, 5 }),
			"No rule holds it back, but its host h.test has its share of the requests that this process may send: 3 are on their way to it.", []string{room}},
		{stuck(func(w *why) { w.room.Total = 0 }), "No rule holds it back, but as many requests are on their way as this process may send.", []string{room}},
		{stuck(func(w *why) { w.room = task.Room{} }), "Nothing holds it back; it starts with one of the next ticks of the pump.", nil},

		{stuck(status(task.Waiting), unmet(1, 2)), `It waits for its parent "P", which is Pending, to end.`, []string{`Its parent "P" (` + parent(0) + `) has to end`}},
		{stuck(status(task.Waiting), unmet(2, 2), used(0, 2), busy(4)), `It waits for 2 parents to end; the first is "P", which is Pending.`,
			[]string{`Its parent "P" (` + parent(0) + `) has to end`, `Its parent "P" (` + parent(1) + `) has to end in Success`, "1 of the 2 tasks that hold a slot of rules[0] end"}},
		{stuck(status(task.Waiting), unmet(0, 1)), "Its parents have ended; the next tick of the pump lets it go on.", nil},
		{stuck(status(task.Paused), unmet(0, 0), busy(4)), "It is paused, and does not start before it is resumed.", []string{resume}},
		{stuck(status(task.Paused, claimedState)), "It is paused while its worker may be at work; it keeps its slots, and its time-out stands still.", []string{resume, "on_start is answered with 2xx"}},
		{stuck(status(task.Paused, runningState), used(0, 2)), "It is paused while its worker may be at work; it keeps its slots, and its time-out stands still.", []string{resume}},

		{stuck(status(task.Claimed, claimedState), used(0, 2)), "It was claimed, and on_start is on its way; it runs as soon as that is accepted.", []string{"on_start is answered with 2xx"}},
		{stuck(status(task.Claimed, claimedState), func(w *why) { w.failures, w.lastError = 2, "connection refused" }),
			"It was claimed, but on_start has failed 2 times, last with: connection refused; it is sent again.", []string{"on_start is answered with 2xx"}},
		{stuck(status(task.Claimed, claimedState), func(w *why) { w.Orphaned = true }),
			"It was claimed by a process that has died; another one takes it over and sends on_start again.", []string{"on_start is answered with 2xx"}},

		{stuck(status(task.Running, runningState), used(0, 2)), "It runs since 2026-01-01T00:00:00Z; without another report it times out at 2026-01-01T00:01:01Z.", nil},
		{stuck(status(task.Running, runningState), func(w *why) { w.Now = start.Add(time.Hour) }), "It runs, but has not reported in time; it is about to fail with a time-out.", nil},
		{stuck(status(task.Success, endedState("")), used(0, 2)), "It ended in Success at 2026-01-01T00:00:00Z.", nil},
		{stuck(status(task.Failure, endedState("Timeout")), unmet(2, 2)), "It ended in Failure at 2026-01-01T00:00:00Z: Timeout", nil},
		{stuck(status(task.Canceled, endedState(""))), "It ended in Canceled at 2026-01-01T00:00:00Z.", nil},
	} {
		e := c.why.explanation()
		if e.Sentence != c.sentence {
			t.Errorf("%s\nwant %s", e.Sentence, c.sentence)
		}
		if !slices.Equal(e.ToStart, c.toStart) {
			t.Errorf("%s\nto start %q\nwant     %q", e.Sentence, e.ToStart, c.toStart)
		}
	}
}

func TestWhyCountsParents(t *testing.T) {
	t.Parallel()
	e := stuck(status(task.Waiting), unmet(store.MaxUnmet, 5000)).explanation()
	if e.Unmet.Count != 5000 || len(e.Unmet.Tasks) != store.MaxUnmet || e.ToStart[5] != "4995 more parents must end" || len(e.ToStart) != 6 {
		t.Errorf("%d of %d, %q", len(e.Unmet.Tasks), e.Unmet.Count, e.ToStart)
	}
	// One that is listed no more has ended, whatever the state says before that is folded.
	if e := stuck(status(task.Waiting), unmet(3, 50)).explanation(); e.Unmet.Count != 3 || len(e.Unmet.Tasks) != 3 {
		t.Errorf("%+v", e.Unmet)
	}
}

func TestExplainShape(t *testing.T) {
	t.Parallel()
	s := withDiamond(t, func(o *Options) { o.Starts = starts{} })
	golden(t, "explain-waiting", s.do("GET", "/task/"+testID(3).String()+"/explain", ""))
	golden(t, "explain-pending", s.do("GET", "/task/"+testID(2).String()+"/explain", ""))
	s.gates = []store.LimitSituation{
		{GateRow: store.GateRow{Gate: task.Gate{ID: -7, Values: `[{"a":1}]`}, Used: 3, Lanes: []task.Lane{-2, 5}}, Waiting: 1001,
			Shape: task.Shape{Kind: "load", Status: task.Running, Fields: []string{"tenant"}}},
		{GateRow: store.GateRow{Gate: task.Gate{ID: 8, Values: `[]`}, Used: 1, Lanes: []task.Lane{4}}, Shape: task.Shape{Kind: "import", Status: task.Running}},
	}
	golden(t, "limits", s.do("GET", "/limits", ""))
	w := s.do("GET", "/limits?page_size=1&kind=l*&color=red", "")
	if link := w.Header().Get("Link"); link != `</limits?cursor=-7&kind=l%2A&page_size=1>; rel="next"` {
		t.Errorf("Link %s", link)
	}
	if want := (store.LimitFilter{KindPrefix: "l", After: store.FirstGate, Limit: 1}); s.limits != want {
		t.Errorf("%+v, want %+v", s.limits, want)
	}
	s.do("GET", "/limits?cursor=-7&per_page=900&kind=load", "")
	if want := (store.LimitFilter{Kind: "load", After: -7, Limit: 100}); s.limits != want {
		t.Errorf("%+v, want %+v", s.limits, want)
	}
}

// shut has the host's breaker in that state.
func shut(state task.Breaker, probe time.Time) func(*why) {
	return func(w *why) {
		w.target = task.HostState{Breaker: state, Failures: 10, LastError: "EOF", NextProbe: probe}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	s := withDiamond(t, func(o *Options) { o.Starts = starts{} })
	golden(t, "hosts", s.do("GET", "/hosts", ""))
	w := s.do("GET", "/hosts?page_size=1&cursor=a.test", "")
	if link := w.Header().Get("Link"); link != `</hosts?cursor=b.test&page_size=1>; rel="next"` || strings.Count(w.Body.String(), `"name"`) != 1 {
		t.Errorf("Link %s, %s", link, w.Body)
	}
	if w := s.do("GET", "/hosts?page_size=2&cursor=a.test", ""); w.Header().Get("Link") != "" || strings.Count(w.Body.String(), `"name"`) != 2 {
		t.Errorf("the last page has a Link, or lacks a host: %s", w.Body)
	}
	run(t, []scenario{
		{method: "GET", path: "/hosts", status: http.StatusOK, wants: []string{"[]"}}, // this process sends nothing
		{method: "GET", path: "/hosts?page_size=x", status: http.StatusBadRequest, wants: []string{"page_size: must be a whole number"}},
	})
}

type starts struct{}

func (starts) Room() task.Room {
	return task.Room{Total: 9, PerHost: 256, Busy: map[string]int{"example.com": 3}}
}
func (starts) Failing(task.ID) (int, int, string) { return 0, 0, "" }
func (starts) Host(name string) task.HostState {
	return task.HostState{
		Name: name, Breaker: task.BreakerOpen, InFlight: 3, Queued: 1, Failures: 12, Requests: 100, Failed: 40,
		LastError: "connection refused", P50: 2 * time.Millisecond, P99: 9 * time.Millisecond, NextProbe: start,
	}
}
func (s starts) Hosts(after string, limit int) []task.HostState {
	list := []task.HostState{s.Host("a.test"), s.Host("b.test"), {Name: `c"<\u202e.test`}}
	list = slices.DeleteFunc(list, func(h task.HostState) bool { return h.Name <= after })
	return list[:min(limit, len(list))]
}

func TestExplainRefuses(t *testing.T) {
	t.Parallel()
	run(t, []scenario{
		{method: "GET", path: "/task/" + unknown + "/explain", status: http.StatusNotFound, wants: []string{unknown}},
		{method: "GET", path: "/task/x/explain", status: http.StatusBadRequest},
		{method: "PATCH", path: "/task/" + idA + "/explain", status: http.StatusMethodNotAllowed},
		{method: "GET", path: "/limits?cursor=x&per_page=" + strings.Repeat("y", 3) + "&kind=%00", status: http.StatusBadRequest,
			wants: []string{`cursor: \"x\" is not one that Link gave`, "per_page: must be a whole number", "kind: must be UTF-8"}},
		{method: "GET", path: "/limits?kind=a&kind=b", status: http.StatusBadRequest, wants: []string{"stands more than once"}},
		{method: "GET", path: "/limits", status: http.StatusOK, wants: []string{"[]"}},
	})
}

// The limit that is shown is that of the rule, whatever the rule counts.
func TestLimitMax(t *testing.T) {
	t.Parallel()
	for _, c := range []task.Rule{
		{Max: 3, Matcher: task.Matcher{Kind: "work", Status: task.Running}},
		{Max: 3, Matcher: task.Matcher{Kind: "other", Status: task.Running}},
		{Max: 3, Matcher: task.Matcher{Kind: "work", Status: task.Failure}},
		{Max: 3, Matcher: task.Matcher{Kind: "other", Status: task.Failure}},
		{Max: 3, Matcher: task.Matcher{Kind: "work", Status: task.Pending}},
		{Max: 3, Type: task.Capacity, Matcher: task.Matcher{Kind: "work", Status: task.Running}},
		{Max: 3, Type: task.Capacity, Matcher: task.Matcher{Kind: "other", Status: task.Running}},
	} {
		check, _ := c.Check("work", task.Metadata{})
		full := map[task.GateID]int{check.Gate.ID: 100}
		a := task.Admit([]*task.Candidate{{Checks: []task.Check{check}}}, full, task.Room{Total: 1, PerHost: 1})
		l := limit(&store.LimitSituation{
			GateRow: store.GateRow{Gate: check.Gate, Lanes: []task.Lane{a.Park[0].Lane}}, Shape: c.Shape(), Waiting: 1,
		})
		if l.Max == nil || *l.Max != c.Max {
			t.Errorf("%+v: %s", c, jsonOf(l))
		}
	}
}

func jsonOf(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}
