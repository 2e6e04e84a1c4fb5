package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// haproxyTo is HAProxy in TCP mode in front of addr, which it tells who its client is.
func haproxyTo(t *testing.T, addr, option string) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGKILL, func(port string) *exec.Cmd {
		conf := write(t, "haproxy.cfg", fmt.Sprintf(`
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
listen front
  bind 127.0.0.1:%s
  server s %s %s
`, port, addr, option))
		return exec.Command(tool(t, "haproxy"), "-db", "-f", conf)
	})
}

// nginxTold is nginx that wants a PROXY header, and says whom it names.
func nginxTold(t *testing.T) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		dir := t.TempDir()
		conf := write(t, "nginx.conf", fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen 127.0.0.1:%[2]s proxy_protocol; return 200 "client $proxy_protocol_addr $proxy_protocol_port\n"; }
}`, dir, port))
		return exec.Command(tool(t, "nginx"), "-p", dir, "-c", conf, "-e", "stderr")
	})
}

// from dials addr from another address of loopback.
func from(t *testing.T, source, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: bound}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(bound))
	t.Cleanup(func() { c.Close() })
	return c
}

// Through HAProxy in front and nginx behind, in either version, the server learns
// the client's own address, and so do the routes and the log.
func TestProxyProtocolThroughEveryPattern(t *testing.T) {
	t.Parallel()
	s, nginx := newSite(t), nginxTold(t)
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %q, key: %q, proxy_protocol: require, proxy_trust: 127.0.0.1}
listeners:
  - {from: "tls://127.0.0.1:0", name: v1, to: {addr: "tcp://%[3]s", proxy_protocol: v1}}
  - {from: "tls://127.0.0.1:0", name: v2, to: {addr: "tcp://%[3]s", proxy_protocol: v2}}
  - {from: "tcp://127.0.0.1:0", name: plain, to: {addr: "tcp://%[3]s", proxy_protocol: v2}}
  - from: "tls://127.0.0.1:0"
    name: optional
    proxy_protocol: optional
    to: {addr: "tcp://%[3]s", proxy_protocol: v1}
    routes: [{match: {client: 127.0.0.77}}, {match: {client: 127.0.0.5}}, {action: reject}]
`, s.cert, s.key, nginx.addr))
	for _, c := range []struct {
		name, option string
		secure       bool
	}{{"v1", "send-proxy", true}, {"v2", "send-proxy-v2", true}, {"plain", "send-proxy-v2", false}, {"optional", "send-proxy-v2", true}} {
		front := haproxyTo(t, p.Addr(c.name), c.option)
		conn := from(t, "127.0.0.77", front.addr)
		me := conn.LocalAddr().(*net.TCPAddr)
		if c.secure {
			conn = tls.Client(conn, s.clientConfig(tls.VersionTLS13))
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		got, _ := io.ReadAll(conn)
		conn.Close()
		if want := fmt.Sprintf("client 127.0.0.77 %d\n", me.Port); !bytes.HasSuffix(got, []byte(want)) {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
		r := p.Flow(c.name, func(r testnet.Record) bool { return r.Text("client") == me.String() }) // HAProxy's start was tried too
		if r.Text("listener") != c.name || !strings.HasPrefix(r.Text("via"), "127.0.0.1:") {
			t.Errorf("%s: %v", c.name, r)
		}
	}
	// optional: who sends none is who connects; who is not trusted cannot name another.
	conn := from(t, "127.0.0.5", p.Addr("optional"))
	c := tls.Client(conn, s.clientConfig(tls.VersionTLS13))
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	if got, _ := io.ReadAll(c); !bytes.Contains(got, []byte("client 127.0.0.5 ")) {
		t.Errorf("%q", got)
	}
	liar := from(t, "127.0.0.6", p.Addr("optional"))
	fmt.Fprint(liar, "PROXY TCP4 127.0.0.77 127.0.0.1 1 2\r\n")
	io.Copy(io.Discard, liar)
	p.Reason("not_tls")
}

// A header that is not read is told as one, and why.
func TestProxyHeaderThatIsNotRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %q, key: %q, to: "tcp://%s"}
listeners:
  - {from: "tls://127.0.0.1:0", name: "off"}
  - {from: "tls://127.0.0.1:0", name: optional, proxy_protocol: optional, proxy_trust: 127.0.0.1}
`, s.cert, s.key, echoAddr(t)))
	const v1, v2 = "PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	for i, c := range []struct{ listener, source, sent, want string }{
		{"off", "127.0.0.1", v1, "a PROXY header, and proxy_protocol is off on this listener"},
		{"off", "127.0.0.1", v2, "a PROXY header, and proxy_protocol is off on this listener"},
		{"optional", "127.0.0.6", v1, "a PROXY header, which is not read from 127.0.0.6: proxy_trust does not list it"},
		{"optional", "127.0.0.6", v2, "a PROXY header, which is not read from 127.0.0.6: proxy_trust does not list it"},
		{"optional", "127.0.0.1", v1 + v1, "a PROXY header, behind one that was read already"},
		{"off", "127.0.0.1", "PROXYING", `it began with "PROXYING"`},
	} {
		conn := from(t, c.source, p.Addr(c.listener))
		io.WriteString(conn, c.sent)
		io.Copy(io.Discard, conn)
		if r := p.Flows(i + 1)[i]; r.Text("reason") != "not_tls" || !strings.Contains(r.Text("err"), c.want) {
			t.Errorf("%q from %s to %s: %s: %s", c.sent, c.source, c.listener, r.Text("reason"), r.Text("err"))
		}
	}
}

// F-35: what is no header, or from whom none is taken, gets nowhere.
func TestProxyProtocolRefuses(t *testing.T) {
	t.Parallel()
	server := listen(t)
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+server.Addr().String(), "--proxy-protocol", "require", "--proxy-trust", "127.0.0.1", "--timeouts-peek", "300ms")
	for _, c := range []struct{ source, sent, reason string }{
		{"127.0.0.2", "PROXY TCP4 127.0.0.77 127.0.0.1 1 2\r\n", "proxy_untrusted"},
		{"127.0.0.1", "GET / HTTP/1.0\r\n\r\n", "proxy_header_missing"},
		{"127.0.0.1", "PROX", "proxy_header_missing"}, // and no more
		{"127.0.0.1", "PROXY TCP4 a b c d\r\n", "proxy_header_bad"},
		{"127.0.0.1", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("x", 60000), "proxy_header_bad"},
	} {
		conn := from(t, c.source, p.Addr(""))
		go io.WriteString(conn, c.sent)
		io.Copy(io.Discard, conn)
		r := p.Reason(c.reason)
		if r.Text("stage") != "preamble" || r.Text("fault") != "client" {
			t.Errorf("%v", r)
		}
	}
	server.SetDeadline(time.Now())
	if c, err := server.Accept(); err == nil {
		c.Close()
		t.Error("the server was dialled")
	}
}

// A client of a unix socket has no address that could be told; another sallyport takes
// the header that says so.
func TestProxyProtocolOfNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	far := start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+serveEach(t, echo), "--cert", s.cert, "--key", s.key, "--proxy-protocol", "require", "--proxy-trust", "127.0.0.1")
	sock := filepath.Join(t.TempDir(), "in.sock")
	near := start(t, "proxy", "unix:"+sock, "tcp://"+far.Addr(""), "--to-proxy-protocol", "v2")
	near.WaitListeners(1)
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	client := tlsPeer(c, tls.Client, s.clientConfig(tls.VersionTLS13))
	if answer := lineOver(client); answer != secret {
		t.Errorf("the answer is %q", answer)
	}
}

// The server's TLS begins behind the header, and what is passed through undecrypted
// has its server name told.
func TestProxyProtocolToTLSServers(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), listen(t)
	p := runFile(t, fmt.Sprintf(`
listeners:
  - {from: "tcp://127.0.0.1:0", name: encrypt, to: {addr: "tls://%[1]s", name: a.test, ca: %[2]q, proxy_protocol: v2}}
  - {from: "tls://127.0.0.1:0", name: splice, action: splice, to: {addr: "tcp://%[1]s", proxy_protocol: v2}}
`, server.Addr(), s.anchors))
	for _, name := range []string{"encrypt", "splice"} {
		var conn net.Conn = from(t, "127.0.0.9", p.Addr(name))
		if name == "splice" {
			conn = tls.Client(conn, s.clientConfig(tls.VersionTLS13))
		}
		go io.WriteString(conn, "hello")
		there, err := accept(server)
		if err != nil {
			t.Fatal(err)
		}
		header := make([]byte, 16)
		if _, err := io.ReadFull(there, header); err != nil {
			t.Fatal(err)
		}
		rest := make([]byte, int(header[14])<<8|int(header[15]))
		if _, err := io.ReadFull(there, rest); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(rest, []byte{127, 0, 0, 9, 127, 0, 0, 1}) || bytes.Contains(rest, []byte("a.test")) != (name == "splice") {
			t.Errorf("%s: %q%q", name, header, rest)
		}
		said := make([]byte, 5)
		if _, err := io.ReadFull(tls.Server(there, s.serverConfig(tls.VersionTLS13)), said); err != nil || string(said) != "hello" {
			t.Errorf("%s: %q, %v", name, said, err)
		}
	}
}

// What a believed header says beyond the addresses, the TLS of another's client above
// all, is not passed on as if we had seen it.
func TestProxyProtocolPassesOnNoIdentity(t *testing.T) {
	t.Parallel()
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    name: a
    proxy_protocol: require
    proxy_trust: [127.0.0.1/32]
    to: {addr: "tcp://%s", proxy_protocol: v2}
`, echoAddr(t)))
	c, err := net.Dial("tcp", p.Addr("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testnet.Patience))
	const signature, addrs = "\r\n\r\n\x00\r\nQUIT\n\x21\x11", "\x01\x02\x03\x04\x05\x06\x07\x08\x04\x57\x01\xbb"
	// PP2_TYPE_SSL with the client's CN, PP2_TYPE_AUTHORITY, and one for private use.
	const told = "\x20\x00\x0b\x07\x00\x00\x00\x00\x22\x00\x03eve" + "\x02\x00\x03eve" + "\xe0\x00\x03eve"
	fmt.Fprintf(c, "%s\x00%c%s%shello", signature, len(addrs)+len(told), addrs, told)
	want := signature + "\x00\x0c" + addrs + "hello"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("the server is told %q (%v), want %q", got, err, want)
	}
}
