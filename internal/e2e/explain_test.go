package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"taskrunner/api"
)

func (c *client) explain(id string) api.Explanation {
	c.t.Helper()
	return decode[api.Explanation](c.t, c.want(http.StatusOK, http.MethodGet, "/task/"+id+"/explain", nil))
}

// explained waits until the sentence about a task begins like that, and returns all of it.
func (c *client) explained(id, sentence string) api.Explanation {
	c.t.Helper()
	var e api.Explanation
	eventually(c.t, sentence, func() bool {
		e = c.explain(id)
		return strings.HasPrefix(e.Sentence, sentence)
	})
	return e
}

// wantToStart compares what has to happen.
func wantToStart(t *testing.T, e api.Explanation, want ...string) {
	t.Helper()
	if !slices.Equal(e.ToStart, want) && len(e.ToStart)+len(want) > 0 {
		t.Errorf("to_start %q, want %q (%s)", e.ToStart, want, e.Sentence)
	}
}

// TestExplainParent follows a task from Waiting to its end.
func TestExplainParent(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{
			r.newTask("a", "/run", nil), r.newTask("b", "/run", nil),
			r.newTask("c", "/run", obj{"dependencies": []obj{dep("a", true), dep("b", false)}}),
		})
		a, b, c := tasks["a"].ID, tasks["b"].ID, tasks["c"].ID
		s.waitStatus(a, "Running")
		s.waitStatus(b, "Running")
		e := s.explain(c)
		if e.Sentence != `It waits for 2 parents to end; the first is "Task a", which is Running.` || e.Status != "Waiting" || e.Unmet.Count != 2 {
			t.Errorf("%s", jsonOf(e))
		}
		wantToStart(t, e, `Its parent "Task a" (`+a+`) has to end in Success`, `Its parent "Task b" (`+b+`) has to end`)
		s.finish(b, "Failure")
		e = s.explained(c, `It waits for its parent "Task a", which is Running, to end in Success.`)
		want := []api.UnmetTask{{ID: a, Name: "Task a", Status: "Running", RequiresSuccess: true}}
		if e.Unmet.Count != 1 || !slices.Equal(e.Unmet.Tasks, want) || len(e.Rules) != 0 || e.Start != nil || !e.Deadline.IsZero() {
			t.Errorf("%s", jsonOf(e))
		}
		s.finish(a, "Success")
		e = s.explained(c, "It runs since ")
		if e.Status != "Running" || e.Unmet.Count != 0 || e.Deadline.IsZero() || !e.Deadline.After(e.At.Time) {
			t.Errorf("%s", jsonOf(e))
		}
		wantToStart(t, e)
		s.finish(c, "Failure")
		e = s.explain(c)
		if !strings.HasPrefix(e.Sentence, "It ended in Failure at ") || !strings.HasSuffix(e.Sentence, ": the worker says so") || !e.Deadline.IsZero() {
			t.Errorf("%s", jsonOf(e))
		}
		wantToStart(t, e)
		s.want(http.StatusNotFound, http.MethodGet, "/task/0198c0de-5a10-7000-8000-00000000ffff/explain", nil)
		s.want(http.StatusBadRequest, http.MethodGet, "/task/x/explain", nil)
	})
}

// TestExplainRules: each kind of rule holds a task back, says so, and lets it go when what it names has ended.
func TestExplainRules(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tenant := func(id, kind string, rules ...obj) obj {
			return r.newTask(id, "/run", obj{"kind": kind, "metadata": obj{"tenant": 7}, "rules": rules})
		}
		same, other := limit("load", 2, "tenant"), limit("import", 1)
		cases := []struct {
			name, sentence, toStart string
			holders                 []obj
			task                    obj
			rule                    int // that holds back
		}{
			{"the same kind", `A rule holds it back: 2 tasks of kind "load" with the same tenant are at work, and no more than 2 may be.`,
				"1 of the 2 tasks that hold a slot of rules[0] end", []obj{tenant("1", "load"), tenant("2", "load")}, tenant("x", "load", same), 0},
			{"another kind", `A rule holds it back: 2 tasks of kind "import" are at work, and it may start while no more than 1 are.`,
				"1 of the 2 tasks that hold a slot of rules[0] end", []obj{tenant("1", "import"), tenant("2", "import")}, tenant("x", "load", other), 0},
			{"the second rule", `A rule holds it back: 1 task of kind "load" is at work, and no more than 1 may be.`,
				"The task that holds the slot of rules[1] ends", []obj{tenant("1", "load")}, tenant("x", "load", same, limit("load", 1)), 1},
		}
		for _, c := range cases {
			holders, batch := s.create(c.holders)
			for _, h := range holders {
				s.waitStatus(h.ID, "Running")
			}
			behind := maps.Clone(c.task)
			behind["id"] = "next"
			tasks, _ := s.create([]obj{c.task, behind})
			x, next := tasks["x"].ID, tasks["next"].ID
			var e api.Explanation
			eventually(t, c.name+": it is parked", func() bool {
				e = s.explain(x)
				return e.Rules[c.rule].Place != nil
			})
			rule := e.Rules[c.rule]
			if e.Sentence != c.sentence || !rule.HoldsBack || *rule.Place != (api.Place{Number: 1}) || rule.Used == nil || *rule.Used != len(holders) {
				t.Errorf("%s: %s", c.name, jsonOf(e))
			}
			if !sameJSON(t, string(rule.Rule), jsonOf(c.task["rules"].([]obj)[c.rule])) {
				t.Errorf("%s: rule %s", c.name, rule.Rule)
			}
			wantToStart(t, e, c.toStart)
			var ids []string
			for _, h := range holders {
				ids = append(ids, h.ID)
			}
			slices.Sort(ids)
			if !slices.Equal(rule.Holders, ids) {
				t.Errorf("%s: holders %v, want %v", c.name, rule.Holders, ids)
			}
			eventually(t, c.name+": the next one is parked", func() bool { return s.explain(next).Rules[c.rule].Place != nil })
			if e := s.explain(next); *e.Rules[c.rule].Place != (api.Place{Number: 2}) || !strings.HasSuffix(e.Sentence, " One task stands in front of it.") {
				t.Errorf("%s: %s", c.name, jsonOf(e))
			}
			s.want(http.StatusOK, http.MethodDelete, "/task/"+next, nil)
			s.finish(rule.Holders[0], "Success") // what it named
			if e := s.explained(x, "It runs since "); e.Rules[c.rule].HoldsBack {
				t.Errorf("%s: %s", c.name, jsonOf(e))
			}
			s.finish(x, "Success")
			for _, id := range rule.Holders[1:] {
				s.finish(id, "Success")
			}
			s.waitEnd(batch)
		}
		s.checkDrift()
	})
}

// TestExplainHost: the window of a host is full, and the on_start that fills it hangs.
func TestExplainHost(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_HOST_WINDOW": "1", "WEBHOOK_TIMEOUT": "60s"}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/hang", hang)
		tasks, _ := s.create([]obj{r.newTask("a", "/hang", nil)})
		r.wait(1, "on_start hangs", to("/hang"))
		a := s.explained(tasks["a"].ID, "It was claimed, and on_start is on its way")
		if a.Start == nil || a.Start.Attempt != 1 || a.Start.Failures != 0 || a.Start.ClaimedAt.IsZero() || a.Status != "Pending" {
			t.Errorf("%s", jsonOf(a))
		}
		wantToStart(t, a, "on_start is answered with 2xx")
		waiting, _ := s.create([]obj{r.newTask("b", "/run", nil), r.newTask("c", "/run", nil)})
		host := strings.TrimPrefix(r.url, "http://")
		full := "No rule holds it back, but its host " + host + " has no room: 1 of 1 requests are on their way to it."
		b, c := s.explain(waiting["b"].ID), s.explain(waiting["c"].ID)
		if b.Sentence != full || b.Host != (api.HostState{Name: host, InFlight: 1, Window: 1, Place: b.Host.Place, Breaker: api.Breaker{State: "closed"}}) || *b.Host.Place != (api.Place{Number: 1}) {
			t.Errorf("%s", jsonOf(b))
		}
		if c.Sentence != full+" One task stands in front of it." || *c.Host.Place != (api.Place{Number: 2}) {
			t.Errorf("%s", jsonOf(c))
		}
		wantToStart(t, b, "A request that is on its way is answered, so that there is room to send another")
		release()
		for _, id := range []string{tasks["a"].ID, waiting["b"].ID, waiting["c"].ID} {
			s.explained(id, "It runs since ")
		}
	})
}

func TestExplainFailingStart(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_TIMEOUT": "60s"}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/run", func(w http.ResponseWriter, c call) {
			if len(r.got(to("/run"))) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			hang(w, c)
		})
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil)})
		e := s.explained(tasks["a"].ID, "It was claimed, but on_start has failed 1 time, last with: answer 503; it is sent again.")
		if e.Start == nil || e.Start.Failures != 1 || e.Start.LastStatus == nil || *e.Start.LastStatus != 503 {
			t.Errorf("%s", jsonOf(e))
		}
		release()
		if e := s.explained(tasks["a"].ID, "It runs since "); e.Start != nil {
			t.Errorf("%s", jsonOf(e))
		}
	})
}

func TestExplainPaused(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil), r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}})})
		a, b := tasks["a"].ID, tasks["b"].ID
		s.waitStatus(a, "Running")
		for _, id := range []string{a, b} {
			s.want(http.StatusOK, http.MethodPatch, "/task/pause/"+id, nil)
		}
		e := s.explain(a)
		if !strings.HasPrefix(e.Sentence, "It is paused while its worker may be at work") || !e.Deadline.IsZero() {
			t.Errorf("%s", jsonOf(e))
		}
		wantToStart(t, e, "It is resumed: PATCH /task/resume/"+a)
		e = s.explain(b)
		if e.Sentence != "It is paused, and does not start before it is resumed." || e.Unmet.Count != 1 || e.Unmet.Tasks[0].Status != "Paused" {
			t.Errorf("%s", jsonOf(e))
		}
		wantToStart(t, e, "It is resumed: PATCH /task/resume/"+b, `Its parent "Task a" (`+a+`) has to end in Success`)
		s.finish(a, "Success")
		s.want(http.StatusOK, http.MethodPatch, "/task/resume/"+b, nil)
		s.explained(b, "It runs since ")
	})
}

func TestLimitsList(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var batch []obj
		for tenant := range 3 {
			for i := range tenant + 1 { // one at work, and up to two that wait
				batch = append(batch, r.newTask(fmt.Sprint(tenant, " ", i), "/run", obj{
					"kind": "load", "metadata": obj{"tenant": tenant}, "rules": []obj{limit("load", 1, "tenant")},
				}))
			}
		}
		batch = append(batch, r.newTask("other", "/run", obj{"kind": "import", "rules": []obj{limit("load", 2)}}))
		tasks, _ := s.create(batch)
		limits := func(query string) []api.Limit {
			return decode[[]api.Limit](t, s.want(http.StatusOK, http.MethodGet, "/limits"+query, nil))
		}
		parked := func() (n int) {
			for _, l := range limits("") {
				n += l.Waiting
			}
			return n
		}
		eventually(t, "three tenants are at work, and all others wait", func() bool { return len(limits("")) == 4 && parked() == 4 })
		var got []string
		for _, l := range limits("") {
			most := "-"
			if l.Max != nil {
				most = fmt.Sprint(*l.Max)
			}
			got = append(got, fmt.Sprint(l.Type, l.Kind, l.Status, jsonOf(l.Values), " ", *l.Used, " of ", most, ", ", l.Waiting))
		}
		slices.Sort(got)
		want := []string{
			`ConcurencyloadRunning{"tenant":0} 1 of -, 0`, `ConcurencyloadRunning{"tenant":1} 1 of 1, 1`,
			`ConcurencyloadRunning{"tenant":2} 1 of 1, 2`, `ConcurencyloadRunning{} 3 of 2, 1`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if len(limits("?kind=load")) != 4 || len(limits("?kind=lo*")) != 4 || len(limits("?kind=import")) != 0 {
			t.Error("the filter by kind")
		}
		var ids []string
		for path := "/limits?per_page=3&kind=load"; path != ""; {
			a := s.want(http.StatusOK, http.MethodGet, path, nil)
			for _, l := range decode[[]api.Limit](t, a) {
				ids = append(ids, l.ID)
			}
			path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		}
		slices.Sort(ids)
		if len(slices.Compact(ids)) != 4 {
			t.Errorf("pages have %v", ids)
		}
		s.want(http.StatusBadRequest, http.MethodGet, "/limits?cursor=x&per_page=y", nil)
		s.want(http.StatusOK, http.MethodDelete, "/task/"+tasks["0 0"].ID, nil)
		if n := len(limits("")); n != 3 {
			t.Errorf("%d limits in use, want 3 after one was given back", n)
		}
	})
}
