package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/handle"
	"taskrunner/internal/task"
)

var handles = handle.Keys{"a-key-for-handles", "an-old-key-for-handles"}

// withHandles is a service with the diamond, whose handles have tokens. idA runs, its third claim; idB ended an hour ago and
// idC two days ago; the handles live for a day.
func withHandles(t *testing.T, authToken string) *service {
	t.Helper()
	s := newService(t, func(o *Options) {
		o.AuthToken, o.Handles, o.HandleGrace = authToken, handles, 24*time.Hour
	})
	if w := s.do("POST", "/task", diamond, "Authorization: Bearer "+authToken); w.Code != 201 {
		t.Fatalf("create: %d %s", w.Code, w.Body)
	}
	now := time.Now()
	s.now = now
	for i, state := range []task.State{
		{Status: task.Running, ClaimedAt: now, StartedAt: now, Attempt: 3},
		{Status: task.Success, ClaimedAt: now, StartedAt: now, Attempt: 1, EndedAt: now.Add(-time.Hour)},
		{Status: task.Failure, ClaimedAt: now, StartedAt: now, Attempt: 1, EndedAt: now.Add(-48 * time.Hour)},
	} {
		state.ID = testID(2 + i)
		s.tasks[state.ID].State = state
	}
	return s
}

func TestHandles(t *testing.T) {
	t.Parallel()
	a, b, c, none := testID(2), testID(3), testID(4), testID(99)
	report := func(id task.ID) string { return handles.Token(id, handle.Report, 1) }
	read := func(id task.ID) string { return handles.Token(id, handle.Read, 0) }
	on := func(id task.ID, token string) string { return "/task/" + id.String() + "?token=" + token }
	path := func(id task.ID) string { return "/task/" + id.String() }
	const counts = `{"new_success":1}`
	element := func(name string, id task.ID, token string) string {
		return fmt.Sprintf(`{"%s":"%s","new_success":1,"token":"%s"}`, name, id, token)
	}
	bearer, wrong := "Authorization: Bearer "+token, "Authorization: Bearer x"+token
	old := handle.Keys{handles[1]}.Token(a, handle.Report, 3)
	tests := []struct {
		name, method, path, body string
		header                   string
		open, guarded            int // the status without AUTH_TOKEN, and with it
	}{
		{"report", "PATCH", on(a, report(a)), counts, "", 200, 200},
		{"count", "PUT", on(a, report(a)), counts, "", 202, 202},
		{"read", "GET", on(a, report(a)), "", "", 200, 200},
		{"head", "HEAD", on(a, report(a)), "", "", 200, 200},
		{"an old key", "PATCH", on(a, old), counts, "", 200, 200},
		{"read by who may only read", "GET", on(a, read(a)), "", "", 200, 200},
		{"of the last attempt", "PUT", on(a, handles.Token(a, handle.Report, 3)), counts, "", 202, 202},
		{"of an attempt that never was", "PUT", on(a, handles.Token(a, handle.Report, 4)), counts, "", 401, 401},
		{"ended a while ago", "PUT", on(b, report(b)), counts, "", 202, 202},
		{"ended long ago", "PUT", on(c, report(c)), counts, "", 401, 401},
		{"ended long ago, read", "GET", on(c, read(c)), "", "", 401, 401},
		{"of no task", "PUT", on(none, report(none)), counts, "", 401, 401},
		{"of no task, read", "GET", on(none, report(none)), "", "", 401, 401},
		{"report by who may only read", "PATCH", on(a, read(a)), counts, "", 401, 401},
		{"another task's", "PATCH", on(a, report(b)), counts, "", 401, 401},
		{"another task's, read", "GET", on(a, report(b)), "", "", 401, 401},
		{"another task's, of no task", "PATCH", on(none, report(a)), counts, "", 401, 401},
		{"malformed", "PATCH", on(a, "x"), counts, "", 401, 401},
		{"cut", "PATCH", on(a, report(a)[:50]), counts, "", 401, 401},
		{"empty", "PATCH", on(a, ""), counts, "", 401, 401},
		{"none", "PATCH", path(a), counts, "", 401, 401},
		{"none, for no task", "PUT", path(none), counts, "", 401, 401},
		{"none, for no id", "PUT", "/task/x", counts, "", 401, 401},
		{"none, another spelling", "PUT", "/task/%30" + a.String()[1:], counts, "", 401, 401},
		{"none, capitals", "PUT", "/task/" + strings.ToUpper(a.String()), counts, "", 401, 401},
		{"in the header", "PATCH", path(a), counts, "Authorization: Bearer " + report(a), 401, 401},
		{"the service's token", "PATCH", path(a), counts, bearer, 401, 200},
		{"the service's token in the query", "PATCH", on(a, token), counts, "", 401, 401},
		{"another's, and the service's", "PATCH", on(a, report(b)), counts, bearer, 401, 200},
		{"right, and a wrong one for the service", "PATCH", on(a, report(a)), counts, wrong, 200, 200},
		{"read without", "GET", path(a), "", "", 200, 401},
		{"read, the service's token", "GET", on(none, report(none)), "", bearer, 401, 404},
		// What is no report is not for handles.
		{"cancel", "DELETE", on(b, report(b)), "", "", 409, 401},
		{"pause", "PATCH", "/task/pause/" + b.String() + "?token=" + report(b), "", "", 409, 401},
		{"resume", "PATCH", "/task/resume/" + b.String() + "?token=" + report(b), "", "", 409, 401},
		{"history", "GET", path(a) + "/history?token=" + report(a), "", "", 200, 401},
		{"list", "GET", "/task?token=" + report(a), "", "", 200, 401},
		{"create", "POST", "/task?token=" + report(a), "[]", "", 204, 401},
		// In the body.
		{"one count", "PUT", "/task", element("task_id", a, report(a)), "", 202, 202},
		{"one count without", "PUT", "/task", `{"task_id":"` + a.String() + `","new_success":1}`, "", 401, 401},
		{"one count by the query", "PUT", "/task?token=" + report(a), `{"task_id":"` + a.String() + `","new_success":1}`, "", 401, 401},
		{"one count, the service's token", "PUT", "/task", `{"task_id":"` + a.String() + `","new_success":1}`, bearer, 401, 202},
		{"one count of no task", "PUT", "/task", element("task_id", none, report(none)), "", 401, 401},
		{"counts", "PUT", "/task", "[" + element("task_id", a, report(a)) + "," + element("task_id", b, report(b)) + "]", "", 202, 202},
		{"counts, one is another's", "PUT", "/task", "[" + element("task_id", a, report(a)) + "," + element("task_id", b, report(a)) + "]", "", 401, 401},
		{"updates", "PATCH", "/task", "[" + element("id", a, report(a)) + "," + element("id", b, report(b)) + "]", "", 200, 200},
		{"updates, one without", "PATCH", "/task", "[" + element("id", a, report(a)) + `,{"id":"` + b.String() + `"}]`, "", 401, 401},
		{"updates, one may only read", "PATCH", "/task", "[" + element("id", a, read(a)) + "]", "", 401, 401},
		{"updates, the service's token", "PATCH", "/task", `[{"id":"` + a.String() + `"}]`, bearer, 401, 200},
		{"wrong in itself", "PATCH", "/task", `[{"id":"` + a.String() + `","status":"x"}]`, "", 400, 400},
	}
	for _, authToken := range []string{"", token} {
		var refused []byte // what the first refusal says
		for _, test := range tests {
			s := withHandles(t, authToken)
			want := test.open
			if authToken != "" {
				want = test.guarded
			}
			w := s.do(test.method, test.path, test.body, test.header)
			if w.Code != want {
				t.Errorf("%s, AUTH_TOKEN %q: %d, want %d: %s", test.name, authToken, w.Code, want, w.Body)
				continue
			}
			if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("%s: header %v", test.name, w.Header())
			}
			if w.Code == 401 && !strings.Contains(w.Body.String(), "a token is needed") { // that of what is not for handles
				if refused == nil {
					refused = bytes.Clone(w.Body.Bytes())
				}
				if !bytes.Equal(w.Body.Bytes(), refused) {
					t.Errorf("%s is answered\n%s\nand others\n%s", test.name, w.Body, refused)
				}
			}
			if text := s.log.String() + w.Body.String(); strings.Contains(text, report(a)) || strings.Contains(text, report(none)) {
				t.Errorf("%s: the token is shown: %s", test.name, text)
			}
		}
	}
}

// In an array a dead handle and one of no task are told alike, each in its place, and the rest is applied.
func TestHandlesInArrays(t *testing.T) {
	t.Parallel()
	a, dead, none := testID(2), testID(4), testID(99)
	s := withHandles(t, "")
	array := func(name string) string {
		var all []string
		for _, id := range []task.ID{a, dead, none} {
			all = append(all, fmt.Sprintf(`{"%s":"%s","new_success":1,"token":"%s"}`, name, id, handles.Token(id, handle.Report, 1)))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	w := s.do("PUT", "/task", array("task_id"))
	if want := fmt.Sprintf(`{"applied":1,"unknown":["%s","%s"]}`, dead, none); strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("%s, want %s", w.Body, want)
	}
	w = s.do("PATCH", "/task", array("id"))
	of := func(id task.ID) string {
		return fmt.Sprintf(`{"id":"%s","status":401,"error":"%s"}`, id, errHandle.message)
	}
	body := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(w.Body.String())
	if w.Code != 200 || !strings.Contains(body, of(dead)) || !strings.Contains(body, of(none)) {
		t.Errorf("%d %s", w.Code, body)
	}
	if got := s.tasks[a].State.Success; got != 2 {
		t.Errorf("counted %d", got)
	}
}

// Where the tokens are in the body, it is read before anybody knows who sends it: not much of it.
func TestStrangersBodyIsBounded(t *testing.T) {
	t.Parallel()
	s := withHandles(t, token)
	body := "[" + strings.Repeat(" ", maxStrangerBody) + "]"
	if w := s.do("PUT", "/task", body); w.Code != 413 {
		t.Errorf("a stranger: %d", w.Code)
	}
	if w := s.do("PUT", "/task", body, "Authorization: Bearer "+token); w.Code != 400 {
		t.Errorf("with the token: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/task/" + idA, "/task/" + idA + "?token=x"} {
		r := httptest.NewRequest("PATCH", path, io.NopCloser(untouched{t}))
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != 401 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// Strangers whose bodies do not come have a window of their own: they hold up each other, and nobody who has shown a token.
func TestStrangersHoldUpEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := withHandles(t, token)
		var strangers [DefaultBodyWindowBytes/maxStrangerBody + 1]*httptest.ResponseRecorder
		var senders []*io.PipeWriter
		var all sync.WaitGroup
		for i := range strangers {
			strangers[i] = httptest.NewRecorder()
			body, sender := io.Pipe()
			senders = append(senders, sender)
			r := httptest.NewRequest("PATCH", "/task", body)
			r.ContentLength = maxStrangerBody
			all.Go(func() { s.handler.ServeHTTP(strangers[i], r) })
		}
		synctest.Wait()
		blank := strings.Repeat(" ", 20<<20)
		if w := s.do("POST", "/task", manyTasks(1)+blank, "Authorization: Bearer "+token); w.Code != 201 {
			t.Errorf("a create beside strangers: %d %s", w.Code, w.Body)
		}
		if w := s.do("PUT", "/task", "[]"+blank, "Authorization: Bearer "+token); w.Code != 400 {
			t.Errorf("reports beside strangers: %d %s", w.Code, w.Body)
		}
		time.Sleep(bodyWait)
		synctest.Wait()
		for _, sender := range senders {
			_ = sender.Close()
		}
		all.Wait()
		codes := map[int]int{}
		for _, w := range strangers {
			codes[w.Code]++
		}
		if codes[503] != 13 || codes[400] != 4 { // a quarter of the window has room for four
			t.Errorf("strangers: %v", codes)
		}
	})
}

// Without keys a token means nothing, right or wrong.
func TestNoHandles(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	for _, w := range []*httptest.ResponseRecorder{
		s.do("GET", "/task/"+idA+"?token=x", ""),
		s.do("PATCH", "/task/"+idA+"?token=x", `{"new_success":1}`),
		s.do("PATCH", "/task", `[{"id":"`+idA+`","new_success":1,"token":"x"}]`),
	} {
		if w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}
