package main

import (
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// stock is a CA and a certificate of each kind for every name of the tests.
type stock struct {
	*ca.Tester
	anchors string // the CA's file
	dir     string // a folder with both certificates
	ecdsa   string // files; the key is beside each, as .key
	rsa     string
}

func newStock(t testing.TB) *stock {
	t.Helper()
	s := &stock{Tester: ca.Test(t), dir: t.TempDir()}
	s.anchors = s.File()
	names := []string{"*.x.test", "localhost", "127.0.0.1"}
	s.ecdsa = s.leaf(t, "ecdsa", names, ca.ECDSA(elliptic.P256()))
	s.rsa = s.leaf(t, "rsa", names, ca.SharedRSA(), encrypts)
	return s
}

// leaf makes a certificate and gives its file.
func (s *stock) leaf(t testing.TB, stem string, names []string, opts ...ca.Option) string {
	t.Helper()
	cert, _, err := s.Leaf(names, opts...).Write(s.dir, stem)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// encrypts has a key usage that RSA key exchange needs, which GnuTLS looks at.
var encrypts = ca.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment)

func keyOf(cert string) string { return strings.TrimSuffix(cert, ".pem") + ".key" }

// sClient asks hello of a server by openssl, and gives all that it says of it.
func (s *stock) sClient(t testing.TB, addr, sni string, more ...string) (string, error) {
	t.Helper()
	return execute(t, "hello\n", "openssl", append([]string{"s_client", "-connect", addr, "-servername", sni, "-CAfile", s.anchors,
		"-verify_return_error", "-verify_hostname", sni, "-ign_eof", "-cipher", "DEFAULT@SECLEVEL=0"}, more...)...)
}

// gnutls does the same by gnutls-cli, which half-closes after it has asked, and
// leaves without close_notify where the server ends first: it asks one to wait.
func (s *stock) gnutls(t testing.TB, addr, sni, priority string, more ...string) (string, error) {
	t.Helper()
	return execute(t, patient+"\n", "gnutls-cli", append([]string{"--port", portOf(t, addr), "--sni-hostname", sni, "--verify-hostname", sni,
		"--x509cafile", s.anchors, "--priority", priority, "127.0.0.1"}, more...)...)
}

// curl does the same by curl.
func (s *stock) curl(t testing.TB, addr, sni string, more ...string) (string, error) {
	t.Helper()
	port := portOf(t, addr)
	return execute(t, "", "curl", append([]string{"-sS", "--cacert", s.anchors, "--ciphers", "DEFAULT@SECLEVEL=0",
		"--resolve", sni + ":" + port + ":127.0.0.1", "https://" + sni + ":" + port + "/hello"}, more...)...)
}

// sServer is openssl as a server of every version, which sends each line back
// from end to start.
func (s *stock) sServer(t testing.TB, cert string, more ...string) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		return exec.Command(tool(t, "openssl"), append([]string{"s_server", "-accept", "127.0.0.1:" + port, "-cert", cert, "-key", keyOf(cert),
			"-rev", "-cipher", "DEFAULT@SECLEVEL=0"}, more...)...)
	})
}

// gnutlsServ is gnutls-serv, which sends back what comes.
func (s *stock) gnutlsServ(t testing.TB, cert string, more ...string) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		return exec.Command(tool(t, "gnutls-serv"), append([]string{"--echo", "--port", port, "--x509certfile", cert, "--x509keyfile", keyOf(cert),
			"--priority", "NORMAL:+VERS-TLS1.0:+VERS-TLS1.1"}, more...)...)
	})
}

// protocol is a version in the words of everybody.
type protocol struct{ name, openssl, gnutls, yaml, ja4 string }

var protocols = []protocol{
	{"TLS 1.0", "-tls1", "VERS-TLS1.0", "1.0", "t10"},
	{"TLS 1.1", "-tls1_1", "VERS-TLS1.1", "1.1", "t11"},
	{"TLS 1.2", "-tls1_2", "VERS-TLS1.2", "1.2", "t12"},
	{"TLS 1.3", "-tls1_3", "VERS-TLS1.3", "1.3", "t13"},
}

// bySNI gives the record of the one flow with that name.
func bySNI(t testing.TB, p *testnet.Program, sni string) testnet.Record {
	t.Helper()
	return p.Flow(sni, func(r testnet.Record) bool { return r.Text("sni") == sni })
}

func byListener(t testing.TB, p *testnet.Program, name string) testnet.Record {
	t.Helper()
	return p.Flow(name, func(r testnet.Record) bool { return r.Text("listener") == name })
}

// wantFields compares some fields of a record.
func wantFields(t testing.TB, r testnet.Record, want testnet.Record) {
	t.Helper()
	for key, v := range want {
		if r[key] != v {
			t.Errorf("the record has %s=%v, want %v\n%v", key, r[key], v, r)
		}
	}
}

// wantKind checks the signature by the suite, where the version names it there.
func wantKind(t testing.TB, r testnet.Record, side, version, kind string) {
	t.Helper()
	if suite := r.Text(side + "_cipher"); version != "TLS 1.3" && !strings.Contains(suite, "_"+strings.ToUpper(kind)+"_") {
		t.Errorf("%s_cipher is %s, and the certificate of kind %s", side, suite, kind)
	}
	if r.Text(side+"_group") == "" {
		t.Errorf("no %s_group: %v", side, r)
	}
}

func TestInteropClients(t *testing.T) {
	s := newStock(t)
	web := backend(t, "web")
	p := runFile(t, fmt.Sprintf(`
defaults: {tls: old, to: "tcp://%s"}
listeners:
  - from: tls://127.0.0.1:0
    name: ecdsa
    cert: %s
  - from: tls://127.0.0.1:0
    name: rsa
    cert: %s
`, web, s.ecdsa, s.rsa))
	type client struct {
		name string
		ask  func(v protocol, addr, sni string) (string, error)
	}
	clients := []client{
		{"openssl", func(v protocol, addr, sni string) (string, error) { return s.sClient(t, addr, sni, v.openssl) }},
		{"gnutls", func(v protocol, addr, sni string) (string, error) {
			return s.gnutls(t, addr, sni, "NORMAL:-VERS-ALL:+"+v.gnutls)
		}},
		{"curl", func(v protocol, addr, sni string) (string, error) {
			return s.curl(t, addr, sni, "--tlsv"+v.yaml, "--tls-max", v.yaml)
		}},
	}
	for i, v := range protocols {
		for _, kind := range []string{"ecdsa", "rsa"} {
			for _, c := range clients {
				sni := fmt.Sprintf("%s-%s-%d.x.test", c.name, kind, i)
				out, err := c.ask(v, p.Addr(kind), sni)
				if err != nil || !strings.Contains(out, "web got") {
					t.Errorf("%s: %v\n%s", sni, err, out)
					continue
				}
				r := bySNI(t, p, sni)
				wantFields(t, r, testnet.Record{"listener": kind, "pattern": "offload", "server": web, "in_version": v.name, "in_resumed": false, "reason": "ok"})
				wantKind(t, r, "in", v.name, kind)
				if len(r.Text("ja3")) != 32 || !strings.HasPrefix(r.Text("ja4"), v.ja4+"d") {
					t.Errorf("%s: JA3 %q, JA4 %q", sni, r.Text("ja3"), r.Text("ja4"))
				}
			}
		}
	}
}

func TestInteropServers(t *testing.T) {
	s := newStock(t)
	servers := []struct {
		name, kind, answer string
		addr               string
	}{
		{"openssl-ecdsa", "ecdsa", "olleh", s.sServer(t, s.ecdsa).addr},
		{"openssl-rsa", "rsa", "olleh", s.sServer(t, s.rsa).addr},
		{"gnutls-ecdsa", "ecdsa", "hello", s.gnutlsServ(t, s.ecdsa).addr},
		{"gnutls-rsa", "rsa", "hello", s.gnutlsServ(t, s.rsa).addr},
	}
	file := "listeners:\n"
	for i, v := range protocols {
		for _, server := range servers {
			file += fmt.Sprintf("  - from: tcp://127.0.0.1:0\n    name: %s-%d\n    to: {addr: \"tls://%s\", name: inner.x.test, ca: %s, tls: {preset: old, max: %s}}\n",
				server.name, i, server.addr, s.anchors, v.yaml)
		}
	}
	p := runFile(t, file)
	for i, v := range protocols {
		for _, server := range servers {
			name := fmt.Sprintf("%s-%d", server.name, i)
			mustAsk(t, p.Addr(name), "hello", server.answer)
			r := byListener(t, p, name)
			wantFields(t, r, testnet.Record{"pattern": "encrypt", "server": server.addr, "out_version": v.name, "out_resumed": false,
				"out_peer": "*.x.test,localhost,127.0.0.1", "out_peer_by": "pkix", "reason": "ok"})
			wantKind(t, r, "out", v.name, server.kind)
		}
	}
}

// Each side of a bridge has its own versions.
func TestInteropBridges(t *testing.T) {
	s := newStock(t)
	old := s.sServer(t, s.rsa, "-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0")
	modern := s.gnutlsServ(t, s.ecdsa, "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3")
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %s, to: {name: inner.x.test, ca: %s}}
listeners:
  - from: tls://127.0.0.1:0
    name: modern-face
    tls: modern
    to: {addr: "tls://%s", tls: old}
  - from: tls://127.0.0.1:0
    name: old-face
    tls: old
    to: {addr: "tls://%s", tls: modern}
  - from: tls://127.0.0.1:0
    name: not-asked
    to: "tls://%s"
`, s.dir, s.anchors, old.addr, modern.addr, old.addr))
	v10, v13 := "NORMAL:-VERS-ALL:+VERS-TLS1.0", "NORMAL:-VERS-ALL:+VERS-TLS1.3"
	for _, c := range []struct {
		sni, listener, in, out, answer string
		ask                            func(addr, sni string) (string, error)
	}{
		{"a.x.test", "modern-face", "TLS 1.3", "TLS 1.0", "tneitap", func(addr, sni string) (string, error) { return s.gnutls(t, addr, sni, v13) }},
		{"b.x.test", "old-face", "TLS 1.0", "TLS 1.3", patient, func(addr, sni string) (string, error) { return s.gnutls(t, addr, sni, v10) }},
	} {
		if out, err := c.ask(p.Addr(c.listener), c.sni); err != nil || !strings.Contains(out, c.answer) {
			t.Errorf("%s: %v\n%s", c.listener, err, out)
		}
		wantFields(t, bySNI(t, p, c.sni), testnet.Record{"pattern": "bridge", "in_version": c.in, "out_version": c.out, "reason": "ok"})
	}
	if out, err := s.sClient(t, p.Addr("modern-face"), "c.x.test", "-tls1_2"); err == nil || !strings.Contains(out, "protocol version") {
		t.Errorf("the modern face takes TLS 1.2: %v\n%s", err, out)
	}
	if out, err := s.sClient(t, p.Addr("not-asked"), "d.x.test"); err == nil {
		t.Errorf("an old server was reached without to.tls old:\n%s", out)
	}
	wantFields(t, bySNI(t, p, "d.x.test"), testnet.Record{"stage": "outbound", "fault": "server"})
}

// RSA beside ECDSA serves clients that know one of them.
func TestInteropBothKinds(t *testing.T) {
	s := newStock(t)
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--cert", s.dir)
	for _, c := range []struct{ sni, args, says string }{
		{"both-12.x.test", "-tls1_2", "Peer signature type: ECDSA"},
		{"both-13.x.test", "-tls1_3", "Peer signature type: ECDSA"},
		{"rsa-12.x.test", "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "Peer signature type: RSA"},
		{"rsa-12-sigalgs.x.test", "-tls1_2 -sigalgs RSA-PSS+SHA256:RSA+SHA256", "Peer signature type: RSA"},
		{"rsa-13.x.test", "-tls1_3 -sigalgs RSA-PSS+SHA256", "Peer signature type: RSA-PSS"},
		{"ecdsa-13.x.test", "-tls1_3 -sigalgs ECDSA+SHA256", "Peer signature type: ECDSA"},
	} {
		if out, err := s.sClient(t, p.Addr(""), c.sni, strings.Fields(c.args)...); err != nil || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v, no %q\n%s", c.sni, err, c.says, out)
		}
	}
	if out, err := s.gnutls(t, p.Addr(""), "gnutls.x.test", "NORMAL:-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256"); err != nil || !strings.Contains(out, "RSA-PSS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What old allows it allows for one route, not for its neighbours.
func TestInteropOldLoosensNoOther(t *testing.T) {
	s := newStock(t)
	web := backend(t, "web")
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %s, to: "tcp://%s"}
listeners:
  - from: tls://127.0.0.1:0
    name: routes
    routes:
      - match: {sni: "*.old.x.test"}
        cert: %s
        tls: old
      - match: {sni: "*.x.test"}
  - from: tls://127.0.0.1:0
    name: other
`, s.dir, web, s.leaf(t, "old", []string{"*.old.x.test"}, ca.SharedRSA(), encrypts)))
	for i, c := range []struct{ name, priority, cipher, refused string }{
		{"TLS 1.0", "NORMAL:-VERS-ALL:+VERS-TLS1.0", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "version_unsupported"},
		{"RSA key exchange", "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA", "TLS_RSA_WITH_AES_128_GCM_SHA256", "no_shared_cipher"},
		{"3DES", "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA:-CIPHER-ALL:+3DES-CBC", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "no_shared_cipher"},
		{"CBC", "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "no_shared_cipher"},
	} {
		old, plain, other := fmt.Sprintf("c%d.old.x.test", i), fmt.Sprintf("c%d.x.test", i), fmt.Sprintf("o%d.x.test", i)
		if out, err := s.gnutls(t, p.Addr("routes"), old, c.priority); err != nil || !strings.Contains(out, "web got "+patient) {
			t.Errorf("%s: the old route refuses: %v\n%s", c.name, err, out)
		}
		wantFields(t, bySNI(t, p, old), testnet.Record{"in_cipher": c.cipher, "reason": "ok"})
		for sni, listener := range map[string]string{plain: "routes", other: "other"} {
			if out, err := s.gnutls(t, p.Addr(listener), sni, c.priority); err == nil {
				t.Errorf("%s: taken by %s:\n%s", c.name, sni, out)
			}
			wantFields(t, bySNI(t, p, sni), testnet.Record{"reason": c.refused, "fault": "client"})
		}
	}
}

// Towards servers as well.
func TestInteropOldServers(t *testing.T) {
	s := newStock(t)
	server := s.sServer(t, s.rsa, "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0")
	p := runFile(t, fmt.Sprintf(`
defaults: {to: {addr: "tls://%s", name: inner.x.test, ca: %s}}
listeners:
  - from: tcp://127.0.0.1:0
    name: old
    to: {tls: old}
  - from: tcp://127.0.0.1:0
    name: intermediate
`, server.addr, s.anchors))
	mustAsk(t, p.Addr("old"), "hello", "olleh")
	wantFields(t, byListener(t, p, "old"), testnet.Record{"out_cipher": "TLS_RSA_WITH_AES_128_CBC_SHA", "reason": "ok"})
	if got, err := ask(p.Addr("intermediate"), "hello"); err == nil {
		t.Errorf("got %q", got)
	}
	wantFields(t, byListener(t, p, "intermediate"), testnet.Record{"stage": "outbound", "reason": "server_alert", "fault": "server"})
}

func TestInteropALPN(t *testing.T) {
	s := newStock(t)
	inner := s.sServer(t, s.ecdsa, "-alpn", "h2")
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %s, to: {name: inner.x.test, ca: %s}}
listeners:
  - from: tls://127.0.0.1:0
    name: explicit
    alpn: [h2, http/1.1]
    to: "tcp://%s"
  - from: tls://127.0.0.1:0
    name: mirror
    to: "tls://%s"
`, s.dir, s.anchors, backend(t, "web"), inner.addr))
	for _, c := range []struct{ listener, sni, offer, says, alpn string }{
		{"explicit", "both.x.test", "http/1.1,h2", "ALPN protocol: h2", "h2"},
		{"explicit", "one.x.test", "http/1.1", "ALPN protocol: http/1.1", "http/1.1"},
		{"mirror", "mirror.x.test", "http/1.1,h2", "ALPN protocol: h2", "h2"},
	} {
		out, err := s.sClient(t, p.Addr(c.listener), c.sni, "-alpn", c.offer, "-no_ign_eof")
		if err != nil || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v\n%s", c.sni, err, out)
		}
		wantFields(t, bySNI(t, p, c.sni), testnet.Record{"alpn_offered": c.offer, "in_alpn": c.alpn})
	}
	wantFields(t, bySNI(t, p, "mirror.x.test"), testnet.Record{"out_alpn": "h2"})
	out, err := s.sClient(t, p.Addr("explicit"), "none.x.test", "-alpn", "spdy/1")
	if err == nil || !strings.Contains(out, "no application protocol") {
		t.Errorf("%v\n%s", err, out)
	}
	wantFields(t, bySNI(t, p, "none.x.test"), testnet.Record{"reason": "no_application_protocol"})
	if out, err := s.gnutls(t, p.Addr("explicit"), "silent.x.test", "NORMAL"); err != nil || !strings.Contains(out, "web got") {
		t.Errorf("a client without ALPN: %v\n%s", err, out)
	}
}

// A folder of certificates: picked by name, each route with its own server.
func TestInteropSNIRoutes(t *testing.T) {
	s := newStock(t)
	dir := t.TempDir()
	for stem, names := range map[string][]string{"a": {"a.x.test"}, "b": {"b.x.test"}, "wild": {"*.x.test"}, "staff": {"*.staff.x.test"}} {
		if _, _, err := s.Leaf(names, ca.CN("for "+stem)).Write(dir, stem); err != nil {
			t.Fatal(err)
		}
	}
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tls://127.0.0.1:0
    cert: %s
    routes:
      - match: {sni: a.x.test}
        to: "tcp://%s"
      - match: {sni: ["*.staff.x.test", "*.x.test"]}
        to: "tcp://%s"
`, dir, backend(t, "alpha"), backend(t, "rest")))
	for _, c := range []struct{ sni, subject, answer string }{
		{"a.x.test", "CN = for a", "alpha got"}, {"b.x.test", "CN = for b", "rest got"},
		{"c.x.test", "CN = for wild", "rest got"}, {"x.staff.x.test", "CN = for staff", "rest got"},
	} {
		out, err := s.sClient(t, p.Addr(""), c.sni)
		if err != nil || !strings.Contains(out, "subject="+c.subject) || !strings.Contains(out, c.answer) {
			t.Errorf("%s: %v\n%s", c.sni, err, out)
		}
	}
	out, err := s.sClient(t, p.Addr(""), "else.example")
	if err == nil || !strings.Contains(out, "unrecognized name") {
		t.Errorf("%v\n%s", err, out)
	}
	wantFields(t, bySNI(t, p, "else.example"), testnet.Record{"reason": "unrecognized_name"})
	if r := bySNI(t, p, "c.x.test"); filepath.Base(r.Text("route")) != "2" {
		t.Errorf("%v", r)
	}
}
