package dispatch

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The settings that let refused addresses and ports in.
const (
	networksSetting = "WEBHOOK_ALLOWED_NETWORKS"
	portsSetting    = "WEBHOOK_ALLOWED_PORTS"
)

// GuardOptions say what may be called that is refused by default.
type GuardOptions struct {
	// Networks are CIDRs, single addresses, or the words loopback, private (RFC 1918 and fc00::/7, without metadata
	// addresses) and any. Blank entries are ignored.
	Networks []string
	// Ports are the first and the last of each range that may be called. None: every port but those of other protocols,
	// where a server may take the text of a webhook for commands.
	Ports []PortRange
}

// PortRange is two ports and all between them.
type PortRange = [2]uint16

// otherProtocols are the ports that are refused unless they are named.
var otherProtocols = []PortRange{
	{19, 23},               // chargen, FTP, SSH, telnet
	{25, 25},               // SMTP
	{53, 53},               // DNS
	{110, 110}, {119, 119}, // POP3, NNTP
	{143, 143},             // IMAP
	{465, 465}, {512, 514}, // SMTP, remote shells
	{587, 587}, {993, 993}, // SMTP, IMAP
	{995, 995},                 // POP3
	{6379, 6379},               // Redis
	{6660, 6669}, {6697, 6697}, // IRC
	{11211, 11211}, // memcached
}

// Guard refuses webhooks to addresses that only this machine or its network should reach, so that nobody can use the
// service to get at them. Safe for concurrent use.
type Guard struct {
	any               bool
	loopback, private bool
	networks          []netip.Prefix
	entries           []string
	ports             []PortRange
}

// NewGuard returns a guard that refuses every special address but those in o. The error names the entry that is none.
func NewGuard(o GuardOptions) (*Guard, error) {
	g := &Guard{ports: o.Ports}
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
	policy := "public addresses only"
	switch {
	case g.any:
		policy = "any address"
	case len(g.entries) > 0:
		policy = "public addresses and " + strings.Join(g.entries, ", ")
	}
	if len(g.ports) == 0 {
		return policy + "; every port but " + describePorts(otherProtocols)
	}
	return policy + "; port " + describePorts(g.ports)
}

func describePorts(ranges []PortRange) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = strconv.Itoa(int(r[0]))
		if r[1] != r[0] {
			texts[i] += "-" + strconv.Itoa(int(r[1]))
		}
	}
	return strings.Join(texts, ", ")
}

func (g *Guard) allowsPort(port uint16) bool {
	within := func(r PortRange) bool { return r[0] <= port && port <= r[1] }
	if len(g.ports) == 0 {
		return !slices.ContainsFunc(otherProtocols, within)
	}
	return slices.ContainsFunc(g.ports, within)
}

// refusedError says that the guard refused an address or a port.
type refusedError struct {
	host  string // as written in the URL; empty when dialing
	addr  netip.Addr
	class class
	port  uint16 // where addr is the zero value
}

func (e *refusedError) Error() string {
	if !e.addr.IsValid() {
		return fmt.Sprintf("port %d is not one that %s lets in", e.port, portsSetting)
	}
	who := e.addr.String()
	if e.host != "" && e.host != who {
		who = fmt.Sprintf("%s means %s, and that", e.host, who)
	}
	article := "a"
	if e.class == unspecified {
		article = "an"
	}
	return fmt.Sprintf("%s is %s %s address, which %s does not let in", who, article, e.class, networksSetting)
}

// check returns a *refusedError unless addr may be called.
func (g *Guard) check(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	if g.any || g.listed(addr) {
		return nil
	}
	for _, end := range reached(addr) {
		c := classOf(end)
		if c == "" || c == loopback && g.loopback || c == private && g.private || g.listed(end) {
			continue
		}
		return &refusedError{addr: addr, class: c}
	}
	return nil
}

func (g *Guard) listed(addr netip.Addr) bool {
	return slices.ContainsFunc(g.networks, func(network netip.Prefix) bool { return network.Contains(addr) })
}

// Control is for [net.Dialer]: it refuses the address that is about to be dialed, after the name has been resolved.
// Where a name has several addresses, each is judged for itself.
func (g *Guard) Control(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if !g.allowsPort(addr.Port()) {
		return &refusedError{port: addr.Port()}
	}
	return g.check(addr.Addr())
}

// CheckURL tells at submit what would be refused later: ports, hosts that are addresses, in any spelling, and names that
// are known to stand for such. It looks no names up. Only [Guard.Control] decides.
func (g *Guard) CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("is not a valid URL")
	}
	host := strings.TrimRight(dialedHost(u), ".")
	if host == "" {
		return errors.New("has no host")
	}
	port, err := portOf(u)
	if err != nil {
		return errors.New("is not a valid URL")
	}
	if !g.allowsPort(port) {
		return &refusedError{port: port}
	}
	for _, addr := range literals(host) { // whatever it is read as
		if err := g.check(addr); err != nil {
			return named(err, u.Hostname())
		}
	}
	err = nil
	for _, addr := range known(strings.ToLower(host)) { // one that may be called is enough
		if err = g.check(addr); err == nil {
			return nil
		}
	}
	return named(err, u.Hostname())
}

// named is a refusal at submit, which names the host as it was written.
func named(err error, host string) error {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		refused.host = host
	}
	return err
}

func portOf(u *url.URL) (uint16, error) {
	switch port := u.Port(); {
	case port != "":
		n, err := strconv.ParseUint(port, 10, 16)
		return uint16(n), err
	case u.Scheme == "https":
		return 443, nil
	}
	return 80, nil
}
