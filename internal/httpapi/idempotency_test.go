package httpapi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
)

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	one := `[{"id":"x","name":"X","kind":"k","on_start":{"kind":"Webhook","params":{"url":"https://example.com/","verb":"Post"}}}]`
	cases := []scenario{
		{name: "fresh", headers: []string{"Idempotency-Key: k"}, body: one, status: 201, wantHeaders: []string{"Idempotent-Replayed: "}},
		{name: "longest", headers: []string{"Idempotency-Key: " + strings.Repeat("~", 255)}, body: one, status: 201},
		{name: "with spaces and quotes", headers: []string{`Idempotency-Key: "a b"`}, body: one, status: 201},
		{name: "empty", headers: []string{"Idempotency-Key: "}, body: one, status: 400,
			wants: []string{"Idempotency-Key: must have 1 to 255 characters, has 0", `"batch_id"`}},
		{name: "too long", headers: []string{"Idempotency-Key: " + strings.Repeat("x", 256)}, body: one, status: 400,
			wants: []string{"Idempotency-Key: must have 1 to 255 characters, has 256"}},
		{name: "not ASCII", headers: []string{"Idempotency-Key: é"}, body: one, status: 400, wants: []string{"Idempotency-Key: must be printable ASCII"}},
		{name: "a tab", headers: []string{"Idempotency-Key: a\tb"}, body: one, status: 400, wants: []string{"Idempotency-Key: must be printable ASCII"}},
		{name: "DEL", headers: []string{"Idempotency-Key: a\x7f"}, body: one, status: 400, wants: []string{"Idempotency-Key: must be printable ASCII"}},
		{name: "twice", headers: []string{"Idempotency-Key: a", "Idempotency-Key: a"}, body: one, status: 400,
			wants: []string{"Idempotency-Key: must be sent once, was sent 2 times"}},
	}
	for i := range cases {
		cases[i].method, cases[i].path = "POST", "/task"
	}
	run(t, cases)
}

func TestReplay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const key = "Idempotency-Key: nightly"
	first := s.do("POST", "/task", diamond, key)
	if first.Code != 201 {
		t.Fatalf("%d %s", first.Code, first.Body)
	}
	batch := first.Header().Get("X-Batch-ID")
	want := decode[[]api.Task](t, first)

	again := s.do("POST", "/task", diamond, key)
	if again.Code != 200 || again.Header().Get("Idempotent-Replayed") != "true" || again.Header().Get("X-Batch-ID") != batch {
		t.Fatalf("%d %v", again.Code, again.Header())
	}
	if diff := cmp.Diff(want, decode[[]api.Task](t, again)); diff != "" {
		t.Errorf("the replay (-first +again):\n%s", diff)
	}

	s.do("PATCH", "/task/"+want[0].ID, `{"new_success":3,"metadata":{"tenant_id":8}}`)
	s.do("DELETE", "/task/"+want[0].ID, "")
	now := decode[[]api.Task](t, s.do("POST", "/task", diamond, key))
	if now[0].Status != "Canceled" || now[0].Success != 3 || now[1].Dependencies[0].Status != "Canceled" {
		t.Errorf("the replay does not say how the tasks stand now: %+v", now)
	}

	minimal := s.do("POST", "/task", diamond, key, "Prefer: return=minimal")
	if minimal.Code != 200 || minimal.Header().Get("Preference-Applied") != "return=minimal" || strings.Contains(minimal.Body.String(), "status") {
		t.Errorf("%d %v %s", minimal.Code, minimal.Header(), minimal.Body)
	}
	for i, c := range decode[[]api.CreatedTask](t, minimal) {
		if c.ID != want[i].ID || c.LocalID != want[i].LocalID {
			t.Errorf("task %d of the minimal replay is %+v", i, c)
		}
	}
	if len(s.batch) != 1 {
		t.Errorf("%d batches are there", len(s.batch))
	}
}

func TestKeyOfAnotherRequest(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const key = "Idempotency-Key: nightly"
	if w := s.do("POST", "/task", `[{"id":""}]`, key); w.Code != 400 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := s.do("POST", "/task", diamond, key); w.Code != 201 { // what was wrong did not use the key
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, body := range []string{diamond + " ", "[]"} { // the bytes count, not what they mean
		w := s.do("POST", "/task", body, key)
		checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
		if w.Code != 422 || !strings.Contains(w.Body.String(), "this Idempotency-Key was sent with another body") || w.Header().Get("X-Batch-ID") != "" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
	if len(s.batch) != 1 || s.log.Len() > 0 {
		t.Errorf("%d batches are there, log: %s", len(s.batch), s.log)
	}
}

// A key stands for nothing created as well, so that a repeat is answered alike and another body is refused.
func TestKeyOfAnEmptyBatch(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const key = "Idempotency-Key: nightly"
	first, again := s.do("POST", "/task", "[]", key), s.do("POST", "/task", "[]", key)
	if first.Code != 204 || first.Header().Get("Idempotent-Replayed") != "" {
		t.Errorf("%d %v", first.Code, first.Header())
	}
	if again.Code != 204 || again.Header().Get("Idempotent-Replayed") != "true" || again.Body.Len() > 0 ||
		again.Header().Get("X-Batch-ID") != first.Header().Get("X-Batch-ID") {
		t.Errorf("%d %v %s", again.Code, again.Header(), again.Body)
	}
	if w := s.do("POST", "/task", diamond, key); w.Code != 422 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
