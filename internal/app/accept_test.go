package app

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// answers gives one answer to Accept after the other, ten seconds apart.
type answers struct {
	net.Listener
	errs []error
}

func (a *answers) Accept() (net.Conn, error) {
	time.Sleep(10 * time.Second)
	err := a.errs[0]
	a.errs = a.errs[1:]
	return nil, err
}

// Failures are logged once a minute, and the end of a listener is none.
func TestFailingAcceptsAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		none := &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
		errs := []error{nil, none, none, nil, none, none, nil, none, none, nil, nil, nil, nil, nil, net.ErrClosed}
		a := &accepting{Listener: &answers{errs: errs}, log: slog.New(slog.NewTextHandler(&log, nil))}
		for range errs {
			_, _ = a.Accept()
		}
		const line = `level=ERROR msg="accept connections: failing, will go on trying" error="accept tcp: too many open files"`
		if got := log.String(); strings.Count(got, "\n") != 2 || strings.Count(got, line) != 2 {
			t.Errorf("logged\n%s", got)
		}
	})
}
