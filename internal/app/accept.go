package app

import (
	"errors"
	"log/slog"
	"net"
	"time"
)

// acceptLogEvery is how often at most a failure to accept is logged: at the bound of file descriptors, every other one fails.
const acceptLogEvery = time.Minute

// accepting logs that connections cannot be accepted: out of file descriptors, for one, nothing else would say so. What clients do
// wrong is in the server's own log, for debugging.
type accepting struct {
	net.Listener
	log    *slog.Logger
	logged time.Time // by Accept, which one goroutine calls
}

// Accept is as in [net.Listener].
func (a *accepting) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) && time.Since(a.logged) >= acceptLogEvery {
		a.logged = time.Now()
		a.log.Error("accept connections: failing, will go on trying", "error", err)
	}
	return c, err
}
