package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// resets takes connections, waits for a ClientHello and resets them, until that ends
// by setting well: then it is as the site's other servers.
func (s *site) resets(t testing.TB, well *atomic.Bool) string {
	return serving(t, func(c *net.TCPConn) {
		if well != nil && well.Load() {
			conn := tls.Server(c, s.serverConfig(tls.VersionTLS13))
			io.Copy(conn, conn)
			conn.Close()
			return
		}
		c.SetDeadline(time.Now().Add(bound))
		c.Read(make([]byte, 16))
		c.SetLinger(0)
	})
}

// echoes asks n times for an echo, in clear or by TLS.
func (s *site) echoes(t testing.TB, addr string, n int, over *tls.Config) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(testnet.Patience))
		conn := net.Conn(c)
		if over != nil {
			conn = tls.Client(c, over)
		}
		if err := echoed(conn, []byte("are you there?")); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
}

// A server that resets in the handshake, one that is silent, and one that is
// somebody else: the good one gets all connections, and the others go down. They are
// not back because they take connections, but once the handshake is made.
func TestHandshakesAreTriedElsewhere(t *testing.T) {
	s, other := newSite(t), newSite(t)
	for _, mode := range []string{"encrypt", "bridge"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			var well atomic.Bool
			reset, good, wrong := s.resets(t, &well), s.tlsEcho(t), other.tlsEcho(t)
			silent := serving(t, func(c *net.TCPConn) { c.SetDeadline(time.Now().Add(bound)); io.Copy(io.Discard, c) })
			from, over := "from: tcp://127.0.0.1:0", (*tls.Config)(nil)
			if mode == "bridge" {
				from, over = fmt.Sprintf("from: tls://127.0.0.1:0\n    cert: %s\n    key: %s", s.cert, s.key), s.clientConfig(tls.VersionTLS13)
			}
			p := runFile(t, fmt.Sprintf(`
listeners:
  - %s
    timeouts: {handshake: 1s}
    to: {addr: ["tls://%s", "tls://%s", "tls://%s", "tls://%s"], ca: %s, retry: 3}
`, from, reset, silent, wrong, good, s.anchors))
			s.echoes(t, p.Addr(""), 12, over)
			says := map[string]string{reset: "", silent: "", wrong: "not among the trust anchors"}
			for range says {
				p.Logged("server down", len(says))
			}
			for server, text := range says {
				down := p.LoggedAs("server down: "+server, 1, func(r testnet.Record) bool {
					return r.Text("msg") == "server down" && r.Text("server") == "tls://"+server
				})
				if !strings.Contains(down.Text("err"), text) {
					t.Errorf("it says %v", down)
				}
			}
			for _, r := range p.Flows(12) {
				wantFields(t, r, testnet.Record{"reason": "ok", "server": good})
			}
			if strings.Contains(p.Stderr(), "server up") {
				t.Error("a server is up that makes no handshake")
			}
			well.Store(true)
			if up := p.Logged("server up", 1); up.Text("server") != "tls://"+reset {
				t.Errorf("it says %v", up)
			}
			s.echoes(t, p.Addr(""), 4, over)
			wantFields(t, p.Flow("of the server that is back", func(r testnet.Record) bool { return r.Text("server") == reset }), testnet.Record{"reason": "ok"})
		})
	}
}

// Trying another one is never trying with less: where each server is somebody else,
// nobody gets through, and the record has what was wrong.
func TestRetryVerifiesEachServer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	elsewhere := s.root.Leaf([]string{"else.test"})
	named := serving(t, func(c *net.TCPConn) {
		conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{elsewhere.TLS()}, CurvePreferences: quick})
		io.Copy(conn, conn)
		conn.Close()
	})
	stranger := newSite(t).tlsEcho(t)
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tls://"+stranger, "tls://"+named, "--to-ca", s.anchors)
	for range 8 { // also once both are down
		if _, err := ask(p.Addr(""), "hello"); err == nil {
			t.Fatal("an answer")
		}
	}
	for i, r := range p.Flows(8) {
		if reason := r.Text("reason"); reason != "name_mismatch" && reason != "unknown_ca" || r.Text("stage") != "outbound" || r.Text("verifier") != "pkix" {
			t.Errorf("flow %d: %v", i, r)
		}
		if err := r.Text("err"); !strings.Contains(err, "tls://"+named+": ") || !strings.Contains(err, "else.test") || !strings.Contains(err, "tls://"+stranger+": ") || !strings.Contains(err, "not among the trust anchors") {
			t.Errorf("flow %d does not say what both were: %s", i, err)
		}
	}
}

// A stranger's offer of protocols, and where he comes from, do not take a server from
// everybody.
func TestClientsTakeNoServerDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	picky := func() string {
		return serving(t, func(c *net.TCPConn) {
			cfg := s.serverConfig(tls.VersionTLS13)
			cfg.NextProtos = []string{"h2", "http/1.1"}
			conn := tls.Server(c, cfg)
			io.Copy(conn, conn)
			conn.Close()
		})
	}
	banning := func() string { // whoever comes from 127.0.0.1
		return serving(t, func(c *net.TCPConn) {
			c.SetDeadline(time.Now().Add(bound))
			bufio.NewReader(c).ReadString('\n')
			c.SetLinger(0)
		})
	}
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %s, key: %s, to: {ca: %s}}
listeners:
  - from: tls://127.0.0.1:0
    name: alpn
    to: {addr: ["tls://%s", "tls://%s"]}
  - from: tcp://127.0.0.1:0
    name: told
    cert: []
    to: {addr: ["tls://%s", "tls://%s"], proxy_protocol: v1}
`, s.cert, s.key, s.anchors, picky(), picky(), banning(), banning()))
	odd := s.clientConfig(tls.VersionTLS13)
	odd.NextProtos = []string{"x"}
	for range 8 {
		if c, err := tls.Dial("tcp", p.Addr("alpn"), odd); err == nil {
			c.Close()
			t.Fatal("a server took a protocol that it does not know")
		}
		if _, err := ask(p.Addr("told"), "hello"); err == nil {
			t.Fatal("an answer of who bans us")
		}
	}
	usual := s.clientConfig(tls.VersionTLS13)
	usual.NextProtos = []string{"h2"}
	s.echoes(t, p.Addr("alpn"), 2, usual)
	p.Flows(18)
	if strings.Contains(p.Stderr(), "server down") {
		t.Errorf("a server is down:\n%s", p.Stderr())
	}
}

// Nor does who begins handshakes without end: those that are shed for newer ones say
// nothing of the server.
func TestShedHandshakesTakeNoServerDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const shed = 8
	came, answers := make(chan struct{}, 4*shed), make(chan struct{})
	slow := func() string {
		return serving(t, func(c *net.TCPConn) {
			came <- struct{}{}
			<-answers
			conn := tls.Server(c, s.serverConfig(tls.VersionTLS13))
			io.Copy(conn, conn)
			conn.Close()
		})
	}
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    limits: {handshakes: 1}
    to: {addr: ["tls://%s", "tls://%s"], ca: %s}
`, slow(), slow(), s.anchors))
	var last net.Conn
	for range shed + 1 {
		c, err := net.Dial("tcp", p.Addr(""))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		last = c
		select {
		case <-came: // its handshake has begun
		case <-time.After(testnet.Patience):
			t.Fatal("no connection came to a server")
		}
	}
	for _, r := range p.Flows(shed) {
		wantFields(t, r, testnet.Record{"reason": "handshake_shed"})
	}
	close(answers)
	last.SetDeadline(time.Now().Add(testnet.Patience))
	if err := echoed(last, []byte("are you there?")); err != nil {
		t.Error(err)
	}
	if strings.Contains(p.Stderr(), "server down") {
		t.Errorf("a server is down:\n%s", p.Stderr())
	}
}

// Over DTLS too: a server that is silent, and one that is not.
func TestDTLSHandshakesAreTriedElsewhere(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", c.site, "--psk", c.psk, "--client-auth", "none")
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+silent.LocalAddr().String(), "dtls://"+far.Addr(""), "--to-ca", c.anchors, "--to-name", "coap.test",
		"--timeouts-handshake", "1s", "--to-check-fall", "1")
	for range 4 {
		u := dialUDP(t, p.Addr(""))
		if err := echoed(u, []byte("ping")); err != nil {
			t.Error(err)
		}
	}
	if down := p.Logged("server down", 1); down.Text("server") != "dtls://"+silent.LocalAddr().String() {
		t.Errorf("it says %v", down)
	}
	endAtOnce(p)
	endAtOnce(far)
}
