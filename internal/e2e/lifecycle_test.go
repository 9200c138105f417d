package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
)

func TestPauseWaiting(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{
			r.newTask("a", "/run", nil),
			r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}}),
			r.newTask("c", "/run", obj{"dependencies": []obj{dep("a", false)}}),
		})
		a, b, c := tasks["a"].ID, tasks["b"].ID, tasks["c"].ID
		s.waitStatus(a, "Running")
		s.want(200, "PATCH", "/task/pause/"+b, nil)
		s.want(200, "PATCH", "/task/resume/"+b, nil)
		if got := s.task(b).Status; got != "Waiting" {
			t.Errorf("resumed with an unmet dependency: %s, want Waiting", got)
		}
		s.want(200, "PATCH", "/task/pause/"+b, nil)
		s.finish(a, "Success")
		s.waitStatus(c, "Running") // a's end was told to its children
		if got := s.task(b); got.Status != "Paused" || !got.ClaimedAt.IsZero() {
			t.Errorf("paused, its dependency met: %s, claimed at %v", got.Status, got.ClaimedAt)
		}
		s.want(200, "PATCH", "/task/"+b, obj{"status": "Pending"}) // the other way to resume
		s.waitStatus(b, "Running")
	})
}

// TestPauseDoesNotShield: a required parent that fails takes a paused child with it.
func TestPauseDoesNotShield(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{
			r.newTask("a", "/run", nil),
			r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}, "on_failure": []obj{r.hook("/failed")}}),
			r.newTask("c", "/run", obj{"dependencies": []obj{dep("b", true)}}),
		})
		s.want(200, "PATCH", "/task/pause/"+tasks["b"].ID, nil)
		s.waitStatus(tasks["a"].ID, "Running")
		s.finish(tasks["a"].ID, "Failure")
		s.waitStatus(tasks["b"].ID, "Failure")
		s.waitStatus(tasks["c"].ID, "Failure")
		r.wait(1, "on_failure of the paused task", sent("end", tasks["b"].ID))
	})
}

func TestPausePending(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var batch []obj
		for _, id := range []string{"a", "b", "c"} {
			batch = append(batch, r.newTask(id, "/run", obj{"rules": []obj{limit("test", 1)}}))
		}
		tasks, _ := s.create(batch)
		a, b, c := tasks["a"].ID, tasks["b"].ID, tasks["c"].ID
		s.waitStatus(a, "Running")
		s.held(r, b, c)
		s.want(200, "PATCH", "/task/pause/"+b, nil)
		s.finish(a, "Success")
		s.waitStatus(c, "Running") // it was behind b
		if got := s.task(b); got.Status != "Paused" || !got.ClaimedAt.IsZero() {
			t.Errorf("b is %s, claimed at %v", got.Status, got.ClaimedAt)
		}
		s.want(200, "PATCH", "/task/resume/"+b, nil)
		s.held(r, b)
		s.finish(c, "Success")
		s.waitStatus(b, "Running")
		s.checkDrift()
	})
}

func TestPauseClaimed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/hang", hang)
		refuse, releaseRefusal := r.hold(answers(400))
		r.handle("/refuse", refuse)
		tasks, _ := s.create([]obj{
			r.newTask("stays", "/hang", nil), r.newTask("resumes", "/hang", nil), r.newTask("fails", "/refuse", nil),
		})
		stays, resumes, fails := tasks["stays"].ID, tasks["resumes"].ID, tasks["fails"].ID
		r.wait(3, "three on_start", sent("start"))
		for _, task := range tasks {
			s.want(200, "PATCH", "/task/pause/"+task.ID, nil)
		}
		s.want(200, "PATCH", "/task/resume/"+resumes, nil)
		if got := s.task(resumes); got.Status != "Pending" || got.ClaimedAt.IsZero() {
			t.Errorf("resumed while on_start hangs: %s, claimed at %v; want Pending and claimed", got.Status, got.ClaimedAt)
		}
		release()
		s.waitStatus(resumes, "Running")
		eventually(t, "the answer counts while paused", func() bool { return !s.task(stays).StartedAt.IsZero() })
		if got := s.task(stays).Status; got != "Paused" {
			t.Errorf("on_start was accepted while paused: %s, want Paused", got)
		}
		s.want(200, "PATCH", "/task/resume/"+stays, nil)
		if got := s.task(stays).Status; got != "Running" {
			t.Errorf("resumed after on_start was accepted: %s, want Running", got)
		}
		releaseRefusal()
		s.waitStatus(fails, "Failure")
		if n := len(r.got(sent("start"))); n != 3 {
			t.Errorf("%d on_start, want 3", n)
		}
	})
}

// TestPauseRunning: the worker of a paused task is at work, so it keeps its slot and may finish.
func TestPauseRunning(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		rules := obj{"rules": []obj{limit("test", 1)}}
		tasks, _ := s.create([]obj{r.newTask("a", "/run", rules), r.newTask("b", "/run", rules)})
		a, b := tasks["a"].ID, tasks["b"].ID
		s.waitStatus(a, "Running")
		s.want(200, "PATCH", "/task/pause/"+a, nil)
		s.want(409, "PATCH", "/task/pause/"+a, nil)
		s.held(r, b)
		s.want(200, "PATCH", "/task/resume/"+a, nil)
		s.want(409, "PATCH", "/task/resume/"+a, nil)
		s.want(409, "PATCH", "/task/"+a, obj{"status": "Pending"})
		if got := s.task(a).Status; got != "Running" {
			t.Errorf("resumed: %s, want Running", got)
		}
		s.want(200, "PATCH", "/task/pause/"+a, nil)
		s.want(202, "PUT", "/task/"+a, obj{"new_success": 3})
		s.want(200, "PATCH", "/task/"+a, obj{"status": "Success", "new_success": 4})
		if got := s.task(a); got.Status != "Success" || got.Success != 7 {
			t.Errorf("finished while paused: %s with %d, want Success with 7", got.Status, got.Success)
		}
		s.waitStatus(b, "Running")
		s.checkDrift()
	})
}

func TestTimeout(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/hang", hang)
		short := obj{"timeout": 1, "on_failure": []obj{r.hook("/failed")}}
		tasks, _ := s.create([]obj{
			r.newTask("a", "/run", short), r.newTask("paused", "/hang", short),
			r.newTask("child", "/run", obj{"dependencies": []obj{dep("a", true)}}),
		})
		paused := tasks["paused"].ID
		r.wait(1, "on_start", to("/hang"))
		s.want(200, "PATCH", "/task/pause/"+paused, nil)
		release()
		checkTimeout(t, s, r, tasks["a"].ID)
		if got := s.waitStatus(tasks["child"].ID, "Failure"); text(got.FailureReason) != "Required parent task "+tasks["a"].ID+" failed" {
			t.Errorf("reason of the child: %q", text(got.FailureReason))
		}
		eventually(t, "on_start of the paused task was accepted", func() bool { return !s.task(paused).StartedAt.IsZero() })
		more, _ := s.create([]obj{r.newTask("b", "/run", short)})
		checkTimeout(t, s, r, more["b"].ID)
		if got := s.task(paused).Status; got != "Paused" {
			t.Errorf("longer paused than its time-out: %s", got)
		}
		// Resuming starts a fresh time-out.
		resumed := decode[api.TaskState](t, s.want(200, "PATCH", "/task/resume/"+paused, nil)).LastUpdated
		checkTimeout(t, s, r, paused)
		if got := s.task(paused).EndedAt.Sub(resumed.Time); got < time.Second {
			t.Errorf("timed out %v after it was resumed", got)
		}
	})
}

// checkTimeout waits until a task has timed out, and checks how.
func checkTimeout(t *testing.T, s *service, r *receiver, id string) {
	t.Helper()
	task := s.waitStatus(id, "Failure")
	if got := text(task.FailureReason); got != "Timeout" {
		t.Errorf("reason %q, want Timeout", got)
	}
	if ran := task.EndedAt.Sub(task.StartedAt.Time); ran < time.Second {
		t.Errorf("timed out after %v", ran)
	}
	if key := r.wait(1, "on_failure", sent("end", id))[0].Key; key != id+":end:failure" {
		t.Errorf("Idempotency-Key %q", key)
	}
}

// text is empty for nil.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// TestCountsKeepATaskAlive: a worker that counts is alive. Were the machine so busy that two counts are nearly a time-out
// apart, the test begins anew with a longer one.
func TestCountsKeepATaskAlive(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		for timeout := time.Second; timeout <= time.Minute; timeout *= 2 {
			tasks, _ := s.create([]obj{r.newTask("a", "/run", obj{"timeout": timeout / time.Second})})
			id := tasks["a"].ID
			eventually(t, "it is started", func() bool { return !s.task(id).StartedAt.IsZero() })
			last, sum, slow := s.task(id).StartedAt.Time, int64(0), false
			for begun := time.Now(); time.Since(begun) < timeout*5/2; time.Sleep(timeout * 3 / 10) {
				before := time.Now()
				s.want(202, "PUT", "/task", obj{"task_id": id, "new_success": 2, "new_failures": 1})
				slow = slow || time.Since(last) > timeout*8/10
				last, sum = before, sum+1
			}
			if slow {
				t.Logf("the machine is too busy for a time-out of %v", timeout)
				continue
			}
			task := s.waitStatus(id, "Failure")
			if after := task.EndedAt.Sub(last); after < timeout {
				t.Errorf("timed out %v after the last count", after)
			}
			if text(task.FailureReason) != "Timeout" || task.Success != 2*sum || task.Failures != sum {
				t.Errorf("%q, %d and %d; want Timeout, %d and %d", text(task.FailureReason), task.Success, task.Failures, 2*sum, sum)
			}
			return
		}
		t.Fatal("the machine was too busy every time")
	})
}

// TestWorkerIsFasterThanItsAnswer: the worker ends the task, and only then on_start is answered.
func TestWorkerIsFasterThanItsAnswer(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", func(w http.ResponseWriter, c call) {
			status, body := "Success", obj{"status": "Success", "new_success": 1}
			if c.Header.Get("X-Fail") != "" {
				status, body = "Failure", obj{"status": "Failure", "failure_reason": "quick"}
			}
			if got := report(r.life, "PATCH", c.Handle, body); got != 200 {
				t.Errorf("%s before the answer: %d", status, got)
			}
			r.withCancel("/cancel")(w, c)
		})
		failing := r.hook("/run")
		failing["params"].(obj)["headers"] = obj{"X-Fail": "1"}
		ends := obj{"on_success": []obj{r.hook("/end")}, "on_failure": []obj{r.hook("/end")}}
		bad := obj{"on_start": failing, "on_failure": ends["on_failure"], "on_success": ends["on_success"]}
		tasks, batch := s.create([]obj{
			r.newTask("good", "/run", ends), r.newTask("bad", "/run", bad),
			r.newTask("child", "/run", obj{"dependencies": []obj{dep("good", true), dep("bad", false)}}),
		})
		if n := s.waitEnd(batch); n.Success != 2 || n.Failure != 1 {
			t.Fatalf("ends %+v", n)
		}
		good := s.task(tasks["good"].ID)
		if good.Status != "Success" || good.Success != 1 || !good.StartedAt.Equal(good.ClaimedAt.Time) {
			t.Errorf("good: %s, %d, claimed %v, started %v", good.Status, good.Success, good.ClaimedAt, good.StartedAt)
		}
		r.wait(2, "both end webhooks", to("/end"))
		s.stop() // whatever was on its way has arrived
		for local, key := range map[string]string{"good": ":end:success", "bad": ":end:failure"} {
			id := tasks[local].ID
			if ends := r.got(sent("end", id)); len(ends) != 1 || ends[0].Key != id+key {
				t.Errorf("end webhooks of %s: %s", local, jsonOf(ends))
			}
		}
		if got := r.got(sent("cancel")); len(got) != 0 {
			t.Errorf("cancel webhooks: %s", jsonOf(got))
		}
	})
}

func TestCancel(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", r.withCancel("/cancel"))
		hang, release := r.hold(r.withCancel("/cancel"))
		r.handle("/hang", hang)
		failed := func(deps ...obj) obj { return obj{"dependencies": deps, "on_failure": []obj{r.hook("/failed")}} }
		tasks, batch := s.create([]obj{
			r.newTask("running", "/run", obj{"on_failure": []obj{r.hook("/failed")}, "on_success": []obj{r.hook("/failed")}}),
			r.newTask("claimed", "/hang", nil), r.newTask("paused", "/run", nil),
			r.newTask("waiting", "/run", obj{"dependencies": []obj{dep("running", true)}}),
			r.newTask("child", "/run", failed(dep("running", true))),
			r.newTask("grandchild", "/run", failed(dep("child", true))),
			r.newTask("easy", "/run", obj{"dependencies": []obj{dep("running", false)}}),
			r.newTask("of waiting", "/run", failed(dep("waiting", true))),
		})
		id := func(local string) string { return tasks[local].ID }
		s.waitStatus(id("running"), "Running")
		s.waitStatus(id("paused"), "Running")
		s.want(200, "PATCH", "/task/pause/"+id("paused"), nil)
		if shown := actions(s.task(id("running")), "Cancel"); len(shown) != 1 || shown[0].Params.URL != r.url+"/cancel" || shown[0].Params.Verb != "Delete" {
			t.Errorf("cancel action %s", jsonOf(shown))
		}
		r.wait(1, "on_start that hangs", sent("start", id("claimed")))
		for _, local := range []string{"waiting", "running", "claimed", "paused"} {
			a := s.want(200, "DELETE", "/task/"+id(local), nil)
			if got := decode[api.TaskState](t, a); got.Status != "Canceled" || got.ID != id(local) {
				t.Errorf("DELETE %s: %s", local, a.body)
			}
			s.want(409, "DELETE", "/task/"+id(local), nil)
		}
		for local, parent := range map[string]string{"child": "running", "grandchild": "child", "of waiting": "waiting"} {
			got := s.waitStatus(id(local), "Failure")
			if want := "Required parent task " + id(parent) + " failed"; text(got.FailureReason) != want {
				t.Errorf("%s: %q, want %q", local, text(got.FailureReason), want)
			}
		}
		s.waitStatus(id("easy"), "Running")
		r.wait(3, "on_failure of the three", to("/failed"))
		r.wait(2, "the cancel webhooks", sent("cancel", id("running"), id("paused")))
		if n := len(r.got(sent("cancel"))); n != 2 {
			t.Errorf("%d cancel webhooks while an answer is on its way, want 2", n)
		}
		release()
		r.wait(1, "the cancel webhook that came late", sent("cancel", id("claimed")))
		s.finish(id("easy"), "Success")
		if n := s.waitEnd(batch); n != (api.StatusCounts{Success: 1, Failure: 3, Canceled: 4}) {
			t.Errorf("ends %+v", n)
		}
		s.stop()
		for _, local := range []string{"running", "claimed", "paused"} {
			calls := r.got(sent("cancel", id(local)))
			if len(calls) != 1 || calls[0].Key != id(local)+":cancel" || calls[0].Method != "DELETE" || calls[0].Path != "/cancel" {
				t.Errorf("cancel webhooks of %s: %s", local, jsonOf(calls))
			}
		}
		if got := r.got(to("/failed")); len(got) != 3 || len(r.got(sent("end", id("running")))) != 0 {
			t.Errorf("on_failure: %s", jsonOf(got))
		}
		if got := r.got(sent("start", id("waiting"), id("child"), id("grandchild"), id("of waiting"))); len(got) != 0 {
			t.Errorf("started, though their parents had not ended well: %s", jsonOf(got))
		}
	})
}

// actions are those of a trigger.
func actions(task api.Task, trigger string) (found []api.Action) {
	for _, a := range task.Actions {
		if a.Trigger == trigger {
			found = append(found, a)
		}
	}
	return found
}

// TestUnusableCancelAction: an answer that asks for something that may not be called does the task no harm.
func TestUnusableCancelAction(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		unusable := map[string]string{
			"/private": `{"kind":"Webhook","params":{"url":"http://10.0.0.1/cancel","verb":"Post"}}`,
			"/verb":    `{"kind":"Webhook","params":{"url":"http://example.com/","verb":"Head"}}`,
			"/cloud":   `{"kind":"Webhook","params":{"url":"http://169.254.169.254/latest/","verb":"Put"}}`,
			"/header":  `{"kind":"Webhook","params":{"url":"http://example.com/","verb":"Post","headers":{"X-A":"b\r\nX-Task-Id: forged"}}}`,
			"/ours":    `{"kind":"Webhook","params":{"url":"http://example.com/","verb":"Post","headers":{"Host":"other"}}}`,
			"/huge":    `{"kind":"Webhook","params":{"url":"` + r.url + `/cancel","verb":"Post","body":"` + strings.Repeat("x", 1<<20) + `"}}`,
			"/deep":    `{"kind":"Webhook","params":{"url":"` + r.url + `/cancel","verb":"Post","body":` + strings.Repeat("[", 60_000) + `}}`,
			"/text":    `accepted`, "/array": `[1]`, "/other": `{"ok":true}`, "/broken": `{"kind":"Webhook","params":`,
		}
		for path, answer := range unusable {
			r.handle(path, func(w http.ResponseWriter, _ call) { _, _ = w.Write([]byte(answer)) })
		}
		for path := range unusable {
			tasks, _ := s.create([]obj{r.newTask("a", path, nil)})
			task := s.waitStatus(tasks["a"].ID, "Running")
			if found := actions(task, "Cancel"); len(found) != 0 {
				t.Errorf("%s: cancel action %s", path, jsonOf(found))
			}
			s.want(200, "DELETE", "/task/"+task.ID, nil)
		}
		s.stop()
		if got := r.got(sent("cancel")); len(got) != 0 {
			t.Errorf("cancel webhooks %s", jsonOf(got))
		}
	})
}

// TestTerminal: an end is final; a worker that repeats itself is not punished.
func TestTerminal(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{r.newTask("Success", "/run", obj{"on_success": []obj{r.hook("/end")}}),
			r.newTask("Failure", "/run", obj{"on_failure": []obj{r.hook("/end")}}), r.newTask("Canceled", "/run", nil)})
		for status, task := range tasks {
			s.waitStatus(task.ID, "Running")
			if status == "Canceled" {
				s.want(200, "DELETE", "/task/"+task.ID, nil)
			} else {
				s.finish(task.ID, status)
			}
			before := s.task(task.ID)
			if before.Status != status || before.EndedAt.IsZero() {
				t.Errorf("%s: is %s, ended at %v", status, before.Status, before.EndedAt)
			}
			same, other := obj{"status": status, "new_success": 5}, obj{"status": "Success"}
			switch status {
			case "Failure":
				same["failure_reason"] = "again"
			case "Success":
				other = obj{"status": "Failure", "failure_reason": "after all"}
			}
			if status != "Canceled" {
				s.want(200, "PATCH", "/task/"+task.ID, same)
			}
			for _, path := range []string{"/task/pause/", "/task/resume/", "/task/"} {
				method, body := "PATCH", any(nil)
				if path == "/task/" {
					body = other
				}
				s.want(409, method, path+task.ID, body)
			}
			s.want(409, "DELETE", "/task/"+task.ID, nil)
			s.want(409, "PATCH", "/task/"+task.ID, obj{"status": "Pending"})
			s.want(409, "PATCH", "/task/"+task.ID, obj{"priority": 3})
			s.want(409, "PATCH", "/task/"+task.ID, obj{"metadata": obj{"a": 1}, "new_success": 1})
			s.want(200, "PATCH", "/task/"+task.ID, obj{"new_failures": 2})
			s.want(202, "PUT", "/task/"+task.ID, obj{"new_success": 4, "new_failures": 1})
			after := s.task(task.ID)
			if after.Success != 4 || after.Failures != 3 {
				t.Errorf("%s: counts %d and %d, want 4 and 3", status, after.Success, after.Failures)
			}
			if after.Status != status || !after.EndedAt.Equal(before.EndedAt.Time) || text(after.FailureReason) != text(before.FailureReason) {
				t.Errorf("%s: changed from %s to %s", status, jsonOf(before), jsonOf(after))
			}
		}
		r.wait(2, "both end webhooks", to("/end"))
		s.stop()
		if got := r.got(to("/end")); len(got) != 2 {
			t.Errorf("end webhooks: %s", jsonOf(got))
		}
	})
}

// TestUpdate: what a PATCH without status changes, in each state that is no end.
func TestUpdate(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		rules := obj{"rules": []obj{limit("test", 1)}, "metadata": obj{"old": true}}
		tasks, _ := s.create([]obj{
			r.newTask("Running", "/run", rules), r.newTask("Pending", "/run", rules), r.newTask("Paused", "/run", rules),
			r.newTask("Waiting", "/run", obj{"dependencies": []obj{dep("Running", false)}}),
		})
		s.waitStatus(tasks["Running"].ID, "Running")
		s.want(200, "PATCH", "/task/pause/"+tasks["Paused"].ID, nil)
		for status, task := range tasks {
			path := "/task/" + task.ID
			s.want(200, "PATCH", path, obj{"new_success": 2, "metadata": obj{"new": []int{1}}, "expected_count": 9, "priority": -7})
			s.want(200, "PATCH", path, obj{"new_success": 1, "new_failures": 5})
			s.want(200, "PATCH", path, obj{})
			got := s.task(task.ID)
			if got.Status != status || got.Success != 3 || got.Failures != 5 || got.Priority != -7 ||
				got.ExpectedCount == nil || *got.ExpectedCount != 9 || !sameJSON(t, string(got.Metadata), `{"new":[1]}`) {
				t.Errorf("%s: %s", status, jsonOf(got))
			}
		}
		for _, status := range []string{"Pending", "Waiting"} { // only what has started can end
			s.want(409, "PATCH", "/task/"+tasks[status].ID, obj{"status": "Success"})
		}
	})
}

// TestGracefulStop: a process that is told to stop finishes what is on its way; the next one carries on. No on_start is
// lost, and none is repeated.
func TestGracefulStop(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		r := newReceiver(t)
		r.handle("/run", func(w http.ResponseWriter, c call) {
			time.Sleep(100 * time.Millisecond)
			r.worker(100*time.Millisecond, "Success")(w, c)
		})
		url, address := databaseURL(t, db), "127.0.0.1:"+strconv.Itoa(lastingPort(t))
		settings := map[string]string{"LISTEN_ADDR": address, "WEBHOOK_HOST_WINDOW": "200"}
		s := startService(t, url, settings)
		batch := []obj{r.newTask("last", "/run", obj{"dependencies": []obj{}})}
		var deps []obj
		for i := range 600 {
			id := "t" + strconv.Itoa(i)
			batch = append(batch, r.newTask(id, "/run", nil))
			deps = append(deps, dep(id, true))
		}
		batch[0]["dependencies"] = deps
		_, id := s.create(batch)
		r.wait(200, "200 on_start", sent("start"))
		s.stop()
		begun := len(r.got(sent("start")))
		if begun == len(batch) {
			t.Error("everything had started before the stop; the test shows nothing")
		}
		s = startService(t, url, settings)
		if n := s.waitEnd(id); n.Success != len(batch) {
			t.Errorf("ends %+v", n)
		}
		seen := map[string]int{}
		for _, c := range r.got(sent("start")) {
			seen[c.Key]++
			if seen[c.Key] > 1 {
				t.Errorf("%s was sent %d times", c.Key, seen[c.Key])
			}
		}
		if len(seen) != len(batch) {
			t.Errorf("%d tasks got their on_start, want %d", len(seen), len(batch))
		}
		s.checkDrift()
		t.Logf("%d of %d had begun at the stop", begun, len(batch))
	})
}

// TestHistory: every transition with its time and cause, those that the pump made in the same moment too.
func TestHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{
			r.newTask("a", "/run", nil),
			r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}}),
			r.newTask("c", "/run", obj{"dependencies": []obj{dep("b", true)}}),
		})
		a, b, c := tasks["a"].ID, tasks["b"].ID, tasks["c"].ID
		s.waitStatus(a, "Running")
		s.want(200, "PATCH", "/task/pause/"+b, nil)
		s.want(200, "PATCH", "/task/resume/"+b, nil)
		s.finish(a, "Success")
		s.waitStatus(b, "Running")
		s.want(200, "DELETE", "/task/"+b, nil)
		s.waitStatus(c, "Failure")
		for id, want := range map[string][]string{
			a: {"→ Pending: created", "Pending → Claimed: claimed", "Claimed → Running: on_start accepted",
				"Running → Success: finished by worker"},
			b: {"→ Waiting: created", "Waiting → Paused: paused", "Paused → Waiting: resumed",
				"Waiting → Pending: dependencies met", "Pending → Claimed: claimed", "Claimed → Running: on_start accepted",
				"Running → Canceled: canceled"},
			c: {"→ Waiting: created", "Waiting → Failure: parent failed"},
		} {
			steps := decode[[]api.Step](t, s.want(200, "GET", "/task/"+id+"/history", nil))
			var got []string
			for i, step := range steps {
				from := ""
				if step.From != nil {
					from = *step.From + " "
				}
				got = append(got, fmt.Sprintf("%s→ %s: %s", from, step.To, step.Cause))
				if i > 0 && step.At.Before(steps[i-1].At.Time) {
					t.Errorf("step %d is at %v, the one before at %v", i, step.At, steps[i-1].At)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
		}
		s.want(404, "GET", "/task/0198c0de-5a10-7000-8000-000000000001/history", nil)
	})
}

// TestDeadEnds: a task all of whose children were canceled is canceled, up to a barrier, and only if that is turned on.
func TestDeadEnds(t *testing.T) {
	onBothWith(t, map[string]string{"DEAD_END_CANCEL_ENABLED": "1"}, func(t *testing.T, s *service) {
		r, tasks := deadEnd(t, s)
		for _, id := range []string{"b", "a"} {
			if got := s.waitStatus(tasks[id].ID, "Canceled"); got.FailureReason == nil || *got.FailureReason != "Dead end" {
				t.Errorf("%s: %s", id, jsonOf(got))
			}
		}
		r.wait(1, "the cancel action of what was at work", sent("cancel", tasks["a"].ID))
		s.finish(tasks["top"].ID, "Success")
		s.waitStatus(tasks["barrier"].ID, "Running")
		s.stop() // with what is on its way
		if n := len(r.got(to("/failed"))); n != 0 {
			t.Errorf("%d on_failure of a canceled task", n)
		}
	})
}

func TestDeadEndsAreLeftAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		_, tasks := deadEnd(t, s)
		s.finish(tasks["a"].ID, "Success")
		s.waitStatus(tasks["b"].ID, "Running")
	})
}

// deadEnd creates tasks of which nothing can come any more but from barrier and what is above it.
func deadEnd(t *testing.T, s *service) (*receiver, map[string]api.Task) {
	r := newReceiver(t)
	r.handle("/run", r.withCancel("/cancel"))
	tasks, _ := s.create([]obj{
		r.newTask("top", "/run", nil),
		r.newTask("barrier", "/run", obj{"dependencies": []obj{dep("top", true)}, "dead_end_barrier": true}),
		r.newTask("a", "/run", obj{"on_failure": []obj{r.hook("/failed")}}),
		r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}, "on_failure": []obj{r.hook("/failed")}}),
		r.newTask("c", "/run", obj{"dependencies": []obj{dep("b", true), dep("barrier", true)}}),
	})
	s.waitStatus(tasks["a"].ID, "Running")
	s.waitStatus(tasks["top"].ID, "Running")
	s.want(200, "DELETE", "/task/"+tasks["c"].ID, nil)
	return r, tasks
}
