package e2e

import (
	"fmt"
	"strings"
	"testing"

	"taskrunner/api"
)

// update reports in one request, and returns what became of each.
func (c *client) update(updates []obj) []api.UpdateResult {
	c.t.Helper()
	return decode[api.Updates](c.t, c.want(200, "PATCH", "/task", updates)).Results
}

// TestUpdateArray: each report is answered in its place, as alone; what is refused changes nothing, and the rest is
// applied and has its effects.
func TestUpdateArray(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		after := func(parent string) obj { return obj{"dependencies": []obj{dep(parent, true)}} }
		tasks, _ := s.create([]obj{
			r.newTask("a", "/run", obj{"on_success": []obj{r.hook("/end")}}),
			r.newTask("b", "/run", obj{"on_failure": []obj{r.hook("/end")}}),
			r.newTask("c", "/run", obj{"rules": []obj{limit("test", 9, "tenant")}, "metadata": obj{"tenant": 1}}),
			r.newTask("over", "/run", nil), r.newTask("paused", "/run", after("c")),
			r.newTask("after a", "/run", after("a")), r.newTask("after b", "/run", after("b")),
		})
		id := func(name string) string { return tasks[name].ID }
		for _, name := range []string{"a", "b", "c", "over"} {
			s.waitStatus(id(name), "Running")
		}
		s.finish(id("over"), "Success")
		s.want(200, "PATCH", "/task/pause/"+id("paused"), nil)
		const none = "0198c0de-5a10-7000-8000-00000000ffff"
		cases := []struct {
			update obj
			status int
			task   string // status and counts after it
			why    string
		}{
			{obj{"id": id("b"), "new_success": 1}, 200, "Running 1 0", ""},
			{obj{"id": none, "status": "Success"}, 404, "", none + " not found"},
			{obj{"id": id("a"), "status": "Success", "new_success": 5, "new_failures": 2}, 200, "Success 5 2", ""},
			{obj{"id": id("over"), "status": "Failure", "failure_reason": "x", "new_success": 1}, 409, "", "task is Success, it cannot be changed"},
			{obj{"id": id("over"), "status": "Success", "new_success": 1}, 200, "Success 0 0", ""}, // a repeat
			{obj{"id": id("after a"), "status": "Success"}, 409, "", "cannot end in Success"},
			{obj{"id": id("c"), "metadata": obj{"other": 1}}, 400, "", "metadata: rules[0] needs the fields"},
			{obj{"id": id("c"), "metadata": obj{"tenant": 2}, "priority": 3, "expected_count": 4}, 200, "Running 0 0", ""},
			{obj{"id": id("paused"), "status": "Pending"}, 200, "Waiting 0 0", ""},
			{obj{"id": id("b"), "status": "Failure", "failure_reason": "broken", "new_failures": 3}, 200, "Failure 1 3", ""},
			{obj{"id": id("b"), "status": "Success"}, 409, "", "task is Failure"},
			{obj{"id": id("b"), "new_success": 1}, 200, "Failure 2 3", ""},
		}
		var updates []obj
		for _, c := range cases {
			updates = append(updates, c.update)
		}
		results := s.update(updates)
		if len(results) != len(cases) {
			t.Fatalf("%d results for %d updates", len(results), len(cases))
		}
		for i, c := range cases {
			got := results[i]
			if got.ID != c.update["id"] || got.Status != c.status || (got.Task == nil) != (c.status != 200) || (got.Error == "") != (c.status == 200) ||
				!strings.Contains(got.Error+strings.Join(got.Details, "\n"), c.why) {
				t.Errorf("%d: %s\nanswered %s", i, jsonOf(c.update), jsonOf(got))
			} else if k := got.Task; k != nil && (k.ID != got.ID || fmt.Sprintf("%s %d %d", k.Status, k.Success, k.Failures) != c.task) {
				t.Errorf("%d: %s\nthe task is %s, want %s", i, jsonOf(c.update), jsonOf(k), c.task)
			}
		}
		r.wait(2, "end webhooks", to("/end"))
		s.waitStatus(id("after a"), "Running")
		if got := s.waitStatus(id("after b"), "Failure"); text(got.FailureReason) != "Required parent task "+id("b")+" failed" {
			t.Errorf("task %s", jsonOf(got))
		}
		if got := s.task(id("b")); got.Success != 2 || got.Failures != 3 || text(got.FailureReason) != "broken" {
			t.Errorf("task %s", jsonOf(got))
		}
		if got := s.task(id("c")); !sameJSON(t, string(got.Metadata), `{"tenant":2}`) || got.Priority != 3 || got.ExpectedCount == nil || *got.ExpectedCount != 4 {
			t.Errorf("task %s", jsonOf(got))
		}
		s.checkDrift()
	})
}

// TestUpdateFullArray: as many as one request may have, of tasks of every kind of answer.
func TestUpdateFullArray(t *testing.T) {
	const tasks, counts = 250, 39
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var batch []obj
		for i := range tasks {
			batch = append(batch, r.newTask(fmt.Sprint(i), "/run", obj{"kind": fmt.Sprint("k", i%7)}))
		}
		created := s.want(201, "POST", "/task", batch, "Prefer", "return=minimal")
		id := created.header.Get("X-Batch-ID")
		ids := decode[[]api.CreatedTask](t, created)
		eventually(t, "all are running", func() bool { return s.batch(id).StatusCounts.Running == tasks })
		var updates []obj
		for i := range tasks {
			for range counts {
				updates = append(updates, obj{"id": ids[i].ID, "new_success": 1})
			}
			updates = append(updates, obj{"id": ids[i].ID, "status": "Success", "new_success": 1})
		}
		for i, got := range s.update(updates) {
			done := i%(counts+1) + 1
			want := fmt.Sprint("Running ", done)
			if done > counts {
				want = fmt.Sprint("Success ", done)
			}
			if got.Status != 200 || got.ID != ids[i/(counts+1)].ID || fmt.Sprintf("%s %d", got.Task.Status, got.Task.Success) != want {
				t.Fatalf("%d: %s, want %s", i, jsonOf(got), want)
			}
		}
		if got := s.batch(id); got.StatusCounts.Success != tasks || got.TotalSuccess != (counts+1)*tasks {
			t.Errorf("batch %s", jsonOf(got))
		}
		s.checkDrift()
	})
}
