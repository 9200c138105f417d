package httpapi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// withOutbox is a service with n deliveries of one task, testID(101) and on; they are dead, but for those that states says.
func withOutbox(t testing.TB, n int, states ...store.DeliveryState) *service {
	t.Helper()
	s := newService(t)
	for i := range n {
		d := store.DeliveryDetail{DeliveryItem: store.DeliveryItem{
			DeliveryRecord: store.DeliveryRecord{
				ID: testID(101 + i), Trigger: task.TriggerSuccess, Place: i, State: store.DeliveryDead, Failures: 10, LastStatus: 500, LastError: "500",
			},
			Task: testID(2), Batch: testID(1), Host: []string{"a.test", "b.test"}[i%2], CreatedAt: start,
		}, Action: task.Action{Verb: "Post", URL: "https://a.test/"}}
		if i < len(states) {
			d.State = states[i]
		}
		s.outbox = append(s.outbox, d)
	}
	return s
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	s := withOutbox(t, 2)
	s.outbox[0].Attempts = []store.AttemptRecord{
		{At: start, Took: 10 * time.Second, Error: "no answer within 10s"},
		{At: start.Add(time.Minute), Took: 1_500 * time.Microsecond, Status: 500, Error: "500 Internal Server Error", Answer: "<h1>\"oops\"</h1>"},
	}
	golden(t, "delivery", s.do("GET", "/deliveries/"+testID(101).String(), ""))
	s.outbox[1].Task, s.outbox[1].Trigger, s.outbox[1].Place = task.ID{}, task.TriggerBatchComplete, 0
	golden(t, "deliveries", s.do("GET", "/deliveries", ""))
}

func TestDeliveryFilters(t *testing.T) {
	t.Parallel()
	s := withOutbox(t, 3)
	id := testID(7).String()
	for _, path := range []string{"/deliveries", "/webhook-deliveries"} {
		query := "?state=dead,%20pending&status=dead&host=A.test:8080&task_id=" + id + "&batch_id=" + id + "&page=2&per_page=3&kind=ignored"
		if w := s.do("GET", path+query, ""); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		f := s.filter
		if !slices.Contains(f.DeliveryStates, store.DeliveryDead) || !slices.Contains(f.DeliveryStates, store.DeliveryPending) || len(f.DeliveryStates) != 2 ||
			f.Host != "a.test:8080" || f.Task != testID(7) || f.Batch != testID(7) || f.Offset != 6 || f.Limit != 4 || f.Kind != "" {
			t.Errorf("%s: %+v", path, f)
		}
		w := s.do("GET", path+"?per_page=2&cursor=", "")
		link := "<" + path + "?cursor=" + testID(102).String() + `&per_page=2>; rel="next"`
		if got := decode[[]api.DeliverySummary](t, w); len(got) != 2 || w.Header().Get("Link") != link || s.filter.Walk != store.MaxWalk {
			t.Errorf("%d deliveries, Link %s", len(got), w.Header().Get("Link"))
		}
	}
	w := s.do("GET", "/deliveries?state=ded&task_id=7&batch_id=x&host=a%00&cursor=1.x", "")
	p := decode[api.Problem](t, w)
	for i, want := range []string{"batch_id: ", "cursor: ", "host: ", `state: unknown state "ded"`, "task_id: "} {
		if len(p.Details) != 5 || !strings.HasPrefix(p.Details[i], want) {
			t.Fatalf("%d %q", w.Code, p.Details)
		}
	}
}

func TestRetryDelivery(t *testing.T) {
	t.Parallel()
	s := withOutbox(t, 3, store.DeliveryDead, store.DeliveryPending, store.DeliveryDone)
	for i, want := range []int{200, 200, 409} {
		s.woken = 0
		w := s.do("POST", "/deliveries/"+testID(101+i).String()+"/retry", "")
		if w.Code != want || (s.woken == 1) != (want == 200) {
			t.Errorf("%d: %d %s, woken %d times", i, w.Code, w.Body, s.woken)
		}
		if want == 200 {
			if d := decode[api.Delivery](t, w); d.State != "pending" {
				t.Errorf("%d: %+v", i, d)
			}
		}
	}
	s.err = errors.New("broken")
	if w := s.do("POST", "/deliveries/"+testID(101).String()+"/retry", ""); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRetryDead(t *testing.T) {
	t.Parallel()
	const n = retryPage + 3
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"all":true}`, n - 2}, {`{"host":"a.test"}`, (n+1)/2 - 1}, {`{"host":"none"}`, 0},
		{`{"all":false,"host":"B.test"}`, n/2 - 1},
	} {
		s := withOutbox(t, n, store.DeliveryPending, store.DeliveryDone)
		w := s.do("POST", "/deliveries/retry", c.body)
		if got := decode[api.Retried](t, w); w.Code != 200 || got.Retried != c.want || c.want > 0 && s.woken == 0 {
			t.Errorf("%s: %d %+v, want %d", c.body, w.Code, got, c.want)
		}
	}
	s := withOutbox(t, n)
	s.relapse = true
	if got := decode[api.Retried](t, s.do("POST", "/deliveries/retry", `{"all":true}`)); got.Retried != n {
		t.Errorf("%d retried that die again, want each of %d once", got.Retried, n)
	}
	s = withOutbox(t, 2)
	id := testID(7).String()
	if w := s.do("POST", "/deliveries/retry", `{"task_id":"`+id+`","batch_id":"`+id+`"}`); w.Code != 200 || s.filter.Task != testID(7) || s.filter.Batch != testID(7) {
		t.Errorf("%d, filter %+v", w.Code, s.filter)
	}
}

func TestRetryOfWhat(t *testing.T) {
	t.Parallel()
	s := withOutbox(t, 2)
	for body, want := range map[string]string{
		``: "", `[]`: "must be an object", `{}`: "needs either some of host", `{"all":false}`: "needs either some of host", `{"all":true,"host":"a.test"}`: "needs either some of host",
		`{"host":""}`: "host: must not be empty", `{"host":7}`: "host: must be a string", `{"task_id":"7"}`: "task_id: ", `{"batch_id":"7"}`: "batch_id: ",
		`{"hosts":"a.test"}`: "did you mean", `{"all":1}`: "all: must be a bool", `{"host":null}`: "needs either some of host",
	} {
		w := s.do("POST", "/deliveries/retry", body)
		if p := decode[api.Problem](t, w); w.Code != 400 || !strings.Contains(fmt.Sprint(p.Details), want) {
			t.Errorf("%s: %d %q", body, w.Code, p.Details)
		}
	}
	if s.outbox[0].State != store.DeliveryDead || s.outbox[1].State != store.DeliveryDead {
		t.Error("something was retried")
	}
}

// What is known of on_start is told like a delivery.
func TestStateOfStart(t *testing.T) {
	t.Parallel()
	at := start.Add(time.Second)
	for _, c := range []struct {
		state task.State
		want  string
	}{
		{task.State{Status: task.Waiting}, ""},
		{task.State{Status: task.Pending}, ""},
		{task.State{Status: task.Canceled}, ""},
		{task.State{Status: task.Claimed, ClaimedAt: at}, "pending"},
		{task.State{Status: task.Paused, ClaimedAt: at}, "pending"},
		{task.State{Status: task.Running, ClaimedAt: at, StartedAt: at, StartFailures: 1}, "done"},
		{task.State{Status: task.Failure, ClaimedAt: at, StartedAt: at}, "done"},
		{task.State{Status: task.Failure, ClaimedAt: at, StartFailures: 3}, "dead"},
		{task.State{Status: task.Canceled, ClaimedAt: at}, ""},
	} {
		shown := actions(&task.Task{}, &c.state, nil)[0]
		if got := shown.State; (got == nil) != (c.want == "") || got != nil && *got != c.want {
			t.Errorf("%+v: %v, want %q", c.state, got, c.want)
		}
	}
}
