package dispatch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"taskrunner/internal/http1"
	"taskrunner/internal/task"
)

// hostile is a server that speaks what a test wants on each connection, and counts.
type hostile struct {
	address string
	open    atomic.Int64 // connections that the other side has not closed
	dialed  atomic.Int64
	written atomic.Int64
}

// newHostile runs speak on every connection, which is closed when it returns. The request is there to be read from r.
func newHostile(t testing.TB, speak func(conn net.Conn, r *bufio.Reader)) *hostile {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{address: l.Addr().String()}
	var conns sync.WaitGroup
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			h.open.Add(1)
			h.dialed.Add(1)
			conns.Go(func() {
				defer h.open.Add(-1)
				defer conn.Close()
				speak(&counted{conn, h}, bufio.NewReader(conn))
			})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return h
}

type counted struct {
	net.Conn
	h *hostile
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.h.written.Add(int64(n))
	return n, err
}

// request reads one, with its body.
func request(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err == nil
}

// gone returns when the other side has closed the connection.
func gone(r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }

// flood writes until the other side has closed the connection.
func flood(w io.Writer, text string) {
	for chunk := []byte(strings.Repeat(text, 1+4096/len(text))); ; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// drip writes a byte now and then until the other side has closed the connection.
func drip(w io.Writer, b string) {
	for {
		if _, err := io.WriteString(w, b); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// answering reads the request, says text, and waits for the other side to close.
func answering(text string) func(net.Conn, *bufio.Reader) {
	raw := []byte(text) // before memory is measured
	return func(conn net.Conn, r *bufio.Reader) {
		if request(r) {
			_, _ = conn.Write(raw)
			gone(r)
		}
	}
}

// cutting reads the request, says text, and resets the connection.
func cutting(text string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		if request(r) {
			_, _ = io.WriteString(conn, text)
			_ = conn.(*counted).Conn.(*net.TCPConn).SetLinger(0)
		}
	}
}

// flooding reads the request, says text, and then more without end.
func flooding(text, more string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		if request(r) {
			_, _ = io.WriteString(conn, text)
			flood(conn, more)
		}
	}
}

// babbling says text without end, whatever it is asked.
func babbling(text string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		go gone(r)
		flood(conn, text)
	}
}

// dripping reads the request, says text, and then more now and then without end.
func dripping(text, more string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		if request(r) {
			_, _ = io.WriteString(conn, text)
			drip(conn, more)
		}
	}
}

// bomb is a small answer that is 256 MiB when it is inflated.
func bomb() string {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	for zeros := make([]byte, 1<<20); buf.Len() < 256<<10; {
		_, _ = w.Write(zeros)
	}
	_ = w.Close()
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", buf.Len(), buf.String())
}

const ok = "HTTP/1.1 200 OK\r\n"

// misbehaviors are answers, and what an attempt may make of each.
var misbehaviors = []struct {
	name    string
	speak   func(net.Conn, *bufio.Reader)
	scheme  string // "": http
	verdict Verdict
	status  int
	body    int  // how much of it is kept
	slow    bool // takes the whole time
	text    string
	begins  string // the body
}{
	{name: "hangs before it has read", speak: func(_ net.Conn, r *bufio.Reader) { gone(r) }, verdict: Retry, slow: true, text: "no answer within"},
	{name: "hangs before the header", speak: answering(""), verdict: Retry, slow: true, text: "no answer within"},
	{name: "hangs in the status line", speak: answering("HTTP/1.1 2"), verdict: Retry, slow: true, text: "no answer within"},
	{name: "hangs in the header", speak: answering(ok + "X-A: b"), verdict: Retry, slow: true, text: "no answer within"},
	{name: "hangs in the body", speak: answering(ok + "Content-Length: 9\r\n\r\n{"), verdict: Done, status: 200, body: 1, slow: true},
	{name: "a byte now and then of the header", speak: dripping(ok+"X-A: ", "x"), verdict: Retry, slow: true, text: "no answer within"},
	{name: "a byte now and then of the body", speak: dripping(ok+"\r\n", "x"), verdict: Done, status: 200, body: -1, slow: true},
	{name: "a chunk now and then", speak: dripping(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), verdict: Done, status: 200, body: -1, slow: true},
	{name: "endless body", speak: flooding(ok+"\r\n", "x"), verdict: Done, status: 200, body: maxAnswer},
	{name: "endless chunks", speak: flooding(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), verdict: Done, status: 200, body: -1},
	{name: "endless chunk extension", speak: flooding(ok+"Transfer-Encoding: chunked\r\n\r\n1;", "x"), verdict: Done, status: 200},
	{name: "endless trailer", speak: flooding(ok+"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", "X-A: b\r\n"), verdict: Done, status: 200, body: 1},
	{name: "endless body of a failure", speak: flooding("HTTP/1.1 500 No\r\n\r\n", "x"), verdict: Retry, status: 500, body: maxExcerptRead, text: "500"},
	{name: "endless status line", speak: flooding("HTTP/1.1 200 ", "x"), verdict: Retry, text: "too large"},
	{name: "endless header line", speak: flooding(ok+"X-A: ", "x"), verdict: Retry, text: "too large"},
	{name: "endless header lines", speak: flooding(ok, "X-A: b\r\n"), verdict: Retry, text: "too large"},
	{name: "10 MB of header", speak: answering(ok + strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 10_000) + "\r\n"), verdict: Retry, text: "too large"},
	{name: "gzip bomb", speak: answering(bomb()), verdict: Done, status: 200, body: maxAnswer, begins: "\x1f\x8b"},
	{name: "reset before the header", speak: cutting(""), verdict: Retry, text: "reset"},
	{name: "reset in the header", speak: cutting(ok + "X-A: b"), verdict: Retry},
	{name: "reset in the body", speak: cutting(ok + "Content-Length: 9\r\n\r\n{"), verdict: Done, status: 200, body: -1},
	{name: "closed before it has read", speak: func(net.Conn, *bufio.Reader) {}, verdict: Retry},
	{name: "100 without end", speak: flooding("", "HTTP/1.1 100 Continue\r\n\r\n"), verdict: Retry},
	{name: "103 without end", speak: flooding("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), verdict: Retry},
	{name: "103 now and then", speak: dripping("", "HTTP/1.1 103 Early Hints\r\n\r\n"), verdict: Retry},
	{name: "101", speak: answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), verdict: GiveUp, status: 101, text: "101"},
	{name: "body longer than said", speak: answering(ok + "Content-Length: 1\r\n\r\n{}{}{}"), verdict: Done, status: 200, body: 1},
	{name: "body shorter than said", speak: cutting(ok + "Content-Length: 1000000000000\r\n\r\n{}"), verdict: Done, status: 200, body: -1},
	{name: "negative length", speak: answering(ok + "Content-Length: -1\r\n\r\n{}"), verdict: Retry, text: "Content-Length"},
	{name: "length beyond all numbers", speak: answering(ok + "Content-Length: 99999999999999999999999\r\n\r\n{}"), verdict: Retry, text: "Content-Length"},
	{name: "two lengths", speak: answering(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), verdict: Retry, text: "Content-Length"},
	{name: "no HTTP", speak: answering("<html>hello</html>\r\n\r\n"), verdict: Retry, text: "malformed HTTP"},
	{name: "binary", speak: flooding("", "\x00\xff\x16\x03"), verdict: Retry},
	{name: "answers before it has read", speak: func(conn net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, _ = io.WriteString(conn, ok+"Content-Length: 2\r\n\r\n{}")
		gone(r)
	}, verdict: Done, status: 200, body: 2},
	{name: "redirect to the metadata of a cloud", speak: answering("HTTP/1.1 307 Here\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"), verdict: GiveUp, status: 307, text: "not followed"},
	{name: "no TLS", speak: babbling("x"), scheme: "https", verdict: Retry, text: "tls"},
	{name: "hangs in the TLS handshake", speak: func(_ net.Conn, r *bufio.Reader) { gone(r) }, scheme: "https", verdict: Retry, slow: true},
	{name: "endless TLS handshake", speak: babbling("\x16\x03\x03\x40\x00" + strings.Repeat("\x02", 1<<14)), scheme: "https", verdict: Retry},
}

// TestReceiversThatMisbehave: each attempt ends in time, reads little, and leaves no connection and no goroutine.
func TestReceiversThatMisbehave(t *testing.T) {
	const timeout = time.Second
	for _, c := range misbehaviors {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t, "loopback")
			s.timeout = timeout
			scheme := "http"
			if c.scheme != "" {
				scheme = c.scheme
			}
			h := newHostile(t, c.speak)
			action := &task.Action{Verb: "Post", URL: scheme + "://" + h.address + "/", Body: json.RawMessage(`{"a":1}`)}
			goroutines := runtime.NumGoroutine()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: action, keep: true})
			runtime.ReadMemStats(&after)
			t.Logf("status %d, %d bytes, %v, %q, allocated %d KiB, received up to %d KiB", a.status, len(a.body), a.took, a.text,
				(after.TotalAlloc-before.TotalAlloc)>>10, h.written.Load()>>10)
			if got := Classify(a.status, a.err); got != c.verdict || a.status != c.status || !strings.Contains(a.text, c.text) {
				t.Errorf("%v with status %d, text %q; want %v, %d, %q", got, a.status, a.text, c.verdict, c.status, c.text)
			}
			if len(a.body) > maxAnswer || c.body >= 0 && len(a.body) != c.body {
				t.Errorf("%d bytes were kept, want %d", len(a.body), c.body)
			}
			if !strings.HasPrefix(string(a.body), c.begins) {
				t.Errorf("the body begins with %q, want %q", a.body[:min(len(a.body), 9)], c.begins)
			}
			if a.took > timeout+time.Second || c.slow && a.took < timeout {
				t.Errorf("it took %v of %v", a.took, timeout)
			}
			// What the server writes and its test allocates is in it, too.
			if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
				t.Errorf("%d KiB were allocated", n>>10)
			}
			if n := len(a.text); n > 4*maxErrorText {
				t.Errorf("a text of %d bytes", n)
			}
			s.transport.(*http1.Transport).CloseIdleConnections()
			leftBehind(t, h, goroutines)
			// The kernel's buffers on both sides take some megabytes; whoever reads on takes more by the millisecond.
			if n := h.written.Load(); n > 16<<20 {
				t.Errorf("the receiver got rid of %d KiB", n>>10)
			}
		})
	}
}

// leftBehind waits until no connection is open and no more goroutines run than before.
func leftBehind(t *testing.T, h *hostile, goroutines int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		open, running := h.open.Load(), runtime.NumGoroutine()
		if open == 0 && running <= goroutines {
			return
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d connections are open, %d goroutines run, %d did:\n%s", open, running, goroutines, buf[:runtime.Stack(buf, true)])
		}
	}
}

// A redirect is not followed, whether to where it comes from or elsewhere.
func TestRedirectsAreOneRequest(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	for _, status := range []int{301, 302, 303, 307, 308} {
		var h *hostile
		h = newHostile(t, func(conn net.Conn, r *bufio.Reader) {
			for request(r) {
				h.dialed.Add(1000)
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d Here\r\nLocation: http://%s/\r\nContent-Length: 0\r\n\r\n", status, h.address)
			}
		})
		a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Get", URL: "http://" + h.address}})
		if n := h.dialed.Load(); a.status != status || Classify(a.status, a.err) != GiveUp || n != 1001 {
			t.Errorf("%d: %+v, %d requests on %d connections", status, a, n/1000, n%1000)
		}
		s.transport.(*http1.Transport).CloseIdleConnections()
	}
}

// A certificate that nobody vouches for gets no request.
func TestSelfSignedGetsNoRequest(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	var requests atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{}
	server.StartTLS()
	defer server.Close()
	a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Get", URL: server.URL}})
	if Classify(a.status, a.err) != Retry || !strings.Contains(a.text, "certificate") || requests.Load() != 0 {
		t.Errorf("%+v, %d requests", a, requests.Load())
	}
}

// A kept connection that the receiver has closed meanwhile, or closes when it reads the next request, costs no attempt.
func TestKeptConnectionThatDies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		linger bool // it lives until the second request has come
	}{{"between two requests", false}, {"at the second request", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSender(t, "loopback")
			h := newHostile(t, func(conn net.Conn, r *bufio.Reader) {
				if request(r) {
					_, _ = io.WriteString(conn, ok+"Content-Length: 2\r\n\r\n{}")
				}
				if c.linger {
					request(r)
				}
			})
			action := &task.Action{Verb: "Post", URL: "http://" + h.address, Body: json.RawMessage(`{"a":1}`)}
			for i := range 5 {
				a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: action, keep: true})
				if a.status != 200 || string(a.body) != "{}" {
					t.Errorf("request %d: %+v", i, a)
				}
			}
			if n := h.dialed.Load(); n != 5 {
				t.Errorf("%d connections", n)
			}
			s.transport.(*http1.Transport).CloseIdleConnections()
		})
	}
}

// TestHTTP2ReceiversThatMisbehave: the bounds are those of HTTP/1.1, but that the connection stays.
func TestHTTP2ReceiversThatMisbehave(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	var written, handlers atomic.Int64
	mux := http.NewServeMux()
	flood := func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 16<<10); r.Context().Err() == nil; {
			n, err := w.Write(chunk)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	}
	mux.HandleFunc("/body", flood)
	mux.HandleFunc("/failure", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		flood(w, r)
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 10_000 {
			w.Header().Set("X-"+fmt.Sprint(i), strings.Repeat("b", 1000))
		}
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			written.Add(10)
		}
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/reset", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("%s came by %s", r.URL.Path, r.Proto)
		}
		handlers.Add(1)
		defer handlers.Add(-1)
		mux.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	for _, c := range []struct {
		path    string
		verdict Verdict
		status  int
		body    int
	}{
		{"/ok", Done, 200, 0}, {"/body", Done, 200, maxAnswer}, {"/failure", Retry, 500, maxExcerptRead}, {"/header", Retry, 0, 0},
		{"/early", Retry, 0, 0}, {"/hang", Retry, 0, 0}, {"/reset", Done, 200, 1}, {"/ok", Done, 200, 0},
	} {
		s := newSender(t, "loopback")
		s.timeout = timeout
		transport := s.transport.(*http1.Transport).Other
		transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		written.Store(0)
		a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, keep: true, action: &task.Action{Verb: "Post", URL: server.URL + c.path, Body: json.RawMessage(`{}`)}})
		for deadline := time.Now().Add(20 * time.Second); handlers.Load() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: its handler is still at it", c.path)
			}
		}
		t.Logf("%s: status %d, %d bytes, %v, %q, received up to %d KiB", c.path, a.status, len(a.body), a.took, a.text, written.Load()>>10)
		if got := Classify(a.status, a.err); got != c.verdict || a.status != c.status || len(a.body) != c.body {
			t.Errorf("%s: %v with status %d, %d bytes, text %q; want %v, %d, %d", c.path, got, a.status, len(a.body), a.text, c.verdict, c.status, c.body)
		}
		if a.took > timeout+time.Second {
			t.Errorf("%s: it took %v of %v", c.path, a.took, timeout)
		}
		if n := written.Load(); n > 1<<20 {
			t.Errorf("%s: the receiver got rid of %d KiB", c.path, n>>10)
		}
		transport.CloseIdleConnections()
	}
}
