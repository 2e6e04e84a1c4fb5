package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// pskKey is one that coap-client and openssl take on their command lines.
const pskKey = "sixteen letters!"

// writePSK writes a file with dev1's key.
func writePSK(t testing.TB, dir, stem string) string {
	t.Helper()
	file := filepath.Join(dir, stem)
	text := fmt.Sprintf("# devices\ndev0:00112233445566778899aabbccddeeff\ndev1:%x\n", pskKey)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// packetEcho answers each datagram with itself.
func packetEcho(t testing.TB) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		p := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(p[:n], from)
		}
	}()
	return c.LocalAddr().String()
}

func dialUDP(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(testnet.Patience))
	return c.(*net.UDPConn)
}

// endAtOnce does not wait for associations, which know no end but silence. Two
// signals that come together are one.
func endAtOnce(p *testnet.Program) {
	p.Signal(syscall.SIGTERM)
	p.WaitLog("ending: ")
	p.SignalAgain(syscall.SIGTERM)
}

// mustEcho wants p back, in one datagram.
func mustEcho(t testing.TB, c net.Conn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 64<<10)
	n, err := c.Read(got)
	if err != nil || !bytes.Equal(got[:n], p) {
		t.Fatalf("of %d bytes came %d (%v), or others", len(p), n, err)
	}
}

// coap is what libcoap's programs have in these tests.
type coap struct {
	*stock
	psk  string // a file of ours
	site string
}

func newCoap(t testing.TB) *coap {
	t.Helper()
	s := newStock(t)
	return &coap{stock: s, psk: writePSK(t, s.dir, "devices.psk"), site: s.leaf(t, "coap", []string{"coap.test", "localhost", "127.0.0.1"})}
}

// server gives the address at which it speaks clear text; the port above speaks DTLS.
func (c *coap) server(t testing.TB, flavour string, more ...string) (plain, secure string) {
	t.Helper()
	d := startDaemon(t, syscall.SIGINT, func(port string) *exec.Cmd {
		return exec.Command(tool(t, "coap-server-"+flavour), append([]string{"-A", "127.0.0.1", "-p", port}, more...)...)
	})
	at := netip.MustParseAddrPort(d.addr)
	return d.addr, netip.AddrPortFrom(at.Addr(), at.Port()+1).String()
}

// want has coap-client of that flavour get what the server has.
func (c *coap) want(t testing.TB, flavour, addr string, more ...string) {
	t.Helper()
	scheme := "coaps"
	if flavour == "notls" {
		scheme = "coap"
	}
	args := append([]string{"-B", "15", "-m", "get"}, more...)
	got, err := execute(t, "", "coap-client-"+flavour, append(args, scheme+"://"+addr+"/")...)
	if err != nil || !strings.Contains(got, "This is a test server made with libcoap") {
		t.Errorf("coap-client-%s %s %v: %v\n%s", flavour, addr, more, err, got)
	}
}

var (
	coapKeys    = []string{"-u", "dev1", "-k", pskKey}
	coapFlavour = []string{"openssl", "gnutls"}
)

// Two kinds of DTLS, libcoap over two libraries, on either side of every pattern.
func TestCoAP(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	plain, _ := c.server(t, "notls")
	trust := []string{"-C", c.anchors}
	t.Run("offload", func(t *testing.T) {
		p := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+plain, "--psk", c.psk, "--cert", c.site, "--client-auth", "none")
		for _, flavour := range coapFlavour {
			c.want(t, flavour, p.Addr(""), coapKeys...)
			c.want(t, flavour, p.Addr(""), trust...)
		}
		endAtOnce(p)
		p.Flow("a pre-shared key", func(r testnet.Record) bool { return r.Text("in_psk") == "dev1" })
		p.Flow("a certificate", func(r testnet.Record) bool {
			return r.Text("pattern") == "offload" && r.Text("in_version") == "DTLS 1.2" && strings.Contains(r.Text("in_cipher"), "ECDHE_ECDSA")
		})
	})
	for _, flavour := range coapFlavour {
		_, byKey := c.server(t, flavour, "-h", "any", "-k", pskKey)
		_, byCert := c.server(t, flavour, "-c", c.site, "-j", keyOf(c.site), "-n")
		t.Run("encrypt to "+flavour, func(t *testing.T) {
			p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+byKey, "--to-psk", c.psk, "--to-psk-identity", "dev1")
			c.want(t, "notls", p.Addr(""))
			p = start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+byCert, "--to-ca", c.anchors, "--to-name", "coap.test")
			c.want(t, "notls", p.Addr(""))
		})
		t.Run("bridge to "+flavour, func(t *testing.T) {
			p := start(t, "proxy", "dtls://127.0.0.1:0", "dtls://"+byCert, "--psk", c.psk, "--to-ca", c.anchors, "--to-name", "coap.test")
			for _, flavour := range coapFlavour {
				c.want(t, flavour, p.Addr(""), coapKeys...)
			}
		})
		t.Run("pass-through to "+flavour, func(t *testing.T) {
			p := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+byKey, "--action", "splice")
			for _, flavour := range coapFlavour {
				c.want(t, flavour, p.Addr(""), coapKeys...)
			}
		})
	}
	t.Run("tunnel", func(t *testing.T) {
		for _, ours := range [][2][]string{
			{{"--psk", c.psk}, {"--to-psk", c.psk, "--to-psk-identity", "dev0"}},
			{{"--cert", c.site}, {"--to-ca", c.anchors, "--to-name", "coap.test"}},
		} {
			far := start(t, append([]string{"proxy", "dtls://127.0.0.1:0", "udp://" + plain}, ours[0]...)...)
			near := start(t, append([]string{"proxy", "udp://127.0.0.1:0", "dtls://" + far.Addr("")}, ours[1]...)...)
			c.want(t, "notls", near.Addr(""))
		}
	})
}

// tunnelled starts two programs with DTLS between them and through, if not nil,
// between those, and gives the address of the near one.
func tunnelled(t *testing.T, to string, through func(far string) string, flags ...string) (near, far *testnet.Program) {
	t.Helper()
	psk := writePSK(t, t.TempDir(), "devices.psk")
	far = start(t, append([]string{"proxy", "dtls://127.0.0.1:0", "udp://" + to, "--psk", psk}, flags...)...)
	addr := far.Addr("")
	if through != nil {
		addr = through(addr)
	}
	near = start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+addr, "--to-psk", psk, "--to-psk-identity", "dev1")
	return near, far
}

// One datagram in is one datagram out, whatever its size, or it is lost whole,
// counted, and what comes after it passes.
func TestDatagramSizes(t *testing.T) {
	t.Parallel()
	echo := packetEcho(t)
	near, _ := tunnelled(t, echo, nil)
	c := dialUDP(t, near.Addr(""))
	for _, n := range []int{1, 0, 1200, 1472, 8150} {
		mustEcho(t, c, bytesOf(uint64(n), n))
	}
	for _, n := range []int{8151, 65507} {
		if _, err := c.Write(bytesOf(uint64(n), n)); err != nil {
			t.Fatal(err)
		}
	}
	mustEcho(t, c, []byte("still there"))
	endAtOnce(near)
	r := near.Reason("drained")
	if n := r.Num("up_too_large"); n != 2 {
		t.Errorf("up_too_large is %v, and two were", n)
	}

	plain := start(t, "proxy", "udp://127.0.0.1:0", "udp://"+echo)
	c = dialUDP(t, plain.Addr(""))
	for _, n := range []int{0, 1, 8151, 65507} {
		mustEcho(t, c, bytesOf(uint64(n), n))
	}
}

// A client whose address changes is known by its connection ID; without one, it
// has to begin anew.
func TestDatagramRoaming(t *testing.T) {
	t.Parallel()
	for _, cid := range []bool{true, false} {
		t.Run(fmt.Sprint(cid), func(t *testing.T) {
			t.Parallel()
			var relay *testnet.LossyRelay
			var flags []string
			if !cid {
				flags = []string{"--tls-cid", "off"}
			}
			near, far := tunnelled(t, packetEcho(t), func(far string) string {
				relay = testnet.Relay(t, netip.MustParseAddrPort(far), testnet.Weather{})
				return relay.Addr().String()
			}, flags...)
			c := dialUDP(t, near.Addr(""))
			mustEcho(t, c, []byte("from here"))
			relay.Rebind()
			if cid {
				mustEcho(t, c, []byte("from there"))
				return
			}
			c.Write([]byte("from there"))
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if n, err := c.Read(make([]byte, 100)); err == nil {
				t.Errorf("%d bytes came through an association of another address", n)
			}
			endAtOnce(far)
			if r := far.Logged("datagrams dropped", 1); r.Num("no_association") < 1 {
				t.Errorf("%v", r)
			}
		})
	}
}

// What strangers and misfits send ends in a reason or in a counter, and nobody else
// feels it.
func TestDatagramBadInput(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	p := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", c.site, "--psk", c.psk, "--client-auth", "none", "--timeouts-handshake", "1s")
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+p.Addr(""), "--to-psk", c.psk, "--to-psk-identity", "dev1")
	other := dialUDP(t, near.Addr(""))
	mustEcho(t, other, []byte("before"))

	stranger := dialUDP(t, p.Addr(""))
	hello := captured(t, "openssl.hex")
	second := bytes.Clone(hello)
	second[4] = 1 // of its epoch
	for _, b := range [][]byte{
		{}, []byte("rubbish"), bytesOf(1, 65507), {22, 3, 1, 0, 5, 1, 0, 0, 1, 3},
		second, parts(hello, 0, 40), overlapping(hello), hello,
	} {
		stranger.Write(b)
	}
	answer := make([]byte, 1<<16)
	if n, err := stranger.Read(answer); err != nil || n > len(hello) || answer[13] != 3 {
		t.Errorf("no HelloVerifyRequest: % x, %v", answer[:n], err)
	}

	for _, misfit := range []struct{ args, reason string }{
		{"-dtls1 -cipher DEFAULT:@SECLEVEL=0", "version_unsupported"},
		{"-dtls1_2 -psk_identity dev1 -psk 00ff -cipher PSK", "psk_mismatch"},
		{"-dtls1_2 -psk_identity nobody -psk 00ff -cipher PSK", "psk_unknown"},
		{"-dtls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "no_shared_cipher"},
	} {
		cmd := exec.Command(tool(t, "openssl"), append([]string{"s_client", "-connect", p.Addr("")}, strings.Fields(misfit.args)...)...)
		cmd.Stdin = strings.NewReader("")
		cmd.Start()
		p.Reason(misfit.reason)
		cmd.Process.Kill()
		cmd.Wait()
	}
	mustEcho(t, other, []byte("after"))
	endAtOnce(p)
	r := p.Logged("datagrams dropped", 1)
	for _, key := range []string{"not_dtls", "no_association", "bad_fragments"} {
		if r.Num(key) < 1 {
			t.Errorf("no %s in %v", key, r)
		}
	}
}

// captured is a datagram that a real client has sent.
func captured(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("../../wire/testdata/dtls/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parts is one fragment of a ClientHello: n bytes of its body from offset on.
func parts(hello []byte, offset, n int) []byte {
	body := hello[25+offset : 25+offset+n]
	b := append(bytes.Clone(hello[:13+6]), 0, byte(offset>>8), byte(offset), 0, 0, byte(n))
	b[11], b[12] = 0, byte(12+n)
	return append(b, body...)
}

// overlapping is a part that says otherwise than parts(hello, 0, 40).
func overlapping(hello []byte) []byte {
	b := parts(hello, 30, 40)
	b[25]++
	return b
}

// An upstream that is not there, or is another than it should be, ends an
// association with a reason, and the reason says whose fault it is.
func TestDatagramServerFaults(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	gone := freeAddr(t)
	t.Run("gone", func(t *testing.T) {
		p := start(t, "proxy", "udp://127.0.0.1:0", "udp://"+gone)
		dialUDP(t, p.Addr("")).Write([]byte("anybody?"))
		p.Reason("dial_refused")
	})
	t.Run("gone, encrypted", func(t *testing.T) {
		p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+gone, "--to-ca", c.anchors)
		dialUDP(t, p.Addr("")).Write([]byte("anybody?"))
		p.Reason("dial_refused")
	})
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", c.site, "--psk", c.psk, "--client-auth", "none")
	strange := newStock(t)
	for _, misfit := range []struct {
		flags  []string
		reason string
	}{
		{[]string{"--to-ca", c.anchors, "--to-name", "other.test"}, "name_mismatch"},
		{[]string{"--to-ca", strange.anchors, "--to-name", "coap.test"}, "unknown_ca"},
		{[]string{"--to-psk", writeKeyAs(t, t.TempDir(), "one.psk", "dev1:another of them!"), "--timeouts-handshake", "1s"}, "server_handshake_timeout"},
	} {
		t.Run(misfit.reason, func(t *testing.T) {
			p := start(t, append([]string{"proxy", "udp://127.0.0.1:0", "dtls://" + far.Addr("")}, misfit.flags...)...)
			dialUDP(t, p.Addr("")).Write([]byte("who are you?"))
			if r := p.Reason(misfit.reason); r.Text("fault") != "server" || r.Text("stage") != "outbound" {
				t.Errorf("%v", r)
			}
		})
	}
}

// writeKeyAs writes a file with the key of one identity.
func writeKeyAs(t testing.TB, dir, stem, line string) string {
	t.Helper()
	id, key, _ := strings.Cut(line, ":")
	file := filepath.Join(dir, stem)
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%x\n", id, key), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Who passes by certificate is asked for one as under TLS.
func TestDatagramClientCertificates(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	good := c.leaf(t, "good", []string{"a.ops.test"}, ca.ClientAuth())
	bad := c.leaf(t, "bad", []string{"a.dev.test"}, ca.ClientAuth())
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", c.site, "--client-ca", c.anchors, "--allow-dns", "*.ops.test")
	to := []string{"proxy", "udp://127.0.0.1:0", "dtls://" + far.Addr(""), "--to-ca", c.anchors, "--to-name", "coap.test"}
	near := start(t, append(to, "--to-cert", good)...)
	mustEcho(t, dialUDP(t, near.Addr("")), []byte("let me in"))
	near = start(t, append(to, "--to-cert", bad)...)
	dialUDP(t, near.Addr("")).Write([]byte("let me in"))
	far.Reason("client_not_allowed")
	near.Reason("server_rejected_our_certificate")
	near = start(t, to...)
	dialUDP(t, near.Addr("")).Write([]byte("let me in"))
	far.Reason("client_cert_missing")
}

// Pass-through goes by server name. What its server does not vouch for makes no
// record.
func TestDatagramPassThrough(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	file := filepath.Join(t.TempDir(), "pass.yaml")
	_, there := c.server(t, "openssl", "-c", c.site, "-j", keyOf(c.site), "-n")
	echo := packetEcho(t)
	text := fmt.Sprintf(`
log: {format: json}
listeners:
  - from: dtls://127.0.0.1:0
    routes:
      - {match: {sni: localhost}, action: splice, to: "udp://localhost:%s"}
      - {match: {sni: echo.test}, action: splice, to: "udp://%s"}
      - {match: {sni: mine.test}, cert: %q, to: "udp://%s"}
      - {action: splice, to: "udp://%s"}
`, there[strings.LastIndex(there, ":")+1:], echo, c.site, echo, there)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "run", "-c", file)
	for _, flavour := range coapFlavour {
		c.want(t, flavour, strings.Replace(p.Addr(""), "127.0.0.1", "localhost", 1), "-C", c.anchors)
	}
	ask := func(sni string) {
		cmd := exec.Command(tool(t, "openssl"), "s_client", "-dtls1_2", "-connect", p.Addr(""), "-servername", sni)
		in, _ := cmd.StdinPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	}
	ask("echo.test")
	p.Reason("server_without_cookie")
	stranger := dialUDP(t, p.Addr(""))
	hello := captured(t, "openssl.hex")
	stranger.Write(hello)
	answer := make([]byte, 2000)
	if n, err := stranger.Read(answer); err != nil || n > len(hello) || answer[13] != 3 {
		t.Errorf("no HelloVerifyRequest of the server's: % x, %v", answer[:n], err)
	}
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+p.Addr(""), "--to-ca", c.anchors, "--to-name", "coap.test", "--to-sni", "mine.test")
	mustEcho(t, dialUDP(t, near.Addr("")), []byte("ended here"))
	endAtOnce(p)
	p.Wait()
	for what, match := range map[string]func(testnet.Record) bool{
		"one that was ended": func(r testnet.Record) bool { return r.Text("sni") == "mine.test" && r.Text("pattern") == "offload" },
		"one passed through": func(r testnet.Record) bool { return r.Text("pattern") == "pass-through" && r.Num("down") > 0 },
	} {
		p.Flow(what, match)
	}
	if who := stranger.LocalAddr().String(); strings.Contains(p.Stderr(), who) {
		t.Errorf("a hello that proves nothing made a record:\n%s", p.Stderr())
	}
}

// A real service behind the tunnel: messages of syslog, which knows no DTLS of its own.
func TestDatagramSyslogTunnel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addr, file := freeAddr(t), filepath.Join(dir, "messages")
	conf := filepath.Join(dir, "rsyslog.conf")
	host, port, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf(`global(workDirectory=%q)
module(load="imudp")
input(type="imudp" address=%q port=%q)
*.* action(type="omfile" file=%q fileCreateMode="0644")
`, dir, host, port, file)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool(t, "rsyslogd"), "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	near, _ := tunnelled(t, addr, nil)
	_, entry, _ := net.SplitHostPort(near.Addr(""))
	// Its socket may not be there for the first ones.
	limit := time.Now().Add(testnet.Patience)
	for n := 0; ; n++ {
		mustExecute(t, "", "logger", "--server", "127.0.0.1", "--port", entry, "--udp", "-t", "door", fmt.Sprintf("knock %d is heard", n))
		if said, _ := os.ReadFile(file); bytes.Contains(said, []byte("is heard")) && bytes.Contains(said, []byte("door")) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("nothing came to rsyslogd: %s", out.String())
		}
	}
}
