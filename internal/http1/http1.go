// Package http1 is a client of HTTP/1.1 whose callers do the work themselves: whoever sends a request writes it and reads the
// answer. An [http.Transport] hands both to goroutines of the connection, and wakes two for each request. What goes over the wire
// is net/http's: requests are written by [http.Request.Write], answers are read by [http.ReadResponse]; ours is only when, and
// over which connection.
//
// Invariants:
//
//   - A connection is idle, or belongs to one request.
//   - On an idle one everything has been sent and read that belongs to requests before: what comes unasked, before a request
//     goes out, is never taken for its answer.
//   - A request goes out twice only where [http.Transport] would send it twice.
package http1

import (
	"bufio"
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Transport is an [http.RoundTripper]. It follows no redirects, keeps no cookies, knows no proxies and asks for no compression.
// The fields must not change once it is used; the zero value is ready. Safe for concurrent use.
//
// The body of an answer must be closed, by the goroutine that reads it. The connection is used again if it has been read to its
// end by then.
type Transport struct {
	// Dial connects to host:port, of a name or an address as the URL has it. Nil: that of a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Other takes the requests that are not for this one: of https, which may come to HTTP/2, and to hosts that are not ASCII. Nil:
	// they are refused.
	Other *http.Transport
	// MaxIdle and MaxIdlePerHost bound the connections that wait for another request; the one that has waited longest goes
	// first. 0: no bound.
	MaxIdle, MaxIdlePerHost int
	// IdleTimeout is how long they wait, and some seconds more. 0: a minute and a half.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the header of an answer, with all 1xx that come before it, but for some KiB. 0: 1 MiB.
	MaxHeaderBytes int64

	mu     sync.Mutex
	idle   map[string][]*conn // by host:port; the last one was used last
	waited *list.List         // of all that are idle; the front one has waited longest
	timer  *time.Timer        // until the next sweep; nil: none is idle
}

const (
	defaultIdleTimeout    = 90 * time.Second
	defaultMaxHeaderBytes = 1 << 20
	// smallBody is what the kernel takes at once, with a header, also when nobody reads it. Of a request that has more, somebody must
	// read the answer meanwhile: it may come early, and be all that the server does.
	smallBody = 8 << 10
	// writtenWithin is how long after its answer a large request may take to be written, if its connection is to be used again.
	writtenWithin = 50 * time.Millisecond
	// sweepEvery is how long a connection that the server has closed may seem to be idle.
	sweepEvery = 2 * time.Second
)

var errHeaderTooLarge = errors.New("the header of the answer is too large")

// RoundTrip is as in [http.RoundTripper]. An error once the context has ended is its cause. A request that is not valid, or has
// trailers, is not sent.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" || strings.ContainsFunc(req.URL.Host, func(r rune) bool { return r >= 0x80 }) {
		if t.Other == nil {
			closeBody(req)
			return nil, fmt.Errorf("%s://%s: neither https nor hosts that are not ASCII are spoken to", req.URL.Scheme, req.URL.Host)
		}
		return t.Other.RoundTrip(req)
	}
	if err := check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	to := hostPort(req.URL)
	if c := t.take(to); c != nil {
		resp, err := c.roundTrip(req)
		if _, closed := errors.AsType[*unansweredError](err); !closed || !replayable(req) {
			return resp, err
		}
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.WithContext(req.Context()) // a copy: the caller's is not ours to change
			req.Body = body
		}
	}
	c, err := t.dial(req.Context(), to)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	return c.roundTrip(req)
}

// check finds what must not be sent: [http.Request.Write] would pass it on, or leave it out.
func check(req *http.Request) error {
	switch ctx := req.Context(); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case req.URL.Host == "":
		return errors.New("the URL has no host")
	case req.Method != "" && !isToken(req.Method):
		return errors.New("the method is not valid")
	case len(req.Trailer) > 0:
		return errors.New("trailers are not sent")
	}
	for name, values := range req.Header {
		if !isToken(name) || slices.ContainsFunc(values, isControlled) {
			return fmt.Errorf("the header %q is not valid", name)
		}
	}
	return nil
}

// isToken as RFC 9110, 5.6.2, has it.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isControlled: it has characters that no value of a header may have.
func isControlled(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// replayable as [http.Transport] has it: what the server may have done with the request is no matter, or it knows it again.
func replayable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return req.Header["Idempotency-Key"] != nil || req.Header["X-Idempotency-Key"] != nil
}

func hostPort(u *url.URL) string { return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")) }

// dial is a connection that nobody has used.
func (t *Transport) dial(ctx context.Context, to string) (*conn, error) {
	dial := t.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	dialed, err := dial(ctx, "tcp", to)
	if err != nil {
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			<-ctx.Done() // a dialer has a clock of its own
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	c := &conn{Conn: dialed, transport: t, to: to}
	c.in, c.out = bufio.NewReader(c), bufio.NewWriter(c)
	return c, nil
}

// take is the connection to that host that was used last, nil if there is none that is still good.
func (t *Transport) take(to string) *conn {
	for {
		t.mu.Lock()
		idle := t.idle[to]
		if len(idle) == 0 {
			t.mu.Unlock()
			return nil
		}
		c := idle[len(idle)-1]
		t.remove(c)
		t.mu.Unlock()
		if quiet(c.Conn) {
			return c
		}
		_ = c.Close()
	}
}

// give makes c idle.
func (t *Transport) give(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle == nil {
		t.idle, t.waited = map[string][]*conn{}, list.New()
	}
	if n := t.MaxIdlePerHost; n > 0 && len(t.idle[c.to]) >= n {
		t.drop(t.idle[c.to][0])
	}
	if n := t.MaxIdle; n > 0 && t.waited.Len() >= n {
		t.drop(t.waited.Front().Value.(*conn))
	}
	c.since, c.waits = time.Now(), t.waited.PushBack(c)
	t.idle[c.to] = append(t.idle[c.to], c)
	if t.timer == nil {
		t.timer = time.AfterFunc(t.sweepInterval(), t.sweep)
	}
}

func (t *Transport) idleTimeout() time.Duration   { return cmp.Or(t.IdleTimeout, defaultIdleTimeout) }
func (t *Transport) sweepInterval() time.Duration { return min(t.idleTimeout(), sweepEvery) }

// remove takes an idle connection out.
func (t *Transport) remove(c *conn) {
	t.waited.Remove(c.waits)
	idle := t.idle[c.to]
	at := len(idle) - 1
	if idle[at] != c {
		at = slices.Index(idle, c)
	}
	if idle = slices.Delete(idle, at, at+1); len(idle) == 0 {
		delete(t.idle, c.to)
		return
	}
	t.idle[c.to] = idle
}

// drop closes an idle connection.
func (t *Transport) drop(c *conn) {
	t.remove(c)
	_ = c.Close()
}

// sweep closes what has waited for too long, and of what has waited for a while what the server has closed.
func (t *Transport) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := t.waited.Front(); at != nil; {
		c := at.Value.(*conn)
		at = at.Next()
		waits := time.Since(c.since)
		if waits < t.sweepInterval() {
			break
		}
		if waits >= t.idleTimeout() || !quiet(c.Conn) {
			t.drop(c)
		}
	}
	if t.timer = nil; t.waited.Len() > 0 {
		t.timer = time.AfterFunc(t.sweepInterval(), t.sweep)
	}
}

// CloseIdleConnections closes the connections that wait for another request, of Other, too; not those that are in use.
func (t *Transport) CloseIdleConnections() {
	if t.Other != nil {
		t.Other.CloseIdleConnections()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, idle := range t.idle {
		for _, c := range idle {
			_ = c.Close()
		}
	}
	clear(t.idle)
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
		t.waited.Init()
	}
}

// conn is a connection. Its methods are for the goroutine whose request it belongs to.
type conn struct {
	net.Conn
	transport *Transport
	to        string
	in        *bufio.Reader // of conn
	out       *bufio.Writer // the same
	mayCome   int64         // bytes, before it is too much

	stop    func() bool // of watching the request's context
	writing chan error  // what comes of writing the request, which another goroutine does; nil: none does
	cut     atomic.Bool // the server takes no more
	last    bool        // it has said that it closes the connection
	since   time.Time   // it is idle
	waits   *list.Element
}

// Write writes to the server.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.cut.Store(true)
	}
	return n, err
}

// Read reads from the server.
func (c *conn) Read(p []byte) (int, error) {
	if c.mayCome <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := c.Conn.Read(p)
	c.mayCome -= int64(n)
	return n, err
}

// unansweredError: the connection failed before anything came.
type unansweredError struct{ error }

func (e *unansweredError) Unwrap() error { return e.error }

func (c *conn) roundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Err() != nil { // while it was dialed
		closeBody(req)
		_ = c.Close()
		return nil, context.Cause(ctx)
	}
	c.stop = context.AfterFunc(ctx, func() { _ = c.Close() })
	resp, err := c.exchange(req)
	if err != nil {
		c.stop()
		_ = c.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	c.last = resp.Close || resp.StatusCode == http.StatusSwitchingProtocols
	if resp.Body == http.NoBody {
		c.done(true)
		return resp, nil
	}
	resp.Body = &body{of: resp.Body, conn: c, ctx: ctx}
	return resp, nil
}

func (c *conn) exchange(req *http.Request) (*http.Response, error) {
	if size := req.ContentLength; size > smallBody || size <= 0 && req.Body != nil && req.Body != http.NoBody {
		c.writing = make(chan error, 1)
		go func() {
			err := c.write(req)
			c.writing <- err
			if err != nil && !c.cut.Load() {
				_ = c.Close() // there will be no answer
			}
		}()
	} else if err := c.write(req); err != nil && !c.cut.Load() { // else it may have answered before
		return nil, err
	}
	c.mayCome = cmp.Or(c.transport.MaxHeaderBytes, defaultMaxHeaderBytes)
	if _, err := c.in.Peek(1); err != nil {
		select {
		case wrote := <-c.writing:
			if wrote != nil && !c.cut.Load() {
				return nil, wrote
			}
		default:
		}
		return nil, &unansweredError{err}
	}
	for {
		resp, err := http.ReadResponse(c.in, req)
		switch {
		case err != nil && c.mayCome <= 0: // it may have taken what was cut off for a whole line
			return nil, errHeaderTooLarge
		case err != nil:
			return nil, err
		}
		if code := resp.StatusCode; code < 100 || code > 199 || code == http.StatusSwitchingProtocols {
			c.mayCome = math.MaxInt64
			return resp, nil
		}
	}
}

func (c *conn) write(req *http.Request) error {
	if err := req.Write(c.out); err != nil {
		return err
	}
	return c.out.Flush()
}

// done ends what c does for its request. read: the answer was read to its end.
func (c *conn) done(read bool) {
	if c.stop() && read && !c.last && !c.cut.Load() && c.written() && c.in.Buffered() == 0 {
		c.transport.give(c)
		return
	}
	_ = c.Close()
}

// written reports whether the request went out whole. It may have been answered before.
func (c *conn) written() bool {
	if c.writing == nil {
		return true
	}
	select {
	case err := <-c.writing:
		c.writing = nil
		return err == nil
	case <-time.After(writtenWithin):
		return false
	}
}

// body is that of an answer.
type body struct {
	of    io.ReadCloser
	conn  *conn // nil: closed
	ctx   context.Context
	ended bool
}

// Read is as in [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	if b.conn == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.of.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.ended = true
	case err != nil && b.ctx.Err() != nil:
		err = context.Cause(b.ctx)
	}
	return n, err
}

// Close is as in [io.Closer]. What is left of the body is not read.
func (b *body) Close() error {
	if b.conn != nil {
		b.conn.done(b.ended)
		b.conn = nil
	}
	return nil
}
