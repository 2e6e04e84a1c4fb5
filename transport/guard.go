package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Guard dials what strangers have named: the places in a certificate, not those
// of a configuration. It refuses addresses that only this host or its network
// reaches, by the address that is really dialled, whatever name led to it.
type Guard struct {
	Timeout time.Duration // of one dial, names included; 0 means none but the context's
	Resolve []Override    // what the operator has mapped is reached, wherever it is
	Reach   []netip.Prefix
	Private bool // RFC 1918 and the like are reached as well: who named them is trusted
	// Names gives the addresses of a host; nil: the system's resolver is asked.
	Names func(ctx context.Context, host string) ([]netip.Addr, error)
}

// ErrUnreached is what a dial fails with that the guard does not let pass.
type ErrUnreached struct{ Addr netip.Addr }

func (e *ErrUnreached) Error() string {
	return fmt.Sprintf("%s is not fetched from: it is %s, and a certificate named it; to.reach would allow it towards servers, and a file (crl) needs no fetching", e.Addr, kindOf(e.Addr))
}

// DialContext is for an http.Transport.
func (g *Guard) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is no port", port)
	}
	nd := net.Dialer{Timeout: g.Timeout}
	if to, ok := overridden(g.Resolve, host, uint16(n)); ok {
		return nd.DialContext(ctx, network, netip.AddrPortFrom(to, uint16(n)).String())
	}
	nd.Control = g.control
	if _, err := netip.ParseAddr(host); err == nil || g.Names == nil {
		return nd.DialContext(ctx, network, addr)
	}
	if g.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.Timeout)
		defer cancel()
	}
	addrs, err := g.Names(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return race(ctx, &nd, addrs, uint16(n))
}

func (g *Guard) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dialling %q: %w", address, err)
	}
	if a := at.Addr().WithZone("").Unmap(); !g.reaches(a) {
		return &ErrUnreached{a}
	}
	return nil
}

func (g *Guard) reaches(a netip.Addr) bool {
	if slices.ContainsFunc(g.Reach, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return true
	}
	switch kindOf(a) {
	case "":
		return true
	case private:
		return g.Private
	}
	return false
}

const private = "a private address"

// kindOf is empty for an address that anybody on the internet can have (RFC 6890).
func kindOf(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "a loopback address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a.IsMulticast():
		return "a multicast address"
	case a.IsPrivate(), shared.Contains(a):
		return private
	}
	for _, p := range special {
		if p.Contains(a) {
			return "an address of no host"
		}
	}
	return ""
}

var (
	shared  = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	special = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/128"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001:db8::/32"),
		// An IPv4 address in one of these would be dialled by whoever translates.
		netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
		netip.MustParsePrefix("::/96"), netip.MustParsePrefix("fec0::/10"),
	}
)
