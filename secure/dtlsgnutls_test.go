package secure

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

const gnutlsDTLS = "NORMAL:-VERS-ALL:+VERS-DTLS1.2"

func gnutlsClient(t *testing.T, s *site, addr netip.AddrPort, args ...string) *openssl {
	t.Helper()
	return runTool(t, "gnutls-cli", append([]string{"-u", "-p", strconv.Itoa(int(addr.Port())), addr.Addr().String(), "--sni-hostname", "a.test", "--verify-hostname", "a.test", "--x509cafile", s.ca.File()}, args...)...)
}

func TestDTLSGnuTLSClient(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *site) []string
		server flow.Reason
		says   string
	}{
		{"ECDSA", func(*site) []string { return []string{"--priority", gnutlsDTLS} }, flow.OK, "- Status: The certificate is trusted."},
		{"RSA", func(s *site) []string {
			s.server.Credential = s.own(s.ca.Leaf([]string{"a.test"}, ca.SharedRSA()))
			return []string{"--priority", gnutlsDTLS}
		}, flow.OK, "- Status: The certificate is trusted."},
		{"ALPN", func(s *site) []string {
			s.server.ALPN = []string{"coap", "x"}
			return []string{"--priority", gnutlsDTLS, "--alpn", "y", "--alpn", "x"}
		}, flow.OK, "- Application protocol: x"},
		{"ALPN disjoint", func(s *site) []string {
			s.server.ALPN = []string{"coap"}
			return []string{"--priority", gnutlsDTLS, "--alpn", "y", "-d", "5"}
		}, flow.NoApplicationProto, "No supported application protocol could be negotiated - was received"},
		{"DTLS 1.0 alone", func(*site) []string {
			return []string{"--priority", "LEGACY:-VERS-ALL:+VERS-DTLS1.0", "-d", "5"}
		}, flow.VersionUnsupported, "Error in protocol version - was received"},
		{"a certificate where one is required", func(s *site) []string {
			s.asking(AuthRequire)
			cert, key := s.ca.Files(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
			return []string{"--priority", gnutlsDTLS, "--x509certfile", cert, "--x509keyfile", key}
		}, flow.OK, "- Successfully sent 1 certificate(s) to server."},
		{"no certificate where one is required", func(s *site) []string {
			s.asking(AuthRequire)
			return []string{"--priority", gnutlsDTLS}
		}, flow.ClientCertMissing, "Successfully sent 0 certificate(s) to server"},
		{"a name that we are not", func(*site) []string {
			return []string{"--priority", gnutlsDTLS, "--verify-hostname", "b.test"}
		}, flow.ClientRejectedLeaf, "The name in the certificate does not match the expected."},
		{"a key", func(s *site) []string {
			s.psk()
			return []string{"--priority", gnutlsDTLS + ":-KX-ALL:+PSK", "--pskusername", "device", "--pskkey", deviceKeyHex}
		}, flow.OK, "- PSK authentication"},
		{"a key and forward secrecy", func(s *site) []string {
			s.psk()
			return []string{"--priority", gnutlsDTLS + ":-KX-ALL:+ECDHE-PSK:-CIPHER-ALL:+CHACHA20-POLY1305", "--pskusername", "device", "--pskkey", deviceKeyHex}
		}, flow.OK, ""},
		{"a key, as a small device", func(s *site) []string {
			s.psk()
			return []string{"--priority", gnutlsDTLS + ":-KX-ALL:+PSK:-CIPHER-ALL:+AES-128-CCM-8", "--pskusername", "device", "--pskkey", deviceKeyHex}
		}, flow.OK, "AES-128-CCM-8"},
		{"another key", func(s *site) []string {
			s.psk()
			s.server.Timeout = 2e9
			return []string{"--priority", gnutlsDTLS + ":-KX-ALL:+PSK", "--pskusername", "device", "--pskkey", "00112233445566778899aabbccddeeff"}
		}, flow.PSKMismatch, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			args := c.change(s)
			l := listenDTLS(t, NewDTLSServer(s.server))
			o := gnutlsClient(t, s, l.at(), args...)
			got := l.next()
			if got.err == nil && c.server == flow.ClientRejectedLeaf {
				// It looks at the name once its handshake is made.
				if err := got.ends(t); reasonOf(err) != c.server && err.Error() != "EOF" {
					t.Errorf("it ended with %v", err)
				}
			} else if reasonOf(got.err) != c.server {
				t.Fatalf("got %v; gnutls-cli says:\n%s", got.err, o.said())
			}
			switch {
			case c.server != flow.OK:
			case strings.Contains(strings.Join(args, " "), "ECDHE-PSK"):
				// Then gnutls-cli 3.7 crashes where it says what was agreed on.
				if session := got.session(t); session.PSK != "device" || session.Group == 0 {
					t.Errorf("recorded %+v", session)
				}
			default:
				o.exchanges(got)
			}
			o.hear(c.says)
		})
	}
}

func TestDTLSGnuTLSClientResumes(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	o := gnutlsClient(t, s, l.at(), "--priority", gnutlsDTLS, "-r")
	if first := l.next(); first.session(t).Resumed {
		t.Error("the first handshake resumed")
	}
	second := l.next()
	if !second.session(t).Resumed {
		t.Error("the second did not")
	}
	o.hear("*** This is a resumed session")
	o.exchanges(second)
}

func TestDTLSGnuTLSMTU(t *testing.T) {
	for _, mtu := range []int{300, 576, 1500} {
		s := newSite(t)
		s.asking(AuthRequire)
		s.server.MTU = mtu
		s.server.Credential = s.own(s.ca.Leaf([]string{"a.test"}, ca.SharedRSA()))
		cert, key := s.ca.Files(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
		l := listenDTLS(t, NewDTLSServer(s.server))
		r := testnet.Relay(t, l.at(), testnet.Weather{MTU: mtu})
		o := gnutlsClient(t, s, r.Addr(), "--priority", gnutlsDTLS, "--mtu", strconv.Itoa(mtu), "--x509certfile", cert, "--x509keyfile", key)
		o.exchanges(l.next())
		if p := r.Passed(testnet.ToClient); p.TooLarge > 0 {
			t.Errorf("MTU %d: %d datagrams were larger", mtu, p.TooLarge)
		}
	}
}

// gnutlsServer runs a gnutls-serv that echoes, and gives where.
func gnutlsServer(t *testing.T, args ...string) (*openssl, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	c.Close() // it cannot choose a port by itself
	o := runTool(t, "gnutls-serv", append([]string{"-u", "-p", strconv.Itoa(int(at.Port())), "--echo"}, args...)...)
	o.hear("done\n")
	return o, at
}

func TestDTLSGnuTLSServer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *site, dir string) []string
		client flow.Reason
	}{
		{"ECDSA", func(*site, string) []string { return []string{"-a"} }, flow.OK},
		{"without a cookie", func(*site, string) []string { return []string{"-a", "--nocookie"} }, flow.OK},
		{"ALPN", func(s *site, _ string) []string {
			s.client.ALPN = []string{"y", "x"}
			return []string{"-a", "--alpn", "x"}
		}, flow.OK},
		{"our certificate required", func(s *site, _ string) []string {
			s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
			return []string{"-r", "--verify-client-cert", "--x509cafile", s.ca.File()}
		}, flow.OK},
		{"our certificate asked for, and there is none", func(s *site, _ string) []string {
			return []string{"--x509cafile", s.ca.File()}
		}, flow.OK},
		{"MTU 300", func(s *site, _ string) []string { s.client.MTU = 300; return []string{"-a", "--mtu", "300"} }, flow.OK},
		{"a key", func(s *site, dir string) []string {
			s.psk()
			file := filepath.Join(dir, "psk")
			if err := os.WriteFile(file, []byte("device:"+deviceKeyHex+"\n"), 0o600); err != nil {
				s.t.Fatal(err)
			}
			return []string{"-a", "--pskpasswd", file, "--pskhint", "a hint", "--priority", gnutlsDTLS + ":-KX-ALL:+PSK:+ECDHE-PSK"}
		}, flow.OK},
		{"another key", func(s *site, dir string) []string {
			s.psk()
			s.client.Timeout = 2e9
			file := filepath.Join(dir, "psk")
			if err := os.WriteFile(file, []byte("device:00112233445566778899aabbccddeeff\n"), 0o600); err != nil {
				s.t.Fatal(err)
			}
			return []string{"-a", "--pskpasswd", file, "--priority", gnutlsDTLS + ":-KX-ALL:+PSK"}
		}, flow.ServerTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			args := c.change(s, t.TempDir())
			if !strings.Contains(strings.Join(args, " "), "--priority") {
				args = append(args, "--priority", gnutlsDTLS)
			}
			if s.client.PSK == nil {
				cert, key := s.ca.Files(s.ca.Leaf([]string{"a.test"}))
				args = append(args, "--x509certfile", cert, "--x509keyfile", key)
			}
			o, addr := gnutlsServer(t, args...)
			got := dialDTLS(t, addr, NewDTLSClient(s.client))
			if reasonOf(got.err) != c.client {
				t.Fatalf("got %v, want %s; gnutls-serv says:\n%s", got.err, c.client, o.said())
			}
			if c.client != flow.OK {
				return
			}
			got.says(t, "a line\n")
			got.hears(t, "a line\n")
			if session := got.session(t); (session.ALPN == "x") != (s.client.ALPN != nil) {
				t.Errorf("recorded %+v", session)
			}
		})
	}
}

func TestDTLSGnuTLSServerResumes(t *testing.T) {
	s := newSite(t)
	cert, key := s.ca.Files(s.ca.Leaf([]string{"a.test"}))
	_, addr := gnutlsServer(t, "-a", "--x509certfile", cert, "--x509keyfile", key, "--priority", gnutlsDTLS)
	layer := NewDTLSClient(s.client)
	for i := range 2 {
		got := dialDTLS(t, addr, layer)
		if session := got.session(t); session.Resumed != (i > 0) {
			t.Errorf("handshake %d: resumed is %t", i, session.Resumed)
		}
		got.says(t, "a line\n")
		got.hears(t, "a line\n")
		got.c.Close()
	}
}

// A server that is not waited for any longer is told, so that it does not go on
// sending to a port that others may have by then.
func TestDTLSServerIsGivenUp(t *testing.T) {
	s := newSite(t)
	s.client.Timeout = time.Second
	cert, key := s.ca.Files(s.ca.Leaf([]string{"a.test"}))
	gnutls, gnutlsAt := gnutlsServer(t, "-a", "--x509certfile", cert, "--x509keyfile", key, "--priority", gnutlsDTLS)
	other, otherAt := sServer(t, "-cert", cert, "-key", key)
	for _, c := range []struct {
		server *openssl
		at     netip.AddrPort
		hears  string
	}{
		{gnutls, gnutlsAt, "Error in handshake"},
		{other, otherAt, "alert user cancelled"},
	} {
		r := testnet.Relay(t, c.at, testnet.Weather{})
		r.Through(func(_ int, w testnet.Way, _ int, p []byte) [][]byte {
			if w == testnet.ToClient && isHandshake(p, typeServerHello) {
				return nil
			}
			return [][]byte{p}
		})
		got := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
		if reasonOf(got.err) != flow.ServerTimeout {
			t.Errorf("got %v", got.err)
		}
		c.server.hear(c.hears)
	}
}
