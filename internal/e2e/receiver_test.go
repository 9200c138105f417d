package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// call is a webhook that arrived.
type call struct {
	Path    string
	Method  string
	Task    string // X-Task-Id
	Trigger string // X-Task-Trigger
	Key     string // Idempotency-Key
	Handle  string
	Query   string
	Header  http.Header
	Body    []byte
	At      time.Time
}

// receiver is where the webhooks go. It records every call and answers as the test wants.
type receiver struct {
	t    testing.TB
	url  string
	life context.Context // of its workers: ends with the test

	mu    sync.Mutex
	calls []call
	paths map[string]func(http.ResponseWriter, call)
	jobs  sync.WaitGroup
}

// newReceiver listens on a free port of 127.0.0.1 until the test ends. Paths without a handler answer 200.
func newReceiver(t testing.TB) *receiver {
	life, end := context.WithCancel(context.Background())
	r := &receiver{t: t, life: life, paths: map[string]func(http.ResponseWriter, call){}}
	server := httptest.NewServer(r)
	r.url = server.URL
	t.Cleanup(func() {
		end()
		r.jobs.Wait()
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

// handle answers calls of path. Before the service sends any.
func (r *receiver) handle(path string, fn func(w http.ResponseWriter, c call)) { r.paths[path] = fn }

// ServeHTTP records and answers.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	c := call{
		Path: req.URL.Path, Method: req.Method, Task: req.Header.Get("X-Task-Id"), Trigger: req.Header.Get("X-Task-Trigger"),
		Key: req.Header.Get("Idempotency-Key"), Handle: req.URL.Query().Get("handle"), Query: req.URL.RawQuery, Header: req.Header, Body: body, At: time.Now(),
	}
	r.mu.Lock()
	r.calls = append(r.calls, c)
	r.mu.Unlock()
	if fn := r.paths[req.URL.Path]; fn != nil {
		fn(w, c)
	}
}

// got returns the calls so far that match.
func (r *receiver) got(match func(call) bool) []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.calls), func(c call) bool { return !match(c) })
}

// sent matches the calls of a trigger: start, end or cancel; of these tasks, or of any.
func sent(trigger string, ids ...string) func(call) bool {
	return func(c call) bool { return c.Trigger == trigger && (len(ids) == 0 || slices.Contains(ids, c.Task)) }
}

// to matches the calls of a path.
func to(path string) func(call) bool { return func(c call) bool { return c.Path == path } }

// wait waits for n calls that match, and returns those there are.
func (r *receiver) wait(n int, what string, match func(call) bool) []call {
	r.t.Helper()
	eventually(r.t, what, func() bool { return len(r.got(match)) >= n })
	return r.got(match)
}

// report sends a report on a handle, again and again until the service has answered; it returns the status.
func report(ctx context.Context, method, handle string, body any) int {
	c := client{}
	for ctx.Err() == nil {
		if a, err := c.try(ctx, method, handle, body); err == nil && a.status < 500 {
			return a.status
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0
}

// worker answers on_start with 200 at once, and ends the task in status after it has worked.
func (r *receiver) worker(work time.Duration, status string) func(http.ResponseWriter, call) {
	return func(_ http.ResponseWriter, c call) {
		r.jobs.Go(func() {
			time.Sleep(work)
			body := map[string]any{"status": status}
			if status == "Failure" {
				body["failure_reason"] = "the worker says so"
			}
			report(r.life, http.MethodPatch, c.Handle, body)
		})
	}
}

// hold makes a handler that answers only when release is called, as then does, or with 200.
func (r *receiver) hold(then func(http.ResponseWriter, call)) (handler func(http.ResponseWriter, call), release func()) {
	released := make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	r.t.Cleanup(release)
	return func(w http.ResponseWriter, c call) {
		<-released
		if then != nil {
			then(w, c)
		}
	}, release
}

// answers makes a handler that answers with each status in turn, and goes on with the last one.
func answers(statuses ...int) func(http.ResponseWriter, call) {
	var mu sync.Mutex
	return func(w http.ResponseWriter, _ call) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(statuses[0])
		if len(statuses) > 1 {
			statuses = statuses[1:]
		}
	}
}

// says makes a handler that answers with a status and a body.
func says(status int, body string) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, _ call) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// withCancel answers with a cancel action that goes to path.
func (r *receiver) withCancel(path string) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, _ call) {
		_, _ = io.WriteString(w, jsonOf(obj{"kind": "Webhook", "params": obj{"url": r.url + path, "verb": "Delete"}}))
	}
}

// obj is a JSON object.
type obj = map[string]any

// hook is an action that goes to path of r.
func (r *receiver) hook(path string) obj {
	return obj{"kind": "Webhook", "params": obj{"url": r.url + path, "verb": "Post"}}
}

// newTask is a task whose on_start goes to path, and that does not time out on a busy machine; with edits it.
func (r *receiver) newTask(id, path string, with obj) obj {
	t := obj{"id": id, "name": "Task " + id, "kind": "test", "timeout": 3600, "on_start": r.hook(path)}
	for k, v := range with {
		t[k] = v
	}
	return t
}

// dep is a dependency.
func dep(id string, requiresSuccess bool) obj {
	return obj{"id": id, "requires_success": requiresSuccess}
}

// limit is a rule in the original's dialect.
func limit(kind string, n int, fields ...string) obj {
	if fields == nil {
		fields = []string{}
	}
	return obj{"Concurency": obj{"matcher": obj{"kind": kind, "status": "Running", "fields": fields}, "max_concurency": n}}
}

// jsonOf is the JSON of v, for messages.
func jsonOf(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}
