package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// explained is what explain says of a file.
func explained(t testing.TB, file string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(testnet.Binary(t), append([]string{"explain", "-c", file}, args...)...)
	cmd.Env = os.Environ()
	return executeCmd(t, nil, cmd)
}

// explain says of each kind of client what the program then does with it, which
// openssl tries.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "s.yaml")
	text := fmt.Sprintf(`listeners:
  - from: tls://127.0.0.1:0
    cert: %[1]q
    key: %[2]q
    to: tcp://%[3]s
    routes:
      - {match: {sni: a.test}, client: {ca: %[4]q}, allow: [{dns: ops.example}]}
      - {match: {sni: b.test, client: 10.0.0.0/8}}
      - {match: {sni: c.test}, tls: {min: "1.3"}}
      - {match: {sni: theirs.test}, action: splice}
`, s.cert, s.key, serving(t, echo), s.anchors)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	say := func(args ...string) (string, error) { return explained(t, file, args...) }
	all, err := say()
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	for _, want := range []string{
		"tls-0: clients connect to tls://127.0.0.1:0\n", "takes a.test\n", "takes b.test, from 10.0.0.0/8, if no route above does",
		"with clients: TLS 1.3 only", "key exchange: X25519MLKEM768", "may pass: certificates of client.ca with dns ops.example",
		"to clients it shows a certificate for a.test (" + s.cert + "), until ",
		"sends no server name: is refused as unrecognized_name", "as no-such-name.invalid: is refused as unrecognized_name",
		"speaks no more than TLS 1.0, at tls-0/3: is refused as version_unsupported (alert 70, protocol_version)",
		"has no certificate, at tls-0/1: is refused amid its handshake, as client_cert_missing", "has no certificate, at tls-0/3: may pass",
		"pass-through to tcp://", "is not decrypted", "expires, the first one first:", "no state_dir",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	one, err := say("B.test")
	if err != nil || !strings.Contains(one, "a client: is refused as no_route") || !strings.Contains(one, "a client from 10.0.0.0: is taken by tls-0/2") || strings.Contains(one, "tls-0/1:") {
		t.Errorf("%v\n%s", err, one)
	}
	none, err := say("d.test")
	if err == nil || !strings.Contains(none, "alert 112, unrecognized_name") || !strings.Contains(none, "nobody takes d.test") {
		t.Errorf("%v\n%s", err, none)
	}
	if t.Failed() {
		t.Log(all)
	}
	p := start(t, "run", "-c", file)
	for _, c := range []struct{ name, flag, want string }{
		{"d.test", "-tls1_3", "alert number 112"}, {"c.test", "-tls1_2", "alert number 70"}, {"b.test", "-tls1_3", "alert number 49"},
	} {
		out, _ := execute(t, "", "openssl", "s_client", "-connect", p.Addr(""), "-servername", c.name, c.flag)
		if !strings.Contains(out, c.want) {
			t.Errorf("openssl for %s %s: no %s\n%s", c.name, c.flag, c.want, out)
		}
	}
	p.Reason("unrecognized_name")
	p.Reason("version_unsupported")
	p.Reason("no_route")
}

// wantExplained wants each of words to be said of a file of that text.
func wantExplained(t *testing.T, text string, words ...string) (file string) {
	t.Helper()
	file = write(t, "s.yaml", text)
	all, err := explained(t, file)
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	for _, want := range words {
		if !strings.Contains(all, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(all)
	}
	return file
}

// What is said of routes of datagrams: openssl and a client with a key try it.
func TestExplainDatagrams(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	file := wantExplained(t, fmt.Sprintf(`listeners:
  - {name: psk, from: "dtls://127.0.0.1:0", psk: %[1]q, to: "udp://%[2]s"}
  - name: names
    from: dtls://127.0.0.1:0
    cert: %[3]q
    to: udp://%[2]s
    routes:
      - {match: {sni: coap.test}}
      - {match: {sni: theirs.test}, action: splice}
  - {name: near, from: "udp://127.0.0.1:0", to: {addr: "dtls://127.0.0.1:9", psk: %[1]q, psk_identity: dev0}}
`, c.psk, packetEcho(t), c.site),
		"psk: clients connect to dtls://127.0.0.1:0\n", "it must begin with a DTLS ClientHello; anything else is dropped", "with clients: DTLS 1.2 only",
		"may pass: holders of a key in "+c.psk, "has no certificate, at psk: needs none, and a pre-shared key of "+c.psk,
		"names/2: pass-through to udp://", "asks for a name that is nowhere here, as no-such-name.invalid: is refused as unrecognized_name",
		"has no certificate, at names/1: may pass: none is asked for", "to clients it shows a certificate for ",
		"server dtls://127.0.0.1:9: must have the pre-shared key of "+c.psk, "with the server: DTLS 1.2 only", "begins with DTLS: is passed on as it is",
	)
	one, err := explained(t, file, "coap.test")
	if err != nil || !strings.Contains(one, "is taken by names/1") || !strings.Contains(one, "is taken by psk") {
		t.Errorf("%v\n%s", err, one)
	}
	p := start(t, "run", "-c", file)
	p.WaitListeners(3)
	if out, err := execute(t, "", "openssl", "s_client", "-dtls1_2", "-connect", p.Addr("names"), "-servername", "d.test"); err == nil {
		t.Errorf("openssl for d.test got in:\n%s", out)
	}
	p.Reason("unrecognized_name")
	endAtOnce(p)
}

// What is said where a SPIFFE agent gives certificates and anchors.
func TestExplainSPIFFE(t *testing.T) {
	t.Parallel()
	root := ca.Test(t)
	a := newAgent(t)
	a.tell(t, root.Leaf([]string{"spiffe://corp/web"}), []*ca.Tester{root}, nil)
	a.serve(t)
	wantExplained(t, fmt.Sprintf(`listeners:
  - from: tls://127.0.0.1:0
    spiffe: %[1]q
    allow: [{uri: "spiffe://corp/ops/*"}]
    to: {addr: "tls://127.0.0.1:9", name: "spiffe://corp/db"}
`, a.addr),
		"to clients it shows what the SPIFFE agent at tcp://"+a.addr+" gives", "to the server it shows what the SPIFFE agent at tcp://"+a.addr+" gives",
		"may pass: certificates of the SPIFFE agent's trust domains with uri spiffe://corp/ops/*",
		"its certificate must be for spiffe://corp/db, from a CA of the trust domains of the SPIFFE agent at tcp://"+a.addr,
		"has no certificate, at tls-0: is refused amid its handshake, as client_cert_missing",
	)
}

// A client of TLS 1.0 is refused where TLS is ended, and is the server's affair where
// it is passed through: as is said, so it is.
func TestExplainOldClients(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	old := serving(t, func(c *net.TCPConn) {
		conn := tls.Server(c, s.serverConfig(tls.VersionTLS10))
		io.Copy(conn, conn)
		conn.Close()
	})
	file := wantExplained(t, fmt.Sprintf(`listeners:
  - from: tls://127.0.0.1:0
    routes:
      - {match: {sni: a.test}, action: splice, to: "tcp://%s"}
      - {match: {sni: b.test}, cert: %q, key: %q, to: "tcp://%s"}
`, old, s.cert, s.key, serving(t, echo)),
		"speaks no more than TLS 1.0, at tls-0/1: is passed on as it is, and the server decides",
		"speaks no more than TLS 1.0, at tls-0/2: is refused as version_unsupported (alert 70, protocol_version)",
	)
	p := start(t, "run", "-c", file)
	cfg := s.clientConfig(tls.VersionTLS10)
	if cs, err := s.knock(p.Addr(""), cfg); err != nil || cs.Version != tls.VersionTLS10 {
		t.Errorf("passed through: %s, %v", tls.VersionName(cs.Version), err)
	}
	cfg.ServerName = "b.test"
	if _, err := s.knock(p.Addr(""), cfg); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("where TLS is ended: %v", err)
	}
	p.Reason("version_unsupported")
	p.Reason("ok")
}
