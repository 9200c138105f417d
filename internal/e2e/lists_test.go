package e2e

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"taskrunner/api"
)

// escape writes a value into a query.
func escape(value string) string { return url.QueryEscape(value) }

// list is a page of GET /task.
func (c *client) list(query string) []api.TaskSummary {
	c.t.Helper()
	return decode[[]api.TaskSummary](c.t, c.want(200, "GET", "/task?"+query, nil))
}

func TestListFilters(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/hang", hang)
		rules := []obj{limit("import", 1)}
		first, batch := s.create([]obj{
			r.newTask("running", "/run", obj{"kind": "import", "name": "Import A_1", "timeout": 7007, "metadata": obj{"tenant": 1, "tags": []string{"x", "y"}}}),
			r.newTask("pending", "/run", obj{"kind": "import", "name": "import a%1", "rules": rules, "metadata": obj{"tenant": 1, "deep": obj{"a": 1, "b": []int{2}}}}),
			r.newTask("waiting", "/run", obj{"kind": "report", "name": "Report é", "dependencies": []obj{dep("running", true)}}),
			r.newTask("paused", "/run", obj{"kind": "report-b", "name": "REPORT", "timeout": 7007, "dependencies": []obj{dep("running", true)}, "metadata": obj{"tenant": 2}}),
		})
		second, other := s.create([]obj{
			r.newTask("claimed", "/hang", obj{"kind": "hang", "name": "hang", "metadata": obj{"tenant": "1"}}),
			r.newTask("success", "/run", obj{"kind": "end", "metadata": obj{"tenant": 1, "tags": []string{"y"}}}),
			r.newTask("failure", "/run", obj{"kind": "end", "metadata": obj{"tenant": nil}}),
			r.newTask("canceled", "/run", obj{"kind": "end*", "metadata": obj{"tenant": 1.0}}),
		})
		local := map[string]string{}
		for name, task := range first {
			local[task.ID] = name
		}
		for name, task := range second {
			local[task.ID] = name
		}
		s.want(200, "PATCH", "/task/pause/"+first["paused"].ID, nil)
		for _, task := range []api.Task{first["running"], second["success"], second["failure"], second["canceled"]} {
			s.waitStatus(task.ID, "Running")
		}
		r.wait(1, "on_start hangs", to("/hang"))
		s.finish(second["success"].ID, "Success")
		s.finish(second["failure"].ID, "Failure")
		s.want(200, "DELETE", "/task/"+second["canceled"].ID, nil)

		s.want(202, "PUT", "/task/"+first["pending"].ID, obj{"new_success": 1})
		named := strings.Join([]string{
			second["canceled"].ID, first["running"].ID, second["claimed"].ID, first["paused"].ID, second["failure"].ID,
		}, ",")
		cases := []struct{ query, want string }{ // newest first
			{"", "canceled failure success claimed paused waiting pending running"},
			{"status=Waiting", "waiting"}, {"status=Pending", "claimed pending"}, {"status=Claimed", "claimed"}, {"status=Running", "running"},
			{"status=Paused", "paused"}, {"status=Success", "success"}, {"status=Failure", "failure"}, {"status=Canceled", "canceled"},
			{"status=Success,Failure", "failure success"}, {"status=Running&status=Waiting,Paused", "paused waiting running"}, {"status=", "canceled failure success claimed paused waiting pending running"},
			{"kind=import", "pending running"}, {"kind=impor", ""}, {"kind=Import", ""}, {"kind=report*", "paused waiting"}, {"kind=end", "failure success"}, {"kind=end*", "canceled failure success"},
			{"name=port", "waiting pending running"}, {"name=Import", "running"}, {"name=" + escape("a%1"), "pending"}, {"name=A_1", "running"}, {"name=" + escape("é"), "waiting"}, {"name=" + escape("_%"), ""},
			{"batch_id=" + batch, "paused waiting pending running"}, {"batch_id=" + other + "&status=Claimed", "claimed"},
			{"metadata=" + escape(`{"tenant":1}`), "canceled success pending running"}, {"metadata=" + escape(`{"tenant":"1"}`), "claimed"}, {"metadata=" + escape(`{"tenant":null}`), "failure"},
			{"metadata=" + escape(`{"tags":["y"]}`), "success running"}, {"metadata=" + escape(`{"tags":"y"}`), ""}, {"metadata=" + escape(`{"deep":{"b":[2]}}`), "pending"},
			{"metadata=" + escape(`{"deep":{}}`), "pending"}, {"metadata=" + escape(`{"tenant":1,"tags":["x"]}`), "running"}, {"metadata={}", "canceled failure success claimed paused waiting pending running"},
			{"ids=" + first["pending"].ID + "," + second["success"].ID + "," + first["running"].ID, "success pending running"},
			{"ids=" + first["pending"].ID + "&ids=0198c0de-5a10-7000-8000-00000000ffff," + strings.ToUpper(second["claimed"].ID), "claimed pending"},
			{"ids=0198c0de-5a10-7000-8000-00000000ffff", ""}, {"ids=&kind=import", "pending running"}, {"ids=" + strings.Repeat(first["waiting"].ID+",", 200) + first["waiting"].ID, "waiting"},
			{"status=Running,Paused,Claimed&ids=" + named, "claimed paused running"}, {"status=Running&ids=" + named, "running"}, {"status=Waiting,Failure&ids=" + named, "failure"},
			{"kind=end*&ids=" + named, "canceled failure"}, {"name=hang&ids=" + named, "claimed"}, {"timeout=7007&ids=" + named, "paused running"},
			{"batch_id=" + other + "&ids=" + named, "canceled failure claimed"}, {"metadata=" + escape(`{"tenant":1}`) + "&ids=" + named, "canceled running"},
			{"per_page=2&page=1&ids=" + named, "claimed paused"}, {"cursor=" + first["paused"].ID + "&ids=" + named, "running"},
			{"sort=updated&ids=" + first["pending"].ID + "," + first["waiting"].ID, "pending waiting"}, {"sort=created&kind=import", "pending running"},
			{"sort=updated&per_page=1&batch_id=" + batch, "pending"}, {"sort=updated&status=Running", "running"},
			{"timeout=7007", "paused running"}, {"timeout=3600&kind=end", "failure success"},
			{"kind=import&status=Running&name=A_&timeout=7007&batch_id=" + batch + "&metadata=" + escape(`{"tenant":1}`), "running"},
			{"kind=import&status=Running&name=A_&timeout=8", ""}, {"batch_id=0198c0de-5a10-7000-8000-00000000ffff", ""},
			{"unknown=1&kind=import", "pending running"},
			{"per_page=2", "canceled failure"}, {"page_size=2&page=1", "success claimed"}, {"page=3&per_page=3", ""}, {"page=2&per_page=3", "pending running"}, {"page=1&per_page=1&kind=import", "running"},
			{"per_page=0", "canceled"}, {"per_page=-4&page=-2", "canceled"}, {"page_size=99999999999999999999", "canceled failure success claimed paused waiting pending running"}, {"page=99999999999999999999", ""},
		}
		for _, c := range cases {
			if got := names(local, s.list(c.query)); got != c.want {
				t.Errorf("%s: %s\nwant %s", c.query, got, c.want)
			}
		}
		release()
	})
}

func names(local map[string]string, tasks []api.TaskSummary) string {
	var found []string
	for _, task := range tasks {
		found = append(found, local[task.ID])
	}
	return strings.Join(found, " ")
}

// TestCursor: walking along the links shows every task exactly once, also while others are created.
func TestCursor(t *testing.T) {
	const tasks = 250
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		make := func(n int, kind string) (batch []obj) {
			for i := range n {
				batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"kind": kind}))
			}
			return batch
		}
		seen := map[string]int{}
		for _, part := range []int{100, 1, 149} {
			for _, task := range decode[[]api.CreatedTask](t, s.want(201, "POST", "/task", make(part, "walk"), "Prefer", "return=minimal")) {
				seen[task.ID] = 0
			}
		}
		pages, last := 0, "~"
		for path := "/task?kind=walk*&per_page=20&page=0"; path != ""; pages++ {
			a := s.want(200, "GET", path, nil)
			page := decode[[]api.TaskSummary](t, a)
			for _, task := range page {
				if _, known := seen[task.ID]; !known {
					t.Errorf("page %d has a task that came later", pages)
				}
				seen[task.ID]++
				if task.ID >= last {
					t.Errorf("%s after %s: not newest first", task.ID, last)
				}
				last = task.ID
			}
			s.create(make(3, "walk later"))
			path = next(t, a)
			if path != "" && len(page) != 20 {
				t.Errorf("page %d has %d tasks and a next one", pages, len(page))
			}
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was shown %d times", id, n)
			}
		}
		if pages != 13 || len(seen) != tasks {
			t.Errorf("%d tasks on %d pages, want %d on 13", len(seen), pages, tasks)
		}
	})
}

// next is the path of the link to the next page; empty: there is none.
func next(t *testing.T, a answer) string {
	t.Helper()
	link := a.header.Get("Link")
	if link == "" {
		return ""
	}
	path, rel, found := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !found || rel != `; rel="next"` || !strings.HasPrefix(path, "/task?") && !strings.HasPrefix(path, "/batches?") {
		t.Fatalf("Link %q", link)
	}
	return path
}

// TestListNamed: as many tasks as one list may name come on one page unless a smaller one is asked for, and along the links.
func TestListNamed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var batch []obj
		for i := range 130 {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", nil))
		}
		var ids []string
		for _, task := range decode[[]api.CreatedTask](t, s.want(201, "POST", "/task", batch, "Prefer", "return=minimal"))[15:115] {
			ids = append(ids, task.ID)
		}
		newest := slices.Clone(ids)
		slices.Reverse(newest)
		for _, size := range []string{"", "&per_page=100", "&per_page=30", "&page_size=1"} {
			var got []string
			for path := "/task?ids=" + strings.Join(ids, ",") + size; path != ""; {
				a := s.want(200, "GET", path, nil)
				for _, task := range decode[[]api.TaskSummary](t, a) {
					got = append(got, task.ID)
				}
				if path = next(t, a); size == "" && path != "" {
					t.Error("the 100 are not on one page")
				}
			}
			if !slices.Equal(got, newest) {
				t.Errorf("%q: %d tasks, want the 100 that were named, newest first", size, len(got))
			}
		}
		wantDetail(t, s.want(400, "GET", "/task?ids="+strings.Join(append(ids, nobody), ","), nil), "ids: must be at most 100")
		wantDetail(t, s.want(400, "GET", "/task?sort=updated&status=Failure", nil), "sort: updated needs batch_id, ids or status=Running")
		wantDetail(t, s.want(400, "GET", "/task?timeout=x&ids="+ids[0]+",x", nil), `ids: "x" is not a UUID`, "timeout: ")
	})
}

// nobody is the id of no task.
const nobody = "0198c0de-5a10-7000-8000-00000000ffff"

func TestBatchAndDAG(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		a := s.want(201, "POST", "/task", []obj{
			r.newTask("c", "/run", obj{"dependencies": []obj{dep("b", false), dep("a", true)}, "expected_count": 5}),
			r.newTask("a", "/run", obj{"expected_count": 10}),
			r.newTask("b", "/run", obj{"expected_count": 0}),
		}, "X-Requester", "nightly é")
		batch, created := a.header.Get("X-Batch-ID"), decode[[]api.Task](t, a)
		byLocal := map[string]api.Task{}
		for i, task := range created {
			if want := []string{"c", "a", "b"}[i]; task.LocalID != want || task.BatchID != batch {
				t.Errorf("task %d of the answer is %s of batch %s", i, task.LocalID, task.BatchID)
			}
			byLocal[task.LocalID] = task
		}
		s.waitStatus(byLocal["a"].ID, "Running")
		s.waitStatus(byLocal["b"].ID, "Running")
		s.want(200, "PATCH", "/task/"+byLocal["a"].ID, obj{"status": "Success", "new_success": 9, "new_failures": 1})
		s.want(202, "PUT", "/task/"+byLocal["b"].ID, obj{"new_success": 1})
		sum := s.batch(batch)
		if sum.Requester != "nightly é" || sum.TotalTasks != 3 || sum.TotalSuccess != 10 || sum.TotalFailures != 1 ||
			sum.TotalExpected == nil || *sum.TotalExpected != 15 || sum.StatusCounts != (api.StatusCounts{Waiting: 1, Running: 1, Success: 1}) {
			t.Errorf("batch %s", jsonOf(sum))
		}
		dag := decode[api.DAG](t, s.want(200, "GET", "/dag/"+batch, nil))
		var order []string
		for _, task := range dag.Tasks {
			order = append(order, task.LocalID+" "+task.Status)
		}
		if !slices.Equal(order, []string{"c Waiting", "a Success", "b Running"}) {
			t.Errorf("tasks of the DAG: %v", order)
		}
		links := map[api.Link]bool{}
		for _, link := range dag.Links {
			links[link] = true
		}
		for parent, requires := range map[string]bool{"a": true, "b": false} {
			if want := (api.Link{ParentID: byLocal[parent].ID, ChildID: byLocal["c"].ID, RequiresSuccess: requires}); !links[want] || len(dag.Links) != 2 {
				t.Errorf("links %s, want %s among two", jsonOf(dag.Links), jsonOf(want))
			}
		}
		// One task without expected_count, and the batch has none.
		_, other := s.create([]obj{r.newTask("a", "/run", obj{"expected_count": 1}), r.newTask("b", "/run", nil)})
		if got := s.batch(other); got.TotalExpected != nil || got.Requester != "" {
			t.Errorf("batch %s", jsonOf(got))
		}
	})
}

// TestDialects: rules in both dialects and spellings are read everywhere, hold, and come back as they were sent; so do
// counts, page sizes and actions.
func TestDialects(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var batch []obj
		rules := map[string]string{}
		for i := range 8 {
			name, limit := []string{"Concurency", "Concurrency"}[i&1], []string{"max_concurency", "max_concurrency"}[i>>1&1]
			kind := fmt.Sprint("kind ", i)
			rule := obj{"matcher": obj{"kind": kind, "status": "Running", "fields": []string{"b", "a"}}, limit: 1}
			if i>>2 == 1 {
				rule["type"] = name
			} else {
				rule = obj{name: rule}
			}
			start, end := r.hook("/run"), r.hook("/end")
			if i&1 == 0 {
				start["trigger"], end["trigger"], end["condition"] = "Start", "End", "Success"
			}
			for _, place := range []string{"first", "second"} {
				id := kind + " " + place
				rules[id] = jsonOf([]obj{rule})
				batch = append(batch, r.newTask(id, "/run", obj{
					"kind": kind, "rules": []obj{rule}, "metadata": obj{"a": 1, "b": nil}, "on_start": start, "on_success": []obj{end},
				}))
			}
		}
		tasks, _ := s.create(batch)
		var seconds []string
		for id, task := range tasks {
			shown := s.task(task.ID)
			if got := jsonOf(task.Rules); !sameJSON(t, got, rules[id]) {
				t.Errorf("created with %s, the answer has %s", rules[id], got)
			}
			if got := jsonOf(shown.Rules); !sameJSON(t, got, rules[id]) {
				t.Errorf("created with %s, shown as %s", rules[id], got)
			}
			if len(shown.Actions) != 2 || shown.Actions[0].Trigger != "Start" || shown.Actions[1].Trigger != "End" || shown.Actions[1].Condition != "Success" {
				t.Errorf("actions %s", jsonOf(shown.Actions))
			}
			if strings.HasSuffix(id, "first") {
				s.waitStatus(task.ID, "Running")
			} else {
				seconds = append(seconds, task.ID)
			}
		}
		s.held(r, seconds...)
		id := tasks["kind 0 first"].ID
		s.want(202, "PUT", "/task", obj{"task_id": id, "new_success": 1, "new_failures": 0})
		s.want(202, "PUT", "/task/"+id, obj{"new_success": 2})
		s.want(202, "PUT", "/task/"+id, obj{"task_id": id, "new_failures": 3, "status": "Success", "metadata": obj{}})
		if got := s.task(id); got.Success != 3 || got.Failures != 3 || got.Status != "Running" {
			t.Errorf("counts %d and %d, %s", got.Success, got.Failures, got.Status)
		}
		for _, name := range []string{"per_page", "page_size"} {
			if got := s.list("kind=kind*&page=1&" + name + "=7"); len(got) != 7 || got[0].LocalID != "kind 4 first" {
				t.Errorf("%s: %d tasks, the first is %s", name, len(got), got[0].LocalID)
			}
		}
		for _, task := range tasks {
			if strings.HasSuffix(task.LocalID, "first") {
				s.finish(task.ID, "Success")
			}
		}
		for _, second := range seconds {
			s.waitStatus(second, "Running")
		}
		s.checkDrift()
	})
}

// TestPutArray: the tasks that exist are counted, the others told.
func TestPutArray(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil), r.newTask("b", "/run", nil)})
		a, b := tasks["a"].ID, tasks["b"].ID
		const x, y = "0198c0de-5a10-7000-8000-00000000fffe", "0198c0de-5a10-7000-8000-00000000ffff"
		got := decode[api.Counts](t, s.want(202, "PUT", "/task", []obj{
			{"task_id": y, "new_success": 1}, {"task_id": a, "new_success": 1}, {"task_id": x, "new_failures": 1},
			{"task_id": b, "new_failures": 2}, {"task_id": a, "new_success": 10, "new_failures": 1}, {"task_id": y, "new_success": 1},
		}))
		if got.Applied != 3 || !slices.Equal(got.Unknown, []string{y, x}) {
			t.Errorf("answer %s", jsonOf(got))
		}
		if a, b := s.task(a), s.task(b); a.Success != 11 || a.Failures != 1 || b.Success != 0 || b.Failures != 2 {
			t.Errorf("counts %d %d and %d %d", a.Success, a.Failures, b.Success, b.Failures)
		}
		full := make([]obj, 10_000)
		for i := range full {
			full[i] = obj{"task_id": []string{a, b}[i%2], "new_success": 1}
		}
		if got := decode[api.Counts](t, s.want(202, "PUT", "/task", full)); got.Applied != 10_000 || len(got.Unknown) != 0 {
			t.Errorf("answer %s", jsonOf(got))
		}
		if a, b := s.task(a).Success, s.task(b).Success; a != 5011 || b != 5000 {
			t.Errorf("counts %d and %d", a, b)
		}
	})
}

func TestSmallAnswers(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		a := s.want(204, "POST", "/task", []obj{})
		if len(a.body) != 0 || len(a.header.Get("X-Batch-ID")) != 36 {
			t.Errorf("an empty batch: X-Batch-ID %q, body %q", a.header.Get("X-Batch-ID"), a.body)
		}
		nothingCreated(t, s)
		a = s.want(201, "POST", "/task", []obj{r.newTask("a", "/run", nil), r.newTask("b", "/run", nil)}, "Prefer", "return=minimal")
		minimal := decode[[]map[string]string](t, a)
		if len(minimal) != 2 || len(minimal[0]) != 2 || minimal[0]["local_id"] != "a" || minimal[1]["local_id"] != "b" ||
			a.header.Get("Preference-Applied") != "return=minimal" {
			t.Errorf("minimal: %s", a.body)
		}
		if got := s.task(minimal[1]["id"]); got.LocalID != "b" || got.BatchID != a.header.Get("X-Batch-ID") {
			t.Errorf("task %s", jsonOf(got))
		}
		health := decode[api.Health](t, s.want(200, "GET", "/health", nil))
		if health.Status != "ok" || health.Database != "healthy" || health.PoolSize < 1 {
			t.Errorf("health %+v", health)
		}
		if ready := decode[api.Ready](t, s.want(200, "GET", "/ready", nil)); ready.Status != "ready" {
			t.Errorf("ready %+v", ready)
		}
	})
}

// TestCreatedAsShown: the answer to a create is what GET shows, as long as nothing has happened to the tasks.
func TestCreatedAsShown(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/hang", hang)
		end := r.hook("/end")
		end["params"].(obj)["headers"] = obj{"X-B": "2", "X-A": "1"}
		end["params"].(obj)["body"] = obj{"b": []any{nil, 1.5}, "a": "é"}
		tasks, _ := s.create([]obj{
			r.newTask("z", "/hang", nil), r.newTask("y", "/hang", nil),
			r.newTask("x", "/run", obj{
				"dependencies": []obj{dep("y", false), dep("z", true)}, "timeout": 86400, "priority": -3, "expected_count": 4, "dead_end_barrier": true,
				"rules": []obj{limit("test", 3, "m", "k")}, "metadata": obj{"k": 1, "m": []int{2}}, "on_success": []obj{end, r.hook("/end")}, "on_failure": []obj{end},
			}),
		})
		shown := s.task(tasks["x"].ID)
		slices.SortFunc(shown.Dependencies, func(a, b api.Dependency) int { // their order means nothing
			return slices.Index([]string{tasks["y"].ID, tasks["z"].ID}, a.ID) - slices.Index([]string{tasks["y"].ID, tasks["z"].ID}, b.ID)
		})
		if got, want := jsonOf(shown), jsonOf(tasks["x"]); !sameJSON(t, got, want) {
			t.Errorf("created as\n%s\nshown as\n%s", want, got)
		}
		release()
	})
}
