package e2e

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
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

// TestHandOver: when a slot becomes free the next task starts at once, not with a tick.
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
		onReplicas(t, func(t *testing.T, s replicas) { checkOrder(t, s, true, rule) })
	})
	t.Run("room", func(t *testing.T) {
		onBothWith(t, map[string]string{"WEBHOOK_WINDOW": "1"}, func(t *testing.T, s *service) { checkOrder(t, replicas{s}, true, nil) })
	})
	t.Run("at once", func(t *testing.T) {
		onBoth(t, func(t *testing.T, s *service) { checkOrder(t, replicas{s}, false, rule) })
	})
}

// checkOrder creates tasks, behind one that is at work or not, of which one may run at a time.
func checkOrder(t *testing.T, s replicas, behind bool, with obj) {
	r := newReceiver(t)
	hang, release := r.hold(r.worker(0, "Success"))
	r.handle("/first", hang)
	r.handle("/run", r.worker(0, "Success"))
	priorities, sizes := []int{0, 5, -1000, 1000, 0, 5, -1, 1000, 0, 7, 5, 0}, []int{12}
	if behind {
		s[0].create([]obj{r.newTask("first", "/first", with)})
		r.wait(1, "the first on_start", to("/first"))
		sizes = []int{6, 3, 3} // age counts over batches
	}
	var want []api.Task
	for i, size := range sizes {
		var batch []obj
		for i, p := range priorities[:size] {
			task := r.newTask(fmt.Sprint(i), "/run", with)
			task["priority"] = p
			batch = append(batch, task)
		}
		want = append(want, decode[[]api.Task](t, s[i%len(s)].want(201, "POST", "/task", batch))...)
		priorities = priorities[size:]
	}
	if with != nil && behind {
		last := want[len(want)-1].ID
		eventually(t, "they wait in line", func() bool { return s.any().explain(last).Rules[0].Place != nil })
	}
	if behind { // some are moved
		for i, p := range map[int]int{9: 999, 3: -1000, 2: 6, 11: 5} { // forward, to the end, and between others
			want[i].Priority = p
			s.any().want(200, "PATCH", "/task/"+want[i].ID, obj{"priority": p})
		}
	}
	slices.SortFunc(want, func(a, b api.Task) int {
		return cmp.Or(b.Priority-a.Priority, strings.Compare(a.ID, b.ID)) // replicas may make two of them in one millisecond
	})
	release()
	starts := r.wait(len(want), "all have started", to("/run"))
	for i, c := range starts {
		if c.Task != want[i].ID {
			t.Errorf("start %d is not that of the task with priority %d", i, want[i].Priority)
		}
		s.any().waitStatus(c.Task, "Success")
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
	onReplicas(t, func(t *testing.T, s replicas) {
		r := newReceiver(t)
		var batch []obj
		for i := range tasks {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"metadata": obj{"tenant": i % 2}, "rules": []obj{limit("test", 1)}}))
		}
		batch = append(batch, r.newTask("other", "/other", obj{"kind": "other", "rules": []obj{limit("test", 1)}}))
		created, id := s[0].create(batch)
		starts := r.wait(1, "the first on_start", to("/run"))
		edit := func(status int, kind string, rules ...obj) answer {
			t.Helper()
			if rules == nil {
				rules = []obj{}
			}
			return s.any().want(status, "PATCH", "/batch/"+id+"/rules", obj{"kind": kind, "rules": rules})
		}
		bad := edit(400, "test", limit("test", 5, "tenant", "project"))
		wantDetail(t, bad, "project")
		s.any().finish(starts[0].Task, "Success")
		r.wait(2, "the refused edit changed nothing", to("/run"))

		tagged := obj{"type": "Concurrency", "matcher": limit("test", 3, "tenant")["Concurency"].(obj)["matcher"], "max_concurrency": 3}
		if n := decode[api.RulesEdited](t, edit(200, "test", tagged)).UpdatedCount; n != tasks-1 {
			t.Errorf("%d tasks were updated, want %d", n, tasks-1)
		}
		starts = r.wait(7, "three at once for each of two tenants", to("/run"))
		if got := s.any().task(starts[6].Task); len(got.Rules) != 1 || !sameJSON(t, string(got.Rules[0]), jsonOf(tagged)) {
			t.Errorf("a task's rules are %s, want %s", got.Rules, jsonOf(tagged))
		}
		edit(200, "test")
		r.wait(tasks, "without rules all start", to("/run"))
		s.any().want(404, "PATCH", "/batch/"+starts[0].Task+"/rules", obj{"kind": "test", "rules": []obj{}})
		if got := s.any().task(created["other"].ID); len(got.Rules) != 1 || !sameJSON(t, string(got.Rules[0]), jsonOf(limit("test", 1))) {
			t.Errorf("the rules of a task of another kind are %s", got.Rules)
		}
		s.checkDrift()
		seen := map[string]bool{}
		for _, c := range r.got(to("/run")) {
			if seen[c.Task] {
				t.Errorf("%s was started twice", c.Task)
			}
			seen[c.Task] = true
		}
	})
}

// shift is workers that end their tasks when they are told to. They are at work from the arrival of on_start until just
// before they report: never longer than their tasks hold slots.
type shift struct {
	t    *testing.T
	done chan struct{} // each value lets one of them end

	mu                    sync.Mutex
	started, atWork, most int
	last                  time.Time // when a task was started
}

func (w *shift) start(r *receiver, s replicas) func(http.ResponseWriter, call) {
	return func(_ http.ResponseWriter, c call) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.started, w.atWork, w.last = w.started+1, w.atWork+1, c.At
		if w.atWork > w.most {
			w.t.Errorf("task %s is started: %d are at work, and %d may be", c.Task, w.atWork, w.most)
		}
		r.jobs.Go(func() {
			select {
			case <-w.done:
			case <-r.life.Done():
			}
			w.mu.Lock()
			w.atWork--
			w.mu.Unlock()
			report(r.life, http.MethodPatch, s.at(c.Handle), obj{"status": "Success"})
		})
	}
}

// allow sets how many may be at work when one is started.
func (w *shift) allow(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most = n
}

// end lets n tasks end, and waits until others have been started in place of all but the first idle ones.
func (w *shift) end(n, idle int) {
	w.t.Helper()
	begun := w.startedSoFar()
	for range n {
		eventually(w.t, "a task is at work", func() bool {
			select {
			case w.done <- struct{}{}:
				return true
			default:
				return false
			}
		})
	}
	w.reach(begun + n - idle)
}

func (w *shift) startedSoFar() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started
}

// reach waits until so many have been started, and returns when the last one was.
func (w *shift) reach(started int) time.Time {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d tasks have been started", started), func() bool { return w.startedSoFar() >= started })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started != started {
		w.t.Errorf("%d tasks have been started, want %d", w.started, started)
	}
	return w.last
}

// TestTightenAndLoosen: once an edit is answered that tightens a limit, no task starts beyond it; one that loosens it
// starts tasks at once.
func TestTightenAndLoosen(t *testing.T) {
	const tasks, wide, tight, churn = 80, 8, 2, 15
	onReplicas(t, func(t *testing.T, s replicas) {
		r, w := newReceiver(t), &shift{t: t, done: make(chan struct{}), most: wide}
		r.handle("/run", w.start(r, s))
		var batch []obj
		for i := range tasks {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"rules": []obj{limit("test", wide)}}))
		}
		_, id := s[0].create(batch)
		edit := func(rules ...obj) {
			t.Helper()
			s.any().want(200, "PATCH", "/batch/"+id+"/rules", obj{"kind": "test", "rules": append([]obj{}, rules...)})
		}
		w.reach(wide)
		w.end(churn, 0) // the limit is full again, so nothing is on its way

		edit(limit("test", tight))
		w.allow(tight)
		w.end(wide-tight, wide-tight)
		s.any().held(r)
		w.end(churn, 0)

		var gaps []time.Duration
		for n := tight + 1; n <= tight+10; n++ {
			begun, started := time.Now(), w.startedSoFar()
			w.allow(n)
			edit(limit("test", n))
			gaps = append(gaps, w.reach(started+1).Sub(begun))
		}
		slices.Sort(gaps)
		t.Logf("from an edit to the on_start that it allows: median %v, slowest %v", gaps[5], gaps[9])
		w.end(churn, 0)
		w.allow(tasks)
		edit()
		w.reach(tasks)
		close(w.done)
		if n := s.any().waitEnd(id); n.Success != tasks {
			t.Errorf("ends %+v", n)
		}
		s.checkDrift()
	})
}
