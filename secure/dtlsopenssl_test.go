package secure

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/internal/testnet"
	"sallyport/wire"
)

// opensslNames are OpenSSL's for the engine's suites, those that it has.
var opensslNames = map[dtls.CipherSuiteID]string{
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
	dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         "ECDHE-RSA-AES128-GCM-SHA256",
	dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       "ECDHE-ECDSA-AES256-GCM-SHA384",
	dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         "ECDHE-RSA-AES256-GCM-SHA384",
	dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
	dtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-RSA-CHACHA20-POLY1305",
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM:              "ECDHE-ECDSA-AES128-CCM",
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8:            "ECDHE-ECDSA-AES128-CCM8",
	dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          "ECDHE-ECDSA-AES256-SHA",
	dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:            "ECDHE-RSA-AES256-SHA",
	dtls.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-PSK-CHACHA20-POLY1305",
	dtls.TLS_PSK_WITH_AES_128_GCM_SHA256:               "PSK-AES128-GCM-SHA256",
	dtls.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256:         "PSK-CHACHA20-POLY1305",
	dtls.TLS_PSK_WITH_AES_128_CCM:                      "PSK-AES128-CCM",
	dtls.TLS_PSK_WITH_AES_128_CCM_8:                    "PSK-AES128-CCM8",
	dtls.TLS_PSK_WITH_AES_256_CCM_8:                    "PSK-AES256-CCM8",
	dtls.TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256:         "ECDHE-PSK-AES128-CBC-SHA256",
	dtls.TLS_PSK_WITH_AES_128_CBC_SHA256:               "PSK-AES128-CBC-SHA256",
}

var deviceKeyHex = hex.EncodeToString([]byte(deviceKey))

func sClient(t *testing.T, addr netip.AddrPort, args ...string) *openssl {
	t.Helper()
	return runOpenSSL(t, append([]string{"s_client", "-connect", addr.String(), "-timeout"}, args...)...)
}

// exchanges moves a line each way between a tool and our side, which then ends.
func (o *openssl) exchanges(s *side) {
	o.t.Helper()
	if s.err != nil {
		o.t.Fatalf("%v; it says:\n%s", s.err, o.said())
	}
	o.write("a line\n")
	s.hears(o.t, "a line\n")
	s.says(o.t, "an answer\n")
	o.hear("an answer")
}

func TestDTLSOpenSSLClientSuites(t *testing.T) {
	s := newSite(t)
	s.psk()
	for _, suite := range dtlsSuites {
		name := opensslNames[suite.id]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := s.server
			server.Suites = []uint16{uint16(suite.id)}
			args := []string{"-dtls1_2", "-cipher", name + ":@SECLEVEL=0", "-servername", "a.test"}
			switch suite.kind {
			case keyPSK:
				args = append(args, "-psk", deviceKeyHex, "-psk_identity", "device")
			case keyRSA:
				server.Credential = s.own(s.ca.Leaf([]string{"a.test"}, ca.SharedRSA()))
			}
			l := listenDTLS(t, NewDTLSServer(server))
			o := sClient(t, l.at(), args...)
			got := l.next()
			o.exchanges(got)
			if session := got.session(t); session.Suite != uint16(suite.id) || (session.PSK == "device") != (suite.kind == keyPSK) {
				t.Errorf("recorded %+v", session)
			}
			got.c.Close()
			o.hear("closed")
		})
	}
}

func TestDTLSOpenSSLClient(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *site) []string // gives arguments
		server flow.Reason
		says   string // by openssl, at its end
	}{
		{"a name", func(s *site) []string { return []string{"-servername", "b.test"} }, flow.OK, "CN = b.test"},
		{"another name", func(s *site) []string { return []string{"-servername", "a.test"} }, flow.OK, "CN = a.test"},
		{"ALPN", func(s *site) []string {
			s.server.ALPN = []string{"coap", "x"}
			return []string{"-servername", "a.test", "-alpn", "y,x"}
		}, flow.OK, "ALPN protocol: x"},
		{"ALPN disjoint", func(s *site) []string {
			s.server.ALPN = []string{"coap"}
			return []string{"-servername", "a.test", "-alpn", "y"}
		}, flow.NoApplicationProto, "alert no application protocol"},
		{"DTLS 1.0 alone", func(s *site) []string {
			return []string{"-servername", "a.test", "-dtls1", "-cipher", "ALL:@SECLEVEL=0"}
		}, flow.VersionUnsupported, "alert protocol version"},
		{"a certificate where one is required", func(s *site) []string { return s.shows(s.ca) }, flow.OK, "Acceptable client certificate CA names"},
		{"an RSA certificate where one is required", func(s *site) []string { return s.shows(s.ca, ca.SharedRSA()) }, flow.OK, ""},
		{"no certificate where one is required", func(s *site) []string { s.shows(s.ca); return []string{"-servername", "a.test"} }, flow.ClientCertMissing, "alert"},
		{"a certificate of another CA", func(s *site) []string { return s.shows(ca.Test(s.t)) }, flow.ClientCertUnknownCA, "alert bad certificate"},
		{"a wrong key", func(s *site) []string {
			s.psk()
			s.server.Timeout = 2e9
			return []string{"-psk", "00112233445566778899aabbccddeeff", "-psk_identity", "device", "-cipher", "PSK-AES128-GCM-SHA256"}
		}, flow.PSKMismatch, ""},
		{"an unknown identity", func(s *site) []string {
			s.psk()
			s.server.Timeout = 2e9
			return []string{"-psk", deviceKeyHex, "-psk_identity", "nobody", "-cipher", "PSK-AES128-GCM-SHA256"}
		}, flow.PSKUnknown, ""},
		{"no suite shared", func(s *site) []string {
			return []string{"-servername", "a.test", "-cipher", "AES128-SHA"}
		}, flow.NoSharedCipher, "alert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			source := byName{}
			for _, name := range []string{"a.test", "b.test"} {
				source[name] = s.own(s.ca.Leaf([]string{name}, ca.CN(name))).(fixed).c
			}
			s.server.Credential = source
			args := c.change(s)
			if !strings.Contains(strings.Join(args, " "), "-dtls1 ") {
				args = append(args, "-dtls1_2")
			}
			l := listenDTLS(t, NewDTLSServer(s.server))
			o := sClient(t, l.at(), args...)
			got := l.next()
			if reasonOf(got.err) != c.server {
				t.Fatalf("got %v; openssl says:\n%s", got.err, o.said())
			}
			o.hear(c.says)
			if c.server == flow.OK {
				o.exchanges(got)
			}
		})
	}
}

// shows has the server require a certificate, and gives the arguments for a client
// to show one of that CA.
func (s *site) shows(of *ca.Tester, opts ...ca.Option) []string {
	s.asking(AuthRequire)
	cert, key := of.Files(of.Leaf([]string{"c.test"}, append(opts, ca.ClientAuth())...))
	return []string{"-servername", "a.test", "-cert", cert, "-key", key}
}

// Each reconnection follows a goodbye, which may come together with the end of the
// handshake.
func TestDTLSOpenSSLClientResumes(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	o := sClient(t, l.at(), "-dtls1_2", "-servername", "a.test", "-reconnect")
	resumed := 0
	for i := range 6 {
		got := l.next()
		if got.err != nil {
			if reasonOf(got.err) != flow.ClientAlert || !strings.Contains(got.err.Error(), "alert 0,") {
				t.Fatal(got.err)
			}
			if i > 0 { // of the others openssl says below what they were
				resumed++
			}
			continue
		}
		if got.session(t).Resumed {
			resumed++
		}
	}
	if resumed != 5 {
		t.Errorf("%d of 6 handshakes resumed", resumed)
	}
	o.hearTimes(5, "Reused, ")
}

// No datagram of a handshake of ours is larger than the MTU that is set, and both
// ends take what comes in parts.
func TestDTLSOpenSSLClientMTU(t *testing.T) {
	for _, mtu := range []int{300, 512, 1200, 1500} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.asking(AuthRequire)
			s.server.MTU = mtu
			cert, key := s.ca.Files(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth(), ca.SharedRSA()))
			s.server.Credential = s.own(s.ca.Leaf([]string{"a.test"}, ca.SharedRSA()))
			l := listenDTLS(t, NewDTLSServer(s.server))
			r := testnet.Relay(t, l.at(), testnet.Weather{})
			var largest atomic.Int64
			r.Through(func(_ int, w testnet.Way, _ int, p []byte) [][]byte {
				if w == testnet.ToClient && int64(len(p)) > largest.Load() {
					largest.Store(int64(len(p)))
				}
				return [][]byte{p}
			})
			o := sClient(t, r.Addr(), "-dtls1_2", "-servername", "a.test", "-mtu", strconv.Itoa(mtu), "-cert", cert, "-key", key)
			got := l.next()
			o.exchanges(got)
			if n := largest.Load(); n > int64(mtu) || n < int64(min(mtu, 1000)-200) {
				t.Errorf("the largest datagram has %d bytes", n)
			}
		})
	}
}

// sServer runs an s_server, and gives where.
func sServer(t *testing.T, args ...string) (*openssl, netip.AddrPort) {
	t.Helper()
	o := runOpenSSL(t, append([]string{"s_server", "-accept", "127.0.0.1:0", "-dtls1_2", "-timeout"}, args...)...)
	_, rest, _ := strings.Cut(o.hear("ACCEPT 127.0.0.1:"), "ACCEPT ")
	for !strings.Contains(rest, "\n") {
		_, rest, _ = strings.Cut(o.said(), "ACCEPT ")
	}
	return o, netip.MustParseAddrPort(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
}

func TestDTLSOpenSSLServerSuites(t *testing.T) {
	s := newSite(t)
	s.psk()
	ec, ecKey := s.ca.Files(s.ca.Leaf([]string{"a.test"}))
	rsa, rsaKey := s.ca.Files(s.ca.Leaf([]string{"a.test"}, ca.SharedRSA()))
	for _, suite := range dtlsSuites {
		name := opensslNames[suite.id]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := s.client
			client.Suites = []uint16{uint16(suite.id)}
			args := []string{"-cipher", name + ":@SECLEVEL=0"}
			switch suite.kind {
			case keyPSK:
				args = append(args, "-psk", deviceKeyHex, "-psk_identity", "device", "-psk_hint", "a hint", "-nocert")
			case keyRSA:
				client.PSK = nil
				args = append(args, "-cert", rsa, "-key", rsaKey)
			default:
				client.PSK = nil
				args = append(args, "-cert", ec, "-key", ecKey)
			}
			o, addr := sServer(t, args...)
			got := dialDTLS(t, addr, NewDTLSClient(client))
			o.exchanges(got)
			if session := got.session(t); session.Suite != uint16(suite.id) || (session.PSK == "device") != (suite.kind == keyPSK) || session.Version != wire.VersionDTLS12 {
				t.Errorf("recorded %+v", session)
			}
			got.c.Close()
			o.hear("DONE")
		})
	}
}

func TestDTLSOpenSSLServer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *site) []string
		client flow.Reason
		says   string
	}{
		{"with a cookie", func(*site) []string { return []string{"-listen"} }, flow.OK, ""},
		{"ALPN", func(s *site) []string {
			s.client.ALPN = []string{"y", "x"}
			return []string{"-alpn", "coap,x"}
		}, flow.OK, "ALPN protocols selected: x"},
		{"ALPN disjoint", func(s *site) []string {
			s.client.ALPN = []string{"y"}
			return []string{"-alpn", "coap"}
		}, flow.ServerAlert, "no application protocol"},
		{"our certificate required", func(s *site) []string {
			s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth(), ca.CN("c.test")))
			return []string{"-Verify", "1", "-CAfile", s.ca.File(), "-verify_return_error"}
		}, flow.OK, "CN = c.test"},
		{"our certificate required, RSA", func(s *site) []string {
			s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth(), ca.CN("c.test"), ca.SharedRSA()))
			return []string{"-Verify", "1", "-CAfile", s.ca.File(), "-verify_return_error"}
		}, flow.OK, "CN = c.test"},
		{"our certificate required, and there is none", func(s *site) []string {
			return []string{"-Verify", "1", "-CAfile", s.ca.File(), "-verify_return_error"}
		}, flow.ServerRejectedCert, "peer did not return a certificate"},
		{"our certificate of another CA", func(s *site) []string {
			other := ca.Test(s.t)
			s.client.Credential = s.own(other.Leaf([]string{"c.test"}, ca.ClientAuth()))
			return []string{"-Verify", "1", "-CAfile", s.ca.File(), "-verify_return_error"}
		}, flow.ServerRejectedCert, "verify error"},
		{"our certificate asked for, and there is none", func(s *site) []string {
			return []string{"-verify", "1", "-CAfile", s.ca.File()}
		}, flow.OK, ""},
		{"its name is another", func(s *site) []string { s.client.Name = "b.test"; return nil }, flow.NameMismatch, "alert bad certificate"},
		{"another key", func(s *site) []string {
			s.psk()
			s.client.Timeout = 2e9
			return []string{"-psk", "00112233445566778899aabbccddeeff", "-psk_identity", "device", "-nocert"}
		}, flow.ServerTimeout, ""},
		{"MTU 300", func(s *site) []string { s.client.MTU = 300; return []string{"-mtu", "300"} }, flow.OK, ""},
		{"MTU 1500", func(s *site) []string { s.client.MTU = 1500; return []string{"-mtu", "1500"} }, flow.OK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			args := c.change(s)
			if s.client.PSK == nil {
				cert, key := s.ca.Files(s.ca.Leaf([]string{"a.test"}))
				args = append(args, "-cert", cert, "-key", key)
			}
			o, addr := sServer(t, args...)
			got := dialDTLS(t, addr, NewDTLSClient(s.client))
			if reasonOf(got.err) != c.client {
				t.Fatalf("got %v, want %s; openssl says:\n%s", got.err, c.client, o.said())
			}
			if c.client == flow.OK {
				o.exchanges(got)
			}
			o.hear(c.says)
		})
	}
}

func TestDTLSOpenSSLServerResumes(t *testing.T) {
	s := newSite(t)
	cert, key := s.ca.Files(s.ca.Leaf([]string{"a.test"}))
	o, addr := sServer(t, "-cert", cert, "-key", key)
	layer := NewDTLSClient(s.client)
	for i := range 3 {
		got := dialDTLS(t, addr, layer)
		if session := got.session(t); session.Resumed != (i > 0) {
			t.Errorf("handshake %d: resumed is %t", i, session.Resumed)
		}
		o.exchanges(got)
		got.c.Close()
		o.hearTimes(i+1, "DONE\n")
	}
}
