package preamble

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"sallyport/flow"
	"sallyport/wire"
)

const sig = "\r\n\r\n\x00\r\nQUIT\n"

// told is a header that says UDP, with TLVs behind its addresses.
func told(t testing.TB, from, to netip.AddrPort, tlvs ...proxyproto.TLV) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	raw, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What stands ahead of a datagram, by who may say it and what has to be there.
func TestDatagram(t *testing.T) {
	six := [2]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:5"), netip.MustParseAddrPort("[2001:db8::2]:6")}
	named := flow.Announced{Client: client, Local: local}
	stream := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(local))
	overTCP, _ := stream.Format()
	require, optional, each := AcceptProxy{Trust: trust, Require: true}, AcceptProxy{Trust: trust}, AcceptProxy{Trust: trust, Each: true}
	for name, c := range map[string]struct {
		accept        AcceptProxy
		from          netip.AddrPort
		sent, payload string
		who           flow.Announced
		refused       flow.Reason
	}{
		"IPv4":                   {accept: require, from: front, sent: told(t, client, local) + "p", payload: "p", who: named},
		"IPv6":                   {accept: require, from: front, sent: told(t, six[0], six[1]) + "p", payload: "p", who: flow.Announced{Client: six[0], Local: six[1]}},
		"TLVs":                   {accept: require, from: front, sent: told(t, client, local, proxyproto.TLV{Type: 2, Value: []byte("a.test")}) + "p", payload: "p", who: named},
		"the client's own words": {accept: require, from: front, sent: told(t, client, local) + told(t, local, client) + "p", payload: told(t, local, client) + "p", who: named},
		"nothing behind":         {accept: require, from: front, sent: told(t, client, local), who: named},
		"of a query over TCP":    {accept: require, from: front, sent: string(overTCP) + "p", payload: "p", who: named},
		"of the proxy itself":    {accept: require, from: front, sent: sig + "\x20\x00\x00\x00p", payload: "p"},
		"each":                   {accept: each, from: front, sent: told(t, client, local) + "p", payload: "p", who: flow.Announced{Client: client, Local: local, Each: true}},
		"each, none":             {accept: each, from: front, sent: "p", refused: flow.ProxyHeaderMissing},
		"each, untrusted":        {accept: each, from: client, sent: told(t, front, local) + "p", refused: flow.ProxyUntrusted},
		"require, none":          {accept: require, from: front, sent: "p", payload: "p", who: flow.Announced{Missing: true}},
		"require, empty":         {accept: require, from: front, who: flow.Announced{Missing: true}},
		"require, v1":            {accept: require, from: front, sent: "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", payload: "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", who: flow.Announced{Missing: true}},
		"require, untrusted":     {accept: require, from: client, sent: told(t, front, local) + "p", refused: flow.ProxyUntrusted},
		"untrusted, none":        {accept: require, from: client, sent: "p", refused: flow.ProxyUntrusted},
		"optional":               {accept: optional, from: front, sent: told(t, client, local) + "p", payload: "p", who: named},
		"optional, none":         {accept: optional, from: front, sent: "p", payload: "p"},
		"optional, untrusted":    {accept: optional, from: client, sent: told(t, front, local) + "p", payload: told(t, front, local) + "p"},

		// F-35.
		"short":             {accept: optional, from: front, sent: sig + "\x21\x12", refused: flow.ProxyHeaderBad},
		"short addresses":   {accept: optional, from: front, sent: sig + "\x21\x12\x00\x0c12345678901", refused: flow.ProxyHeaderBad},
		"few addresses":     {accept: require, from: front, sent: sig + "\x21\x12\x00\x041234p", refused: flow.ProxyHeaderBad},
		"IPv4 as IPv6":      {accept: require, from: front, sent: sig + "\x21\x22\x00\x0c123456789012p", refused: flow.ProxyHeaderBad},
		"no family":         {accept: require, from: front, sent: sig + "\x21\x42\x00\x0c123456789012p", refused: flow.ProxyHeaderBad},
		"version 3":         {accept: require, from: front, sent: sig + "\x31\x12\x00\x0c123456789012p", refused: flow.ProxyHeaderBad},
		"command":           {accept: require, from: front, sent: sig + "\x2f\x12\x00\x0c123456789012p", refused: flow.ProxyHeaderBad},
		"64 KiB of TLVs":    {accept: require, from: front, sent: sig + "\x21\x12\xff\xff" + strings.Repeat("x", 65000), refused: flow.ProxyHeaderBad},
		"64 KiB, and fewer": {accept: require, from: front, sent: sig + "\x21\x12\xff\xff123456789012p", refused: flow.ProxyHeaderBad},
	} {
		who, payload, refused := c.accept.Datagram(c.from, []byte(c.sent))
		if who != c.who || string(payload) != c.payload || refused != c.refused {
			t.Errorf("%s: %+v, %.40q, %q", name, who, payload, refused)
		}
	}
}

// Whatever comes, no client is named by halves, and what is passed on stood behind
// what was taken off.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte(told(f, client, local)+"rest"), true, true)
	f.Add([]byte(sig+"\x21\x22\x00\x0c123456789012rest"), false, true)
	f.Add([]byte(sig+"\x20\x00\xff\xffrest"), true, false)
	f.Fuzz(func(t *testing.T, sent []byte, each, trusted bool) {
		from := client
		if trusted {
			from = front
		}
		who, payload, refused := AcceptProxy{Trust: trust, Require: true, Each: each}.Datagram(from, sent)
		switch {
		case refused != "" && (payload != nil || who != flow.Announced{}):
			t.Fatalf("%s, and %+v, %q", refused, who, payload)
		case refused != "":
		case !trusted, who.Client.IsValid() != who.Local.IsValid(), !bytes.HasSuffix(sent, payload):
			t.Fatalf("%+v, %q of %q", who, payload, sent)
		case who.Missing && (len(payload) != len(sent) || bytes.HasPrefix(sent, signature)), !who.Missing && len(sent)-len(payload) < fixed:
			t.Fatalf("%+v, %q of %q", who, payload, sent)
		}
	})
}

// end is one end of a pair of UDP sockets as a server's connection.
type end struct{ *net.UDPConn }

func (end) Transport() flow.Transport   { return flow.Datagram }
func (end) CloseWrite() error           { return nil }
func (e end) Abort() error              { return e.Close() }
func (end) WhenReadable(f func()) error { return errors.ErrUnsupported }

func (e end) ReadUnit(lease func() []byte) ([]byte, error) {
	p := lease()
	n, err := e.Read(p)
	return p[:n], err
}

// ahead gives what announces f's client, and the server's socket.
func ahead(t *testing.T, f *flow.Flow, a Ahead) (flow.Conn, *net.UDPConn) {
	t.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	for _, s := range []*net.UDPConn{c, server} {
		s.SetDeadline(time.Now().Add(time.Minute))
	}
	conn, err := SendProxy{Version: 2, Ahead: a}.Wrap(t.Context(), f, end{c})
	if err != nil {
		t.Fatal(err)
	}
	return conn, server
}

// datagramFlow is a flow of a client with a verified certificate.
func datagramFlow() *flow.Flow {
	leaf := &x509.Certificate{Raw: bytes.Repeat([]byte("certificate "), 50)}
	return &flow.Flow{
		Origin:  flow.Origin{Client: client, Local: local, Transport: flow.Datagram},
		Inbound: []flow.Session{{Version: wire.VersionTLS12, Suite: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, Chain: []*x509.Certificate{leaf}, Peer: &flow.Peer{}}},
	}
}

// Which datagrams have a header, before the server has answered and after.
func TestAnnounce(t *testing.T) {
	hello := "\x16\xfe\xff" + strings.Repeat("\x00", 8) + "\x00\x04\x01abc"
	record := "\x17\xfe\xfd\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01x"
	own := told(t, local, client) + "forged"
	for _, c := range []struct {
		ahead         Ahead
		before, after map[string]bool
	}{
		{AheadUntilAnswered, map[string]bool{"x": true, "": true, own: true}, map[string]bool{"x": false, "": false, own: true, "\r\n\r\n": false}},
		{AheadOfEach, map[string]bool{"x": true, own: true}, map[string]bool{"x": true, own: true}},
		{AheadOfHellos, map[string]bool{hello: true, record: false, own: true}, map[string]bool{hello: true, record: false, own: true}},
	} {
		conn, server := ahead(t, datagramFlow(), c.ahead)
		var peer netip.AddrPort
		sent := func(p string) string {
			if n, err := conn.Write([]byte(p)); err != nil || n != len(p) {
				t.Fatalf("%d: wrote %d of %d: %v", c.ahead, n, len(p), err)
			}
			room := make([]byte, 64<<10)
			n, from, err := server.ReadFromUDPAddrPort(room)
			if err != nil {
				t.Fatal(err)
			}
			peer = from
			return string(room[:n])
		}
		check := func(when string, want map[string]bool) {
			for p, has := range want {
				got := sent(p)
				if !has {
					if got != p {
						t.Errorf("%d, %s: %.60q, want %.60q", c.ahead, when, got, p)
					}
					continue
				}
				who, payload, refused := AcceptProxy{Trust: trust, Require: true}.Datagram(front, []byte(got))
				if who.Client != client || who.Local != local || string(payload) != p || refused != "" || got[13] != 0x12 {
					t.Errorf("%d, %s: %+v, %.60q, %q, want %.60q", c.ahead, when, who, payload, refused, p)
				}
				if whole := strings.Contains(got, "certificate certificate"); whole != (c.ahead != AheadOfEach) {
					t.Errorf("%d, %s: the client's certificate: %v", c.ahead, when, whole)
				}
			}
		}
		check("before", c.before)
		server.WriteToUDPAddrPort([]byte("answer"), peer)
		if p, err := flow.Units(conn).ReadUnit(func() []byte { return make([]byte, 10) }); err != nil || string(p) != "answer" {
			t.Fatalf("%q, %v", p, err)
		}
		check("after", c.after)
	}
}

// The largest datagram has no room for a header.
func TestAnnounceTooLarge(t *testing.T) {
	conn, _ := ahead(t, datagramFlow(), AheadOfEach)
	if n, err := conn.Write(make([]byte, 65507)); err == nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
}
