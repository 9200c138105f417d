package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var everyEndpoint = []struct{ method, path, body string }{
	{"POST", "/task", diamond},
	{"GET", "/task", ""},
	{"GET", "/task/" + idA, ""},
	{"PATCH", "/task/" + idA, `{}`},
	{"DELETE", "/task/" + idA, ""},
	{"PATCH", "/task/pause/" + idA, ""},
	{"PATCH", "/task/resume/" + idA, ""},
	{"PATCH", "/task", `[{"id":"` + idA + `"}]`},
	{"PUT", "/task", `{"task_id":"` + idA + `","new_success":1}`},
	{"PUT", "/task", `[{"task_id":"` + idA + `","new_success":1}]`},
	{"PUT", "/task/" + idA, `{"new_success":1}`},
	{"PATCH", "/batch/0198c0de-5a10-7000-8000-000000000001/rules", `{"kind":"k","rules":[]}`},
	{"GET", "/batches", ""},
	{"GET", "/batch/0198c0de-5a10-7000-8000-000000000001", ""},
	{"GET", "/task/0198c0de-5a10-7000-8000-000000000002/history", ""},
	{"DELETE", "/batch/0198c0de-5a10-7000-8000-000000000001", ""},
	{"GET", "/dag/0198c0de-5a10-7000-8000-000000000001", ""},
	{"GET", "/deliveries", ""},
	{"GET", "/deliveries/" + idA, ""},
	{"POST", "/deliveries/" + idA + "/retry", ""},
	{"POST", "/deliveries/retry", `{"all":true}`},
}

const secret = "password=hunter2 SELECT secret"

// What the database says stays inside, is logged once, and the client is asked to come again.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	for _, e := range everyEndpoint {
		s := withDiamond(t)
		s.err = fmt.Errorf("dial: %s", secret)
		w := s.do(e.method, e.path, e.body)
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), `"error":"not available now, try again"`) {
			t.Errorf("%s %s: %d %v %s", e.method, e.path, w.Code, w.Header(), w.Body)
		}
		checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
		if strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s %s: %s", e.method, e.path, w.Body)
		}
		if n := strings.Count(s.log.String(), "hunter2"); n != 1 || !strings.Contains(s.log.String(), "route=/") {
			t.Errorf("%s %s: logged %d times: %s", e.method, e.path, n, s.log)
		}
		if s.woken != 0 {
			t.Errorf("%s %s: told the pump", e.method, e.path)
		}
	}
}

// Mistakes of clients are not logged.
func TestClientErrorsAreQuiet(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	for _, target := range []string{"/task/x", "/task/" + unknown, "/nothing", "/task?page=x"} {
		s.do("GET", target, "")
	}
	s.do("POST", "/task", "{")
	s.do("DELETE", "/task", "")
	if s.log.Len() > 0 {
		t.Error(s.log)
	}
}

func TestClientGone(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.settle = func(ctx context.Context, _ []task.Outcome) ([]store.Result, error) { return nil, ctx.Err() }
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "DELETE", "/task/"+idA, nil))
	if w.Code != 499 || s.log.Len() > 0 {
		t.Errorf("%d, log: %s", w.Code, s.log)
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	s.settle = func(context.Context, []task.Outcome) ([]store.Result, error) { panic(secret) }
	w := s.do("DELETE", "/task/"+idA, "")
	checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
	if w.Code != 500 || strings.Contains(w.Body.String(), "hunter2") || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n := strings.Count(s.log.String(), "hunter2"); n != 1 || !strings.Contains(s.log.String(), "failure_test.go") {
		t.Errorf("logged %d times: %s", n, s.log)
	}
	if got := s.do("GET", "/metrics", "").Body.String(); !strings.Contains(got, `{code="500",method="DELETE",route="/task/{id}"} 1`) {
		t.Error("a panic is not counted as 500")
	}
}

// A list that breaks off in the middle does not look whole: the connection is cut.
func TestBrokenStreamIsCut(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	handler := New(Options{Store: s.fake, Creator: corrupt{s.fake}, Settler: s.fake, NewID: s.newID})
	server := httptest.NewServer(handler)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/task", strings.NewReader(diamond))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		return // cut before anything was sent
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer came as a whole one: %d %s", resp.StatusCode, body)
	}
}

// A client that goes away in the middle of an answer is no failure of ours.
func TestClientGoesAwayInTheMiddle(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	defer func() {
		err, _ := recover().(error)
		if !errors.Is(err, http.ErrAbortHandler) || s.log.Len() > 0 {
			t.Errorf("panic %v, log: %s", err, s.log)
		}
	}()
	r := httptest.NewRequest("POST", "/task", strings.NewReader(manyTasks(1000)))
	s.handler.ServeHTTP(brokenPipe{httptest.NewRecorder()}, r)
}

// brokenPipe is a connection that takes nothing more.
type brokenPipe struct{ http.ResponseWriter }

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// corrupt gives back metadata that is no JSON.
type corrupt struct{ *fake }

func (c corrupt) Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	b.Tasks[len(b.Tasks)-1].Metadata = json.RawMessage(`{`)
	return c.fake.Create(ctx, b, key)
}

// What a real connection does: bodies that lie about their length, or come without one.
func TestBodiesOverTheWire(t *testing.T) {
	t.Parallel()
	s := newService(t, func(o *Options) { o.MaxBodyBytes = 1000 })
	server := httptest.NewServer(s.handler)
	defer server.Close()
	address := server.Listener.Addr().String()
	for request, want := range map[string]string{
		"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n":                             "413",
		"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + strings.Repeat(" ", 1001):                                "413",
		"POST /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + strings.Repeat(" ", 1001) + "\r\n0\r\n\r\n": "413",
		"POST /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n":                                  "204",
		"POST /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":                                                "400",
		"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]":                                                             "204",
		"PATCH /task/pause/" + idA + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":                                            "404",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                                                                                     "200",
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("%.60q: %q %v, want %s", request, line, err, want)
		}
		_ = conn.Close()
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/", nil)
	for _, c := range []struct {
		err  error
		want code
		ours bool
	}{
		{fmt.Errorf("x: %w", store.ErrNotFound), notFound, false},
		{fmt.Errorf("x: %w", task.ErrTooManyTasks), tooLarge, false},
		{fmt.Errorf("x: %w", store.ErrKeyReused), keyReused, false},
		{&task.Refusal{Code: task.NotFound}, notFound, false},
		{&task.Refusal{Code: task.Conflict}, conflict, false},
		{&task.Refusal{Code: task.Invalid}, invalid, false},
		{&task.Refusal{}, unavailable, true},
		{task.Problems{{Message: "x"}}, invalid, false},
		{&http.MaxBytesError{}, tooLarge, false},
		{context.DeadlineExceeded, unavailable, true},
		{context.Canceled, unavailable, true},
		{errors.New("x"), unavailable, true},
	} {
		f, ok := explain(r, c.err)
		if f.code != c.want || ok == c.ours {
			t.Errorf("%T %v: %d %v", c.err, c.err, f.code, ok)
		}
	}
	for c := invalid; c <= unavailable; c++ {
		if a := answers[c]; a.status < 400 || a.title == "" {
			t.Errorf("code %d: %+v", c, a)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	others := prometheus.NewCounter(prometheus.CounterOpts{Name: "tasks_created_total"})
	registry.MustRegister(others)
	s := withDiamond(t, func(o *Options) { o.Registry = registry })
	s.do("GET", "/task/"+idA, "")
	s.do("GET", "/task/x", "")
	s.do("GET", "/etc/passwd", "")
	s.do("BREW", "/task", "")
	s.do("BREW-2", "/", "")
	s.do("POST", "/task", "[]", "Sec-Fetch-Site: cross-site")
	w := s.do("GET", "/metrics", "")
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	for _, want := range []string{
		"tasks_created_total 0\n",
		`http_request_duration_seconds_count{code="201",method="POST",route="/task"} 1`,
		`http_request_duration_seconds_count{code="200",method="GET",route="/task/{id}"} 1`,
		`http_request_duration_seconds_count{code="400",method="GET",route="/task/{id}"} 1`,
		`http_request_duration_seconds_count{code="404",method="GET",route="none"} 1`,
		`http_request_duration_seconds_count{code="405",method="other",route="none"} 1`,
		`http_request_duration_seconds_count{code="404",method="other",route="none"} 1`,
		`http_request_duration_seconds_count{code="403",method="POST",route="none"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(w.Body.String(), "passwd") || strings.Contains(w.Body.String(), idA) || strings.Contains(w.Body.String(), "BREW") {
		t.Error("labels come from requests")
	}
	if w := s.do("GET", "/metrics", ""); !strings.Contains(w.Body.String(), `route="/metrics"} 1`) {
		t.Error("metrics is not measured")
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("made a handler of nothing")
		}
	}()
	New(Options{})
}

// Thousands of tasks come back as one well-formed array, in order.
func TestBigAnswer(t *testing.T) {
	t.Parallel()
	const n = 3000
	s := newService(t)
	var created []struct {
		LocalID string `json:"local_id"`
	}
	if err := json.Unmarshal(s.do("POST", "/task", manyTasks(n)).Body.Bytes(), &created); err != nil || len(created) != n {
		t.Fatalf("%d tasks, %v", len(created), err)
	}
	for i, c := range created {
		if c.LocalID != fmt.Sprintf("t%d", i) {
			t.Fatalf("task %d is %s", i, c.LocalID)
		}
	}
}

func manyTasks(n int) string {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"t%d","name":"Task %d","kind":"ingest","metadata":{"tenant_id":%d},"on_start":{"kind":"Webhook","params":{"url":"https://example.com/run","verb":"Post"}}`, i, i, i%10)
		if i > 0 {
			fmt.Fprintf(&b, `,"dependencies":[{"id":"t%d"}]`, i/2)
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return b.String()
}
