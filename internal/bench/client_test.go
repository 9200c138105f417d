package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo answers with the body of the request, and counts its connections.
func echo(t *testing.T) (url string, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	seen := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.RemoteAddr] = true
		mu.Unlock()
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
			return
		}
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		body, _ := io.ReadAll(r.Body) // before the answer begins
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
}

func put(ctx context.Context, c *client, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	a, err := c.exchange(req)
	return string(a.body), err
}

func TestClient(t *testing.T) {
	t.Parallel()
	url, connections := echo(t)
	var c client
	t.Cleanup(c.closeIdle)
	exchange := func(path string, want int) {
		t.Helper()
		for _, body := range []string{"short", strings.Repeat("long", 10_000)} {
			if got, err := put(t.Context(), &c, url+path, body); err != nil || got != body {
				t.Fatalf("%s: %d bytes, error %v, want %d bytes", path, len(got), err, len(body))
			}
		}
		if got := connections(); got != want {
			t.Errorf("%s: %d connections, want %d", path, got, want)
		}
	}
	exchange("/", 1)
	exchange("/", 1)
	exchange("/last", 2) // the server closes the one that was there, and the next
	exchange("/", 3)
	for _, idle := range c.idle {
		idle[0].used = time.Now().Add(-maxIdle)
	}
	exchange("/", 4)

	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(time.Millisecond, func() { cancel(enough) })
	if _, err := put(ctx, &c, url+"/hang", ""); !errors.Is(err, enough) {
		t.Errorf("error %v, want %v", err, enough)
	}
	exchange("/", 5)
}

// A service that runs may stand behind a proxy that speaks TLS, at the usual port.
func TestClientGoesWhereTheURLLeads(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	var c client
	if _, err := put(t.Context(), &c, server.URL, ""); !strings.Contains(fmt.Sprint(err), "certificate") {
		t.Errorf("error %v of a server whose certificate nobody has signed", err)
	}
	for url, port := range map[string]int{"http://127.0.0.1/": 80, "https://127.0.0.1/": 443} {
		_, err := put(t.Context(), &c, url, "")
		if failed, ok := errors.AsType[*net.OpError](err); ok && failed.Op == "dial" { // else somebody listens there
			if at, _ := failed.Addr.(*net.TCPAddr); at == nil || at.Port != port {
				t.Errorf("%s: %v", url, err)
			}
		}
	}
}
