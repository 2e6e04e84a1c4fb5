package preamble

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"sallyport/flow"
	"sallyport/wire"
)

// SendProxy is the outbound layer that tells the server who the client is. It stands
// below TLS with the server.
type SendProxy struct {
	Version byte          // 1 or 2; 2 also tells of the client's TLS
	Timeout time.Duration // for the write; 0 is none
	Ahead   Ahead         // which datagrams have it; of a stream, where it begins
}

var _ flow.Layer = SendProxy{}

// Wrap writes the header, or has it go ahead of datagrams.
func (s SendProxy) Wrap(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	header, err := s.header(f)
	if err != nil {
		return nil, flow.Fail(flow.Internal, "making a PROXY header: %w", err)
	}
	if c.Transport() == flow.Datagram {
		return announce(c, header, s.Ahead)
	}
	if s.Timeout > 0 {
		c.SetWriteDeadline(time.Now().Add(s.Timeout))
		defer c.SetWriteDeadline(time.Time{})
	}
	if _, err := c.Write(header); err != nil {
		reason := flow.ServerGone
		if errors.Is(err, os.ErrDeadlineExceeded) {
			reason = flow.ServerTimeout
		}
		return nil, flow.Fail(reason, "sending the PROXY header: %w", err)
	}
	return c, nil
}

func (s SendProxy) header(f *flow.Flow) ([]byte, error) {
	h := &proxyproto.Header{Version: s.Version, Command: proxyproto.PROXY, TransportProtocol: proxyproto.UNSPEC}
	from, to := f.Client(), f.Reached()
	if from.IsValid() && to.IsValid() {
		from, to = sameFamily(from, to)
		four, six := proxyproto.TCPv4, proxyproto.TCPv6
		if h.SourceAddr, h.DestinationAddr = net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to); f.Origin.Transport == flow.Datagram {
			four, six = proxyproto.UDPv4, proxyproto.UDPv6
			h.SourceAddr, h.DestinationAddr = net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to)
		}
		if h.TransportProtocol = four; from.Addr().Is6() {
			h.TransportProtocol = six
		}
	}
	if s.Version == 2 {
		tlvs, err := s.facts(f)
		if err != nil {
			return nil, err
		}
		if err := h.SetTLVs(tlvs); err != nil {
			return nil, err
		}
	}
	return h.Format()
}

// sameFamily has both addresses in one, as the header's form asks.
func sameFamily(a, b netip.AddrPort) (netip.AddrPort, netip.AddrPort) {
	a, b = unmapped(a), unmapped(b)
	if a.Addr().Is4() == b.Addr().Is4() {
		return a, b
	}
	six := func(p netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(p.Addr().As16()), p.Port())
	}
	return six(a), six(b)
}

// facts are what is known of the client's TLS, from our own handshake or, where
// that is passed through, from its hello. Its certificate is not sent again and again.
func (s SendProxy) facts(f *flow.Flow) ([]proxyproto.TLV, error) {
	var list []proxyproto.TLV
	add := func(t proxyproto.PP2Type, v string) {
		if v != "" {
			list = append(list, proxyproto.TLV{Type: t, Value: []byte(v)})
		}
	}
	if f.Hello != nil {
		add(proxyproto.PP2_TYPE_AUTHORITY, f.Hello.SNI)
	}
	if len(f.Inbound) == 0 {
		return list, nil
	}
	last := f.Inbound[len(f.Inbound)-1]
	add(proxyproto.PP2_TYPE_ALPN, last.ALPN)
	ssl, err := session(last, s.Ahead != AheadOfEach).Marshal()
	if err != nil {
		return nil, err
	}
	return append(list, ssl), nil
}

const (
	verified   = 0
	unverified = 1
)

// session is the TLV of one TLS session. What is in it of the client's certificate
// has been verified, else it is not in it.
func session(s flow.Session, whole bool) tlvparse.PP2SSL {
	ssl := tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: unverified}
	add := func(t proxyproto.PP2Type, v []byte) {
		ssl.TLV = append(ssl.TLV, proxyproto.TLV{Type: t, Value: v})
	}
	add(proxyproto.PP2_SUBTYPE_SSL_VERSION, []byte(version(s.Version)))
	add(proxyproto.PP2_SUBTYPE_SSL_CIPHER, []byte(tls.CipherSuiteName(s.Suite)))
	if s.Group != 0 {
		add(proxyproto.PP2_SUBTYPE_SSL_GROUP, []byte(tls.CurveID(s.Group).String()))
	}
	if s.Peer == nil || len(s.Chain) == 0 {
		return ssl
	}
	ssl.Verify = verified
	ssl.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
	if !s.Resumed {
		ssl.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN
	}
	leaf := s.Chain[0]
	if cn := leaf.Subject.CommonName; cn != "" {
		add(proxyproto.PP2_SUBTYPE_SSL_CN, []byte(cn))
	}
	if whole && len(leaf.Raw) <= maxCertificate {
		add(proxyproto.PP2_SUBTYPE_SSL_CLIENT_CERT, leaf.Raw)
	}
	return ssl
}

// maxCertificate leaves the header below what receivers take: nginx, and we, 4 KiB.
const maxCertificate = 3 << 10

// version is written as OpenSSL does, which is what others send.
func version(v uint16) string {
	switch v {
	case wire.VersionTLS10:
		return "TLSv1"
	case wire.VersionTLS11:
		return "TLSv1.1"
	case wire.VersionTLS12:
		return "TLSv1.2"
	case wire.VersionTLS13:
		return "TLSv1.3"
	case wire.VersionDTLS12:
		return "DTLSv1.2"
	}
	return wire.VersionName(v)
}
