package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
)

// srvZone has one host, and SRV records of _x, each PRIORITY WEIGHT PORT.
func srvZone(records ...string) string {
	text := "host A 127.0.0.1\n_gone._tcp SRV 0 0 0 .\n"
	for _, r := range records {
		text += r + " host\n"
	}
	return text
}

func exampleService(t *testing.T, e *example) {
	e.ca("mail-ca")
	addr := e.tlsBackend("imap", e.serverConfig("example.org"))
	z := startDNS(t, map[string]string{"imap.example.org.": "127.0.0.1"}, map[string]fault{"_imaps._tcp.example.org.": func(m *dns.Msg) bool {
		port, err := strconv.ParseUint(portOf(t, addr), 10, 16)
		if m.Question[0].Qtype == dns.TypeSRV {
			m.Answer = []dns.RR{&dns.SRV{
				Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: 1}, Port: uint16(port), Target: "imap.example.org.",
			}}
		}
		return err == nil
	}})
	e.text = strings.Replace(e.text, "udp://127.0.0.1:53", "udp://"+z.addr, 1)
	mustAsk(t, e.start().Addr(""), "hello", "imap got hello")
}

// Servers that SRV records lead to, which bind9 has and openssl is: by weight and by
// priority, changed while the program runs, verified by the domain that was asked.
func TestServersBySRV(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	domain, target := s.leaf(t, "domain", []string{"example.test"}), s.leaf(t, "target", []string{"host.example.test"})
	// Who is asked by another name than the domain's ends the handshake.
	server := func() *daemon {
		return s.sServer(t, domain, "-servername", "example.test", "-servername_fatal", "-cert2", domain, "-key2", keyOf(domain))
	}
	heavy, light, late, wrong := server(), server(), server(), s.sServer(t, target)
	at := func(priority, weight int, d *daemon) string {
		return fmt.Sprintf("_x._tcp SRV %d %d %s", priority, weight, portOf(t, d.addr))
	}
	misnamed := strings.Replace(at(0, 0, wrong), "_x", "_wrong", 1)
	coap := newCoap(t)
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", coap.site, "--psk", coap.psk, "--client-auth", "none")
	datagrams := fmt.Sprintf("_coaps._udp SRV 0 0 %s", portOf(t, far.Addr("")))
	d := testdns.Start(t, testdns.Records{"example.test": srvZone(at(10, 3, heavy), at(10, 1, light), at(20, 0, late), misnamed, datagrams)})
	sock := filepath.Join(t.TempDir(), "admin.sock")
	p := runFile(t, fmt.Sprintf(`
admin: unix:%s
resolver: {addr: "udp://%s"}
defaults: {to: {ca: %s, check: {fall: 1}}}
listeners:
  - from: tcp://127.0.0.1:0
    name: x
    to: tls://_x._tcp.example.test
  - from: tcp://127.0.0.1:0
    name: wrong
    to: tls://_wrong._tcp.example.test
  - from: tcp://127.0.0.1:0
    name: gone
    to: tls://_gone._tcp.example.test
  - from: tcp://127.0.0.1:0
    name: none
    to: tls://_none._tcp.example.test
  - from: udp://127.0.0.1:0
    name: coap
    to: {addr: "dtls://_coaps._udp.example.test", ca: %s, name: coap.test}
`, sock, d.Resolver, s.anchors, coap.anchors))
	took := map[string]int{}
	seen := map[float64]bool{}
	for range 8 {
		mustAsk(t, p.Addr("x"), "hello", "olleh")
		took[after(t, p, "x", seen).Text("server")]++
	}
	if took[heavy.addr] != 6 || took[light.addr] != 2 {
		t.Errorf("of weights 3 and 1: %v", took)
	}
	for listener, want := range map[string][2]string{
		"wrong": {"name_mismatch", "host.example.test"}, "gone": {"no_server_up", "decidedly not available"}, "none": {"name_not_resolved", "no SRV records"},
	} {
		if _, err := ask(p.Addr(listener), "hello"); err == nil {
			t.Errorf("%s: an answer", listener)
		}
		r := byListener(t, p, listener)
		wantFields(t, r, testnet.Record{"reason": want[0]})
		if !strings.Contains(r.Text("err"), want[1]) {
			t.Errorf("%s: %v", listener, r)
		}
	}
	u := dialUDP(t, p.Addr("coap"))
	if err := echoed(u, []byte("ping")); err != nil {
		t.Error(err)
	}
	said := mustExecute(t, "", testnet.Binary(t), "status", "--admin", "unix:"+sock)
	if line := fmt.Sprintf("tls://host.example.test:%s by _x._tcp.example.test", portOf(t, late.addr)); !strings.Contains(said, line) || !strings.Contains(said, "decidedly not available") {
		t.Errorf("status: %s", said)
	}

	// Both of the first priority are gone, each found so by one connection.
	heavy.stop()
	light.stop()
	mustReach := func(d *daemon) {
		t.Helper()
		eventually(t, "the other server", func() bool {
			got, err := ask(p.Addr("x"), "hello")
			return err == nil && strings.Contains(got, "olleh") && after(t, p, "x", seen).Text("server") == d.addr
		})
	}
	mustReach(late)
	// And the records say that another one goes first.
	newer := server()
	d.Set("example.test", srvZone(at(5, 0, newer), at(20, 0, late)))
	mustReach(newer)
	d.Set("example.test", "_x._tcp SRV 0 0 0 .\n")
	p.LoggedAs("that it is closed", 1, func(r testnet.Record) bool {
		return r.Text("name") == "_x._tcp.example.test" && strings.Contains(r.Text("msg"), "decidedly not available")
	})
	if _, err := ask(p.Addr("x"), "hello"); err == nil {
		t.Error("an answer of nobody")
	}
	endAtOnce(p)
	endAtOnce(far)
}
