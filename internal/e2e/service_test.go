package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"taskrunner/api"
	"taskrunner/internal/app"
	"taskrunner/internal/config"
	"taskrunner/internal/pgtest"
)

// databaseURL is a DATABASE_URL for an empty database.
func databaseURL(t testing.TB, db string) string {
	t.Helper()
	if db == "postgres" {
		return pgtest.URL(t)
	}
	return "sqlite:" + filepath.Join(t.TempDir(), "e2e.db")
}

// service is a running process of the service, in this one.
type service struct {
	client
	stop     func() // waits until it has stopped; may be called again
	log      *logBuffer
	database string
}

// logBuffer keeps what was logged, to show when a test fails.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startService runs the service on url with settings (names of environment variables) until the test ends.
func startService(t testing.TB, url string, settings map[string]string) *service {
	t.Helper()
	env := map[string]string{
		"DATABASE_URL": url, "LISTEN_ADDR": "127.0.0.1:0", "WEBHOOK_ALLOWED_NETWORKS": "loopback", "SHUTDOWN_TIMEOUT": "15s",
	}
	for name, value := range settings {
		env[name] = value
	}
	c, err := config.Load(nil, func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	c.HintsOnly = true // so that a hint that is lost shows; those in processes of their own look
	logs := &logBuffer{}
	a, err := app.New(t.Context(), c, slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelInfo})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	s := &service{client: client{t: t, url: "http://" + a.Addr().String()}, log: logs, database: url}
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("log of the service:\n%s", logs)
		}
	})
	return s
}

// checkDrift stops the service and compares what the gates say with what holds slots.
func (s *service) checkDrift() {
	s.t.Helper()
	s.stop()
	if n := drift(s.t, s.database); n != 0 {
		s.t.Errorf("%d gates differ from the tasks that hold them", n)
	}
}

// transport keeps enough connections for crowds of workers.
var transport = &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 10 * time.Second}

// client speaks to a service.
type client struct {
	t   testing.TB
	url string
}

// answer is what came back, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends body, a string or bytes as they are or anything else as JSON.
func (c *client) do(method, path string, body any, headers ...string) answer {
	c.t.Helper()
	a, err := c.try(context.Background(), method, path, body, headers...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is do that returns failures to connect; for goroutines, and for services that are killed.
func (c *client) try(ctx context.Context, method, path string, body any, headers ...string) (answer, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		r = bytes.NewReader(raw)
	}
	if !strings.HasPrefix(path, "http") {
		path = c.url + path
	}
	req, err := http.NewRequestWithContext(ctx, method, path, r)
	if err != nil {
		return answer{}, err
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read whole
	raw, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, raw}, err
}

// want is do that also checks the status.
func (c *client) want(status int, method, path string, body any, headers ...string) answer {
	c.t.Helper()
	a := c.do(method, path, body, headers...)
	if a.status != status {
		c.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// decode reads a JSON answer.
func decode[T any](t testing.TB, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// create posts tasks and returns them by local id, and the batch id.
func (c *client) create(tasks any) (map[string]api.Task, string) {
	c.t.Helper()
	a := c.want(http.StatusCreated, http.MethodPost, "/task", tasks)
	byLocal := map[string]api.Task{}
	for _, task := range decode[[]api.Task](c.t, a) {
		byLocal[task.LocalID] = task
	}
	return byLocal, a.header.Get("X-Batch-ID")
}

func (c *client) task(id string) api.Task {
	c.t.Helper()
	return decode[api.Task](c.t, c.want(http.StatusOK, http.MethodGet, "/task/"+id, nil))
}

func (c *client) batch(id string) api.Batch {
	c.t.Helper()
	return decode[api.Batch](c.t, c.want(http.StatusOK, http.MethodGet, "/batch/"+id, nil))
}

// waitStatus waits until a task has a status, and returns it.
func (c *client) waitStatus(id, status string) api.Task {
	c.t.Helper()
	var task api.Task
	eventually(c.t, fmt.Sprintf("task %s is %s", id, status), func() bool {
		task = c.task(id)
		return task.Status == status
	})
	return task
}

// finish ends a task as its worker does.
func (c *client) finish(id, status string) {
	c.t.Helper()
	body := obj{"status": status}
	if status == "Failure" {
		body["failure_reason"] = "the worker says so"
	}
	c.want(http.StatusOK, http.MethodPatch, "/task/"+id, body)
}

// waitEnd waits until every task of a batch has ended, and returns the counts.
func (c *client) waitEnd(batch string) api.StatusCounts {
	c.t.Helper()
	var b api.Batch
	eventually(c.t, "batch "+batch+" has ended", func() bool {
		b = c.batch(batch)
		return b.StatusCounts.Success+b.StatusCounts.Failure+b.StatusCounts.Canceled == b.TotalTasks
	})
	return b.StatusCounts
}

// held checks that tasks are Pending and not picked, after the pump has looked at them: a task that came later, and
// that nothing holds back, was picked.
func (s *service) held(r *receiver, ids ...string) {
	s.t.Helper()
	probe, _ := s.create([]obj{r.newTask("probe", "/probe", obj{"kind": "probe"})})
	s.waitStatus(probe["probe"].ID, "Running")
	for _, id := range ids {
		if task := s.task(id); task.Status != "Pending" || !task.ClaimedAt.IsZero() {
			s.t.Errorf("task %s (%s) is %s, claimed at %v; it should be held back", task.LocalID, id, task.Status, task.ClaimedAt)
		}
	}
	s.want(http.StatusOK, http.MethodDelete, "/task/"+probe["probe"].ID, nil)
}

// patience is how long a condition may take on a very busy machine. No test measures time by it.
const patience = 3 * time.Minute

// eventually waits until condition holds. It leaves the machine to the service most of the time.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for begun := time.Now(); ; {
		asked := time.Now()
		if condition() {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(max(5*time.Millisecond, 4*time.Since(asked)))
	}
}
