package dispatch

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func newGuard(t testing.TB, networks ...string) *Guard {
	t.Helper()
	g, err := NewGuard(GuardOptions{Networks: networks})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// target is a line of testdata/targets.txt, which says what the columns are.
type target struct {
	networks []string
	host     string
	lookUps  [][]netip.Addr
	inside   map[netip.Addr]bool // for all of its addresses; true: must not be connected to
	dials    []string
	submit   string
}

func readTargets(t testing.TB) []target {
	t.Helper()
	file, err := os.Open("testdata/targets.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var targets []target
	var networks []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		columns := strings.Split(line, "|")
		for i := range columns {
			columns[i] = strings.TrimSpace(columns[i])
		}
		if len(columns) == 1 { // a host in brackets has others beside it
			networks = strings.Fields(strings.Trim(columns[0], "[]"))
			continue
		}
		if len(columns) != 4 {
			t.Fatalf("not four columns: %s", line)
		}
		c := target{networks: networks, host: columns[0], inside: map[netip.Addr]bool{}, dials: strings.Fields(columns[2]), submit: columns[3]}
		for lookUp := range strings.SplitSeq(columns[1], "/") {
			var addrs []netip.Addr
			for _, text := range strings.Fields(lookUp) {
				text, inside := strings.CutPrefix(text, "!")
				addr := netip.MustParseAddr(text)
				c.inside[addr.Unmap()] = inside
				addrs = append(addrs, addr)
			}
			c.lookUps = append(c.lookUps, addrs)
		}
		if len(c.dials) != len(c.lookUps) {
			t.Fatalf("%d dials of %d look-ups: %s", len(c.dials), len(c.lookUps), line)
		}
		targets = append(targets, c)
	}
	return targets
}

// What is refused at submit is what the table says, and names the setting.
func TestTargetsAtSubmit(t *testing.T) {
	t.Parallel()
	open := newGuard(t, "any")
	for _, c := range readTargets(t) {
		g := newGuard(t, c.networks...)
		for _, raw := range []string{"http://" + c.host + "/a", "https://user:secret@" + c.host + ":8443?q=secret"} {
			err := g.CheckURL(raw)
			switch {
			case c.submit == "ok" && err != nil:
				t.Errorf("%v: %s: %v", c.networks, raw, err)
			case c.submit == "ok":
			case err == nil:
				t.Errorf("%v: %s: not refused, want %q", c.networks, raw, c.submit)
			case !strings.Contains(err.Error(), c.submit), !strings.Contains(err.Error(), "WEBHOOK_ALLOWED_NETWORKS"),
				strings.Contains(err.Error(), "secret"):
				t.Errorf("%v: %s: %v, want %q", c.networks, raw, err, c.submit)
			}
			if err := open.CheckURL(raw); err != nil {
				t.Errorf("%s: %v with any", raw, err)
			}
		}
	}
}

func TestGuardCheckURLWithoutHost(t *testing.T) {
	t.Parallel()
	g := newGuard(t)
	for _, raw := range []string{"http://%zz", "/path", "http://", "http://."} {
		if g.CheckURL(raw) == nil {
			t.Errorf("%q: no error", raw)
		}
	}
}

func TestGuardControlTakesAddresses(t *testing.T) {
	t.Parallel()
	if newGuard(t).Control("tcp", "example.com:80", nil) == nil {
		t.Error("a name must not be dialed")
	}
}

func TestGuardAllows(t *testing.T) {
	t.Parallel()
	tests := []struct {
		networks        string
		allow, notAllow string
	}{
		{"loopback", "127.0.0.1 127.9.9.9 localhost a.localhost [::1] [::ffff:127.0.0.1] 127.1", "0.0.0.0 10.0.0.1 [::] 169.254.169.254"},
		{"private", "10.0.0.1 172.16.0.1 192.168.0.1 [fd12::1] [::ffff:10.0.0.1] [64:ff9b::a00:1]",
			"127.0.0.1 localhost 169.254.169.254 169.254.0.1 [fd00:ec2::254] [fe80::1] 168.63.129.16 100.64.0.1 100.100.100.200"},
		{" Private , loopback,", "10.0.0.1 127.0.0.1 8.8.8.8", "169.254.169.254"},
		{"10.1.2.3/16", "10.1.0.0 10.1.255.255 167837955 [::ffff:10.1.0.1] [64:ff9b::a01:1]", "10.2.0.0 127.0.0.1"},
		{"127.0.0.1", "127.0.0.1 localhost", "127.0.0.2 [::1]"},
		{"::1", "[::1] localhost", "127.0.0.1"},
		{"::ffff:10.0.0.0/104", "10.0.0.1 [::ffff:10.0.0.1]", "192.168.0.1"},
		{"fe80::/10", "[fe80::1%25eth0]", "169.254.0.1"},
		{"169.254.0.0/16", "169.254.169.254 169.254.0.1", "10.0.0.1"}, // who says so means it
		{"64:ff9b::/96", "[64:ff9b::7f00:1]", "127.0.0.1"},
		{"any", "127.0.0.1 169.254.169.254 [fd00:ec2::254] 0.0.0.0 localhost", ""},
	}
	for _, c := range tests {
		g := newGuard(t, strings.Split(c.networks, ",")...)
		for _, host := range strings.Fields(c.allow) {
			if err := g.CheckURL("http://" + host + "/"); err != nil {
				t.Errorf("%s: %s: %v", c.networks, host, err)
			}
		}
		for _, host := range strings.Fields(c.notAllow) {
			if g.CheckURL("http://"+host+"/") == nil {
				t.Errorf("%s: %s is not refused", c.networks, host)
			}
		}
	}
}

func TestNewGuardNamesBadEntry(t *testing.T) {
	t.Parallel()
	for _, entry := range []string{"privat", "10.0.0.0/33", "10.0.0", "fe80::1%eth0", "example.com", "http://10.0.0.1"} {
		_, err := NewGuard(GuardOptions{Networks: []string{"loopback", entry}})
		if err == nil || !strings.Contains(err.Error(), `"`+entry+`"`) {
			t.Errorf("%s: %v", entry, err)
		}
	}
}

func TestGuardString(t *testing.T) {
	t.Parallel()
	const usual = "; every port but 19-23, 25, 53, 110, 119, 143, 465, 512-514, 587, 993, 995, 6379, 6660-6669, 6697, 11211"
	for want, o := range map[string]GuardOptions{
		"public addresses only" + usual:                     {},
		"any address" + usual:                               {Networks: []string{"private", "any"}},
		"public addresses and loopback, 10.0.0.0/8" + usual: {Networks: []string{"Loopback", " 10.0.0.0/8"}},
		"public addresses only; port 443, 8000-8999":        {Ports: []PortRange{{443, 443}, {8000, 8999}}},
	} {
		g, err := NewGuard(o)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Ports are judged at submit and when dialing, whatever the address.
func TestGuardPorts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ports           []PortRange
		allow, notAllow []string
	}{
		{nil,
			[]string{"http://h/", "https://h/", "http://h:18/", "http://h:24", "http://h:80", "http://h:6378", "http://h:8080", "http://h:65535/"},
			[]string{"http://h:19", "http://h:22/", "http://h:25", "https://h:25", "http://h:6379", "http://[2606:4700:4700::1111]:11211/"}},
		{[]PortRange{{443, 443}, {8000, 8002}},
			[]string{"https://h/", "http://h:443", "http://h:8000", "http://h:8001", "http://h:8002"},
			[]string{"http://h/", "https://h:80/", "http://h:7999", "http://h:8003", "http://h:442"}},
		{[]PortRange{{1, 65535}}, []string{"http://h:22", "http://h:1", "http://h:65535"}, nil},
		{[]PortRange{{80, 80}}, []string{"http://h", "http://h:", "http://h:080"}, []string{"https://h", "https://h:"}},
	} {
		for _, networks := range [][]string{nil, {"any"}} {
			g, err := NewGuard(GuardOptions{Networks: networks, Ports: c.ports})
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range c.allow {
				if err := g.CheckURL(raw); err != nil {
					t.Errorf("%v: %s: %v", c.ports, raw, err)
				}
			}
			for _, raw := range c.notAllow {
				if err := g.CheckURL(raw); err == nil || !strings.Contains(err.Error(), "WEBHOOK_ALLOWED_PORTS") {
					t.Errorf("%v: %s: %v", c.ports, raw, err)
				}
			}
		}
	}
	g, err := NewGuard(GuardOptions{Ports: []PortRange{{80, 80}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Control("tcp4", "8.8.8.8:80", nil); err != nil {
		t.Error(err)
	}
	if err := g.Control("tcp4", "8.8.8.8:81", nil); err == nil || !refused(err) || err.Error() != "port 81 is not one that WEBHOOK_ALLOWED_PORTS lets in" {
		t.Error(err)
	}
}

func FuzzGuardCheckURL(f *testing.F) {
	for _, c := range readTargets(f) {
		f.Add("http://" + c.host + "/")
	}
	g := newGuard(f)
	f.Fuzz(func(t *testing.T, raw string) {
		_ = g.CheckURL(raw)
	})
}
