package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// stapledBy asks a server until what it staples is as wanted, and gives the leaf.
func stapledBy(t *testing.T, addr string, pool *x509.CertPool, want bool) *x509.Certificate {
	t.Helper()
	var cs tls.ConnectionState
	for end := time.Now().Add(testnet.Patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: "face.x.test", CurvePreferences: quick})
		if err != nil {
			t.Fatal(err)
		}
		cs = c.ConnectionState()
		c.Close()
		if (len(cs.OCSPResponse) > 0) == want {
			return cs.PeerCertificates[0]
		}
		if time.Now().After(end) {
			t.Fatalf("stapled %d bytes, want any: %t", len(cs.OCSPResponse), want)
		}
	}
}

// What we staple, by the word of openssl and GnuTLS; over a restart without the
// responder, over a reload, and not past its time.
func TestStaple(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	leaf := d.inter.Leaf([]string{"face.x.test"}, ca.OCSPAt(d.at("own")))
	cert, _, err := leaf.Write(d.dir, "own")
	if err != nil {
		t.Fatal(err)
	}
	d.answer("own", send(respond(t, d.delegate, d.good(leaf.Cert))))
	offset := filepath.Join(d.dir, "offset")
	shift := func(by string) {
		t.Helper()
		if err := os.WriteFile(offset, []byte(by), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shift("0s")
	state := filepath.Join(d.dir, "state")
	run := func(more string) *testnet.Program {
		return runFile(t, fmt.Sprintf("state_dir: %s\nunsafe: {clock_offset: \"@%s\"}\nlisteners:\n- from: tls://127.0.0.1:0\n  cert: %s\n  to: tcp://%s\n  %s\n",
			state, offset, cert, serveEach(t, echo), more))
	}
	p := run("")
	stapledBy(t, p.Addr(""), d.Pool(), true)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out, _ := execute(t, "Q\n", "openssl", "s_client", "-connect", p.Addr(""), "-servername", "face.x.test", "-CAfile", d.anchors, "-status", version)
		if !strings.Contains(out, "OCSP Response Status: successful") || !strings.Contains(out, "Cert Status: good") {
			t.Errorf("openssl %s: %s", version, out)
		}
	}
	out, err := execute(t, "", "gnutls-cli", "--port", portOf(t, p.Addr("")), "--sni-hostname", "face.x.test", "--verify-hostname", "face.x.test", "--x509cafile", d.anchors, "127.0.0.1")
	if err != nil || !strings.Contains(out, "OCSP status request") {
		t.Errorf("gnutls-cli: %v\n%s", err, out)
	}
	p.Signal(syscall.SIGHUP)
	p.WaitLog("reloaded")
	stapledBy(t, p.Addr(""), d.Pool(), true)
	if n := d.times("own"); n != 1 {
		t.Errorf("the responder was asked %d times", n)
	}
	endAtOnce(p)
	p.Wait()

	d.answer("own", nil)
	p = run("")
	stapledBy(t, p.Addr(""), d.Pool(), true)
	shift("23h")
	time.Sleep(1100 * time.Millisecond) // the file is read once a second
	stapledBy(t, p.Addr(""), d.Pool(), true)
	shift("25h")
	stapledBy(t, p.Addr(""), d.Pool(), false)
	shift("0s")
	stapledBy(t, p.Addr(""), d.Pool(), true)

	p = run("staple: off")
	stapledBy(t, p.Addr(""), d.Pool(), false)
}

// A must-staple certificate is not shown without a staple where another will do, and
// its owner hears of it.
func TestStapleMust(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	must := d.inter.Leaf([]string{"face.x.test"}, ca.OCSPAt(d.at("must")), ca.MustStaple())
	other := d.inter.Leaf([]string{"face.x.test"}, ca.SharedRSA())
	dir := t.TempDir()
	for stem, l := range map[string]*ca.Leaf{"a": must, "b": other} {
		if _, _, err := l.Write(dir, stem); err != nil {
			t.Fatal(err)
		}
	}
	run := func(cert string, more ...string) *testnet.Program {
		return start(t, append([]string{"proxy", "tls://127.0.0.1:0", "tcp://" + serveEach(t, echo), "--cert", cert}, more...)...)
	}
	p := run(dir, "--staple", "off")
	if r := p.Logged("`staple` is off here", 1); r.Text("level") != "ERROR" {
		t.Errorf("said at %s", r.Text("level"))
	}
	if got := stapledBy(t, p.Addr(""), d.Pool(), false); !got.Equal(other.Cert) {
		t.Errorf("%s is shown where none is ever stapled", got.Subject)
	}
	p = run(dir)
	if got := stapledBy(t, p.Addr(""), d.Pool(), false); !got.Equal(other.Cert) {
		t.Errorf("%s is shown without a staple", got.Subject)
	}
	p.WaitLog("ASKS FOR A STAPLED ANSWER AND HAS NONE")
	p = run(filepath.Join(dir, "a.pem")) // there is no other
	if got := stapledBy(t, p.Addr(""), d.Pool(), false); !got.Equal(must.Cert) {
		t.Errorf("%s is shown", got.Subject)
	}
	d.answer("must", send(respond(t, d.delegate, d.good(must.Cert))))
	p = run(dir)
	if got := stapledBy(t, p.Addr(""), d.Pool(), true); !got.Equal(must.Cert) {
		t.Errorf("%s is shown", got.Subject)
	}
	d.answer("must", send(respond(t, d.delegate, d.revoked(must.Cert))))
	p = run(dir)
	p.WaitLog("WAS REVOKED on")
	if got := stapledBy(t, p.Addr(""), d.Pool(), false); !got.Equal(other.Cert) {
		t.Errorf("%s is shown", got.Subject)
	}
}
