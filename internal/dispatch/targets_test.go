//go:build unix

package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"taskrunner/internal/task"
)

// What a request gets to is what the table says, in the eyes of those who listen there. Names are looked up and
// connections made as in operation; only that each connection is turned, once the guard has let it pass, to a listener
// that stands for the inside or for the outside.
func TestTargetsWhenDialing(t *testing.T) {
	t.Parallel()
	targets := readTargets(t)
	if len(targets) < 200 {
		t.Fatalf("%d targets", len(targets))
	}
	inside, outside := newPlace(t), newPlace(t)
	for i := range targets {
		checkDials(t, &targets[i], inside, outside)
	}
	// Connections are accepted in their order: when this one is there, no other is on its way.
	if resp, err := http.Get("http://" + inside.addr.String()); err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	if n := inside.connections.Load(); n != 1 {
		t.Errorf("the inside saw %d connections", n-1)
	}
}

func checkDials(t *testing.T, c *target, inside, outside *place) {
	t.Helper()
	o := Options{Guard: newGuard(t, c.networks...), HostURL: "http://runner"}
	o.fill()
	dialer := newDialer(&o)
	dns := serveDNS(t, nameOf(c.host), c.lookUps)
	dialer.Resolver = dns.resolver()
	var asked atomic.Int32
	guard := dialer.Control
	dialer.Control = func(network, address string, conn syscall.RawConn) error {
		asked.Add(1)
		if err := guard(network, address, conn); err != nil {
			return err
		}
		addr := netip.MustParseAddrPort(address).Addr().WithZone("").Unmap()
		forbidden, known := c.inside[addr]
		if forbidden || !known {
			t.Errorf("%v: %s: %v was let in", c.networks, c.host, addr)
			return turn(conn, network, inside.addr)
		}
		return turn(conn, network, outside.addr)
	}
	transport := newTransport(&o, dialer)
	s := &sender{transport: transport, timeout: o.Timeout, random: rand.Uint64, handle: "h"}
	for i, want := range c.dials {
		seen, seenInside, before := outside.requests.Load(), inside.connections.Load(), asked.Load()
		a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Post", URL: "http://" + c.host + "/"}})
		transport.CloseIdleConnections()
		got := "refused"
		switch {
		case inside.connections.Load() != seenInside:
			got = "inside"
		case outside.requests.Load() != seen:
			got = "reached"
		case asked.Load() == before:
			got = "unresolved"
		}
		if got != want {
			t.Errorf("%v: %s, look-up %d: %s, want %s (%s)", c.networks, c.host, i+1, got, want, a.text)
		}
		if got == "refused" && !refused(a.err) {
			t.Errorf("%v: %s, look-up %d: %v", c.networks, c.host, i+1, a.err)
		}
		if want == "unresolved" && len(c.lookUps[i]) > 0 {
			again := *c
			again.host, again.lookUps, again.dials = "other-resolver.test", c.lookUps[i:i+1], []string{"refused"}
			if !slices.ContainsFunc(c.lookUps[i], func(addr netip.Addr) bool { return c.inside[addr.Unmap()] }) {
				again.dials[0] = "reached"
			}
			checkDials(t, &again, inside, outside)
		}
	}
}

// place is a listener that counts.
type place struct {
	addr                  netip.AddrPort
	connections, requests atomic.Int32
}

func newPlace(t testing.TB) *place {
	t.Helper()
	p := &place{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { p.requests.Add(1) }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	p.addr = netip.MustParseAddrPort(server.Listener.Addr().String())
	return p
}

// turn connects a socket that is about to be connected elsewhere, which then finds that it is connected.
func turn(conn syscall.RawConn, network string, to netip.AddrPort) error {
	var sa syscall.Sockaddr = &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	if strings.HasSuffix(network, "6") {
		sa = &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	var connected error
	err := conn.Control(func(fd uintptr) { connected = syscall.Connect(int(fd), sa) })
	if errors.Is(connected, syscall.EINPROGRESS) {
		connected = nil
	}
	return errors.Join(err, connected)
}

// nameOf is what a resolver is asked for.
func nameOf(host string) string {
	if host == "bücher.example" {
		return "xn--bcher-kva.example"
	}
	if host == "０ｘ７ｆ.1" {
		return "0x7f.1"
	}
	return strings.ToLower(strings.TrimRight(host, "."))
}

// dnsServer is a server that knows one name, whose addresses change with each look-up.
type dnsServer struct {
	conn    net.PacketConn
	name    string
	lookUps [][]netip.Addr
	silent  bool

	mu    sync.Mutex
	asked map[uint16]int // by type
}

const typeA, typeAAAA = 1, 28

func serveDNS(t testing.TB, name string, lookUps [][]netip.Addr) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{conn: conn, name: name, lookUps: lookUps, asked: map[uint16]int{}}
	var serving sync.WaitGroup
	serving.Go(s.serve)
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return s
}

// resolver asks s alone.
func (s *dnsServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", s.conn.LocalAddr().String())
	}}
}

func (s *dnsServer) serve() {
	query := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(query)
		if err != nil {
			return
		}
		if answer := s.answer(query[:n]); answer != nil {
			_, _ = s.conn.WriteTo(answer, from) // who does not hear it asks again
		}
	}
}

// answer is that of RFC 1035, section 4, to a query with one question; nil: there is none.
func (s *dnsServer) answer(query []byte) []byte {
	const header = 12
	var labels []string
	end := header
	for query[end] != 0 {
		next := end + 1 + int(query[end])
		labels = append(labels, string(query[end+1:next]))
		end = next
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	end += 5
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent {
		s.asked[kind]++
		return nil
	}
	out := append(slices.Clone(query[:2]), 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	out = append(out, query[header:end]...)
	if strings.ToLower(strings.Join(labels, ".")) != s.name || len(s.lookUps[0]) == 0 {
		out[3] |= 3 // no such name
		return out
	}
	addrs := s.lookUps[min(s.asked[kind], len(s.lookUps)-1)]
	s.asked[kind]++
	for _, addr := range addrs {
		if addr.Is4() == (kind == typeA) && (kind == typeA || kind == typeAAAA) {
			raw := addr.AsSlice()
			out = append(out, 0xc0, header, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(raw)))
			out = append(out, raw...)
			out[7]++
		}
	}
	return out
}

// A name server that never answers costs no more than a connection that does not come about.
func TestSilentNameServer(t *testing.T) {
	t.Parallel()
	o := Options{HostURL: "http://runner", Timeout: time.Hour}
	o.fill()
	dialer := newDialer(&o)
	if dialer.Timeout != connectTimeout {
		t.Fatalf("a connection may take %v", dialer.Timeout)
	}
	dns := serveDNS(t, "", nil)
	dns.mu.Lock()
	dns.silent = true
	dns.mu.Unlock()
	dialer.Resolver, dialer.Timeout = dns.resolver(), 200*time.Millisecond
	s := &sender{transport: newTransport(&o, dialer), timeout: o.Timeout, random: rand.Uint64, handle: "h"}
	a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Post", URL: "http://silent.test/"}})
	if a.err == nil || Classify(a.status, a.err) != Retry || a.text == "" {
		t.Errorf("%+v", a)
	}
	dns.mu.Lock()
	defer dns.mu.Unlock()
	if n := dns.asked[typeA]; n != 1 { // by itself the resolver asks again after 5 s
		t.Errorf("asked %d times", n)
	}
}
