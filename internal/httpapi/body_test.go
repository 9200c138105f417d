package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// gated is a store whose creates take until they are let go, and that counts how many there are at once.
type gated struct {
	*fake
	mu       sync.Mutex
	now, top int
	release  chan struct{}
}

func (g *gated) Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	g.mu.Lock()
	g.now++
	g.top = max(g.top, g.now)
	g.mu.Unlock()
	<-g.release
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
	return g.fake.Create(ctx, b, key)
}

// crowd is a handler with a window of 200 KiB, and a body of about 90 KiB, of which two have room.
type crowd struct {
	*gated
	handler http.Handler
	body    string
	answers sync.WaitGroup
}

func newCrowd() *crowd {
	g := &gated{fake: newFake(), release: make(chan struct{})}
	tasks := manyTasks(300)
	return &crowd{gated: g, body: tasks + strings.Repeat(" ", 90<<10-len(tasks)), handler: New(Options{
		Store: g.fake, Creator: g, Settler: g.fake, NewID: g.newID, BodyWindowBytes: 200 << 10, MaxBodyBytes: 1 << 20,
	})}
}

// post sends a body, and has the answer when answers are all there. length -1: the request does not say how long it is.
func (c *crowd) post(ctx context.Context, body string, length int) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, "POST", "/task", io.NopCloser(strings.NewReader(body)))
	r.ContentLength = int64(length)
	c.answers.Go(func() { c.handler.ServeHTTP(w, r) })
	synctest.Wait()
	return w
}

func TestBodiesWaitForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		var all []*httptest.ResponseRecorder
		for i := range 8 {
			length := len(c.body)
			if i%2 == 1 {
				length = -1
			}
			all = append(all, c.post(t.Context(), c.body, length))
		}
		for range 8 {
			c.release <- struct{}{}
			synctest.Wait()
		}
		c.answers.Wait()
		for i, w := range all {
			if w.Code != 201 {
				t.Errorf("POST %d: %d %s", i, w.Code, w.Body)
			}
		}
		if c.top != 2 {
			t.Errorf("%d were in work at once, want 2", c.top)
		}
	})
}

func TestBodiesWithoutRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		c.post(t.Context(), c.body, len(c.body))
		c.post(t.Context(), c.body, len(c.body))
		began := time.Now()
		late := c.post(t.Context(), c.body, len(c.body))
		small := c.post(t.Context(), manyTasks(1), -1)
		if c.now != 3 {
			t.Errorf("%d are in work, want two large ones and the small one", c.now)
		}
		gone, leave := context.WithCancel(t.Context())
		left := c.post(gone, c.body, len(c.body))
		leave()
		time.Sleep(bodyWait)
		synctest.Wait()
		if p := decode[api.Problem](t, late); late.Code != 503 || late.Header().Get("Retry-After") == "" ||
			p.Error != "too many large requests are in work, try again" || time.Since(began) != bodyWait {
			t.Errorf("after %v: %d %v %+v", time.Since(began), late.Code, late.Header(), p)
		}
		close(c.release)
		c.answers.Wait()
		if small.Code != 201 || left.Code != 499 {
			t.Errorf("small: %d, who left: %d", small.Code, left.Code)
		}
		if len(c.batch) != 3 {
			t.Errorf("%d batches are there, want 3", len(c.batch))
		}
		if again := c.post(t.Context(), c.body, len(c.body)); again.Code != 201 {
			t.Errorf("with room again: %d %s", again.Code, again.Body)
		}
	})
}

// Whatever becomes of a request, its share comes back; and what is larger than the window is let in, alone.
func TestBodiesGiveBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		close(c.release)
		blank := strings.Repeat(" ", 700<<10)
		for i, try := range []struct {
			body         string
			length, want int
		}{
			{c.body, len(c.body), 201}, {c.body, -1, 201}, {blank + "[1]", -1, 400}, {"[1]" + blank, 3 + len(blank), 400},
			{blank + blank, -1, 413}, {blank + blank, 2 * len(blank), 413}, {blank + manyTasks(1), len(blank) + len(manyTasks(1)), 201},
		} {
			if w := c.post(t.Context(), try.body, try.length); w.Code != try.want {
				t.Errorf("%d: %d %.300s", i, w.Code, w.Body)
			}
		}
		c.err = fmt.Errorf("broken")
		if w := c.post(t.Context(), c.body, len(c.body)); w.Code != 503 {
			t.Error(w.Code)
		}
		c.err, c.release = nil, make(chan struct{})
		large := c.post(t.Context(), blank+manyTasks(1), -1)
		c.post(t.Context(), c.body, len(c.body))
		if c.now != 1 {
			t.Errorf("%d are in work beside what is larger than the window", c.now-1)
		}
		close(c.release)
		c.answers.Wait()
		if large.Code != 201 {
			t.Error(large.Code, large.Body)
		}
	})
}

// A body that has not come by the read deadline is answered, though net/http cancels the request then as if its client had gone.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(newService(t).handler)
	server.Config.ReadTimeout = 2 * time.Second // for the head, too: a busy machine must come to read it
	server.Start()
	t.Cleanup(server.Close)
	for _, head := range []string{
		"POST /task HTTP/1.1\r\nContent-Length: 100000", "POST /task HTTP/1.1\r\nTransfer-Encoding: chunked",
		"PUT /task HTTP/1.1\r\nContent-Length: 100", "PATCH /task/" + idA + " HTTP/1.1\r\nContent-Length: 100",
	} {
		t.Run(head, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, head+"\r\nHost: x\r\n\r\n1\r\n["); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != 408 {
				t.Errorf("%d %s, %v; want 408", answer.StatusCode, body, err)
			}
			checkProblem(t, answer.Header, 408, body)
		})
	}
}
