package e2e

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
	"taskrunner/internal/pgtest"
)

// post sends a create with an Idempotency-Key and wants a status.
func (c *client) post(status int, key string, body any, headers ...string) answer {
	c.t.Helper()
	a := c.want(status, http.MethodPost, "/task", body, append(headers, "Idempotency-Key", key)...)
	replayed := a.header.Get("Idempotent-Replayed")
	if want := map[int]string{http.StatusOK: "true"}[status]; replayed != want && status != http.StatusNoContent {
		c.t.Errorf("%d with Idempotent-Replayed %q, want %q", a.status, replayed, want)
	}
	return a
}

func TestReplayedCreate(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", r.withCancel("/cancel"))
		body := jsonOf([]obj{
			r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", false)}, "rules": []obj{limit("test", 2, "tenant")}, "metadata": obj{"tenant": 1}}),
			r.newTask("a", "/run", obj{"on_success": []obj{r.hook("/done")}, "metadata": obj{"tenant": 2}}),
		})
		first := s.post(http.StatusCreated, "key", body)
		batch := first.header.Get("X-Batch-ID")
		tasks := decode[[]api.Task](t, first)
		a := tasks[1].ID
		wantReplay := func() {
			t.Helper()
			now := func() []api.Task { return []api.Task{s.task(tasks[0].ID), s.task(tasks[1].ID)} }
			var got, before []api.Task
			for after := now(); before == nil || !cmp.Equal(before, after); after = now() { // what webhooks came to is written down meanwhile
				before = after
				again := s.post(http.StatusOK, "key", body)
				got = decode[[]api.Task](t, again)
				if again.header.Get("X-Batch-ID") != batch || len(got) != 2 {
					t.Fatalf("batch %s, want %s: %s", again.header.Get("X-Batch-ID"), batch, again.body)
				}
			}
			if diff := cmp.Diff(before, got); diff != "" {
				t.Errorf("-GET +replay:\n%s", diff)
			}
		}
		s.waitStatus(a, "Running")
		wantReplay()
		s.finish(a, "Success")
		s.waitStatus(tasks[0].ID, "Running")
		r.wait(1, "on_success", to("/done"))
		wantReplay()

		minimal := decode[[]api.CreatedTask](t, s.post(http.StatusOK, "key", body, "Prefer", "return=minimal"))
		if diff := cmp.Diff([]api.CreatedTask{{ID: tasks[0].ID, LocalID: "b"}, {ID: a, LocalID: "a"}}, minimal); diff != "" {
			t.Error(diff)
		}
		refused := s.post(http.StatusUnprocessableEntity, "key", body+" ")
		if p := decode[api.Problem](t, refused); p.Status != 422 || !strings.Contains(p.Error, "Idempotency-Key") {
			t.Errorf("%s", refused.body)
		}
		if n := len(r.got(sent("start"))); n != 2 {
			t.Errorf("%d on_start, want 2", n)
		}
	})
}

// A key that was refused, for itself or with its body, is free.
func TestRefusedCreateLeavesTheKey(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		good := []obj{r.newTask("a", "/run", nil)}
		for _, key := range []string{strings.Repeat("k", 256), "schlüssel"} {
			if a := s.post(http.StatusBadRequest, key, good); !strings.Contains(string(a.body), "Idempotency-Key: must ") {
				t.Errorf("%s", a.body)
			}
		}
		s.post(http.StatusBadRequest, "key", []obj{r.newTask("", "/run", nil)})
		first := s.post(http.StatusCreated, "key", good)
		if again := s.post(http.StatusOK, "key", good); again.header.Get("X-Batch-ID") != first.header.Get("X-Batch-ID") {
			t.Errorf("%v", again.header)
		}

		nothing := s.post(http.StatusNoContent, "nothing", "[]")
		again := s.post(http.StatusNoContent, "nothing", "[]")
		if again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("X-Batch-ID") != nothing.header.Get("X-Batch-ID") {
			t.Errorf("%v, want a replay of %v", again.header, nothing.header)
		}
		s.post(http.StatusUnprocessableEntity, "nothing", good)
	})
}

// Of many clients that send one request at once, one creates; the others wait for it and are told what it made.
func TestOneKeyOfManyClients(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		const clients, size = 50, 20
		var tasks []obj
		for i := range size {
			tasks = append(tasks, r.newTask(string(rune('a'+i)), "/run", nil))
		}
		body := jsonOf(tasks)
		got := make([]answer, clients)
		var all sync.WaitGroup
		begin := make(chan struct{})
		for i := range clients {
			all.Go(func() {
				<-begin
				var err error
				if got[i], err = s.try(t.Context(), http.MethodPost, "/task", body, "Idempotency-Key", "key"); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		all.Wait()
		statuses := map[int]int{}
		ids := func(a answer) (ids []string) {
			for _, task := range decode[[]api.Task](t, a) {
				ids = append(ids, task.ID)
			}
			return ids
		}
		for _, a := range got {
			statuses[a.status]++
			if a.header.Get("X-Batch-ID") != got[0].header.Get("X-Batch-ID") || !slices.Equal(ids(a), ids(got[0])) {
				t.Errorf("%d: batch %s, want %s", a.status, a.header.Get("X-Batch-ID"), got[0].header.Get("X-Batch-ID"))
			}
		}
		if statuses[http.StatusCreated] != 1 || statuses[http.StatusOK] != clients-1 {
			t.Errorf("answers by status: %v, want one 201", statuses)
		}
		listed := decode[[]api.TaskSummary](t, s.want(http.StatusOK, http.MethodGet, "/task?per_page=100", nil))
		if len(listed) != size {
			t.Errorf("%d tasks are there, want %d", len(listed), size)
		}
		metrics := string(s.want(http.StatusOK, http.MethodGet, "/metrics", nil).body)
		if !strings.Contains(metrics, "\ntasks_created_total 20\n") {
			t.Error("tasks_created_total is not 20")
		}
	})
}

// ask sends a create and does not read the answer.
func (p *process) ask(key, body string) {
	p.t.Helper()
	host := strings.TrimPrefix(p.url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /task HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		host, key, len(body), body)
	if err != nil {
		p.t.Fatal(err)
	}
}

// replayed starts a process that was killed again, sends the create again, and wants each task of the one batch to be
// worked off.
func (p *process) replayed(w *crew, key, body string, size int) {
	p.t.Helper()
	p.start()
	again := p.post(http.StatusOK, key, body)
	if got := decode[[]api.Task](p.t, again); len(got) != size {
		p.t.Errorf("%d tasks, want %d", len(got), size)
	}
	allEnded(w, &p.client)
	w.finish(size)
	w.checkCounts(&p.client, again.header.Get("X-Batch-ID"), size)
	if batches := p.batches(""); len(batches) != 1 {
		p.t.Errorf("there are %d batches, want 1", len(batches))
	}
}

// The process is killed after the commit, and its client has heard nothing: it sends the same again.
func TestReplayAfterACrash(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		const size = 300
		w := newCrew(t)
		p := startProcess(t, databaseURL(t, db), map[string]string{"CLAIM_LEASE": "1s"})
		body := jsonOf(mixed(w, 0, size))
		p.ask("key", body)
		w.reach("a task is started", 1, func() int { return w.count(func(*job) bool { return true }) }) // so it is committed
		w.kill(p)
		p.replayed(w, "key", body, size)
	})
}

// The process is killed when the commit is done and it does not know: it cannot have answered.
func TestReplayAfterACrashBetweenCommitAndAnswer(t *testing.T) {
	t.Parallel()
	const size = 50
	url := pgtest.URL(t)
	proxy, silentURL := through(t, url)
	w := newCrew(t)
	p := startProcess(t, silentURL, map[string]string{"CLAIM_LEASE": "1s"})
	body := jsonOf(mixed(w, 0, size))
	proxy.silence(true)
	answered := make(chan int, 1)
	go func() {
		a, _ := p.try(t.Context(), http.MethodPost, "/task", body, "Idempotency-Key", "key") // breaks off
		answered <- a.status
	}()
	eventually(t, "it is committed", func() bool { return rows(t, url, "task") == size })
	p.kill()
	if status := <-answered; status != 0 {
		t.Errorf("it was answered with %d before it was killed", status)
	}
	proxy.silence(false)
	w.crashed()
	p.replayed(w, "key", body, size)
}

// Connections that break at COMMIT: whatever a client is told, sending the same again makes one batch of each.
func TestReplayWhereCommitsAreCut(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	proxy, cutURL := through(t, url)
	r := newReceiver(t)
	s := startService(t, cutURL, nil)
	proxy.cutting(0.25)
	const posts, repeats, size = 60, 3, 3
	var all sync.WaitGroup
	for range repeats {
		all.Go(func() {
			for post := range posts {
				key := "key " + jsonOf(post)
				body := jsonOf([]obj{r.newTask(key, "/run", nil), r.newTask("b", "/run", nil), r.newTask("c", "/run", nil)})
				a, err := s.try(t.Context(), http.MethodPost, "/task", body, "Idempotency-Key", key)
				if err != nil || a.status != http.StatusCreated && a.status != http.StatusOK {
					t.Errorf("%d %v %s", a.status, err, a.body)
				}
			}
		})
	}
	all.Wait()
	proxy.cutting(0)
	proxy.report()
	if n := rows(t, url, "task"); n != posts*size {
		t.Errorf("%d tasks are stored, want %d", n, posts*size)
	}
	if n := rows(t, url, "idempotency_key"); n != posts {
		t.Errorf("%d keys are stored, want %d", n, posts)
	}
}
