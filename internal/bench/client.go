package bench

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// client sends requests over connections that it keeps. Whoever calls it writes the request and reads the answer himself: an
// [http.Transport] hands both to goroutines of the connection, which costs as much as everything else that it does. The zero
// value is ready. Safe for concurrent use.
type client struct {
	mu   sync.Mutex
	idle map[origin][]*connection // in the order in which they were last used
}

// origin is what of a URL says where connections lead.
type origin struct{ scheme, host string }

type connection struct {
	net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	used time.Time
}

// answer is a response that has been read to its end.
type answer struct {
	code   int
	status string
	header http.Header
	body   []byte
}

// maxIdle is how long a connection may wait for its next request. Servers wait for longer, so it is not closed on the way.
const maxIdle = 10 * time.Second

// exchange sends req and reads the answer to its end.
func (c *client) exchange(req *http.Request) (answer, error) {
	ctx := req.Context()
	conn, err := c.take(ctx, req.URL)
	if err != nil {
		return answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	a, last, err := conn.exchange(req)
	if stop() && err == nil && !last {
		c.give(req.URL, conn)
		return a, nil
	}
	_ = conn.Close()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return a, err
}

// exchange also reports whether the server closes the connection.
func (c *connection) exchange(req *http.Request) (a answer, last bool, err error) {
	if err := req.Write(c.out); err != nil {
		return a, false, err
	}
	if err := c.out.Flush(); err != nil {
		return a, false, err
	}
	resp, err := http.ReadResponse(c.in, req)
	if err != nil {
		return a, false, err
	}
	defer func() { _ = resp.Body.Close() }() // read whole
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Status, resp.Header, body}, resp.Close, err
}

// take is the connection that was used last, or a new one.
func (c *client) take(ctx context.Context, to *url.URL) (*connection, error) {
	at := origin{to.Scheme, to.Host}
	c.mu.Lock()
	idle := c.idle[at]
	var last *connection
	if n := len(idle); n > 0 {
		last, c.idle[at] = idle[n-1], idle[:n-1]
	}
	c.mu.Unlock()
	if last != nil && time.Since(last.used) < maxIdle {
		return last, nil
	}
	if last != nil {
		_ = last.Close() // those before it are older still
	}
	conn, err := dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, in: bufio.NewReader(conn), out: bufio.NewWriter(conn)}, nil
}

func dial(ctx context.Context, to *url.URL) (net.Conn, error) {
	if to.Scheme == "https" {
		return (&tls.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(to.Hostname(), cmp.Or(to.Port(), "443")))
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(to.Hostname(), cmp.Or(to.Port(), "80")))
}

func (c *client) give(to *url.URL, conn *connection) {
	at := origin{to.Scheme, to.Host}
	conn.used = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		c.idle = map[origin][]*connection{}
	}
	c.idle[at] = append(c.idle[at], conn)
}

// closeIdle closes the connections that nobody uses.
func (c *client) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, idle := range c.idle {
		for _, conn := range idle {
			_ = conn.Close()
		}
	}
	clear(c.idle)
}
