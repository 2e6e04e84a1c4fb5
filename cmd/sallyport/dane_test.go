package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sallyport/dane"
	"sallyport/internal/ca"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
)

// daneSite has servers of openssl, by what they show, and what DNS says of them.
type daneSite struct {
	*stock
	private *ca.Tester // a CA in no to.ca
	leaves  map[string]*ca.Leaf
	servers map[string]string // addresses
	records testdns.Records
}

var daneNames = []string{"*.example.test", "*.insecure.test", "*.nsd.test", "*.bogus.test", "*.expired.test", "*.lame.test", "127.0.0.1"}

// newDANESite starts the servers of those names.
func newDANESite(t testing.TB, servers ...string) *daneSite {
	s := &daneSite{stock: newStock(t), private: ca.Test(t), leaves: map[string]*ca.Leaf{}, servers: map[string]string{}, records: testdns.Records{}}
	inter := s.private.Intermediate()
	chain := write(t, "chain.pem", string(inter.CertPEM())+string(s.private.CertPEM()))
	for name, l := range map[string]*ca.Leaf{
		"good":       s.Leaf(daneNames),
		"self":       s.private.SelfSigned([]string{"else.test"}),
		"old":        s.private.SelfSigned([]string{"else.test"}, ca.Expired()),
		"ta":         inter.Leaf(daneNames),
		"ta-name":    inter.Leaf([]string{"else.test"}),
		"ta-expired": inter.Leaf(daneNames, ca.Expired()),
	} {
		s.leaves[name] = l
		if !slices.Contains(servers, name) {
			continue
		}
		cert, _, err := l.Write(s.dir, "dane-"+name)
		if err != nil {
			t.Fatal(err)
		}
		var args []string
		if strings.HasPrefix(name, "ta") {
			args = []string{"-cert_chain", chain}
		}
		s.servers[name] = s.sServer(t, cert, args...).addr
	}
	return s
}

// record is the one of a server's certificate.
func (s *daneSite) record(t testing.TB, server string, u dane.Usage, sel dane.Selector, m dane.Matching) string {
	t.Helper()
	return tlsaOf(t, parsed(t, s.leaves[server]), u, sel, m)
}

// publish gives a host, host.zone, the records of what is at a server's port.
func (s *daneSite) publish(t testing.TB, name, server string, records ...string) {
	t.Helper()
	host, zone, _ := strings.Cut(name, ".")
	s.records[zone] += host + " 60 A 127.0.0.1\n"
	for _, r := range records {
		s.records[zone] += fmt.Sprintf("_%s._tcp.%s 60 TLSA %s\n", portOf(t, s.servers[server]), host, r)
	}
}

// IC-47: DANE towards servers as encrypt and as bridge, on the first connection, the
// second and a resumed one; by unbound's word and by proof through bind.
func TestDANE(t *testing.T) {
	t.Parallel()
	s := newDANESite(t, "good", "self", "old", "ta", "ta-name", "ta-expired")
	const h = dane.SHA256
	good, self := s.record(t, "good", 3, 1, h), s.record(t, "self", 3, 1, h)
	stale := strings.Repeat("0", 64)
	rows := []struct {
		name, server    string
		records         []string
		require, prefer string
	}{
		{"ee.example.test", "self", []string{self}, "ok", "ok"}, // self-signed, for another name
		{"ee-old.example.test", "old", []string{s.record(t, "old", 3, 1, h)}, "ok", "ok"},
		{"cert.example.test", "self", []string{s.record(t, "self", 3, 0, dane.SHA512)}, "ok", "ok"},
		{"mismatch.example.test", "good", []string{"3 1 1 " + stale}, "dane_mismatch", "dane_mismatch"},
		{"rollover.example.test", "good", []string{"3 1 1 " + stale, good}, "ok", "ok"},
		{"ta.example.test", "ta", []string{tlsaOf(t, s.private.Cert, 2, 0, h)}, "ok", "ok"},
		{"ta-name.example.test", "ta-name", []string{tlsaOf(t, s.private.Cert, 2, 0, h)}, "name_mismatch", "name_mismatch"},
		{"ta-expired.example.test", "ta-expired", []string{tlsaOf(t, s.private.Cert, 2, 0, h)}, "cert_expired", "cert_expired"},
		{"pkix-ee.example.test", "good", []string{s.record(t, "good", 1, 1, h)}, "ok", "ok"},
		{"pkix-self.example.test", "self", []string{s.record(t, "self", 1, 1, h)}, "name_mismatch", "name_mismatch"},
		{"pkix-ta.example.test", "good", []string{tlsaOf(t, s.Cert, 0, 0, h)}, "ok", "ok"},
		{"pkix-no.example.test", "ta", []string{tlsaOf(t, s.private.Cert, 0, 0, h)}, "unknown_ca", "unknown_ca"},
		{"unusable.example.test", "good", []string{"4 1 1 " + stale, "3 2 1 " + stale, "3 1 3 " + stale}, "dane_absent", "ok"},
		{"mixed.example.test", "self", []string{"4 1 1 " + stale, self}, "ok", "ok"},
		{"none.example.test", "good", nil, "dane_absent", "ok"},
		{"none-self.example.test", "self", nil, "dane_absent", "name_mismatch"},
		{"svc.nsd.test", "self", []string{self}, "ok", "ok"},
		{"svc.insecure.test", "good", []string{good}, "dane_insecure", "ok"},
		{"fooled.insecure.test", "self", []string{self}, "dane_insecure", "name_mismatch"},
		{"svc.bogus.test", "good", []string{good}, "dane_bogus", "dane_bogus"},
		{"svc.expired.test", "good", []string{good}, "dane_bogus", "dane_bogus"},
		{"svc.lame.test", "good", []string{good}, "dane_lookup", "dane_lookup"},
	}
	for _, r := range rows {
		s.publish(t, r.name, r.server, r.records...)
	}
	d := testdns.Start(t, s.records)
	for way, resolver := range map[string]string{
		"unbound": fmt.Sprintf("{addr: \"udp://%s\"}", d.Resolver),
		"proof":   fmt.Sprintf("{addr: \"udp://%s\", anchor: %s}", d.Server, d.Anchor),
	} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			file := fmt.Sprintf("resolver: %s\ndefaults: {to: {ca: %s, profile: private}}\nlisteners:\n", resolver, s.anchors)
			for _, r := range rows {
				for _, mode := range []string{"require", "prefer"} {
					to := fmt.Sprintf("to: {addr: \"tls://%s\", name: %s, dane: %s}", s.servers[r.server], r.name, mode)
					file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s-%s, %s}\n", r.name, mode, to)
					file += fmt.Sprintf("- {from: \"tls://127.0.0.1:0\", name: %s-%s-bridge, cert: %s, %s}\n", r.name, mode, s.ecdsa, to)
				}
			}
			p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
			p.WaitListeners(4 * len(rows))
			n := 0
			for _, r := range rows {
				if way == "proof" && r.name == "svc.nsd.test" {
					continue // bind has not that zone
				}
				for mode, reason := range map[string]string{"require": r.require, "prefer": r.prefer} {
					for i := range 2 {
						for _, listener := range []string{r.name + "-" + mode, r.name + "-" + mode + "-bridge"} {
							var err error
							if strings.HasSuffix(listener, "bridge") {
								_, err = askTLS(p.Addr(listener), "level", s.Pool())
							} else {
								_, err = ask(p.Addr(listener), "level")
							}
							if (err == nil) != (reason == "ok") {
								t.Errorf("%s, time %d: %v", listener, i+1, err)
							}
							n++
							flow := p.Flows(n)[n-1]
							wantFields(t, flow, testnet.Record{"listener": listener, "reason": reason})
							if reason == "ok" {
								wantFields(t, flow, testnet.Record{"out_resumed": i == 1 && r.server != "old"}) // crypto/tls keeps no session of an expired leaf
							}
						}
					}
				}
			}
		})
	}
}

// The name that the server is asked for, and what the record says of whom.
func TestDANENames(t *testing.T) {
	t.Parallel()
	s := newDANESite(t)
	asked := make(chan string, 1)
	addr := serveEach(t, func(c *net.TCPConn) {
		server := tls.Server(c, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			asked <- h.ServerName
			cert := s.leaves["good"].TLS()
			return &cert, nil
		}})
		defer server.Close()
		line := make([]byte, 6)
		if n, err := io.ReadFull(server, line); err == nil {
			server.Write(line[:n])
		}
	})
	s.servers["here"], s.leaves["here"] = addr, s.leaves["good"]
	s.publish(t, "target.example.test", "here", s.record(t, "here", 3, 1, dane.SHA256))
	s.records["example.test"] += "alias CNAME target\n"
	s.publish(t, "plain.example.test", "here")
	d := testdns.Start(t, s.records)
	file := fmt.Sprintf("resolver: {addr: \"udp://%s\"}\ndefaults: {to: {ca: %s, profile: private, tls: {tickets: off}}}\nlisteners:\n", d.Resolver, s.anchors)
	rows := []struct {
		name, to, sni string
		want          testnet.Record
	}{
		{"alias", "name: alias.example.test, dane: require", "target.example.test", testnet.Record{"out_peer_by": "dane"}},
		{"own", "name: alias.example.test, sni: mine.test, dane: require", "mine.test", testnet.Record{"out_peer_by": "dane"}},
		{"mute", "name: alias.example.test, sni: \"\", dane: require", "", testnet.Record{"out_peer_by": "dane"}},
		{"plain", "name: plain.example.test, dane: prefer", "plain.example.test", testnet.Record{
			"out_peer_by": "pkix", "out_notes": fmt.Sprintf("dane_absent: \"_%s._tcp.plain.example.test\" has no TLSA records", portOf(t, addr)),
		}},
	}
	for _, r := range rows {
		file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s, to: {addr: \"tls://%s\", %s}}\n", r.name, addr, r.to)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(len(rows))
	for _, r := range rows {
		mustAsk(t, p.Addr(r.name), "level", "level")
		if sni := <-asked; sni != r.sni {
			t.Errorf("%s: the server is asked for %q, want %q", r.name, sni, r.sni)
		}
		wantFields(t, byListener(t, p, r.name), r.want)
	}
}

// Who looks up: over TLS, from flags, and nobody any more.
func TestDANEResolvers(t *testing.T) {
	t.Parallel()
	s := newDANESite(t, "self")
	s.publish(t, "a.example.test", "self", s.record(t, "self", 3, 1, dane.SHA256))
	s.publish(t, "b.example.test", "self", s.record(t, "self", 3, 1, dane.SHA256))
	d := testdns.Start(t, s.records, testdns.Over(s.ecdsa, keyOf(s.ecdsa)))
	to := []string{"proxy", "tcp://127.0.0.1:0", "tls://" + s.servers["self"], "--to-dane", "require", "--to-name"}
	over := testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+s.anchors)
	}, append(to, "a.example.test", "--resolver-addr", "tls://"+d.TLS)...)
	mustAsk(t, over.Addr(""), "level", "level")
	stranger := start(t, append(to, "a.example.test", "--resolver-addr", "tls://"+d.TLS)...) // with the system's anchors
	if got, err := ask(stranger.Addr(""), "level"); err == nil {
		t.Errorf("by a resolver that nobody vouches for: %q", got)
	}
	stranger.Reason("dane_lookup")

	cold := start(t, append(to, "b.example.test", "--resolver-addr", "udp://"+d.Resolver)...)
	p := start(t, append(to, "a.example.test", "--resolver-addr", "tcp://"+d.Resolver)...)
	mustAsk(t, p.Addr(""), "level", "level")
	d.Kill()
	mustAsk(t, p.Addr(""), "level", "level") // what was found still holds
	if got, err := ask(cold.Addr(""), "level"); err == nil {
		t.Errorf("without a resolver: %q", got)
	}
	cold.Reason("dane_lookup")
}

func TestDANERefusesToStart(t *testing.T) {
	t.Parallel()
	for flags, says := range map[string]string{
		"--to-name a.test --resolver-addr udp://192.0.2.1:53":                              "anybody on the way could call its answers secure",
		"--to-name a.test --resolver-addr udp://127.0.0.1:53,udp://192.0.2.1:53":           "anybody on the way could call its answers secure",
		"--resolver-addr udp://127.0.0.1:53":                                               "set to.name",
		"--to-name a.test --resolver-addr udp://127.0.0.1:53 --resolver-anchor /dev/null":  "has no DS or DNSKEY record",
		"--to-name a.test --resolver-addr udp://127.0.0.1:53 --resolver-anchor /nowhere/x": "resolver.anchor",
	} {
		for _, mode := range []string{"require", "prefer"} {
			args := append([]string{"proxy", "tcp://127.0.0.1:0", "tls://127.0.0.1:1", "--to-dane", mode}, strings.Fields(flags)...)
			out, err := execute(t, "", testnet.Binary(t), args...)
			if err == nil || !strings.Contains(out, says) {
				t.Errorf("%s: %v\n%s", flags, err, out)
			}
		}
	}
}

// DTLS has its records at _udp.
func TestDANEOfDTLS(t *testing.T) {
	t.Parallel()
	s := newDANESite(t)
	leaf := s.private.SelfSigned([]string{"else.test"}, ca.Expired())
	cert, key, err := leaf.Write(s.dir, "dane-dtls")
	if err != nil {
		t.Fatal(err)
	}
	c := &coap{stock: s.stock}
	_, addr := c.server(t, "openssl", "-c", cert, "-j", key, "-n")
	for host, transport := range map[string]string{"coap": "udp", "wrong": "tcp"} {
		s.records["example.test"] += fmt.Sprintf("%s A 127.0.0.1\n_%s._%s.%s TLSA %s\n", host, portOf(t, addr), transport, host, tlsaOf(t, parsed(t, leaf), 3, 1, dane.SHA256))
	}
	d := testdns.Start(t, s.records)
	to := []string{"proxy", "udp://127.0.0.1:0", "dtls://" + addr, "--to-dane", "require", "--resolver-addr", "udp://" + d.Resolver, "--to-name"}
	p := start(t, append(to, "coap.example.test")...)
	for range 2 {
		c.want(t, "notls", p.Addr(""))
	}
	p = start(t, append(to, "wrong.example.test")...)
	dialUDP(t, p.Addr("")).Write([]byte("hello"))
	p.Reason("dane_absent")
}

// tlsaOf is the record of a certificate, as text.
func tlsaOf(t testing.TB, c *x509.Certificate, u dane.Usage, sel dane.Selector, m dane.Matching) string {
	t.Helper()
	r, err := dane.New(c, u, sel, m)
	if err != nil {
		t.Fatal(err)
	}
	return r.String()
}

func parsed(t testing.TB, l *ca.Leaf) *x509.Certificate {
	t.Helper()
	certs, err := l.Certs()
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}
