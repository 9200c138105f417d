package e2e

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/pgtest"
)

// rows counts the rows of a table.
func rows(t testing.TB, url, table string) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }() // nothing is lost with it
	var n int
	query := "SELECT count(*) FROM " + pgx.Identifier{table}.Sanitize()
	if err := conn.QueryRow(t.Context(), query, pgx.QueryExecModeExec).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A connection that breaks at COMMIT is the service's affair: every request is answered, and every answer is true.
func TestConnectionsCutAtCommit(t *testing.T) {
	t.Parallel()
	for name, share := range map[string]float64{"often": 0.20, "sometimes": 0.07} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			proxy, cutURL := through(t, url)
			w, size, n := newCrew(t), 30, scaled(25)
			s := startService(t, cutURL, map[string]string{"WEBHOOK_TIMEOUT": "60s"})
			proxy.cutting(share)
			var books posts
			books.make(w, func() string { return s.url }, n, size).Wait()
			w.finish(n * size)
			proxy.cutting(0)
			proxy.report()

			books.check(w, &s.client, size)
			w.checkStarts() // there was no crash: nothing is sent twice
			if len(books.batches) != n || rows(t, url, "task") != n*size {
				t.Errorf("%d POSTs of %d tasks acknowledged, %d tasks stored; want %d and %d",
					len(books.batches), size, rows(t, url, "task"), n, n*size)
			}
			s.stop()
			if n := drift(t, url); n != 0 {
				t.Errorf("%d gates differ from the tasks that hold them", n)
			}
		})
	}
}

// The server crashes and comes back, again and again, while the service lives on.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	w, size, n := newCrew(t), 50, scaled(20)
	s := startService(t, cluster.URL(), map[string]string{"WEBHOOK_TIMEOUT": "60s"})
	var books posts
	clients := books.make(w, func() string { return s.url }, n, size)
	for i := range 3 {
		w.reach("tasks end", n*size*(i+1)/5, w.endedJobs)
		cluster.Restart(t)
	}
	clients.Wait()
	w.finish(n * size)
	books.check(w, &s.client, size)
	w.checkStarts()
	if len(books.batches) != n || rows(t, cluster.URL(), "task") != n*size {
		t.Errorf("%d POSTs of %d tasks acknowledged, %d tasks stored; want %d and %d",
			len(books.batches), size, rows(t, cluster.URL(), "task"), n, n*size)
	}
	s.stop()
	if n := drift(t, cluster.URL()); n != 0 {
		t.Errorf("%d gates differ from the tasks that hold them", n)
	}
}

// While the database is away every request is answered with 503, none of them after ages, and afterwards all goes on.
func TestRequestsDuringAnOutage(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	w, release := slowCrew(t)
	s := startService(t, cluster.URL(), map[string]string{"WEBHOOK_TIMEOUT": "60s"})
	const n = 20
	created, batch := s.create(manyTasks(w, n))
	id := created["0"].ID
	w.reach("on_starts arrive", n, func() int { return w.count(func(*job) bool { return true }) })
	cluster.Kill(t)
	release() // workers report into the outage

	var requests sync.WaitGroup
	for range 3 {
		for _, r := range []struct {
			method, path string
			body         any
		}{
			{http.MethodGet, "/task/" + id, nil},
			{http.MethodGet, "/task", nil},
			{http.MethodGet, "/batch/" + batch, nil},
			{http.MethodGet, "/health", nil},
			{http.MethodGet, "/ready", nil},
			{http.MethodPost, "/task", []obj{w.task("late", order{}, nil)}},
			{http.MethodPut, "/task", obj{"task_id": id, "new_failures": 1}},
			{http.MethodPatch, "/task/" + id, obj{"metadata": obj{"late": true}}},
			{http.MethodDelete, "/task/" + id, nil},
		} {
			requests.Go(func() {
				begun := time.Now()
				if status, text := w.send(r.method, s.url+r.path, r.body); status != http.StatusServiceUnavailable {
					t.Errorf("%s %s: %d, want 503: %s", r.method, r.path, status, text)
				}
				t.Logf("%s %s was answered after %s", r.method, r.path, time.Since(begun).Round(100*time.Millisecond))
			})
		}
	}
	requests.Wait()
	cluster.Restart(t)
	w.finish(n)
	w.checkCounts(&s.client, batch, n)
	if task := s.task(id); task.Failures != 0 || string(task.Metadata) != "{}" {
		t.Errorf("requests that were answered with 503 had an effect: %s", jsonOf(task))
	}
	if got := rows(t, cluster.URL(), "task"); got != n {
		t.Errorf("%d tasks are stored, want %d", got, n)
	}
}
