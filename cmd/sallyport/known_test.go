package main

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dane"
	"sallyport/internal/ca"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
)

// countDNS is a DNS server before another one, that counts questions.
func countDNS(t testing.TB, to string) (addr string, asked *atomic.Int32) {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked = new(atomic.Int32)
	go func() {
		for {
			b := make([]byte, 4096)
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			asked.Add(1)
			go func() {
				c, err := net.Dial("udp", to)
				if err != nil {
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(testnet.Patience))
				c.Write(b[:n])
				if n, err := c.Read(b); err == nil {
					l.WriteTo(b[:n], from)
				}
			}()
		}
	}()
	return l.LocalAddr().String(), asked
}

// With every verifier on, what the first handshake with a server asks is asked once,
// and a full handshake with a server that is known asks nobody.
func TestKnownServerCostsNoLookup(t *testing.T) {
	t.Parallel()
	d, l := newDesk(t), newLogs(t)
	server, zone := d.serve(t), ""
	hosts := map[string]ca.Option{"ocsp": ca.OCSPAt(d.at("ocsp")), "crl": ca.CRLAt(d.at("crl"))}
	for host, where := range hosts {
		leaf := d.inter.Leaf([]string{host + ".example.test"}, where, ca.Embed(d.inter.Cert, yesterday(l.a, l.b)...))
		d.servers[host+".example.test"] = leaf.TLS()
		zone += fmt.Sprintf("%s 3600 A 127.0.0.1\n_%s._tcp.%[1]s 3600 TLSA %[3]s\n", host, portOf(t, server), tlsaOf(t, leaf.Cert, 1, 1, dane.SHA256))
		if host == "ocsp" {
			d.answer(host, send(respond(t, d.delegate, d.good(leaf.Cert))))
		}
	}
	d.answer("crl", send(d.crl(t, d.inter, time.Now())))
	dns, asked := countDNS(t, testdns.Start(t, testdns.Records{"example.test": zone}).Resolver)
	p := runFile(t, fmt.Sprintf(`
resolver: {addr: "udp://%s"}
ct_log_list: %s
defaults: {to: {addr: "tls://%s", ca: %s, crl: %s, profile: private, revocation: hard, ct: require, dane: require, reach: 127.0.0.1, tls: {tickets: off}}}
listeners:
- {from: "tcp://127.0.0.1:0", name: ocsp, to: {name: ocsp.example.test}}
- {from: "tls://127.0.0.1:0", name: ocsp-bridge, cert: %[6]s, to: {name: ocsp.example.test}}
- {from: "tcp://127.0.0.1:0", name: crl, to: {name: crl.example.test}}
- {from: "tls://127.0.0.1:0", name: crl-bridge, cert: %[6]s, to: {name: crl.example.test}}
`, dns, write(t, "logs.json", string(l.list(day))), server, d.anchors, write(t, "root.crl", string(d.crl(t, d.Tester, time.Now()))), d.ecdsa))
	seen := map[float64]bool{}
	connect := func() {
		t.Helper()
		for _, listener := range []string{"ocsp", "ocsp-bridge", "crl", "crl-bridge"} {
			if err := askOf(p, listener, d.Pool()); err != nil {
				t.Fatalf("%s: %v\n%s", listener, err, p.Stderr())
			}
			wantFields(t, after(t, p, listener, seen), testnet.Record{"reason": "ok", "out_resumed": false})
		}
	}
	connect()
	first := asked.Load()
	if first == 0 {
		t.Error("DNS was not asked at all")
	}
	for range 5 {
		connect()
	}
	if n := asked.Load(); n != first {
		t.Errorf("%d questions of DNS by servers that were known", n-first)
	}
	for host := range hosts {
		if n := d.times(host); n != 1 {
			t.Errorf("%s was asked %d times", host, n)
		}
	}
}
