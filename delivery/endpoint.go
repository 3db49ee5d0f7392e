package delivery

import (
	"net/netip"
	"net/url"
	"strings"
)

// localNames are names of this host, or of services beside it, that some
// resolver answers without asking DNS.
var localNames = []string{"localhost", "localhost.localdomain", "localdomain", "ip6-localhost", "ip6-loopback"}

// CheckEndpoint returns a *BlockedError where a URL can be seen to lead where
// deliveries may not go, so that a configuration is refused at once. It looks
// nothing up: a name's addresses are checked when they are connected to.
func (g *Guard) CheckEndpoint(rawURL string) error {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil || u.Hostname() == "":
		return refuse("must be an absolute URL with a host")
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse("must be an https URL")
	case u.Scheme == "http" && !g.allowsPlain(u):
		return refuse("must be https: this server was not started with --allow-http-endpoints")
	case u.User != nil:
		return refuse("must not carry user information: use auth")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.CheckAddr(addr)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r > '~' || r <= ' ' }) {
		// Full-width digits and the like turn into plain ones on the way.
		return refuse("must have an ASCII host: write an international name in its xn-- form")
	}
	if endsInNumber(host) {
		return refuse("must name its host, or write its address in the usual form: not as one number, octal or hexadecimal")
	}
	for _, name := range localNames {
		if !g.allowLoopback && (host == name || strings.HasSuffix(host, "."+name)) {
			return refuse("must not name this host itself")
		}
	}
	return nil
}

// allowsPlain reports whether requests to u may go without TLS.
func (g *Guard) allowsPlain(u *url.URL) bool {
	if g.allowHTTP {
		return true
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	addr, err := netip.ParseAddr(host)
	return g.allowLoopback && (host == "localhost" || err == nil && addr.Unmap().IsLoopback())
}

func refuse(reason string) error { return &BlockedError{Reason: reason} }

// endsInNumber reports whether a host's last label is a number, decimal, octal
// or hexadecimal: no name of the Internet does, but the C library reads such
// hosts as IPv4 addresses (2130706433, 0177.0.0.1, 0x7f.1).
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}
