package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// unboundTold is unbound that wants a PROXY header ahead of each question, and says
// whom it names.
func unboundTold(t *testing.T) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		conf := write(t, "unbound.conf", fmt.Sprintf(`server:
  interface: 127.0.0.1@%[1]s
  proxy-protocol-port: %[1]s
  chroot: ""
  username: ""
  directory: ""
  pidfile: ""
  do-daemonize: no
  use-syslog: no
  logfile: ""
  log-queries: yes
  num-threads: 1
  access-control: 127.0.0.0/8 allow
  local-zone: "test." static
  local-data: "a.test. A 192.0.2.1"
remote-control:
  control-enable: no
`, port))
		return exec.Command(tool(t, "unbound"), "-d", "-p", "-c", conf)
	})
}

func dnsdist(t *testing.T, lua string) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		conf := write(t, "dnsdist.conf", fmt.Sprintf("setLocal('127.0.0.1:%s')\nsetSecurityPollSuffix('')\n%s", port, lua))
		return exec.Command(tool(t, "dnsdist"), "--supervised", "--disable-syslog", "-C", conf)
	})
}

// dialUDPFrom is dialUDP from another address of loopback.
func dialUDPFrom(t testing.TB, source, addr string) *net.UDPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(testnet.Patience))
	return c.(*net.UDPConn)
}

// mustResolve asks over c for a.test, and wants that address. It asks again where
// the server's socket may not have been there.
func mustResolve(t *testing.T, c net.Conn, want string) {
	t.Helper()
	answer := make([]byte, 1500)
	ip := netip.MustParseAddr(want).AsSlice()
	for id, by := uint16(1), time.Now().Add(testnet.Patience); ; id++ {
		question := binary.BigEndian.AppendUint16(nil, id)
		c.Write(append(question, "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01"...))
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(answer)
		switch {
		case err == nil && binary.BigEndian.Uint16(answer) <= id && strings.HasSuffix(string(answer[:n]), string(ip)):
			return
		case time.Now().After(by):
			t.Fatalf("from %s: %x, %v", c.LocalAddr(), answer[:n], err)
		}
	}
}

// header is one of version 2 that names a client of UDP.
func header(client string, more ...byte) string {
	at := netip.MustParseAddrPort(client)
	ip := at.Addr().As4()
	raw := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00"), byte(12+len(more)))
	raw = append(append(raw, ip[:]...), 127, 0, 0, 1)
	raw = binary.BigEndian.AppendUint16(raw, at.Port())
	return string(append(append(raw, 0, 53), more...))
}

// Stock servers want a header ahead of each question, also of a client's second one.
func TestDatagramProxyHeaderToStockServers(t *testing.T) {
	t.Parallel()
	unbound := unboundTold(t)
	dist := dnsdist(t, `setProxyProtocolACL({'127.0.0.1/32'})
addAction(makeRule('127.0.0.77/32'), SpoofAction('192.0.2.1'))
addAction(AllRule(), RCodeAction(DNSRCode.REFUSED))
`)
	for _, server := range []*daemon{unbound, dist} {
		p := start(t, "proxy", "udp://127.0.0.1:0", "udp://"+server.addr, "--to-proxy-protocol", "v2_each")
		c := dialUDPFrom(t, "127.0.0.77", p.Addr(""))
		for range 3 {
			mustResolve(t, c, "192.0.2.1")
		}
	}
	eventually(t, "unbound says whose question it was", func() bool { return strings.Contains(unbound.out.String(), "127.0.0.77 a.test. A IN") })
}

// dnsdist has its clients share one socket; each has an association of its own, and
// is known to the server behind.
func exampleDatagramProxyProtocol(t *testing.T, e *example) {
	unbound := unboundTold(t)
	e.server("127.0.0.1:5353", unbound.addr)
	e.text = strings.ReplaceAll(e.text, "10.0.0.0/8", "127.0.0.1")
	p := e.start()
	front := dnsdist(t, fmt.Sprintf("newServer({address='%s', useProxyProtocol=true, sockets=1}):setUp()\nsetACL('127.0.0.0/8')\n", p.Addr("")))
	for _, source := range []string{"127.0.0.77", "127.0.0.78", "127.0.0.77"} {
		c := dialUDPFrom(t, source, front.addr)
		mustResolve(t, c, "192.0.2.1")
		eventually(t, "unbound says whose question it was", func() bool { return strings.Contains(unbound.out.String(), source+" a.test. A IN") })
	}
	endAtOnce(p)
	p.Wait()
	vias := map[string]bool{}
	for _, source := range []string{"127.0.0.77", "127.0.0.78"} {
		r := p.Flow(source, func(r testnet.Record) bool { return strings.HasPrefix(r.Text("client"), source+":") })
		vias[r.Text("via")] = true
	}
	if len(vias) != 1 {
		t.Errorf("by %v", vias)
	}
}

// Two of us, by every pair of carriers between them: who the client is comes through,
// and what a client sends in another's name is its payload.
func TestDatagramProxyHeaderThroughTunnel(t *testing.T) {
	t.Parallel()
	c := newStock(t)
	site := c.leaf(t, "site", []string{"far.test"})
	for _, way := range []struct {
		name, scheme   string
		near, far      []string
		header, accept string
	}{
		{"first", "udp", nil, nil, "v2", "require"},
		{"each", "udp", nil, nil, "v2_each", "each"},
		{"dtls", "dtls", []string{"--to-ca", c.anchors, "--to-name", "far.test"}, []string{"--cert", site}, "v2", "require"},
		{"dtls optional", "dtls", []string{"--to-ca", c.anchors, "--to-name", "far.test"}, []string{"--cert", site}, "v2", "optional"},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			far := start(t, append([]string{"proxy", way.scheme + "://127.0.0.1:0", "udp://" + packetEcho(t), "--proxy-protocol", way.accept, "--proxy-trust", "127.0.0.1"}, way.far...)...)
			near := start(t, append([]string{"proxy", "udp://127.0.0.1:0", way.scheme + "://" + far.Addr(""), "--to-proxy-protocol", way.header}, way.near...)...)
			client := dialUDPFrom(t, "127.0.0.77", near.Addr(""))
			for _, p := range []string{"hello", header("127.0.0.99:9") + "forged", "", "bye"} {
				mustEcho(t, client, []byte(p))
			}
			endAtOnce(far)
			far.Wait()
			r := far.Flow("the client's", func(r testnet.Record) bool { return r.Text("client") == client.LocalAddr().String() })
			if !strings.HasPrefix(r.Text("via"), "127.0.0.1:") || r.Num("up") != float64(len("hello"+header("127.0.0.99:9")+"forged"+"bye")) || strings.Contains(far.Stderr(), "127.0.0.99") {
				t.Errorf("%v\n%s", r, far.Stderr())
			}
		})
	}
}

// What is passed on undecrypted has the header ahead of each ClientHello, also of
// the one with the server's cookie, and none of it is in the way of the handshake.
func TestDatagramProxyHeaderPassThrough(t *testing.T) {
	t.Parallel()
	c := newStock(t)
	site := c.leaf(t, "site", []string{"far.test"})
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", site, "--proxy-protocol", "require", "--proxy-trust", "127.0.0.1")
	middle := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+far.Addr(""), "--action", "splice", "--to-proxy-protocol", "v2")
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+middle.Addr(""), "--to-ca", c.anchors, "--to-name", "far.test")
	mustEcho(t, dialUDP(t, near.Addr("")), []byte("hello"))
	for _, p := range []*testnet.Program{middle, far} {
		endAtOnce(p)
		p.Wait()
	}
	passed := middle.Flow("passed through", func(r testnet.Record) bool { return r.Text("pattern") == "pass-through" })
	r := far.Flow("ended here", func(r testnet.Record) bool { return r.Text("pattern") == "offload" })
	if r.Text("client") != passed.Text("client") || r.Text("via") == "" {
		t.Errorf("%v, and before it %v", r, passed)
	}
}

// A client's certificate is told as over TCP, until the server has answered.
func TestDatagramProxyHeaderTellsCertificate(t *testing.T) {
	t.Parallel()
	c := newStock(t)
	site, device := c.leaf(t, "site", []string{"far.test"}), c.leaf(t, "device", []string{"device-7.test"}, ca.ClientAuth())
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+server.LocalAddr().String(), "--cert", site, "--client-ca", c.anchors, "--allow", "all", "--to-proxy-protocol", "v2")
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+far.Addr(""), "--to-ca", c.anchors, "--to-name", "far.test", "--to-cert", device)
	client := dialUDP(t, near.Addr(""))
	server.SetReadDeadline(time.Now().Add(testnet.Patience))
	room := make([]byte, 64<<10)
	for _, p := range []string{"one", "two"} { // nothing is answered in between
		if _, err := client.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		n, from, err := server.ReadFromUDPAddrPort(room)
		if err != nil {
			t.Fatal(err)
		}
		got := string(room[:n])
		if !strings.HasPrefix(got, "\r\n\r\n\x00\r\nQUIT\n\x21\x12") || !strings.HasSuffix(got, p) || !strings.Contains(got, "far.test") ||
			!strings.Contains(got, "device-7.test") || !strings.Contains(got, "DTLSv1.2") || !strings.Contains(got, "TLS_ECDHE_ECDSA_WITH_AES") {
			t.Errorf("%q", got)
		}
		if p == "two" {
			server.WriteToUDPAddrPort([]byte("answer"), from)
		}
	}
	client.Read(room)
	client.Write([]byte("three"))
	if n, _, err := server.ReadFromUDPAddrPort(room); err != nil || string(room[:n]) != "three" {
		t.Errorf("%q, %v", room[:n], err)
	}
}

// F-35 for datagrams: what is malformed, or comes from whom nobody believes, is
// dropped and counted, and reaches no server.
func TestDatagramProxyHeaderRefuses(t *testing.T) {
	t.Parallel()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	c := newStock(t)
	site := c.leaf(t, "site", []string{"far.test"})
	p := runFile(t, fmt.Sprintf(`
metrics: tcp://127.0.0.1:0
defaults: {to: "udp://%[1]s", proxy_trust: 127.0.0.1}
listeners:
  - {from: "udp://127.0.0.1:0", name: require, proxy_protocol: require}
  - {from: "udp://127.0.0.1:0", name: each, proxy_protocol: each}
  - {from: "dtls://127.0.0.1:0", name: dtls, proxy_protocol: require, cert: %[2]q}
  - {from: "dtls://127.0.0.1:0", name: optional, proxy_protocol: optional, cert: %[2]q}
`, server.LocalAddr(), site))
	p.WaitListeners(4)
	sig, hello := header("127.0.0.99:9")[:12], string(captured(t, "openssl.hex"))
	for _, sent := range []struct{ source, what string }{
		{"127.0.0.1", hello}, // none
		{"127.0.0.1", sig + "\x21\x12"},
		{"127.0.0.1", sig + "\x21\x12\x00\x0c123"},
		{"127.0.0.1", sig + "\x31\x12\x00\x0c123456789012x"},
		{"127.0.0.1", sig + "\x21\x22\x00\x0c123456789012x"},
		{"127.0.0.1", sig + "\x21\x12\xff\xff" + strings.Repeat("x", 65000)},
		{"127.0.0.2", header("127.0.0.99:9") + hello},
		{"127.0.0.2", hello},
	} {
		for _, name := range []string{"require", "each", "dtls", "optional"} {
			if name == "optional" && sent.what == hello {
				continue // it is answered
			}
			dialUDPFrom(t, sent.source, p.Addr(name)).Write([]byte(sent.what))
		}
	}
	metrics := "http://" + paneAddr(p, "metrics") + "/metrics"
	for name, want := range map[string]map[string]int{
		"require":  {"proxy_header_missing": 1, "proxy_header_bad": 5, "proxy_untrusted": 2, "received": 8},
		"each":     {"proxy_header_missing": 1, "proxy_header_bad": 5, "proxy_untrusted": 2, "received": 8},
		"dtls":     {"proxy_header_missing": 1, "proxy_header_bad": 5, "proxy_untrusted": 2, "received": 8},
		"optional": {"proxy_header_bad": 5, "not_dtls": 1, "received": 6, "verify_sent": 0},
	} {
		for event, n := range want {
			eventually(t, fmt.Sprintf("%s counts %d %s", name, n, event), func() bool {
				_, page := curl(t, metrics)
				return metric(t, page, fmt.Sprintf(`sallyport_datagrams_total{event=%q,listener=%q}`, event, name)) == float64(n)
			})
		}
	}
	endAtOnce(p)
	p.Wait()
	if r := p.LoggedAs("what require dropped", 1, func(r testnet.Record) bool {
		return r.Text("msg") == "datagrams dropped" && r.Text("listener") == "require"
	}); r.Num("proxy_header_bad") != 5 {
		t.Error(r)
	}
	dialUDP(t, server.LocalAddr().String()).Write([]byte("the first"))
	server.SetReadDeadline(time.Now().Add(testnet.Patience))
	first := make([]byte, 64)
	if n, _, err := server.ReadFrom(first); string(first[:n]) != "the first" {
		t.Errorf("%q came to the server: %v", first[:n], err)
	}
	if strings.Contains(p.Stderr(), "127.0.0.99") {
		t.Error(p.Stderr())
	}
}
