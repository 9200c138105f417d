package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"taskrunner/api"
)

// meter measures how many tasks are at work at once, by keys of the test's choice.
type meter struct {
	mu         sync.Mutex
	changed    sync.Cond
	open, most map[string]int
}

func newMeter() *meter {
	m := &meter{open: map[string]int{}, most: map[string]int{}}
	m.changed.L = &m.mu
	return m
}

func (m *meter) add(n int, keys ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		m.open[key] += n
		m.most[key] = max(m.most[key], m.open[key])
	}
	m.changed.Broadcast()
}

// wait returns when as many have been at work at once as limits say for keys, or ctx ends.
func (m *meter) wait(ctx context.Context, limits map[string]int, keys ...string) {
	defer context.AfterFunc(ctx, func() { m.add(0) })()
	m.mu.Lock()
	defer m.mu.Unlock()
	missing := func(key string) bool { return m.most[key] < limits[key] }
	for ctx.Err() == nil && slices.ContainsFunc(keys, missing) {
		m.changed.Wait()
	}
}

// check wants each key to have reached its limit, and never more.
func (m *meter) check(t *testing.T, limits map[string]int) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, want := range limits {
		if m.most[key] != want {
			t.Errorf("%s: %d at once, want %d", key, m.most[key], want)
		}
	}
}

// metered is a worker that is at work from the arrival of on_start until just before it reports: never longer than its
// task holds a slot, and until the limits of its keys have been reached.
func (r *receiver) metered(m *meter, limits map[string]int, keys ...string) func(http.ResponseWriter, call) {
	return func(_ http.ResponseWriter, c call) {
		m.add(1, keys...)
		r.jobs.Go(func() {
			m.wait(r.life, limits, keys...)
			time.Sleep(10 * time.Millisecond) // so that one too many would be seen
			m.add(-1, keys...)
			report(r.life, http.MethodPatch, c.Handle, obj{"status": "Success"})
		})
	}
}

func TestLimitsPerTenant(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r, m := newReceiver(t), newMeter()
		limits := map[string]int{"tenant1": 1, "tenant2": 1, "tenant3": 3}
		var batch []obj
		for tenant, n := range limits {
			r.handle("/"+tenant, r.metered(m, limits, tenant))
			for i := range 15 {
				batch = append(batch, r.newTask(fmt.Sprint(tenant, " ", i), "/"+tenant, obj{
					"metadata": obj{"tenant": tenant, "i": i}, "rules": []obj{limit("test", n, "tenant")},
				}))
			}
		}
		_, id := s.create(batch)
		if n := s.waitEnd(id); n.Success != len(batch) {
			t.Errorf("ends %+v", n)
		}
		m.check(t, limits)
		s.checkDrift()
	})
}

// TestHandOver: when a slot becomes free the next task starts at once, not with the tick of a second.
func TestHandOver(t *testing.T) {
	const tasks = 31
	onBoth(t, func(t *testing.T, s *service) {
		r, m := newReceiver(t), newMeter()
		var mu sync.Mutex
		var started, reported []time.Time
		r.handle("/run", func(_ http.ResponseWriter, c call) {
			m.add(1, "all")
			r.jobs.Go(func() {
				m.add(-1, "all")
				mu.Lock()
				started, reported = append(started, c.At), append(reported, time.Now())
				mu.Unlock()
				report(r.life, http.MethodPatch, c.Handle, obj{"status": "Success"})
			})
		})
		var batch []obj
		for i := range tasks {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"rules": []obj{limit("test", 1)}}))
		}
		_, id := s.create(batch)
		s.waitEnd(id)
		m.check(t, map[string]int{"all": 1})
		var gaps []time.Duration
		for i := 1; i < len(started); i++ {
			gaps = append(gaps, started[i].Sub(reported[i-1]))
		}
		slices.Sort(gaps)
		t.Logf("from a report to the next on_start: median %v, slowest %v", gaps[len(gaps)/2], gaps[len(gaps)-1])
		if gap := gaps[len(gaps)*4/5]; gap > 500*time.Millisecond {
			t.Errorf("one hand-over in five takes more than %v", gap)
		}
		s.checkDrift()
	})
}

// TestEverythingThatMatchesCounts: tasks without a rule of their own take the slots of those that have one, and tasks
// that do not match take none.
func TestEverythingThatMatchesCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tenant := func(name any) obj { return obj{"metadata": obj{"tenant": name}} }
		free, _ := s.create([]obj{
			r.newTask("a", "/run", tenant("x")), r.newTask("b", "/run", tenant("x")), r.newTask("c", "/run", tenant("x")),
			r.newTask("other tenant", "/run", tenant("y")), r.newTask("null", "/run", tenant(nil)),
			r.newTask("no tenant", "/run", nil), r.newTask("text", "/run", tenant("1")),
			r.newTask("other kind", "/run", obj{"kind": "other", "metadata": obj{"tenant": "x"}}),
		})
		for _, task := range free {
			s.waitStatus(task.ID, "Running")
		}
		ruled := func(id string, n int, name any) obj {
			return r.newTask(id, "/run", obj{"metadata": obj{"tenant": name}, "rules": []obj{limit("test", n, "tenant")}})
		}
		tasks, _ := s.create([]obj{
			ruled("held", 2, "x"), ruled("held too", 3, "x"), ruled("y", 2, "y"), ruled("null", 2, nil), ruled("number", 1, 1),
		})
		for _, local := range []string{"y", "null", "number"} {
			s.waitStatus(tasks[local].ID, "Running")
		}
		s.held(r, tasks["held"].ID, tasks["held too"].ID)
		s.finish(free["a"].ID, "Success") // two are left
		s.waitStatus(tasks["held too"].ID, "Running")
		s.finish(free["b"].ID, "Failure")
		s.held(r, tasks["held"].ID) // c and the one that has just started
		s.want(200, "DELETE", "/task/"+free["c"].ID, nil)
		s.waitStatus(tasks["held"].ID, "Running")
		// A fourth without a rule is not held back by the rules of the others.
		more, _ := s.create([]obj{r.newTask("d", "/run", tenant("x"))})
		s.waitStatus(more["d"].ID, "Running")
		s.checkDrift()
	})
}

// TestRuleAboutAnotherKind: it may start while no more than the limit are Running, and takes no slot itself.
func TestRuleAboutAnotherKind(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		imports, _ := s.create([]obj{
			r.newTask("a", "/run", obj{"kind": "import"}), r.newTask("b", "/run", obj{"kind": "import"}), r.newTask("c", "/run", obj{"kind": "import"}),
		})
		for _, task := range imports {
			s.waitStatus(task.ID, "Running")
		}
		var batch []obj
		var ids []string
		for i := range 4 {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"kind": "report", "rules": []obj{limit("import", 2)}}))
		}
		reports, _ := s.create(batch)
		for _, task := range reports {
			ids = append(ids, task.ID)
		}
		s.held(r, ids...)
		s.finish(imports["a"].ID, "Success")
		for _, id := range ids {
			s.waitStatus(id, "Running")
		}
		s.checkDrift()
	})
}

func TestTwoRulesTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r, m := newReceiver(t), newMeter()
		limits := map[string]int{"all": 2}
		var batch []obj
		for tenant := range 4 {
			key := fmt.Sprint("tenant", tenant)
			limits[key] = 1
			r.handle("/"+key, r.metered(m, limits, key, "all"))
			for i := range 8 {
				batch = append(batch, r.newTask(fmt.Sprint(key, " ", i), "/"+key, obj{
					"metadata": obj{"tenant": tenant}, "rules": []obj{limit("test", 1, "tenant"), limit("test", 2)},
				}))
			}
		}
		_, id := s.create(batch)
		if n := s.waitEnd(id); n.Success != len(batch) {
			t.Errorf("ends %+v", n)
		}
		m.check(t, limits)
		s.checkDrift()
	})
}

// TestOrder: higher priority first, then oldest first: for those that a rule holds back, for those that wait for room,
// and for those that come at once.
func TestOrder(t *testing.T) {
	rule := obj{"rules": []obj{limit("test", 1)}}
	t.Run("rule", func(t *testing.T) {
		onBoth(t, func(t *testing.T, s *service) { checkOrder(t, s, true, rule) })
	})
	t.Run("room", func(t *testing.T) {
		onBothWith(t, map[string]string{"WEBHOOK_WINDOW": "1"}, func(t *testing.T, s *service) { checkOrder(t, s, true, nil) })
	})
	t.Run("at once", func(t *testing.T) {
		onBoth(t, func(t *testing.T, s *service) { checkOrder(t, s, false, rule) })
	})
}

// checkOrder creates tasks, behind one that is at work or not, of which one may run at a time.
func checkOrder(t *testing.T, s *service, behind bool, with obj) {
	r := newReceiver(t)
	hang, release := r.hold(r.worker(0, "Success"))
	r.handle("/first", hang)
	r.handle("/run", r.worker(0, "Success"))
	priorities, sizes := []int{0, 5, -1000, 1000, 0, 5, -1, 1000, 0, 7}, []int{10}
	if behind {
		s.create([]obj{r.newTask("first", "/first", with)})
		r.wait(1, "the first on_start", to("/first"))
		sizes = []int{7, 3} // age counts over batches
	}
	var want []api.Task
	for _, size := range sizes {
		var batch []obj
		for i, p := range priorities[:size] {
			task := r.newTask(fmt.Sprint(i), "/run", with)
			task["priority"] = p
			batch = append(batch, task)
		}
		want = append(want, decode[[]api.Task](t, s.want(201, "POST", "/task", batch))...)
		priorities = priorities[size:]
	}
	if behind { // the last one is moved to the front
		want[9].Priority = 999
		s.want(200, "PATCH", "/task/"+want[9].ID, obj{"priority": 999})
	}
	slices.SortStableFunc(want, func(a, b api.Task) int { return b.Priority - a.Priority })
	release()
	starts := r.wait(len(want), "all have started", to("/run"))
	for i, c := range starts {
		if c.Task != want[i].ID {
			t.Errorf("start %d is not that of the task with priority %d", i, want[i].Priority)
		}
		s.waitStatus(c.Task, "Success")
	}
	s.checkDrift()
}

// TestChangesThatLetGo: what a held-back task waits for can change while it waits.
func TestChangesThatLetGo(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		ruled := func(id, tenant string) obj {
			return r.newTask(id, "/run", obj{"metadata": obj{"tenant": tenant}, "rules": []obj{limit("test", 1, "tenant")}})
		}
		tasks, _ := s.create([]obj{ruled("a", "x"), ruled("b", "x"), ruled("c", "x"), ruled("d", "x")})
		a, b, c, d := tasks["a"].ID, tasks["b"].ID, tasks["c"].ID, tasks["d"].ID
		s.waitStatus(a, "Running")
		s.held(r, b, c, d)
		bad := s.want(400, "PATCH", "/task/"+b, obj{"metadata": obj{"tenants": "y"}, "new_success": 1})
		wantDetail(t, bad, "tenant")
		if got := s.task(b); got.Success != 0 || !sameJSON(t, string(got.Metadata), `{"tenant":"x"}`) {
			t.Errorf("a refused update changed %s", jsonOf(got))
		}
		s.want(200, "PATCH", "/task/"+b, obj{"metadata": obj{"tenant": "y"}})
		s.waitStatus(b, "Running")
		s.held(r, c, d)
		// One that has started keeps the slot it took.
		s.want(200, "PATCH", "/task/"+a, obj{"metadata": obj{"tenant": "z"}})
		s.held(r, c, d)
		s.want(200, "DELETE", "/task/"+c, nil)
		s.finish(a, "Success")
		s.waitStatus(d, "Running")
		s.checkDrift()
	})
}

// TestEditRules: the rules of a batch can be loosened, tightened and taken away while its tasks wait.
func TestEditRules(t *testing.T) {
	const tasks = 1000
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var batch []obj
		for i := range tasks {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"metadata": obj{"tenant": i % 2}, "rules": []obj{limit("test", 1)}}))
		}
		batch = append(batch, r.newTask("other", "/other", obj{"kind": "other", "rules": []obj{limit("test", 1)}}))
		created, id := s.create(batch)
		starts := r.wait(1, "the first on_start", to("/run"))
		edit := func(status int, kind string, rules ...obj) answer {
			t.Helper()
			if rules == nil {
				rules = []obj{}
			}
			return s.want(status, "PATCH", "/batch/"+id+"/rules", obj{"kind": kind, "rules": rules})
		}
		bad := edit(400, "test", limit("test", 5, "tenant", "project"))
		wantDetail(t, bad, "project")
		s.finish(starts[0].Task, "Success")
		r.wait(2, "the refused edit changed nothing", to("/run"))

		tagged := obj{"type": "Concurrency", "matcher": limit("test", 3, "tenant")["Concurency"].(obj)["matcher"], "max_concurrency": 3}
		if n := decode[api.RulesEdited](t, edit(200, "test", tagged)).UpdatedCount; n != tasks-1 {
			t.Errorf("%d tasks were updated, want %d", n, tasks-1)
		}
		starts = r.wait(7, "three at once for each of two tenants", to("/run"))
		if got := s.task(starts[6].Task); len(got.Rules) != 1 || !sameJSON(t, string(got.Rules[0]), jsonOf(tagged)) {
			t.Errorf("a task's rules are %s, want %s", got.Rules, jsonOf(tagged))
		}
		edit(200, "test")
		r.wait(tasks, "without rules all start", to("/run"))
		s.want(404, "PATCH", "/batch/"+starts[0].Task+"/rules", obj{"kind": "test", "rules": []obj{}})
		if got := s.task(created["other"].ID); len(got.Rules) != 1 || !sameJSON(t, string(got.Rules[0]), jsonOf(limit("test", 1))) {
			t.Errorf("the rules of a task of another kind are %s", got.Rules)
		}
		s.checkDrift()
	})
}
