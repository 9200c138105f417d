package httpapi

import (
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Whatever changes in what is shown changes the tag, and nothing else does.
func TestETag(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	path := "/task/" + idB
	b, parent := s.tasks[testID(3)], s.tasks[testID(2)]
	b.Task.OnSuccess = []task.Action{{Verb: "Post", URL: "https://example.com/"}}
	b.Task.Metadata = []byte(`{"a":1}`)
	seen := map[string]string{}
	last := ""
	for _, change := range []struct {
		what string
		fn   func()
	}{
		{"nothing", func() {}},
		{"status", func() { b.State.Status = task.Pending }},
		{"claim", func() { b.State.Status, b.State.ClaimedAt = task.Claimed, start }},
		{"success", func() { b.State.Success++ }},
		{"failures", func() { b.State.Failures++ }},
		{"activity", func() { b.State.LastUpdated = b.State.LastUpdated.Add(time.Microsecond) }},
		{"a parent's state", func() { parent.State.Status = task.Paused }},
		{"on_start's failures", func() { b.State.StartFailures++ }},
		{"on_start's answer", func() { b.State.StartStatus = 503 }},
		{"a delivery's failures", func() {
			b.Deliveries = []store.DeliveryRecord{{Trigger: task.TriggerSuccess, State: store.DeliveryPending, Failures: 1}}
		}},
		{"a delivery's error", func() { b.Deliveries[0].LastError = "refused" }},
		{"metadata", func() { b.Task.Metadata = []byte(`{"a":2}`) }},
		{"priority", func() { b.Task.Priority++ }},
		{"expected_count", func() { b.Task.ExpectedCount = new(int64(3)) }},
		{"a cancel action", func() { b.Task.OnCancel = []task.Action{{Verb: "Delete", URL: "https://example.com/"}} }},
		{"failure_reason", func() { b.State.FailureReason = "x" }},
	} {
		change.fn()
		w := s.do("GET", path, "", "If-None-Match: "+last)
		tag := w.Header().Get("ETag")
		if w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s changed: %d %s", change.what, w.Code, w.Body)
		}
		if of, known := seen[tag]; known || len(tag) != 34 || tag[0] != '"' || tag[33] != '"' {
			t.Errorf("%s changed: %s, as with %q", change.what, tag, of)
		}
		seen[tag], last = change.what, tag
		if again := s.do("GET", path, ""); again.Header().Get("ETag") != tag || again.Body.String() != w.Body.String() {
			t.Errorf("%s changed: %s, and then %s without a change", change.what, tag, again.Header().Get("ETag"))
		}
	}
	if other := s.do("GET", "/task/"+idA, ""); seen[other.Header().Get("ETag")] != "" {
		t.Error("two tasks have one tag")
	}
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	path := "/task/" + idA
	tag := s.do("GET", path, "").Header().Get("ETag")
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{"If-None-Match: " + tag}, 304},
		{[]string{"If-None-Match: W/" + tag}, 304},
		{[]string{"If-None-Match: *"}, 304},
		{[]string{`If-None-Match: "a,b", W/"c" ,` + tag + ` `}, 304},
		{[]string{`If-None-Match: "a"`, "If-None-Match: " + tag}, 304},
		{[]string{"If-None-Match: " + tag[1:33]}, 200},
		{[]string{`If-None-Match: "` + tag[2:]}, 200},
		{[]string{"If-None-Match: w/" + tag}, 200},
		{[]string{`If-None-Match: "*"`}, 200},
		{[]string{"If-None-Match: "}, 200},
		{[]string{"If-Match: " + tag}, 200},
		{nil, 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			w := s.do(method, path, "", c.headers...)
			if w.Code != c.status || (w.Body.Len() == 0) != (c.status == 304) || w.Header().Get("ETag") != tag ||
				w.Header().Get("Cache-Control") != "no-cache" || (w.Header().Get("Content-Type") == "") != (c.status == 304) {
				t.Errorf("%s with %q: %d %v %s, want %d", method, c.headers, w.Code, w.Header(), w.Body, c.status)
			}
		}
	}
	run(t, []scenario{ // nothing to compare with
		{method: "GET", path: "/task/" + unknown, headers: []string{"If-None-Match: *"}, status: 404, wantHeaders: []string{"ETag: "}},
		{method: "GET", path: "/task/x", headers: []string{"If-None-Match: *"}, status: 400, wantHeaders: []string{"ETag: "}},
	})
}
