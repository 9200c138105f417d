package e2e

import (
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
)

// more is an action with what it says of its attempts.
func more(action obj, with obj) obj {
	for k, v := range with {
		action[k] = v
	}
	return action
}

// TestOwnRetries: what an action says of its attempts counts, wherever it stands, and is shown as it was sent.
func TestOwnRetries(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_RETRY": `{"max_attempts": 4, "initial": 0.01, "max": 0.02}`}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		defer release()
		r.handle("/hang", hang)
		for _, path := range []string{"/once", "/failed", "/failed too", "/cancel", "/done"} {
			r.handle(path, answers(500))
		}
		twice, once := obj{"max_attempts": 2, "initial": 0.011, "factor": 1.235, "max": 0.02}, obj{"max_attempts": 1}
		shown := &api.Retry{MaxAttempts: 2, Initial: 0.011, Factor: 1.235, Max: 0.02}
		r.handle("/run", func(w http.ResponseWriter, _ call) {
			cancel := more(r.hook("/cancel"), obj{"retry": twice, "timeout": 7})
			_, _ = io.WriteString(w, jsonOf(cancel))
		})
		tasks, batch := s.create(obj{"tasks": []obj{
			r.newTask("once", "", obj{
				"on_start":   more(r.hook("/once"), obj{"retry": once}),
				"on_failure": []obj{more(r.hook("/failed"), obj{"retry": twice, "timeout": 60}), r.hook("/failed%20too")},
			}),
			r.newTask("hangs", "", obj{"on_start": more(r.hook("/hang"), obj{"timeout": 1, "retry": once})}),
			r.newTask("canceled", "/run", nil),
		}, "on_batch_complete": []obj{more(r.hook("/done"), obj{"retry": once})}})
		id := func(local string) string { return tasks[local].ID }
		s.waitStatus(id("canceled"), "Running")
		s.want(200, "DELETE", "/task/"+id("canceled"), nil)

		for local, reason := range map[string]string{
			"once":  "on_start failed after 1 attempt: 500",
			"hangs": "on_start failed after 1 attempt: no answer within 1s",
		} {
			if got := s.waitStatus(id(local), "Failure"); text(got.FailureReason) != reason {
				t.Errorf("%s: reason %q, want %q", local, text(got.FailureReason), reason)
			}
		}
		for path, attempts := range map[string]int{"/once": 1, "/hang": 1, "/failed": 2, "/failed too": 4, "/cancel": 2, "/done": 1} {
			r.wait(attempts, "attempts of "+path, to(path))
		}
		type said struct {
			Timeout  *int64
			Retry    *api.Retry
			Failures int
		}
		what := func(a api.Action) said { return said{a.Timeout, a.Retry, a.Failures} }
		var end, cancel []api.Action
		eventually(t, "the attempts are recorded", func() bool {
			end, cancel = actions(s.task(id("once")), "End"), actions(s.task(id("canceled")), "Cancel")
			return end[0].Failures == 2 && end[1].Failures == 4 && cancel[0].Failures == 2 && s.batch(batch).Actions[0].Failures == 1
		})
		got := []said{what(actions(s.task(id("once")), "Start")[0]), what(end[0]), what(end[1]), what(cancel[0]), what(s.batch(batch).Actions[0])}
		want := []said{
			{nil, &api.Retry{MaxAttempts: 1}, 1}, {new(int64(60)), shown, 2}, {nil, nil, 4}, {new(int64(7)), shown, 2}, {nil, &api.Retry{MaxAttempts: 1}, 1},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("shown (-want +got):\n%s", diff)
		}
		s.stop()
		for path, attempts := range map[string]int{"/once": 1, "/hang": 1, "/failed": 2, "/failed too": 4, "/cancel": 2, "/done": 1} {
			if n := len(r.got(to(path))); n != attempts {
				t.Errorf("%s: %d attempts, want %d", path, n, attempts)
			}
		}
	})
}

// TestCanceledWhileOnStartFails: the on_start of a task that has been canceled is not sent again, that of others is.
func TestCanceledWhileOnStartFails(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", answers(500)) // which does not open the breaker
		patient := obj{"on_start": more(r.hook("/run"), obj{"retry": obj{"max_attempts": 100, "initial": 0.05, "factor": 1}})}
		tasks, _ := s.create([]obj{r.newTask("canceled", "", patient), r.newTask("other", "", patient)})
		canceled, other := sent("start", tasks["canceled"].ID), sent("start", tasks["other"].ID)
		r.wait(3, "attempts", canceled)
		s.want(200, "DELETE", "/task/"+tasks["canceled"].ID, nil)
		before := len(r.got(canceled)) // and one may be on its way
		r.wait(len(r.got(other))+10, "attempts of the other one", other)
		if n := len(r.got(canceled)); n > before+1 {
			t.Errorf("%d attempts after the task was canceled", n-before)
		}
	})
}
