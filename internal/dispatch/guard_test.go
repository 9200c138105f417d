package dispatch

import (
	"net/netip"
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

// spellings are hosts as they stand in a URL; "" is allowed by default, else a part of the refusal.
var spellings = []struct{ host, refused string }{
	{"example.com", ""},
	{"example.com.", ""},
	{"localhost.example.com", ""},
	{"notlocalhost", ""},
	{"8.8.8.8", ""},
	{"8.8.8.8.", ""},
	{"1.1.1.1", ""},
	{"9.255.255.255", ""},
	{"11.0.0.0", ""},
	{"100.63.255.255", ""},
	{"100.128.0.0", ""},
	{"126.255.255.255", ""},
	{"128.0.0.1", ""},
	{"168.63.129.15", ""},
	{"169.253.255.255", ""},
	{"172.15.255.255", ""},
	{"172.32.0.0", ""},
	{"192.167.255.255", ""},
	{"192.169.0.0", ""},
	{"198.17.255.255", ""},
	{"198.20.0.0", ""},
	{"223.255.255.255", ""},
	{"134744072", ""}, // 8.8.8.8
	{"[2606:4700:4700::1111]", ""},
	{"[::ffff:8.8.8.8]", ""},
	{"[64:ff9b::808:808]", ""},
	{"256.1.1.1", ""}, // no address: a name that does not resolve
	{"1.2.3.4.5", ""},
	{"0x", ""},
	{"metadata.example.com", ""},
	{"bücher.example", ""},
	{"[2606:4700:4700::200:5efe:808:808]", ""}, // ISATAP

	{"localhost", "localhost means 127.0.0.1, and that is a loopback address"},
	{"LocalHost", "loopback"},
	{"localhost.", "loopback"},
	{"api.localhost", "loopback"},
	{"127.0.0.1", "loopback"},
	{"127.0.0.1.", "loopback"},
	{"127.255.255.254", "loopback"},
	{"127.1", "127.1 means 127.0.0.1, and that is a loopback address"},
	{"127.0.1", "loopback"},
	{"0x7f.1", "loopback"},
	{"0X7F.0.0.1", "loopback"},
	{"0x7f000001", "loopback"},
	{"2130706433", "loopback"},
	{"017700000001", "loopback"},
	{"0177.0.0.1", "loopback"},
	{"0127.0.0.1", "loopback"}, // for those who read it as decimal
	{"012.0.0.1", "private"},   // octal 10
	{"010.0.0.1", "private"},   // decimal 10
	{"0", "unspecified"},
	{"0.0.0.0", "unspecified"},
	{"0.1.2.3", "reserved"},
	{"10.0.0.1", "private"},
	{"10.1", "private"},
	{"167772161", "private"},
	{"172.16.0.1", "private"},
	{"172.31.255.255", "private"},
	{"192.168.1.1", "private"},
	{"192.168.257", "private"},
	{"100.64.0.1", "carrier-grade NAT"},
	{"100.127.255.255", "carrier-grade NAT"},
	{"100.100.100.200", "metadata"},
	{"169.254.169.254", "metadata"},
	{"169.254.170.2", "metadata"},
	{"0xa9fea9fe", "metadata"},
	{"2852039166", "metadata"},
	{"168.63.129.16", "metadata"},
	{"192.0.0.192", "metadata"},
	{"169.254.0.1", "link-local"},
	{"192.0.0.1", "reserved"},
	{"192.0.2.1", "reserved"},
	{"192.88.99.1", "reserved"},
	{"198.18.0.1", "reserved"},
	{"198.19.255.255", "reserved"},
	{"198.51.100.7", "reserved"},
	{"203.0.113.7", "reserved"},
	{"224.0.0.1", "multicast"},
	{"239.255.255.255", "multicast"},
	{"240.0.0.1", "reserved"},
	{"255.255.255.255", "reserved"},
	{"[::1]", "loopback"},
	{"[0:0:0:0:0:0:0:1]", "loopback"},
	{"[::1%25lo]", "loopback"},
	{"[::]", "unspecified"},
	{"[::7f00:1]", "reserved"}, // IPv4-compatible
	{"[::ffff:127.0.0.1]", "loopback"},
	{"[::ffff:7f00:1]", "loopback"},
	{"[::ffff:10.0.0.1]", "private"},
	{"[::ffff:169.254.169.254]", "metadata"},
	{"[::ffff:0:7f00:1]", "reserved"}, // IPv4-translated
	{"[64:ff9b::7f00:1]", "loopback"},
	{"[64:ff9b::a9fe:a9fe]", "metadata"},
	{"[64:ff9b:1::a00:1]", "reserved"},
	{"[2002:7f00:1::]", "reserved"},
	{"[2001:0:4136:e378:8000:63bf:80ff:fffe]", "reserved"}, // Teredo
	{"[2001:db8::1]", "reserved"},
	{"[3fff::1]", "reserved"},
	{"[fe80::1]", "link-local"},
	{"[fe80::1%25eth0]", "link-local"},
	{"[febf::1]", "link-local"},
	{"[fec0::1]", "reserved"},
	{"[fc00::1]", "private"},
	{"[fdff::1]", "private"},
	{"[fd00:ec2::254]", "metadata"},
	{"[fd20:ce::254]", "metadata"},
	{"[ff02::1]", "multicast"},
	{"[100::1]", "reserved"},
	{"[2606:4700:4700::5efe:7f00:1]", "loopback"}, // ISATAP
	{"[2606:4700:4700::200:5efe:a9fe:a9fe]", "metadata"},
	{"１２７.0.0.1", "１２７.0.0.1 means 127.0.0.1, and that is a loopback address"}, // fullwidth
	{"127。0。0｡1", "loopback"},
	{"①②⑦.0.0.1", "loopback"},
	{"𝟏𝟐𝟕.0.0.1", "loopback"},
	{"127.0.0.１。", "loopback"},
	{"%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1", "loopback"},
	{"０ｘ７ｆ.1", "loopback"},
	{"２１３０７０６４３３", "loopback"},
	{"127­.0.0.1", "loopback"}, // a soft hyphen
	{"ｌｏｃａｌｈｏｓｔ", "loopback"},
	{"ⓁOCALHOST", "loopback"},
	{"169.254.169.²54", "metadata"},
	{"localhost.localdomain", "loopback"},
	{"ip6-localhost", "loopback"},
	{"Metadata.Google.internal.", "metadata"},
	{"metadata.goog", "metadata"},
	{"instance-data.ec2.internal", "metadata"},
	{"metadata.tencentyun.com", "link-local"},
	{"[5f00::1]", "reserved"},
}

func TestGuardCheckURL(t *testing.T) {
	t.Parallel()
	g := newGuard(t)
	open := newGuard(t, "any")
	for _, c := range spellings {
		for _, raw := range []string{"http://" + c.host + "/a", "https://user:secret@" + c.host + ":8443?q=secret"} {
			err := g.CheckURL(raw)
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("%s: %v", raw, err)
			case c.refused != "" && err == nil:
				t.Errorf("%s: not refused, want %q", raw, c.refused)
			case c.refused == "":
			case !strings.Contains(err.Error(), c.refused), !strings.Contains(err.Error(), "WEBHOOK_ALLOWED_NETWORKS"),
				strings.Contains(err.Error(), "secret"):
				t.Errorf("%s: %v, want %q", raw, err, c.refused)
			}
			if err := open.CheckURL(raw); err != nil {
				t.Errorf("%s: %v with any", raw, err)
			}
		}
	}
	for _, raw := range []string{"http://%zz", "/path", "http://", "http://."} {
		if g.CheckURL(raw) == nil {
			t.Errorf("%q: no error", raw)
		}
	}
}

// What is refused by its spelling is refused when it is dialed, and the other way round.
func TestGuardControlAgrees(t *testing.T) {
	t.Parallel()
	g := newGuard(t)
	for _, c := range spellings {
		addr, err := netip.ParseAddr(strings.Trim(strings.ReplaceAll(c.host, "%25", "%"), "[]"))
		if err != nil {
			continue
		}
		err = g.Control("tcp", netip.AddrPortFrom(addr, 80).String(), nil)
		if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%v: %v, want %q", addr, err, c.refused)
		}
	}
	if g.Control("tcp", "example.com:80", nil) == nil {
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
	for _, c := range spellings {
		f.Add("http://" + c.host + "/")
	}
	g := newGuard(f)
	f.Fuzz(func(t *testing.T, raw string) {
		_ = g.CheckURL(raw)
	})
}
