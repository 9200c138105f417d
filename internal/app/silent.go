package app

import (
	"net"
	"net/http"
	"sync"
)

// silent are the connections on which nothing has come yet. A server that stops closes idle connections at once, but waits five
// seconds for these.
type silent struct {
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	stopping bool
}

// closeWith has server close them when it stops.
func (s *silent) closeWith(server *http.Server) {
	s.conns = map[net.Conn]struct{}{}
	server.ConnState = s.track
	server.RegisterOnShutdown(s.close)
}

func (s *silent) track(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.conns, c)
	case s.stopping: // it was accepted just before
		_ = c.Close()
	default:
		s.conns[c] = struct{}{}
	}
}

func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for c := range s.conns {
		_ = c.Close() // as if its client had come too late
	}
}
