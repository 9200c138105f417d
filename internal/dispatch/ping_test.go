package dispatch

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/task"
)

// pipes is a listener whose connections are in memory, and which may die in silence.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	mu     sync.Mutex
	all    []*silent
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	c := &silent{Conn: near, gone: make(chan struct{}), closed: make(chan struct{})}
	p.mu.Lock()
	p.all = append(p.all, c)
	p.mu.Unlock()
	select {
	case p.conns <- far:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) dialed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// silent is a connection whose other end may be gone without a word: what is written gets lost, and nothing comes.
type silent struct {
	net.Conn
	gone, closed chan struct{}
	once         sync.Once
}

func (c *silent) Write(b []byte) (int, error) {
	select {
	case <-c.gone:
		return len(b), nil
	default:
		return c.Conn.Write(b)
	}
}

func (c *silent) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.gone:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *silent) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A connection that has died in silence times out the requests that are on it, but none that comes after it was missed.
func TestSilentConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := &http.Server{
			Handler:  http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
			ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols),
		}
		server.Protocols.SetUnencryptedHTTP2(true)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.Serve(p)
		}()
		o := Options{HostURL: "http://runner", Timeout: 20 * time.Second}
		o.fill()
		transport := newOtherTransport(&o, newDialer(&o))
		transport.DialContext = p.dial
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
		s := &sender{transport: transport, timeout: o.Timeout, random: o.Rand, handle: "h"}
		send := func() answer {
			return s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Get", URL: "http://receiver/"}})
		}
		for range 2 {
			if a := send(); a.status != 200 || p.dialed() != 1 {
				t.Fatalf("%+v, %d connections", a, p.dialed())
			}
		}
		close(p.all[0].gone)
		if a := send(); a.status != 0 || a.took > 2*connectTimeout {
			t.Errorf("on the connection that is gone: %+v", a)
		}
		if a := send(); a.status != 200 || p.dialed() != 2 {
			t.Errorf("afterwards: %+v, %d connections", a, p.dialed())
		}
		transport.CloseIdleConnections()
		_ = server.Close()
		<-ended
	})
}
