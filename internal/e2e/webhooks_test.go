package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// send is an action with everything.
func (r *receiver) send(verb, path string, more obj) obj {
	params := obj{"url": r.url + path, "verb": verb}
	for name, value := range more {
		params[name] = value
	}
	return obj{"kind": "Webhook", "params": params}
}

func TestWebhookRequests(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		body := obj{"text": "é\u2028<&>", "list": []any{1, nil, obj{}}}
		var batch []obj
		verbs := []string{"Get", "Post", "Put", "Patch", "Delete"}
		for _, verb := range verbs {
			more := obj{"headers": obj{"Authorization": "Bearer secret", "x-custom": "ü, b", "User-Agent": "mine"}}
			if verb != "Get" {
				more["body"] = body
			}
			batch = append(batch, r.newTask(verb, "", obj{
				"on_start":   r.send(verb, "/run?b=2&a=%20%26&handle=mine&empty", more),
				"on_success": []obj{r.send(verb, "/end#fragment", nil), r.send("Post", "/end/second", obj{"headers": obj{"Content-Type": "text/plain"}, "body": "text"})},
			}))
		}
		tasks, id := s.create(batch)
		for _, task := range tasks {
			s.waitStatus(task.ID, "Running")
			s.finish(task.ID, "Success")
		}
		s.waitEnd(id)
		r.wait(2*len(verbs), "two end webhooks of each", sent("end"))
		handle := regexp.MustCompile(`^http://localhost:\d+/task/`)
		for _, verb := range verbs {
			task := tasks[verb].ID
			start := r.got(sent("start", task))[0]
			if want := strings.ToUpper(verb); start.Method != want || start.Path != "/run" {
				t.Errorf("%s: %s %s", verb, start.Method, start.Path)
			}
			h := start.Header
			if h.Get("Authorization") != "Bearer secret" || h.Get("X-Custom") != "ü, b" || h.Get("User-Agent") != "mine" {
				t.Errorf("%s: headers %v", verb, h)
			}
			if verb == "Get" {
				if len(start.Body) != 0 || h.Get("Content-Type") != "" {
					t.Errorf("%s without a body: %q, %q", verb, start.Body, h.Get("Content-Type"))
				}
			} else if !sameJSON(t, string(start.Body), jsonOf(body)) || h.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %s as %s", verb, start.Body, h.Get("Content-Type"))
			}
			query, _ := strings.CutSuffix(start.Query, task)
			if !strings.HasPrefix(query, "b=2&a=%20%26&handle=mine&empty&handle=http%3A%2F%2Flocalhost%3A") || !strings.HasSuffix(query, "%2Ftask%2F") {
				t.Errorf("%s: query %s", verb, start.Query)
			}
			ends := r.got(sent("end", task))
			slices.SortFunc(ends, func(a, b call) int { return strings.Compare(a.Path, b.Path) })
			for place, c := range append([]call{start}, ends...) {
				want := []string{":start", ":end:success", ":end:success:1"}[place]
				if c.Key != task+want || c.Task != task || c.Trigger != []string{"start", "end", "end"}[place] {
					t.Errorf("%s: %q, %q, %q", verb, c.Key, c.Task, c.Trigger)
				}
				if !regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`).MatchString(c.Header.Get("Traceparent")) {
					t.Errorf("%s: traceparent %q", verb, c.Header.Get("Traceparent"))
				}
				if c.Path != "/run" && (!handle.MatchString(c.Handle) || !strings.HasSuffix(c.Handle, task)) {
					t.Errorf("%s: handle %q", verb, c.Handle)
				}
			}
			if second := ends[1]; string(second.Body) != `"text"` || second.Header.Get("Content-Type") != "text/plain" || second.Path != "/end/second" {
				t.Errorf("%s: %s %q as %s", verb, second.Path, second.Body, second.Header.Get("Content-Type"))
			}
		}
	})
}

// TestHostURL: the handle begins with what was set, path and all.
func TestHostURL(t *testing.T) {
	settings := map[string]string{"HOST_URL": "https://runner.example.com/base/"}
	onBothWith(t, settings, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil)})
		c := r.wait(1, "on_start", to("/run"))[0]
		if want := "https://runner.example.com/base/task/" + tasks["a"].ID; c.Handle != want {
			t.Errorf("handle %s, want %s", c.Handle, want)
		}
	})
}

// TestRetries: what fails in a way that may pass is sent again, with the same key; anything else is not.
func TestRetries(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/500", answers(500))
		r.handle("/404", answers(404))
		r.handle("/302", func(w http.ResponseWriter, _ call) {
			w.Header().Set("Location", r.url+"/followed")
			w.WriteHeader(302)
		})
		r.handle("/works in the end", answers(503, 429, 200))
		r.handle("/end works in the end", answers(500, 408, 204))
		r.handle("/end 400", answers(400))
		var first sync.Once
		r.handle("/wait", func(w http.ResponseWriter, _ call) {
			first.Do(func() {
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(503)
			})
		})
		fails := obj{"on_failure": []obj{r.hook("/failed")}}
		ends := obj{"on_success": []obj{r.hook("/end%20works%20in%20the%20end"), r.hook("/end%20400"), r.hook("/wait")}}
		tasks, _ := s.create([]obj{
			r.newTask("500", "/500", fails), r.newTask("404", "/404", fails), r.newTask("302", "/302", fails),
			r.newTask("late", "/works%20in%20the%20end", nil), r.newTask("ends", "/run", ends),
			r.newTask("nobody", "/", obj{"on_start": obj{"kind": "Webhook", "params": obj{"url": "http://127.0.0.1:1/", "verb": "Post"}}}),
		})
		id := func(local string) string { return tasks[local].ID }
		s.waitStatus(id("ends"), "Running")
		s.finish(id("ends"), "Success")

		for local, want := range map[string]struct {
			attempts, status int
			reason           string
		}{
			"500":    {3, 500, "on_start failed after 3 attempts: 500"},
			"404":    {1, 404, "on_start failed after 1 attempt: 404"},
			"302":    {1, 302, "on_start failed after 1 attempt: 302"},
			"nobody": {3, 0, "on_start failed after 3 attempts: "},
		} {
			got := s.waitStatus(id(local), "Failure")
			if !strings.HasPrefix(text(got.FailureReason), want.reason) {
				t.Errorf("%s: reason %q, want %q", local, text(got.FailureReason), want.reason)
			}
			shown := actions(got, "Start")[0]
			if status := shown.LastStatus; shown.Failures != want.attempts || text(shown.LastError) == "" ||
				want.status == 0 != (status == nil) || status != nil && *status != want.status {
				t.Errorf("%s: shown as %s", local, jsonOf(shown))
			}
			if calls := r.got(sent("start", id(local))); want.status != 0 && len(calls) != want.attempts {
				t.Errorf("%s: %d attempts, want %d", local, len(calls), want.attempts)
			}
			if local != "nobody" {
				r.wait(1, "on_failure", sent("end", id(local)))
			}
		}
		late := s.waitStatus(id("late"), "Running")
		if shown := actions(late, "Start")[0]; shown.Failures != 2 || shown.LastStatus == nil || *shown.LastStatus != 200 || shown.LastError != nil {
			t.Errorf("accepted in the end: %s", jsonOf(shown))
		}
		r.wait(3, "the end webhook works in the end", to("/end works in the end"))
		eventually(t, "its record", func() bool {
			shown := actions(s.task(id("ends")), "End")
			return shown[0].Failures == 2 && shown[0].LastStatus != nil && *shown[0].LastStatus == 204 && shown[0].LastError == nil
		})
		dead := actions(s.task(id("ends")), "End")[1]
		if dead.Failures != 1 || dead.LastStatus == nil || *dead.LastStatus != 400 || text(dead.LastError) == "" {
			t.Errorf("given up: %s", jsonOf(dead))
		}
		waited := r.wait(2, "the one that asked for a pause", to("/wait"))
		if pause := waited[1].At.Sub(waited[0].At); pause < 3*time.Second {
			t.Errorf("sent again after %v, though asked to wait 3 s", pause)
		}
		s.stop()
		if len(r.got(to("/followed"))) != 0 || len(r.got(to("/end 400"))) != 1 || len(r.got(to("/404"))) != 1 {
			t.Errorf("calls %s", jsonOf(r.got(func(call) bool { return true })))
		}
		keys := map[string]string{}
		for _, c := range r.got(func(call) bool { return true }) {
			if key := keys[c.Task+c.Path]; key != "" && key != c.Key {
				t.Errorf("one webhook with two keys: %s and %s", key, c.Key)
			}
			keys[c.Task+c.Path] = c.Key
		}
	})
}

// TestSlowReceiver: one that does not answer holds up nobody else, neither with on_start nor with end webhooks.
func TestSlowReceiver(t *testing.T) {
	settings := map[string]string{"WEBHOOK_TIMEOUT": "60s", "WEBHOOK_HOST_WINDOW": "20"}
	onBothWith(t, settings, func(t *testing.T, s *service) {
		slow, fast := newReceiver(t), newReceiver(t)
		hang, release := slow.hold(nil)
		slow.handle("/run", hang)
		slow.handle("/end", hang)
		fast.handle("/run", fast.worker(0, "Success"))
		batch := func(n int, start *receiver, end *receiver) (tasks []obj) {
			for i := range n {
				tasks = append(tasks, start.newTask(fmt.Sprint(i), "/run", obj{"on_success": []obj{end.hook("/end")}}))
			}
			return tasks
		}
		s.create(batch(50, slow, slow))
		slow.wait(20, "as many hang as may", to("/run"))
		_, ended := s.create(batch(50, fast, slow))
		s.waitEnd(ended)
		slow.wait(20, "as many end webhooks hang as may", to("/end"))
		_, ended = s.create(batch(50, fast, fast))
		s.waitEnd(ended)
		fast.wait(50, "the end webhooks of the fast receiver", to("/end"))
		if n := len(slow.got(to("/run"))); n != 20 {
			t.Errorf("%d on_start at the slow receiver, want 20", n)
		}
		if n := len(slow.got(to("/end"))); n != 20 {
			t.Errorf("%d end webhooks at the slow receiver, want 20", n)
		}
		release()
		slow.wait(50, "the slow receiver gets the rest", to("/run"))
		slow.wait(50, "and the end webhooks", to("/end"))
	})
}

// TestHugeAnswer: of an answer without end, no more is read than can be used.
func TestHugeAnswer(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", func(w http.ResponseWriter, _ call) {
			chunk := strings.Repeat(" ", 64<<10)
			for range 10_000 { // or until nobody listens
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
			t.Error("640 MB were read")
		})
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil)})
		s.waitStatus(tasks["a"].ID, "Running")
	})
}

// TestForbiddenTargets: with no setting, webhooks go to public addresses only.
func TestForbiddenTargets(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_ALLOWED_NETWORKS": ""}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		for _, target := range []string{
			r.url, "http://localhost:1/", "http://a.localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0x7f.1/",
			"http://017700000001/", "http://0/", "http://10.1.2.3/", "http://192.168.1.1/", "http://172.16.0.1/", "http://169.254.169.254/latest/meta-data/",
			"http://[fd00:ec2::254]/", "http://[fe80::1]/", "http://100.64.0.1/", "http://[64:ff9b::7f00:1]/", "http://127.0.0.1./",
			"http://１２７.0.0.1/", "http://metadata.google.internal/", "http://168.63.129.16/",
		} {
			hook := obj{"kind": "Webhook", "params": obj{"url": target, "verb": "Post"}}
			a := s.want(400, "POST", "/task", []obj{r.newTask("a", "", obj{"on_start": hook, "on_failure": []obj{hook}})})
			wantDetail(t, a, "tasks[0].on_start.params.url: ", "tasks[0].on_failure[0].params.url: ", "WEBHOOK_ALLOWED_NETWORKS")
		}
		mail := obj{"kind": "Webhook", "params": obj{"url": "http://example.com:25/", "verb": "Post"}}
		wantDetail(t, s.want(400, "POST", "/task", []obj{r.newTask("a", "", obj{"on_start": mail})}),
			"tasks[0].on_start.params.url: port 25 is not one that WEBHOOK_ALLOWED_PORTS lets in")
		nothingCreated(t, s)
		if n := len(r.got(func(call) bool { return true })); n != 0 {
			t.Errorf("%d calls", n)
		}
		if !strings.Contains(s.log.String(), "public addresses only; every port but ") {
			t.Errorf("the policy is not logged: %s", s.log)
		}
	})
}

// TestForbiddenOnTheWire: what was let in at submit is still refused when a connection is made.
func TestForbiddenOnTheWire(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		url := databaseURL(t, db)
		s := startService(t, url, nil)
		r := newReceiver(t)
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil), r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}})})
		s.waitStatus(tasks["a"].ID, "Running")
		s.stop()
		s = startService(t, url, map[string]string{"WEBHOOK_ALLOWED_NETWORKS": ""})
		s.finish(tasks["a"].ID, "Success")
		got := s.waitStatus(tasks["b"].ID, "Failure")
		reason := text(got.FailureReason)
		if !strings.Contains(reason, "WEBHOOK_ALLOWED_NETWORKS") || !strings.HasPrefix(reason, "on_start failed after 1 attempt: ") {
			t.Errorf("reason %q", reason)
		}
		if n := len(r.got(sent("start", got.ID))); n != 0 {
			t.Errorf("%d calls arrived", n)
		}
	})
}
