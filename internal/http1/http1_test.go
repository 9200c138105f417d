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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
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

func newTransport(t testing.TB) *Transport {
	t.Helper()
	tr := &Transport{}
	t.Cleanup(tr.CloseIdleConnections)
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
		})
	}
}

// A server may close a connection while a request is on its way. It may have read it, so it is sent again only if that is no matter.
func TestConnectionThatEndsAtTheNextRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, key string
		streamed    bool
		second      string // what the first connection says to the second request
		again       bool
	}{
		"GET":                      {method: "GET", again: true},
		"PUT":                      {method: "PUT"},
		"POST":                     {method: "POST"},
		"POST with a key":          {method: "POST", key: "k", again: true},
		"of which there is no two": {method: "POST", key: "k", streamed: true},
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
			dialed := 0
			tr.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dialed++
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
			if _, _, err := exchange(tr, newRequest(t.Context(), t, c.method, s.url, "x")); err != nil {
				t.Fatal(err)
			}
			req := newRequest(t.Context(), t, c.method, s.url, "x")
			if c.key != "" {
				req.Header.Set("Idempotency-Key", c.key)
			}
			if c.streamed {
				req.GetBody = nil
			}
			status, body, err := exchange(tr, req)
			if again := err == nil && status == 200 && body == "fine"; again != c.again || !c.again && err == nil {
				t.Errorf("status %d, body %q, error %v", status, body, err)
			}
			if got := dialed == 2; got != c.again {
				t.Errorf("%d connections", dialed)
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

// A large request that nobody reads is answered all the same, and its body is let go.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	s := newServer(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		<-closed // and nothing is read before
	})
	tr := newTransport(t)
	req := newRequest(t.Context(), t, "POST", s.url, "")
	req.Body, req.GetBody, req.ContentLength = &endless{closed: closed}, nil, 1<<40
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

// crowd sends as many requests to a host at once, so that as many connections are idle then, as far as they may.
func crowd(t *testing.T, tr *Transport, n int, url string) {
	t.Helper()
	conns := make([]*conn, n)
	req := newRequest(t.Context(), t, "GET", url, "")
	for i := range conns {
		var err error
		if conns[i] = tr.take(hostPort(req.URL)); conns[i] == nil {
			if conns[i], err = tr.dial(req); err != nil {
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
		crowd(t, tr, 4, "http://a")
		want("a host", map[string]int{"a:80": 3})
		time.Sleep(10 * time.Second)
		crowd(t, tr, 2, "http://b:81")
		want("two hosts", map[string]int{"a:80": 3, "b:81": 2})
		crowd(t, tr, 1, "http://[::1]:82")
		want("three hosts: the one that has waited longest goes", map[string]int{"a:80": 2, "b:81": 2, "[::1]:82": 1})
		time.Sleep(49 * time.Second)
		crowd(t, tr, 1, "http://a")
		want("a connection is used just before its time is up", map[string]int{"a:80": 2, "b:81": 2, "[::1]:82": 1})
		time.Sleep(2 * time.Second)
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
	})
}

// https, and names that are not ASCII, are for the other transport.
func TestOther(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }))
	t.Cleanup(server.Close)
	asked := ""
	other := &http.Transport{
		TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			asked = address
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	tr := &Transport{Other: other}
	if _, body, err := exchange(tr, newRequest(t.Context(), t, "GET", server.URL, "")); body != "fine" || err != nil {
		t.Errorf("body %q, error %v", body, err)
	}
	tr.CloseIdleConnections()
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
