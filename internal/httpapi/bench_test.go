package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// quickSettler says yes.
type quickSettler struct{ Settler }

func (quickSettler) Settle(_ context.Context, outcomes ...task.Outcome) ([]store.Result, error) {
	results := make([]store.Result, len(outcomes))
	for i := range results {
		results[i].State = task.State{ID: outcomes[i].ID, Status: task.Success, Success: 10, LastUpdated: start}
	}
	return results, nil
}

// sink is an answer that nobody reads.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { s.bytes += len(p); return len(p), nil }

// BenchmarkHandler is what a request costs beyond net/http.
func BenchmarkHandler(b *testing.B) {
	element := `{"task_id":"` + idA + `","new_success":5,"new_failures":0}`
	update := `{"id":"` + idA + `","status":"Success","new_success":10}`
	for _, c := range []struct {
		name, method, path, body string
		status, n                int
	}{
		{"PATCH", "PATCH", "/task/" + idA, `{"status":"Success","new_success":10,"new_failures":2,"metadata":{"updated":true}}`, 200, 1},
		{"PATCH-1000", "PATCH", "/task", "[" + strings.Repeat(update+",", 999) + update + "]", 200, 1000},
		{"PUT", "PUT", "/task", element, 202, 1},
		{"PUT-id", "PUT", "/task/" + idA, `{"new_success":5,"new_failures":0}`, 202, 1},
		{"PUT-1000", "PUT", "/task", "[" + strings.Repeat(element+",", 999) + element + "]", 202, 1000},
		{"POST-1", "POST", "/task", manyTasks(1), 201, 1},
		{"POST-1000", "POST", "/task", manyTasks(1000), 201, 1000},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newFake()
			handler := New(Options{Store: f, Creator: bare{f}, Settler: quickSettler{}, NewID: f.newID})
			r := httptest.NewRequest(c.method, c.path, nil)
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = int64(len(c.body))
			body := strings.NewReader(c.body)
			r.Body = io.NopCloser(body)
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(c.body)
				w := sink{header: http.Header{}}
				handler.ServeHTTP(&w, r)
				if w.status != c.status {
					b.Fatal(w.status)
				}
			}
			if c.n > 1 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.n), "ns/task")
			}
		})
	}
}

// bare is a fake that keeps nothing.
type bare struct{ *fake }

func (bare) Create(_ context.Context, batch *task.Batch, _ *store.Idempotency) (store.Created, error) {
	states := make([]task.State, len(batch.Tasks))
	for i, t := range batch.Tasks {
		t.CreatedAt = start
		states[i] = task.State{ID: t.ID, Status: task.Pending, LastUpdated: start}
	}
	return store.Created{Batch: batch.ID, Kept: batch.Tasks, State: func(i int) task.State { return states[i] }}, nil
}

// BenchmarkServer has net/http on both sides, for comparison with a handler that does nothing.
func BenchmarkServer(b *testing.B) {
	for name, handler := range map[string]http.Handler{
		"PATCH": New(Options{Store: newFake(), Creator: newFake(), Settler: quickSettler{}, NewID: newFake().newID}),
		"nothing": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, "{}")
		}),
	} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(handler)
			defer server.Close()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), "PATCH", server.URL+"/task/"+idA, strings.NewReader(`{"status":"Success"}`))
				if err != nil {
					b.Fatal(err)
				}
				resp, err := server.Client().Do(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
