package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// GuardConfig says which endpoints deliveries may go to. The zero value is
// the safe one: https only, public addresses only.
type GuardConfig struct {
	// AllowHTTP admits endpoints without TLS.
	AllowHTTP bool
	// AllowLoopback admits 127.0.0.0/8, ::1 and names of this host, also without
	// TLS; for development.
	AllowLoopback bool
	// AllowedPrefixes are admitted whatever else is said of them, such as the
	// operator's own private network. An IPv4 prefix also admits its
	// addresses in IPv4-mapped form.
	AllowedPrefixes []netip.Prefix
}

// Guard decides which addresses may be connected to. It is asked with the
// address a socket is about to connect to, after every lookup, so that neither
// a name that resolves to a private address nor one that changes between check
// and use gets past it.
type Guard struct {
	allowHTTP     bool
	allowLoopback bool
	allowed       []netip.Prefix
}

// NewGuard prepares a guard.
func NewGuard(cfg GuardConfig) *Guard {
	g := &Guard{allowHTTP: cfg.AllowHTTP, allowLoopback: cfg.AllowLoopback}
	for _, p := range cfg.AllowedPrefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		g.allowed = append(g.allowed, p.Masked())
	}
	return g
}

// BlockedError reports an endpoint that deliveries may not go to.
type BlockedError struct {
	// Addr is the refused address; the zero Addr where the endpoint was
	// refused for its URL. It may tell of a private network: it is for
	// operators, and not part of the message.
	Addr netip.Addr
	// Reason is one clause, safe to show.
	Reason string
}

// Error implements error; the text is safe to show.
func (e *BlockedError) Error() string { return e.Reason }

const blockedAddressReason = "the host's address is not a public one, so deliveries may not go there"

// blocked4 are the IPv4 ranges that are not the public Internet (RFC 6890 and
// its registry), and metadata services of clouds that lie outside of them.
var blocked4 = prefixes(
	"0.0.0.0/8",          // this network; 0.0.0.0 reaches the local host
	"10.0.0.0/8",         // private
	"100.64.0.0/10",      // carrier-grade NAT; Alibaba's metadata
	"127.0.0.0/8",        // loopback
	"168.63.129.16/32",   // Azure's host services
	"169.254.0.0/16",     // link-local; metadata of most clouds
	"172.16.0.0/12",      // private
	"192.0.0.0/24",       // protocol assignments; Oracle's metadata
	"192.0.2.0/24",       // documentation
	"192.88.99.0/24",     // 6to4 relays
	"192.168.0.0/16",     // private
	"198.18.0.0/15",      // benchmarks
	"198.51.100.0/24",    // documentation
	"203.0.113.0/24",     // documentation
	"224.0.0.0/4",        // multicast
	"240.0.0.0/4",        // reserved
	"255.255.255.255/32", // broadcast
)

// global6 is all of IPv6 that is routed globally; the rest, with loopback,
// link-local, unique local, multicast, IPv4-mapped, IPv4-compatible and NAT64
// (64:ff9b::/96, 64:ff9b:1::/48), is blocked by lying outside.
var global6 = netip.MustParsePrefix("2000::/3")

// blocked6 are the parts of global6 that are not hosts of the Internet, or
// that carry an IPv4 address which the check could not see.
var blocked6 = prefixes(
	"2001::/23",     // protocol assignments: Teredo, benchmarks, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4 carries an IPv4 address
	"3fff::/20",     // documentation
)

func prefixes(list ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, len(list))
	for i, s := range list {
		parsed[i] = netip.MustParsePrefix(s)
	}
	return parsed
}

// CheckAddr returns a *BlockedError where deliveries may not connect to addr.
func (g *Guard) CheckAddr(addr netip.Addr) error {
	plain := addr.WithZone("").Unmap()
	contains := func(p netip.Prefix) bool { return p.Contains(plain) }
	if !plain.IsValid() || !slices.ContainsFunc(g.allowed, contains) && !g.public(plain, contains) {
		return &BlockedError{Addr: addr, Reason: blockedAddressReason}
	}
	return nil
}

func (g *Guard) public(addr netip.Addr, contains func(netip.Prefix) bool) bool {
	switch {
	case addr.IsLoopback():
		return g.allowLoopback
	case addr.Is4():
		return !slices.ContainsFunc(blocked4, contains)
	}
	return global6.Contains(addr) && !slices.ContainsFunc(blocked6, contains)
}

// control is a net.Dialer's ControlContext: it sees the address of each socket
// just before it connects.
func (g *Guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the address to connect to: %w", err)
	}
	return g.CheckAddr(target.Addr())
}
