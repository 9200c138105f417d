package app

import (
	"net"
	"net/netip"
	"testing"

	"taskrunner/internal/config"
)

// at is a listener of which only the address matters.
type at struct {
	net.Listener
	addr net.Addr
}

func (l at) Addr() net.Addr { return l.addr }

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		address, token string
		want           bool
	}{
		{"0.0.0.0:8085", "", true},
		{"[::]:8085", "", true},
		{"192.0.2.1:8085", "", true},
		{"127.0.0.1:8085", "", false},
		{"[::1]:8085", "", false},
		{"0.0.0.0:8085", "0123456789abcdef", false},
		{"127.0.0.1:8085", "0123456789abcdef", false},
	} {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.address))
		a := &App{config: &config.Config{AuthToken: c.token}, listener: at{addr: addr}}
		if got := a.Open(); got != c.want {
			t.Errorf("%s with token %q: %v", c.address, c.token, got)
		}
	}
}
