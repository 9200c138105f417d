package dispatch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// class is a sort of address that is refused.
type class string

const (
	loopback    class = "loopback"
	private     class = "private"
	metadata    class = "cloud metadata"
	linkLocal   class = "link-local"
	unspecified class = "unspecified"
	multicast   class = "multicast"
	shared      class = "carrier-grade NAT"
	reserved    class = "reserved"
)

// special lists what is not public. The first entry that contains an address names its class.
// The IANA special-purpose registries for IPv4 and IPv6, and the addresses at which clouds hand out credentials.
var special = []struct {
	network netip.Prefix
	class   class
}{
	{netip.MustParsePrefix("169.254.169.254/32"), metadata}, // AWS, Azure, Google, Oracle and others
	{netip.MustParsePrefix("169.254.170.2/32"), metadata},   // AWS ECS
	{netip.MustParsePrefix("169.254.170.23/32"), metadata},  // AWS EKS
	{netip.MustParsePrefix("168.63.129.16/32"), metadata},   // Azure
	{netip.MustParsePrefix("100.100.100.200/32"), metadata}, // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), metadata},     // Oracle
	{netip.MustParsePrefix("fd00:ec2::/32"), metadata},      // AWS
	{netip.MustParsePrefix("fd20:ce::254/128"), metadata},   // Google
	{netip.MustParsePrefix("fd00:42::42/128"), metadata},    // Scaleway
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), metadata},

	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("0.0.0.0/32"), unspecified},
	{netip.MustParsePrefix("0.0.0.0/8"), reserved},
	{netip.MustParsePrefix("10.0.0.0/8"), private},
	{netip.MustParsePrefix("172.16.0.0/12"), private},
	{netip.MustParsePrefix("192.168.0.0/16"), private},
	{netip.MustParsePrefix("100.64.0.0/10"), shared},
	{netip.MustParsePrefix("169.254.0.0/16"), linkLocal},
	{netip.MustParsePrefix("192.0.0.0/24"), reserved},
	{netip.MustParsePrefix("192.0.2.0/24"), reserved},
	{netip.MustParsePrefix("192.88.99.0/24"), reserved},
	{netip.MustParsePrefix("198.18.0.0/15"), reserved},
	{netip.MustParsePrefix("198.51.100.0/24"), reserved},
	{netip.MustParsePrefix("203.0.113.0/24"), reserved},
	{netip.MustParsePrefix("224.0.0.0/4"), multicast},
	{netip.MustParsePrefix("240.0.0.0/4"), reserved},

	{netip.MustParsePrefix("::1/128"), loopback},
	{netip.MustParsePrefix("::/128"), unspecified},
	{netip.MustParsePrefix("fc00::/7"), private},
	{netip.MustParsePrefix("fe80::/10"), linkLocal},
	{netip.MustParsePrefix("ff00::/8"), multicast},
	{netip.MustParsePrefix("2001::/23"), reserved}, // Teredo and other protocols
	{netip.MustParsePrefix("2001:db8::/32"), reserved},
	{netip.MustParsePrefix("2002::/16"), reserved}, // 6to4, which leads to any IPv4 address
	{netip.MustParsePrefix("3fff::/20"), reserved},
}

var (
	// globalUnicast holds all public IPv6 addresses; whatever lies outside is refused, so what stands for an IPv4 address
	// in an old way (::a.b.c.d, ::ffff:0:a.b.c.d) or in one of the network's own (64:ff9b:1::/48), too.
	globalUnicast = netip.MustParsePrefix("2000::/3")
	// nat64 stands for the IPv4 address in its last four bytes.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

// reached are the addresses that a packet to addr may get to: addr, or the IPv4 address that is in it, or both.
func reached(addr netip.Addr) []netip.Addr {
	if addr.Is4() {
		return []netip.Addr{addr}
	}
	b := addr.As16()
	inside := netip.AddrFrom4([4]byte(b[12:]))
	switch {
	case nat64.Contains(addr):
		return []netip.Addr{inside}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214, in any network
		return []netip.Addr{addr, inside}
	}
	return []netip.Addr{addr}
}

var (
	thisMachine = []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	// knownNames stand for addresses of a class wherever the service runs.
	knownNames = map[string][]netip.Addr{
		"localhost": thisMachine, "localhost.localdomain": thisMachine, "ip6-localhost": thisMachine, "ip6-loopback": thisMachine,
		"metadata.google.internal":   {netip.MustParseAddr("169.254.169.254")},
		"metadata.goog":              {netip.MustParseAddr("169.254.169.254")},
		"instance-data.ec2.internal": {netip.MustParseAddr("169.254.169.254")},
		"metadata.tencentyun.com":    {netip.MustParseAddr("169.254.0.23")},
	}
)

// known are the addresses of a name in lower case, of which it is known what it stands for.
func known(name string) []netip.Addr {
	if strings.HasSuffix(name, ".localhost") { // RFC 6761
		return thisMachine
	}
	return knownNames[name]
}

// dialedHost is the host that the transport dials for u. One that is not ASCII is mapped as IDNA has it, and comes out
// as an address if its digits are of another width: the transport itself is asked.
func dialedHost(u *url.URL) string {
	host := u.Hostname()
	if !strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		return host
	}
	asked := http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		if mapped, _, err := net.SplitHostPort(address); err == nil {
			host = mapped
		}
		return nil, errors.New("not to be dialed")
	}}
	req := &http.Request{URL: &url.URL{Scheme: "http", Host: u.Host}, Header: http.Header{}}
	if resp, err := asked.RoundTrip(req); err == nil { // never: nothing was dialed
		_ = resp.Body.Close()
	}
	return host
}

// classOf is empty for a public address.
func classOf(addr netip.Addr) class {
	for i := range special {
		if special[i].network.Contains(addr) {
			return special[i].class
		}
	}
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return reserved
	}
	return ""
}

// literals are the addresses that host spells. Resolvers disagree on numbers that begin with 0: both readings count.
func literals(host string) []netip.Addr {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}
	}
	var addrs []netip.Addr
	for _, base := range []int{8, 10} {
		if addr, ok := parseLoose(host, base); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// parseLoose reads what inet_aton reads: one to four numbers, of which the last fills the bytes that are left; hex with
// 0x, and in the base zero with a 0 in front.
func parseLoose(host string, zero int) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		base, digits := 10, part
		switch {
		case strings.HasPrefix(part, "0x"), strings.HasPrefix(part, "0X"):
			base, digits = 16, part[2:]
		case len(part) > 1 && part[0] == '0':
			base, digits = zero, part[1:]
		}
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (4 - i)
		}
		n, err := strconv.ParseUint(digits, base, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		value = value<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}
