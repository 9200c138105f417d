package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"taskrunner/api"
)

func (c *client) deliveries(query string) []api.DeliverySummary {
	c.t.Helper()
	return decode[[]api.DeliverySummary](c.t, c.want(200, "GET", "/deliveries?"+query, nil))
}

func (c *client) delivery(id string) api.Delivery {
	c.t.Helper()
	return decode[api.Delivery](c.t, c.want(200, "GET", "/deliveries/"+id, nil))
}

// waitDeliveries waits until a list has n deliveries, and returns them.
func (c *client) waitDeliveries(n int, query string) (list []api.DeliverySummary) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%d deliveries by %s", n, query), func() bool {
		list = c.deliveries(query)
		return len(list) == n
	})
	return list
}

// broken answers like a receiver that is out of order, until it is mended.
func broken(mended *atomic.Bool) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, c call) {
		if !mended.Load() {
			w.WriteHeader(422)
			_, _ = io.WriteString(w, "out of order \x1b[31m"+c.Header.Get("Authorization")+strings.Repeat("€", 1000))
			return
		}
		_, _ = io.WriteString(w, "thank you")
	}
}

// TestDeadDelivery: one that was given up says why, and is sent again by hand, until it is accepted.
func TestDeadDelivery(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var mended atomic.Bool
		r.handle("/end", broken(&mended))
		hook := r.send("Put", "/end?x=1", obj{"headers": obj{"Authorization": "hidden-token"}, "body": obj{"n": 1}})
		tasks, batch := s.create([]obj{r.newTask("a", "/run", obj{"on_success": []obj{hook}})})
		id := tasks["a"].ID
		s.waitStatus(id, "Running")
		s.finish(id, "Success")
		dead := s.waitDeliveries(1, "state=dead&task_id="+id)[0]

		shown := actions(s.task(id), "End")[0]
		if text(shown.ID) != dead.ID || text(shown.State) != "dead" || !shown.NextAttemptAt.IsZero() || shown.Failures != 1 {
			t.Errorf("shown with its task: %s", jsonOf(shown))
		}
		if dead.BatchID != batch || text(dead.TaskID) != id || dead.IdempotencyKey != id+":end:success" || dead.Host != strings.TrimPrefix(r.url, "http://") {
			t.Errorf("listed: %s", jsonOf(dead))
		}
		got := s.delivery(dead.ID)
		if got.Params.Verb != "Put" || got.Params.URL != r.url+"/end?x=1" || len(got.Attempts) != 1 {
			t.Fatalf("%s", jsonOf(got))
		}
		a := got.Attempts[0]
		answer := text(a.Answer)
		if a.Status == nil || *a.Status != 422 || !strings.HasPrefix(text(a.Error), "422 ") || a.DurationMS <= 0 || a.At.IsZero() ||
			!strings.HasPrefix(answer, "out of order  [31m…€€") || len(answer) > 1024 || len(answer) < 1020 {
			t.Errorf("attempt: %s", jsonOf(a))
		}
		if strings.Contains(jsonOf(got.Attempts), "hidden") {
			t.Errorf("a secret is shown: %s", jsonOf(got.Attempts))
		}

		mended.Store(true)
		s.want(200, "POST", "/deliveries/"+dead.ID+"/retry", nil)
		s.waitDeliveries(1, "state=done&task_id="+id)
		got = s.delivery(dead.ID)
		if got.Failures != 1 || got.LastError != nil || len(got.Attempts) != 2 || text(got.Attempts[1].Answer) != "thank you" || got.Attempts[1].Error != nil {
			t.Errorf("retried: %s", jsonOf(got))
		}
		s.want(409, "POST", "/deliveries/"+dead.ID+"/retry", nil)
		calls := r.wait(2, "both attempts", to("/end"))
		if len(calls) != 2 || calls[0].Key != calls[1].Key || string(calls[0].Body) != string(calls[1].Body) {
			t.Errorf("calls %s", jsonOf(calls))
		}
		if n := len(s.deliveries("state=dead")); n != 0 {
			t.Errorf("%d are dead", n)
		}
	})
}

// TestRetryWaiting: one that waits for its next attempt is sent at once when somebody asks.
func TestRetryWaiting(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var mended atomic.Bool
		r.handle("/end", func(w http.ResponseWriter, _ call) {
			if !mended.Load() {
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(503)
			}
		})
		tasks, _ := s.create([]obj{r.newTask("a", "/run", obj{"on_success": []obj{r.hook("/end")}})})
		id := tasks["a"].ID
		s.waitStatus(id, "Running")
		s.finish(id, "Success")
		var shown api.Action
		eventually(t, "it waits", func() bool {
			shown = actions(s.task(id), "End")[0]
			return shown.Failures == 1
		})
		if text(shown.State) != "pending" || shown.NextAttemptAt.IsZero() || shown.LastStatus == nil || *shown.LastStatus != 503 {
			t.Errorf("it waits: %s", jsonOf(shown))
		}
		mended.Store(true)
		s.want(200, "POST", "/deliveries/"+text(shown.ID)+"/retry", nil)
		s.waitDeliveries(1, "state=done&task_id="+id)
	})
}

// TestRetryDead: all dead deliveries of a host, of a batch, or of a task are sent again in one request.
func TestRetryDead(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r, other := newReceiver(t), newReceiver(t)
		var mended atomic.Bool
		for _, r := range []*receiver{r, other} {
			r.handle("/run", r.worker(0, "Success"))
			r.handle("/end", broken(&mended))
			r.handle("/complete", broken(&mended))
		}
		const n = 20
		var tasks []obj
		for i := range n {
			tasks = append(tasks, r.newTask(fmt.Sprint(i), "/run", obj{"on_success": []obj{r.hook("/end"), other.hook("/end")}}))
		}
		_, batch := s.create(obj{"tasks": tasks, "on_batch_complete": []obj{r.hook("/complete")}})
		_, small := s.create([]obj{r.newTask("a", "/run", obj{"on_success": []obj{r.hook("/end")}})})
		host := "host=" + strings.TrimPrefix(r.url, "http://")
		s.waitDeliveries(2*n+2, "state=dead&per_page=100")
		if n := len(s.deliveries("state=dead&batch_id=" + small)); n != 1 {
			t.Errorf("%d of the small batch", n)
		}
		retry := func(body obj, want int) {
			t.Helper()
			if got := decode[api.Retried](t, s.want(200, "POST", "/deliveries/retry", body)); got.Retried != want {
				t.Errorf("%s: %d retried, want %d", jsonOf(body), got.Retried, want)
			}
		}
		mended.Store(true)
		retry(obj{"batch_id": small}, 1)
		s.waitDeliveries(1, "state=done&batch_id="+small)
		retry(obj{"host": strings.TrimPrefix(r.url, "http://")}, n+1)
		s.waitDeliveries(n+2, "per_page=100&state=done&"+host)
		s.waitDeliveries(n, "per_page=100&state=dead&batch_id="+batch)
		task := text(s.deliveries("state=dead")[0].TaskID)
		retry(obj{"task_id": task}, 1)
		s.waitDeliveries(2, "state=done&task_id="+task)
		retry(obj{"all": true}, n-1)
		s.waitDeliveries(2*n+2, "per_page=100&state=done")
		retry(obj{"all": true}, 0)
	})
}
