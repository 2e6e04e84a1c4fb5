package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// gotIn says whether c, a connection through a plain listener to an echo, is served.
func gotIn(c net.Conn) bool {
	c.SetDeadline(time.Now().Add(bound))
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

func echoAddr(t *testing.T) string {
	return serveEach(t, func(c *net.TCPConn) { io.Copy(c, c) })
}

// limited waits until it is said that connections were refused for limit.
func limited(t *testing.T, p *testnet.Program, limit string) {
	t.Helper()
	eventually(t, "the log to name limits."+limit, func() bool { return strings.Contains(p.Stderr(), fmt.Sprintf(`"limit":%q`, limit)) })
}

func TestLimitsOfAListener(t *testing.T) {
	t.Parallel()
	echo := echoAddr(t)
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    name: all
    to: "tcp://%[1]s"
    limits: {flows: 3}
  - from: tcp://127.0.0.1:0
    name: each
    to: "tcp://%[1]s"
    limits: {flows_per_ip: 2, prefix4: 24}
  - from: tcp://127.0.0.1:0
    name: rate
    to: "tcp://%[1]s"
    limits: {rate_per_ip: 3}
`, echo))
	try := func(name, source string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: bound}
		c, err := d.Dial("tcp", p.Addr(name))
		if err != nil {
			return nil // reset so soon
		}
		t.Cleanup(func() { c.Close() })
		if !gotIn(c) {
			return nil
		}
		return c
	}
	first := try("all", "127.0.0.1")
	if first == nil || try("all", "127.0.0.2") == nil || try("all", "127.0.0.3") == nil || try("all", "127.0.0.4") != nil {
		t.Error("not three of four")
	}
	first.Close()
	eventually(t, "a place to come free", func() bool { return try("all", "127.0.0.4") != nil })

	if try("each", "127.0.1.1") == nil || try("each", "127.0.1.2") == nil || try("each", "127.0.1.3") != nil || try("each", "127.0.2.1") == nil {
		t.Error("not two of one network, and one of another")
	}
	n := 0
	for range 20 {
		if try("rate", "127.0.0.1") != nil {
			n++
		}
	}
	if n < 3 || n > 8 { // three, and three more each second that this takes
		t.Errorf("%d of 20", n)
	}
	if try("rate", "127.0.0.9") == nil {
		t.Error("another client has to wait")
	}
	for _, limit := range []string{"flows", "flows_per_ip", "rate_per_ip"} {
		limited(t, p, limit)
	}
}

// With a PROXY header the client is counted, not the proxy.
func TestLimitsOfAProxiedClient(t *testing.T) {
	t.Parallel()
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+echoAddr(t), "--proxy-protocol", "require", "--proxy-trust", "127.0.0.1", "--limits-flows-per-ip", "1")
	try := func(client string) bool {
		c := from(t, "127.0.0.1", p.Addr(""))
		fmt.Fprintf(c, "PROXY TCP4 %s 192.0.2.1 1 2\r\n", client)
		return gotIn(c)
	}
	if !try("10.0.0.1") || try("10.0.0.1") || !try("10.0.0.2") {
		t.Error("not one of each")
	}
	p.Reason("client_limited")
}

// F-10: clients that stall in their handshake are shed, oldest first, and others
// feel nothing.
func TestStalledHandshakesAreShed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+echoAddr(t), "--cert", s.cert, "--key", s.key, "--limits-handshakes", "40", "--timeouts-peek", "20s")
	hello := []byte("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03") // of 16 KiB
	var stalled []net.Conn
	good := 0
	for range 10 {
		for range 30 {
			c := from(t, "127.0.0.66", p.Addr(""))
			c.Write(hello)
			stalled = append(stalled, c)
		}
		c := tls.Client(from(t, "127.0.0.1", p.Addr("")), s.clientConfig(tls.VersionTLS13))
		if gotIn(c) {
			good++
		}
	}
	if good != 10 {
		t.Errorf("%d of 10 got through", good)
	}
	alive := slices.Clone(stalled)
	eventually(t, "the oldest to be shed", func() bool {
		alive = slices.DeleteFunc(alive, func(c net.Conn) bool {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			n, ok := err.(net.Error)
			return err != nil && !(ok && n.Timeout())
		})
		return len(alive) <= 40
	})
	p.Reason("handshake_shed")
	limited(t, p, "handshakes")
}

// F-08: near the bound on memory no more are let in, who is in stays, and it goes on
// once there is room. The metric says so.
func TestLimitOfMemory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sock := filepath.Join(t.TempDir(), "m.sock")
	p := runFile(t, fmt.Sprintf(`
metrics: unix:%s
limits: {memory: 48MiB, handshakes: off}
listeners:
  - from: tls://127.0.0.1:0
    cert: %q
    key: %q
    to: {addr: "tls://%s", ca: %q, name: a.test}
    timeouts: {peek: 60s}
`, sock, s.cert, s.key, s.tlsEcho(t), s.anchors))
	first := tls.Client(from(t, "127.0.0.1", p.Addr("")), s.clientConfig(tls.VersionTLS13))
	if !gotIn(first) {
		t.Fatal("not even one")
	}
	part := append([]byte("\x16\x03\x01\x40\x00\x01\x00\xff\xfc\x03\x03"), make([]byte, 16000)...)
	var all []net.Conn
	for range 4000 {
		c, err := net.Dial("tcp", p.Addr(""))
		if err != nil {
			t.Fatal(err)
		}
		c.SetWriteDeadline(time.Now().Add(bound))
		c.Write(part)
		all = append(all, c)
		if len(all)%100 == 0 && strings.Contains(p.Stderr(), `"limit":"memory"`) {
			break
		}
	}
	limited(t, p, "memory")
	if _, page := curl(t, "--unix-socket", sock, "http://x/metrics"); metric(t, page, `sallyport_limit_hits_total{limit="memory",listener="tls-0"}`) < 1 {
		t.Errorf("no metric says so:\n%s", page)
	}
	first.SetDeadline(time.Now().Add(bound))
	if !gotIn(first) {
		t.Error("who was in is not served any more")
	}
	for _, c := range all {
		c.Close()
	}
	eventually(t, "room again", func() bool {
		c := tls.Client(from(t, "127.0.0.1", p.Addr("")), s.clientConfig(tls.VersionTLS13))
		defer c.Close()
		return gotIn(c)
	})
}
