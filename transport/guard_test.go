package transport_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"sallyport/transport"
)

// No address of a host or network of one's own is dialled because a stranger has
// written it, or a name for it, into a certificate.
func TestGuard(t *testing.T) {
	g := &transport.Guard{Timeout: time.Second}
	for _, addr := range []string{
		"127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "169.254.169.254", "[fe80::1]", "10.0.0.1", "172.16.0.1", "192.168.1.1",
		"[fd00::1]", "100.64.0.1", "0.0.0.0", "[::]", "224.0.0.1", "[ff02::1]", "255.255.255.255", "192.0.2.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]",
	} {
		_, err := g.DialContext(t.Context(), "tcp", addr+":80")
		if _, ok := errors.AsType[*transport.ErrUnreached](err); !ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// By whomever names are looked up, and whichever of its addresses a name has first.
func TestGuardOfNames(t *testing.T) {
	at := []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	g := &transport.Guard{Timeout: time.Second, Names: func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "in.test":
			return at, nil
		case "none.test":
			return nil, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}}
	_, err := g.DialContext(t.Context(), "tcp", "in.test:80")
	if _, ok := errors.AsType[*transport.ErrUnreached](err); !ok {
		t.Error(err)
	}
	for _, host := range []string{"none.test", "gone.test"} {
		_, err := g.DialContext(t.Context(), "tcp", host+":80")
		if _, ok := errors.AsType[*net.DNSError](err); !ok {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestGuardLetsPass(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	name := netip.AddrPortFrom(netip.MustParseAddr("169.254.1.1"), at.Port()).String()
	for what, g := range map[string]*transport.Guard{
		"reach":     {Reach: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		"--resolve": {Resolve: []transport.Override{{Host: "169.254.1.1", Port: at.Port(), Addr: at.Addr()}}},
	} {
		to := at.String()
		if g.Reach == nil {
			to = name
		}
		c, err := g.DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		c.Close()
	}
	// A private address is nobody's here: that it was dialled shows in how it fails.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&transport.Guard{Private: true}).DialContext(ctx, "tcp", "10.255.255.1:1")
	if _, ok := errors.AsType[*transport.ErrUnreached](err); ok || err == nil {
		t.Errorf("private: %v", err)
	}
}
