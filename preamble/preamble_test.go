package preamble

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"sallyport/flow"
	"sallyport/wire"
)

// wireConn is one end of a pipe as a flow's connection.
type wireConn struct{ net.Conn }

func (wireConn) Transport() flow.Transport { return flow.Stream }
func (c wireConn) CloseWrite() error       { return c.Close() }

var (
	client = netip.MustParseAddrPort("192.0.2.7:1111")
	local  = netip.MustParseAddrPort("198.51.100.1:443")
	front  = netip.MustParseAddrPort("10.0.0.2:9999")
	trust  = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
)

// accepted has AcceptProxy read sent, and gives the flow and what it left.
func accepted(t *testing.T, sent []byte, from netip.AddrPort) (*flow.Flow, []byte, error) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	go func() { there.Write(sent); there.Close() }()
	f := &flow.Flow{Start: time.Now(), Origin: flow.Origin{Client: from}}
	c, err := AcceptProxy{Trust: trust, Require: true, Timeout: 5 * time.Second}.Wrap(context.Background(), f, wireConn{here})
	if err != nil {
		return f, nil, err
	}
	rest, _ := io.ReadAll(c)
	return f, rest, nil
}

func TestAccept(t *testing.T) {
	v2, err := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(local)).Format()
	if err != nil {
		t.Fatal(err)
	}
	six := "PROXY TCP6 2001:db8::1 2001:db8::2 5 6\r\n"
	for _, c := range []struct {
		name, sent, client, local string
	}{
		{"v1", "PROXY TCP4 192.0.2.7 198.51.100.1 1111 443\r\n", client.String(), local.String()},
		{"v1 over IPv6", six, "[2001:db8::1]:5", "[2001:db8::2]:6"},
		{"v1 of nobody", "PROXY UNKNOWN\r\n", "invalid AddrPort", "invalid AddrPort"},
		{"v2", string(v2), client.String(), local.String()},
		{"v2 of the proxy itself", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "invalid AddrPort", "invalid AddrPort"},
	} {
		f, rest, err := accepted(t, []byte(c.sent+"payload"), front)
		if err != nil || string(rest) != "payload" || f.Asked.Client.String() != c.client || f.Asked.Local.String() != c.local {
			t.Errorf("%s: %v, %+v, left %q", c.name, err, f.Asked, rest)
		}
		if want := f.Asked.Client; want.IsValid() && (f.Client() != want || f.Reached() != f.Asked.Local) || !want.IsValid() && f.Client() != front {
			t.Errorf("%s: the client is %v", c.name, f.Client())
		}
	}
}

// F-35.
func TestAcceptRefuses(t *testing.T) {
	huge := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff")
	for name, c := range map[string]struct {
		sent   string
		from   netip.AddrPort
		reason flow.Reason
	}{
		"untrusted":       {"PROXY TCP4 192.0.2.7 198.51.100.1 1111 443\r\n", client, flow.ProxyUntrusted},
		"none":            {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abc", front, flow.ProxyHeaderMissing},
		"short v1":        {"PROXY TCP4 192.0", front, flow.ClientGone},
		"short v2":        {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01", front, flow.ClientGone},
		"nothing":         {"", front, flow.ClientGone},
		"v1 without end":  {"PROXY TCP4 " + strings.Repeat("1", 200), front, flow.ProxyHeaderBad},
		"v1 of rubbish":   {"PROXY TCP4 here there 1 2\r\n", front, flow.ProxyHeaderBad},
		"v1 family":       {"PROXY TCP4 2001:db8::1 2001:db8::2 5 6\r\n", front, flow.ProxyHeaderBad},
		"v1 port":         {"PROXY TCP4 192.0.2.7 198.51.100.1 1111 70000\r\n", front, flow.ProxyHeaderBad},
		"v1 LF alone":     {"PROXY TCP4 192.0.2.7 198.51.100.1 1111 443\n", front, flow.ProxyHeaderBad},
		"64 KiB of TLVs":  {string(huge), front, flow.ProxyHeaderBad},
		"v2 addresses":    {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04\x01\x02\x03\x04", front, flow.ProxyHeaderBad},
		"v2 command":      {"\r\n\r\n\x00\r\nQUIT\n\x2f\x11\x00\x0c123456789012", front, flow.ProxyHeaderBad},
		"v2 of version 3": {"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c123456789012", front, flow.ProxyHeaderBad},
	} {
		f, _, err := accepted(t, []byte(c.sent), c.from)
		if e, ok := errors.AsType[*flow.Error](err); !ok || e.Reason != c.reason || e.Fault != flow.FaultClient || f.Asked.Client.IsValid() {
			t.Errorf("%s: %v, %+v", name, err, f.Asked)
		}
	}
}

func FuzzAccept(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 1111 443\r\nrest"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c123456789012rest"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		raw, err := readHeader(r)
		if err != nil {
			return
		}
		if len(raw)+r.Len() != len(sent) || !bytes.HasPrefix(sent, raw) {
			t.Fatalf("read %d of %d bytes and left %d", len(raw), len(sent), r.Len())
		}
		h, err := parse(raw)
		if err != nil {
			return
		}
		flw := &flow.Flow{}
		if err := note(flw, h); err == nil && flw.Asked.Client.IsValid() != flw.Asked.Local.IsValid() {
			t.Fatalf("half an origin: %+v", flw.Asked)
		}
	})
}

// What is sent is read by another's parser, and by ours.
func TestSend(t *testing.T) {
	leaf := &x509.Certificate{Raw: []byte("a certificate"), Subject: pkix.Name{CommonName: "device 7"}}
	f := &flow.Flow{
		Start: time.Now(), Origin: flow.Origin{Client: client, Local: local}, Hello: &wire.Hello{SNI: "a.example"},
		Inbound: []flow.Session{{ALPN: "h2", Version: wire.VersionTLS13, Suite: tls.TLS_AES_128_GCM_SHA256, Group: uint16(tls.X25519), Chain: []*x509.Certificate{leaf}, Peer: &flow.Peer{}}},
	}
	for version := byte(1); version <= 2; version++ {
		raw, err := SendProxy{Version: version}.header(f)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := accepted(t, raw, front)
		if err != nil || got.Asked.Client != client || got.Asked.Local != local {
			t.Errorf("v%d: %v, %+v", version, err, got.Asked)
		}
	}
	raw, _ := SendProxy{Version: 2}.header(f)
	h, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	said := map[proxyproto.PP2Type]string{}
	for _, v := range tlvs {
		said[v.Type] = string(v.Value)
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	cn, _ := ssl.ClientCN()
	v, _ := ssl.SSLVersion()
	cipher, _ := ssl.SSLCipher()
	cert, _ := ssl.ClientCert()
	if said[proxyproto.PP2_TYPE_ALPN] != "h2" || said[proxyproto.PP2_TYPE_AUTHORITY] != "a.example" || !ok || !ssl.Verified() || !ssl.ClientCertConn() ||
		cn != "device 7" || v != "TLSv1.3" || cipher != "TLS_AES_128_GCM_SHA256" || string(cert) != "a certificate" {
		t.Errorf("%v, %+v", said, ssl)
	}
	// The largest certificate that is told leaves a header that we take.
	leaf.Raw = make([]byte, maxCertificate)
	raw, _ = SendProxy{Version: 2}.header(f)
	if _, _, err := accepted(t, raw, front); err != nil || len(raw) < maxCertificate {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
	leaf.Raw = []byte("a certificate")
	// Of a certificate that nobody has verified, nothing is told.
	f.Inbound[0].Peer = nil
	raw, _ = SendProxy{Version: 2}.header(f)
	if bytes.Contains(raw, []byte("device 7")) || bytes.Contains(raw, leaf.Raw) {
		t.Errorf("%q", raw)
	}
	f.Origin, f.Inbound, f.Hello = flow.Origin{}, nil, nil // a client of a unix socket
	if raw, _ = (SendProxy{Version: 1}).header(f); string(raw) != "PROXY UNKNOWN\r\n" {
		t.Errorf("%q", raw)
	}
	raw, _ = SendProxy{Version: 2}.header(f)
	if got, _, err := accepted(t, raw, front); err != nil || got.Asked.Client.IsValid() {
		t.Errorf("of nobody: %v, %+v: %q", err, got, raw)
	}
	f.Origin = flow.Origin{Client: client, Local: netip.MustParseAddrPort("[2001:db8::2]:6")}
	raw, _ = SendProxy{Version: 1}.header(f)
	if got, _, err := accepted(t, raw, front); err != nil || got.Asked.Client != client {
		t.Errorf("two families: %v, %+v: %q", err, got, raw)
	}
}
