package dispatch

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// allowSetting is the setting that lets refused addresses in.
const allowSetting = "WEBHOOK_ALLOWED_NETWORKS"

// GuardOptions say which of the addresses that are refused by default may be called.
type GuardOptions struct {
	// Networks are CIDRs, single addresses, or the words loopback, private (RFC 1918 and fc00::/7, without metadata
	// addresses) and any. Blank entries are ignored.
	Networks []string
}

// Guard refuses webhooks to addresses that only this machine or its network should reach, so that nobody can use the
// service to get at them. Safe for concurrent use.
type Guard struct {
	any               bool
	loopback, private bool
	networks          []netip.Prefix
	entries           []string
}

// NewGuard returns a guard that refuses every special address but those in o. The error names the entry that is none.
func NewGuard(o GuardOptions) (*Guard, error) {
	g := &Guard{}
	for _, entry := range o.Networks {
		entry = strings.ToLower(strings.TrimSpace(entry))
		switch entry {
		case "":
			continue
		case "any":
			g.any = true
		case "loopback":
			g.loopback = true
		case "private":
			g.private = true
		default:
			network, err := parseNetwork(entry)
			if err != nil {
				return nil, err
			}
			g.networks = append(g.networks, network)
		}
		g.entries = append(g.entries, entry)
	}
	return g, nil
}

func parseNetwork(entry string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(entry)
	if err != nil {
		addr, addrErr := netip.ParseAddr(entry)
		if addrErr != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not a network: write a CIDR such as 10.0.0.0/8, or loopback, private or any", entry)
		}
		network = netip.PrefixFrom(addr, addr.BitLen())
	}
	if addr := network.Addr(); addr.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
	}
	return network.Masked(), nil
}

// String describes the policy, for the log.
func (g *Guard) String() string {
	switch {
	case g.any:
		return "any address"
	case len(g.entries) == 0:
		return "public addresses only"
	}
	return "public addresses and " + strings.Join(g.entries, ", ")
}

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
	// globalUnicast holds all public IPv6 addresses; whatever lies outside is refused.
	globalUnicast = netip.MustParsePrefix("2000::/3")
	// nat64 stands for the IPv4 address in its last four bytes.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

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

// refusedError says that the guard refused an address.
type refusedError struct {
	host  string // as written in the URL; empty when dialing
	addr  netip.Addr
	class class
}

func (e *refusedError) Error() string {
	who := e.addr.String()
	switch {
	case e.host != "" && !e.addr.IsValid():
		return fmt.Sprintf("%s is this machine, which %s does not let in", e.host, allowSetting)
	case e.host != "" && e.host != who:
		who = fmt.Sprintf("%s means %s, and that", e.host, who)
	}
	return fmt.Sprintf("%s is a %s address, which %s does not let in", who, e.class, allowSetting)
}

// check returns a *refusedError unless addr may be called.
func (g *Guard) check(addr netip.Addr) error {
	if g.any {
		return nil
	}
	told := addr.WithZone("").Unmap()
	addr = told
	if g.listed(addr) {
		return nil
	}
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	c := classOf(addr)
	if c == "" || c == loopback && g.loopback || c == private && g.private || g.listed(addr) {
		return nil
	}
	return &refusedError{addr: told, class: c}
}

func (g *Guard) listed(addr netip.Addr) bool {
	for _, network := range g.networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// Control is for [net.Dialer]: it refuses the address that is about to be dialed, after the name has been resolved.
func (g *Guard) Control(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return g.check(addr.Addr())
}

// CheckURL tells at submit what would be refused later: hosts that are addresses, in any spelling, and the names of
// this machine. It looks no names up. Only [Guard.Control] decides.
func (g *Guard) CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("is not a valid URL")
	}
	host := strings.TrimRight(u.Hostname(), ".")
	if host == "" {
		return errors.New("has no host")
	}
	if g.any {
		return nil
	}
	if lower := strings.ToLower(host); lower == "localhost" || strings.HasSuffix(lower, ".localhost") {
		if g.check(netip.IPv6Loopback()) == nil || g.check(netip.AddrFrom4([4]byte{127, 0, 0, 1})) == nil {
			return nil
		}
		return &refusedError{host: host, class: loopback}
	}
	for _, addr := range literals(host) {
		var refused *refusedError
		if errors.As(g.check(addr), &refused) {
			refused.host = host
			return refused
		}
	}
	return nil
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
