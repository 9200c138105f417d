package e2e

import (
	"net/http"
	"testing"

	"taskrunner/api"
)

// TestETag: a task's tag changes with everything that GET shows, also what happens to others, and with nothing else.
func TestETag(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(func(w http.ResponseWriter, _ call) { w.WriteHeader(http.StatusBadRequest) })
		defer release()
		r.handle("/end", hang)
		tasks, _ := s.create([]obj{
			r.newTask("parent", "/run", nil),
			r.newTask("child", "/run", obj{"dependencies": []obj{dep("parent", false)}, "on_success": []obj{r.hook("/end")}, "metadata": obj{"a": 1}}),
		})
		parent, child := tasks["parent"].ID, tasks["child"].ID
		s.waitStatus(parent, "Running")
		path, last := "/task/"+child, ""
		changed := func(what string) {
			t.Helper()
			a := s.want(200, "GET", path, nil, "If-None-Match", last)
			tag := a.header.Get("ETag")
			if tag == "" || tag == last || len(a.body) == 0 {
				t.Errorf("%s changed: tag %s, before %s", what, tag, last)
			}
			last = tag
			for _, given := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
				a := s.want(304, "GET", path, nil, "If-None-Match", given)
				if len(a.body) != 0 || a.header.Get("ETag") != tag || a.header.Get("Content-Type") != "" {
					t.Errorf("%s: 304 with %v %q", given, a.header, a.body)
				}
			}
			s.want(304, "HEAD", path, nil, "If-None-Match", tag)
			s.want(200, "GET", "/task/"+parent, nil, "If-None-Match", tag)
		}
		changed("nothing")
		s.want(409, "PATCH", path, obj{"status": "Success"})
		s.want(304, "GET", path, nil, "If-None-Match", last)
		s.want(202, "PUT", path, obj{"new_success": 1})
		changed("counts")
		s.want(200, "PATCH", path, obj{"priority": 3, "metadata": obj{"a": 2}})
		changed("priority and metadata")
		s.want(200, "PATCH", "/task/pause/"+child, nil)
		changed("status")
		s.want(200, "PATCH", "/task/pause/"+parent, nil)
		changed("the parent's state")
		s.want(200, "PATCH", "/task/resume/"+child, nil)
		s.want(200, "PATCH", "/task/resume/"+parent, nil)
		s.finish(parent, "Success")
		s.waitStatus(child, "Running")
		changed("status")
		s.finish(child, "Success")
		r.wait(1, "the end webhook", to("/end"))
		changed("status")
		release()
		eventually(t, "the failed delivery is shown", func() bool {
			for _, a := range s.task(child).Actions {
				if a.Trigger == "End" && a.Failures == 1 {
					return true
				}
			}
			return false
		})
		changed("a delivery's failures")
		if got := decode[api.Task](t, s.want(200, "GET", path, nil)); got.Success != 1 || got.Status != "Success" {
			t.Errorf("task %s", jsonOf(got))
		}
		s.stop() // and after a restart, on another process, it is the same
		again := startService(t, s.database, nil)
		again.want(304, "GET", path, nil, "If-None-Match", last)
	})
}
