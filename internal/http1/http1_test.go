package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// server speaks what a test wants on each of its connections, which are numbered from 1 on.
type server struct {
	t      testing.TB
	url    string
	dialed atomic.Int32
	open   atomic.Int32 // those that the client has not closed
}

// newServer runs speak on each connection, and then reads until the client closes it, unless speak has closed it.
func newServer(t testing.TB, speak func(n int, c net.Conn, r *bufio.Reader)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, url: "http://" + l.Addr().String()}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(s.dialed.Add(1))
			s.open.Add(1)
			conns.Go(func() {
				defer s.open.Add(-1)
				r := bufio.NewReader(c)
				speak(n, c, r)
				_, _ = io.Copy(io.Discard, r)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Wait()
	})
	return s
}

// waitOpen waits until so many connections are open.
func (s *server) waitOpen(n int32) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); s.open.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d connections are open, want %d", s.open.Load(), n)
		}
	}
}

// answers answers one request after the other, and what is not to be answered closes the connection.
func answers(texts ...string) func(n int, c net.Conn, r *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		for _, text := range texts {
			if !readRequest(r) {
				return
			}
			if text == "" {
				_ = c.Close()
				return
			}
			_, _ = io.WriteString(c, text)
		}
	}
}

func readRequest(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err == nil
}

const (
	fine    = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
	nothing = "HTTP/1.1 204 No Content\r\n\r\n"
)

// newTransport returns one of which connections that are forgotten stay open: their finalizers would close them.
func newTransport(t testing.TB) *Transport {
	t.Helper()
	var mu sync.Mutex
	var dialed []net.Conn
	tr := &Transport{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		dialed = append(dialed, c)
		return c, err
	}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		runtime.KeepAlive(dialed)
	})
	return tr
}

func newRequest(ctx context.Context, t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// exchange sends a request and reads the answer to its end.
func exchange(tr http.RoundTripper, req *http.Request) (status int, body string, err error) {
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), errors.Join(err, resp.Body.Close())
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, answer string
		dialed         int32 // for three requests
	}{
		"a length":            {"POST", fine, 1},
		"chunks":              {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", 1},
		"no body":             {"POST", nothing, 1},
		"none of a HEAD":      {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", 1},
		"a failure":           {"POST", "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 1},
		"hints come first":    {"POST", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + fine, 1},
		"closed at its end":   {"POST", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine", 3},
		"as of 1996":          {"POST", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", 3},
		"another protocol":    {"POST", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 3},
		"more than was asked": {"POST", fine + fine, 3},
		"more than none":      {"POST", nothing + "x", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, answers(c.answer, c.answer, c.answer))
			tr := newTransport(t)
			for range 3 {
				if status, body, err := exchange(tr, newRequest(t.Context(), t, c.method, s.url, "x")); status == 0 || err != nil || body != "" && body != "fine" {
					t.Errorf("status %d, body %q, error %v", status, body, err)
				}
			}
			if got := s.dialed.Load(); got != c.dialed {
				t.Errorf("%d connections, want %d", got, c.dialed)
			}
		})
	}
}

// What has not been read of an answer is not read, and nobody takes it for another answer.
func TestUnreadAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t, answers(fine[:len(fine)-1]))
	tr := newTransport(t)
	for n := range int32(3) {
		resp, err := tr.RoundTrip(newRequest(t.Context(), t, "POST", s.url, "x"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 3)); err != nil { // all that has come
			t.Fatal(err)
		}
		if err := errors.Join(resp.Body.Close(), resp.Body.Close()); err != nil {
			t.Error(err)
		}
		if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("error %v", err)
		}
		s.waitOpen(0)
		if got := s.dialed.Load(); got != n+1 {
			t.Errorf("%d connections, want %d", got, n+1)
		}
	}
}

// An idle connection that the server has closed, or says something on, as proxies do before they close it, is not used again, not
// even by requests that must not go out twice.
func TestIdleConnectionThatEnds(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]string{"silently": "", "with a word": "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var end, ended sync.WaitGroup
			end.Add(1)
			ended.Add(1)
			s := newServer(t, func(n int, c net.Conn, r *bufio.Reader) {
				answers(fine)(n, c, r)
				if n == 1 {
					defer ended.Done()
					end.Wait()
					_, _ = io.WriteString(c, said)
					if said == "" {
						_ = c.Close()
					}
				}
			})
			tr := newTransport(t)
			for range 2 {
				if status, body, err := exchange(tr, newRequest(t.Context(), t, "POST", s.url, "x")); status != 200 || body != "fine" || err != nil {
					t.Fatalf("status %d, body %q, error %v", status, body, err)
				}
				if s.dialed.Load() == 1 {
					end.Done()
					ended.Wait()
				}
			}
			if got := s.dialed.Load(); got != 2 {
				t.Errorf("%d connections", got)
			}
			s.waitOpen(1)
		})
	}
}

// Nor does it stay open for long.
func TestIdleConnectionThatEndsIsClosed(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ int, c net.Conn, r *bufio.Reader) {
		answers(fine)(0, c, r)
		_ = c.(*net.TCPConn).CloseWrite()
	})
	tr := newTransport(t)
	if _, _, err := exchange(tr, newRequest(t.Context(), t, "GET", s.url, "")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); s.open.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is still open")
		}
		tr.mu.Lock()
		for _, idle := range tr.idle {
			idle[0].since = time.Now().Add(-sweepEvery)
		}
		tr.mu.Unlock()
		tr.sweep()
	}
}

// A server may close a connection while a request is on its way. It may have read it, so it is sent again only if that is no matter.
func TestConnectionThatEndsAtTheNextRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, header string
		streamed       bool
		second         string // what the first connection says to the second request
		again          bool
	}{
		"GET":                      {method: "GET", again: true},
		"PUT":                      {method: "PUT"},
		"POST":                     {method: "POST"},
		"POST with a key":          {method: "POST", header: "Idempotency-Key", again: true},
		"POST with another":        {method: "POST", header: "X-Idempotency-Key", again: true},
		"of which there is no two": {method: "POST", header: "Idempotency-Key", streamed: true},
		"some of an answer came":   {method: "GET", second: "HTTP/1.1 200"},
		"its header came":          {method: "GET", second: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(n int, c1 net.Conn, r *bufio.Reader) {
				answers(fine)(n, c1, r)
				if readRequest(r) {
					_, _ = io.WriteString(c1, c.second)
					_ = c1.Close()
				}
			})
			tr := newTransport(t)
			dialed, dial := 0, tr.Dial
			tr.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dialed++
				return dial(ctx, network, address)
			}
			if _, _, err := exchange(tr, newRequest(t.Context(), t, c.method, s.url, "x")); err != nil {
				t.Fatal(err)
			}
			req := newRequest(t.Context(), t, c.method, s.url, "x")
			if c.header != "" {
				req.Header.Set(c.header, "k")
			}
			if c.streamed {
				req.GetBody = nil
			}
			sent := req.Body
			status, body, err := exchange(tr, req)
			if again := err == nil && status == 200 && body == "fine"; again != c.again || !c.again && err == nil {
				t.Errorf("status %d, body %q, error %v", status, body, err)
			}
			if got := dialed == 2; got != c.again || req.Body != sent {
				t.Errorf("%d connections, body %v", dialed, req.Body)
			}
		})
	}
}

// A fresh connection that closes without an answer is an error at once.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t, answers(""))
	if _, _, err := exchange(newTransport(t), newRequest(t.Context(), t, "GET", s.url, "")); !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
	if got := s.dialed.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
	s.waitOpen(0)
}

// What is no answer ends the connection.
func TestNonsense(t *testing.T) {
	t.Parallel()
	s := newServer(t, answers("Good day\r\n\r\n"))
	if _, _, err := exchange(newTransport(t), newRequest(t.Context(), t, "GET", s.url, "")); err == nil {
		t.Error("no error")
	}
	s.waitOpen(0)
}

// scripted is a connection that takes so many bytes, and says something.
type scripted struct {
	net.Conn // nil
	takes    int
	says     io.Reader
	took     strings.Builder
	closed   atomic.Bool
}

func (s *scripted) Write(p []byte) (int, error) {
	if len(p) > s.takes {
		return 0, net.ErrClosed
	}
	s.takes -= len(p)
	return s.took.Write(p)
}
func (s *scripted) Read(p []byte) (int, error) { return s.says.Read(p) }
func (s *scripted) Close() error {
	s.closed.Store(true)
	return nil
}

// A server that has read enough answers and closes. Its answer counts, although the rest could not be sent.
func TestAnswerToHalfARequest(t *testing.T) {
	t.Parallel()
	for size, takes := range map[int]int{100: 50, smallBody: smallBody, 1 << 20: 1 << 19} {
		c := &scripted{takes: takes, says: strings.NewReader(fine)}
		tr := &Transport{Dial: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		status, body, err := exchange(tr, newRequest(t.Context(), t, "POST", "http://a", strings.Repeat("x", size)))
		if status != 200 || body != "fine" || err != nil || !c.closed.Load() || len(tr.idle) != 0 {
			t.Errorf("%d bytes: status %d, body %q, error %v, closed %t, %d idle", size, status, body, err, c.closed.Load(), len(tr.idle))
		}
	}
}

// A body that breaks is an error of its own, at once, and nothing is sent again for it.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	s := newServer(t, answers(fine, fine))
	tr := newTransport(t)
	for _, size := range []int64{10, 1 << 20, -1} {
		if _, _, err := exchange(tr, newRequest(t.Context(), t, "GET", s.url, "")); err != nil {
			t.Fatal(err)
		}
		req := newRequest(t.Context(), t, "POST", s.url, "")
		req.Header.Set("Idempotency-Key", "k")
		opened := 1
		open := func() (io.ReadCloser, error) {
			opened++
			return io.NopCloser(io.MultiReader(strings.NewReader("xx"), iotest.ErrReader(broken))), nil
		}
		req.Body, _ = open()
		opened, req.GetBody, req.ContentLength = 1, open, size
		if _, _, err := exchange(tr, req); err == nil || err.Error() != broken.Error() || opened != 1 {
			t.Errorf("%d bytes: error %v, opened %d times", size, err, opened)
		}
		s.waitOpen(0)
	}
}

// What is not valid is refused before anybody is dialed, and its body is closed.
func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*http.Request){
		"no host":            func(r *http.Request) { r.URL.Host = "" },
		"a split request":    func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET" },
		"a name":             func(r *http.Request) { r.Header["X A"] = []string{"b"} },
		"no name":            func(r *http.Request) { r.Header[""] = []string{"b"} },
		"a line in a value":  func(r *http.Request) { r.Header["X-A"] = []string{"b", "c\r\nX-Evil: 1"} },
		"a zero in a value":  func(r *http.Request) { r.Header["X-A"] = []string{"b\x00"} },
		"a delete":           func(r *http.Request) { r.Header["X-A"] = []string{"\x7f"} },
		"a trailer":          func(r *http.Request) { r.Trailer = http.Header{"X-A": {"b"}} },
		"https":              func(r *http.Request) { r.URL.Scheme = "https" },
		"cannot be dialed":   func(*http.Request) {},
		"is over beforehand": func(r *http.Request) { *r = *r.WithContext(ended()) },
	} {
		req := newRequest(t.Context(), t, "POST", "http://a", "")
		closed := make(chan struct{})
		req.Body = &endless{closed: closed}
		spoil(req)
		dialed := false
		tr := &Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
			dialed = true
			return nil, net.ErrClosed
		}}
		if _, _, err := exchange(tr, req); err == nil || dialed != (name == "cannot be dialed") {
			t.Errorf("%s: error %v, dialed %t", name, err, dialed)
		}
		select {
		case <-closed:
		default:
			t.Errorf("%s: its body is still open", name)
		}
	}
	for _, value := range []string{"", "a b\tc", "é", "\xff"} {
		if isControlled(value) {
			t.Errorf("%q is refused", value)
		}
	}
	if !isToken("PATCH") || !isToken("X-a_1.~!") {
		t.Error("a token is none")
	}
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A large request that nobody reads is answered all the same, and its body is let go.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1 << 40, -1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			earlyAnswer(t, size)
		})
	}
}

func earlyAnswer(t *testing.T, size int64) {
	closed := make(chan struct{})
	s := newServer(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		<-closed // and nothing is read before
	})
	tr := newTransport(t)
	req := newRequest(t.Context(), t, "POST", s.url, "")
	req.Body, req.GetBody, req.ContentLength = &endless{closed: closed}, nil, size
	if status, _, err := exchange(tr, req); status != 413 || err != nil {
		t.Errorf("status %d, error %v", status, err)
	}
	<-closed
	s.waitOpen(0)
}

type endless struct {
	once   sync.Once
	closed chan struct{}
}

func (*endless) Read(p []byte) (int, error) { return len(p), nil }
func (e *endless) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

// A body of any size and kind comes through, and the connection is used for the next.
func TestBodies(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // before the answer begins
		w.Header().Set("X-From", r.RemoteAddr)
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	tr := newTransport(t)
	from := map[string]bool{}
	for _, size := range []int{0, 1, smallBody, smallBody + 1, 1 << 20} {
		for _, known := range []bool{true, false} {
			want := strings.Repeat("x", size)
			req := newRequest(t.Context(), t, "PUT", server.URL, want)
			if !known {
				req.ContentLength = -1
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			from[resp.Header.Get("X-From")] = true
			body, err := io.ReadAll(resp.Body)
			if string(body) != want || err != nil {
				t.Errorf("%d bytes, error %v, want %d", len(body), err, size)
			}
			_ = resp.Body.Close()
		}
	}
	if len(from) > 4 { // a large request may seem not to be written yet when its answer is there
		t.Errorf("%d connections", len(from))
	}
}

// However long it takes, and in whatever it is: when the context ends, so does the request, and its connection.
func TestContext(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	for name, speak := range map[string]func(c net.Conn, r *bufio.Reader){
		"before the answer": func(net.Conn, *bufio.Reader) {},
		"in the header": func(c net.Conn, r *bufio.Reader) {
			readRequest(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		},
		"in the body": func(c net.Conn, r *bufio.Reader) {
			readRequest(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfi")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			s := newServer(t, func(_ int, c net.Conn, r *bufio.Reader) {
				speak(c, r)
				time.AfterFunc(5*time.Millisecond, func() { cancel(enough) })
			})
			if _, _, err := exchange(newTransport(t), newRequest(ctx, t, "GET", s.url, "")); !errors.Is(err, enough) {
				t.Errorf("error %v", err)
			}
			s.waitOpen(0)
		})
	}
	t.Run("while it connects", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		tr := &Transport{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			cancel(enough)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		if _, _, err := exchange(tr, newRequest(ctx, t, "GET", "http://a", "")); !errors.Is(err, enough) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("just as it connects", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		c := &scripted{takes: 1000, says: strings.NewReader(fine)}
		tr := &Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
			cancel(enough)
			return c, nil
		}}
		req := newRequest(ctx, t, "POST", "http://a", "")
		closed := make(chan struct{})
		req.Body = &endless{closed: closed}
		if _, _, err := exchange(tr, req); !errors.Is(err, enough) || c.took.Len() > 0 || !c.closed.Load() {
			t.Errorf("error %v, sent %q, closed %t", err, c.took.String(), c.closed.Load())
		}
		<-closed
	})
	t.Run("when the dialer sees it first", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		tr := &Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
			time.AfterFunc(5*time.Millisecond, func() { cancel(enough) })
			return nil, os.ErrDeadlineExceeded
		}}
		if _, _, err := exchange(tr, newRequest(past{ctx}, t, "GET", "http://a", "")); !errors.Is(err, enough) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("before the body is closed", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, answers(fine))
		ctx, cancel := context.WithCancel(t.Context())
		tr := newTransport(t)
		resp, err := tr.RoundTrip(newRequest(ctx, t, "GET", s.url, ""))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		cancel()
		_ = resp.Body.Close()
		if len(tr.idle) != 0 {
			t.Error("its connection is idle")
		}
		s.waitOpen(0)
	})
	t.Run("once it is over", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, answers(fine, fine))
		tr := newTransport(t)
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			if _, _, err := exchange(tr, newRequest(ctx, t, "GET", s.url, "")); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if got := s.dialed.Load(); got != 1 {
			t.Errorf("%d connections", got)
		}
	})
}

// past has a deadline that is over, although it has not ended yet.
type past struct{ context.Context }

func (past) Deadline() (time.Time, bool) { return time.Now(), true }

func TestHeaderIsBounded(t *testing.T) {
	t.Parallel()
	for name, repeated := range map[string][2]string{
		"a line":    {"HTTP/1.1 200 OK\r\nX-A: ", "x"},
		"lines":     {"HTTP/1.1 200 OK\r\n", "X-A: b\r\n"},
		"a status":  {"HTTP/1.1 200 ", "x"},
		"hints":     {"", "HTTP/1.1 103 Early Hints\r\n\r\n"},
		"continues": {"", "HTTP/1.1 100 Continue\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(_ int, c net.Conn, r *bufio.Reader) {
				readRequest(r)
				_, err := io.WriteString(c, repeated[0])
				for more := strings.Repeat(repeated[1], 1000); err == nil; {
					_, err = io.WriteString(c, more)
				}
			})
			tr := &Transport{MaxHeaderBytes: 64 << 10}
			if _, _, err := exchange(tr, newRequest(t.Context(), t, "GET", s.url, "")); !errors.Is(err, errHeaderTooLarge) {
				t.Errorf("error %v", err)
			}
			s.waitOpen(0)
		})
	}
	t.Run("the body is not", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000)))
		tr := &Transport{MaxHeaderBytes: 100}
		if _, body, err := exchange(tr, newRequest(t.Context(), t, "GET", s.url, "")); len(body) != 100_000 || err != nil {
			t.Errorf("%d bytes, error %v", len(body), err)
		}
		tr.CloseIdleConnections()
	})
}

// pipes has a server at the other end of each connection, that answers everything, in memory.
type pipes struct {
	conns sync.WaitGroup
	mu    sync.Mutex
	open  map[string]int // connections by their address
}

func (p *pipes) dial(_ context.Context, _, address string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.add(address, 1)
	p.conns.Go(func() {
		defer p.add(address, -1)
		r := bufio.NewReader(theirs)
		for readRequest(r) {
			_, _ = io.WriteString(theirs, nothing)
		}
		_ = theirs.Close()
	})
	return ours, nil
}

func (p *pipes) add(address string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = map[string]int{}
	}
	if p.open[address] += n; p.open[address] == 0 {
		delete(p.open, address)
	}
}

// crowd sends as many requests to a host at once, so that as many connections are idle then, as far as they may, and returns those in
// the order in which they were given back.
func crowd(t *testing.T, tr *Transport, n int, url string) (conns []*conn) {
	t.Helper()
	conns = make([]*conn, n)
	req := newRequest(t.Context(), t, "GET", url, "")
	to := hostPort(req.URL)
	for i := range conns {
		var err error
		if conns[i] = tr.take(to); conns[i] == nil {
			if conns[i], err = tr.dial(t.Context(), to); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range conns {
		resp, err := c.roundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	return conns
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		tr := &Transport{Dial: p.dial, MaxIdle: 5, MaxIdlePerHost: 3, IdleTimeout: time.Minute}
		want := func(what string, open map[string]int) {
			t.Helper()
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			tr.mu.Lock()
			defer tr.mu.Unlock()
			if fmt.Sprint(p.open) != fmt.Sprint(open) || len(tr.idle) != len(open) {
				t.Errorf("%s: connections %v, idle of %d hosts, want %v", what, p.open, len(tr.idle), open)
			}
		}
		first := crowd(t, tr, 4, "http://a")
		want("a host", map[string]int{"a:80": 3})
		if !slices.Equal(tr.idle["a:80"], first[1:]) {
			t.Error("it was not the one that had waited longest")
		}
		time.Sleep(10 * time.Second)
		crowd(t, tr, 2, "http://b:81")
		want("two hosts", map[string]int{"a:80": 3, "b:81": 2})
		crowd(t, tr, 1, "http://[::1]:82")
		want("three hosts: the one that has waited longest goes", map[string]int{"a:80": 2, "b:81": 2, "[::1]:82": 1})
		time.Sleep(49 * time.Second)
		crowd(t, tr, 1, "http://a")
		want("a connection is used just before its time is up", map[string]int{"a:80": 2, "b:81": 2, "[::1]:82": 1})
		time.Sleep(4 * time.Second)
		want("the time of one is up", map[string]int{"a:80": 1, "b:81": 2, "[::1]:82": 1})
		time.Sleep(time.Minute)
		want("that of all is", nil)
		if tr.timer != nil || tr.waited.Len() != 0 {
			t.Errorf("timer %v, %d wait", tr.timer, tr.waited.Len())
		}
		crowd(t, tr, 3, "http://a")
		tr.CloseIdleConnections()
		want("closed", nil)
		crowd(t, tr, 3, "http://a")
		crowd(t, tr, 3, "http://b:81")
		want("used again", map[string]int{"a:80": 2, "b:81": 3})
		tr.CloseIdleConnections()
		p.conns.Wait()

		tr = &Transport{Dial: p.dial}
		crowd(t, tr, 1, "http://a")
		time.Sleep(80 * time.Second)
		want("by default", map[string]int{"a:80": 1})
		time.Sleep(30 * time.Second)
		want("by default, after a while", nil)
		p.conns.Wait()
	})
}

// noted says when it is closed.
type noted struct {
	net.Conn
	closed chan<- struct{}
}

func (n *noted) Close() error {
	n.closed <- struct{}{}
	return n.Conn.Close()
}

// https, and names that are not ASCII, are for the other transport.
func TestOther(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }))
	t.Cleanup(server.Close)
	asked, closed := "", make(chan struct{}, 10)
	other := &http.Transport{
		TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			asked = address
			c, err := (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
			return &noted{c, closed}, err
		},
	}
	tr := &Transport{Other: other}
	if _, body, err := exchange(tr, newRequest(t.Context(), t, "GET", server.URL, "")); body != "fine" || err != nil {
		t.Errorf("body %q, error %v", body, err)
	}
	tr.CloseIdleConnections()
	<-closed
	_, _, _ = exchange(tr, newRequest(t.Context(), t, "GET", "http://bücher.example", ""))
	if want := "xn--bcher-kva.example:80"; asked != want {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	tr.CloseIdleConnections()
	for _, url := range []string{server.URL, "http://bücher.example"} {
		if _, _, err := exchange(&Transport{}, newRequest(t.Context(), t, "GET", url, "")); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
}

// FuzzAnswer: whatever a server answers is read as net/http reads it.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		fine, nothing, "", "x", "\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + fine,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX-Trailer: a\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfi", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nfine", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n", "HTTP/1.1 99 Odd\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.0 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
	} {
		f.Add("GET", text)
		f.Add("HEAD", text)
	}
	f.Fuzz(func(t *testing.T, method, text string) {
		if method != "HEAD" {
			method = "GET"
		}
		var conns sync.WaitGroup
		dial := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			conns.Go(func() {
				if readRequest(bufio.NewReader(theirs)) {
					_, _ = io.WriteString(theirs, text)
				}
				_ = theirs.Close()
			})
			return ours, nil
		}
		read := func(tr http.RoundTripper) string {
			resp, err := tr.RoundTrip(newRequest(t.Context(), t, method, "http://a", ""))
			if err != nil {
				return "an error" // each has its own words
			}
			head := fmt.Sprint(resp.Status, resp.Proto, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Header)
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode == http.StatusSwitchingProtocols { // theirs is the connection
				body, err = nil, nil
			}
			_ = resp.Body.Close()
			return fmt.Sprint(head, resp.Trailer, string(body), err != nil)
		}
		ours := &Transport{Dial: dial}
		theirs := &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true} // else it logs what comes unasked
		if got, want := read(ours), read(theirs); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
		ours.CloseIdleConnections()
		theirs.CloseIdleConnections()
		conns.Wait()
	})
}
