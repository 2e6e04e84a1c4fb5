package secure

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// A puppet that behaves is served, so that those that do not tell something.
func TestDTLSPuppet(t *testing.T) {
	server, p := puppets(t)
	p.data("up")
	server.hears(t, "up")
	server.says(t, "down")
	r, _, err := wire.ReadRecord(p.receive(patience), 0)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := p.opened(&r); err != nil || string(text) != "down" {
		t.Errorf("%q, %v", text, err)
	}
	s := newSite(t)
	s.asking(AuthRequire)
	leaf := s.ca.Leaf([]string{"c.test"})
	l := listenDTLS(t, NewDTLSServer(s.server))
	p = newPuppet(t, l.at(), suiteECDSA)
	p.hello()
	cert, cke := p.certificate(leaf), p.keyExchange()
	p.agree()
	p.send(p.record(wire.TypeHandshake, cert), p.record(wire.TypeHandshake, cke), p.record(wire.TypeHandshake, p.certificateVerify(leaf.Key)),
		p.changeCipherSpec(), p.sealed(wire.TypeHandshake, p.finished()))
	p.done()
	if got := l.next().session(t).Peer; got == nil || got.Names[0] != "c.test" {
		t.Errorf("the client is recorded as %+v", got)
	}
}

// DT-02: anybody can send in clear from a client's address. Once the keys are there
// nothing in clear counts.
func TestDTLSInClearAfterHandshake(t *testing.T) {
	server, p := puppets(t)
	for i, r := range [][]byte{
		plainRecord(typeApplicationData, 0, 100, []byte("in clear")),
		plainRecord(wire.TypeAlert, 0, 101, []byte{2, 40}),
		plainRecord(wire.TypeAlert, 0, 102, []byte{1, 0}),
		plainRecord(typeChangeCipherSpec, 0, 103, []byte{1}),
		plainRecord(wire.TypeHandshake, 0, 104, fragmentOf(msgServerHello, 9, 4, 0, []byte("abcd"))),
		plainRecord(wire.TypeHandshake, 0, 105, []byte{1}),
		plainRecord(24, 0, 106, []byte("heartbeat")),
		plainRecord(typeApplicationData, 2, 0, []byte("of another epoch")),
		plainRecord(typeApplicationData, 0xffff, 0, []byte("of another epoch")),
		plainRecord(typeApplicationData, 1, 1<<40, []byte("not encrypted")),
		plainRecord(typeChangeCipherSpec, 1, 1<<40, []byte{1}), // which the engine takes for what it is
		plainRecord(typeChangeCipherSpec, 1, 1<<40+1, []byte("rubbish")),
		plainRecord(wire.TypeHandshake, 1, 1<<40+2, nil),
		plainRecord(wire.TypeCID, 1, 1<<40+3, []byte("no connection ID")),
		[]byte("no record at all"),
		{},
		plainRecord(typeApplicationData, 1, 200, nil)[:12],
	} {
		p.send(r)
		text := fmt.Sprintf("after %d", i)
		// One in clear ahead of an encrypted one in the same datagram hides it no more.
		p.send(r, p.sealed(typeApplicationData, []byte(text)))
		// Some keep the acceptor from looking at what follows: what begins like a
		// hello, with another's connection ID, or with no record.
		if i != 5 && i < 13 || len(r) == 0 {
			server.hears(t, text)
		}
		p.data(text + " again")
		server.hears(t, text+" again")
	}
	if b := p.receive(50 * time.Millisecond); b != nil {
		t.Errorf("something was answered: %x", b)
	}
}

// DT-09
func TestDTLSForgedRecords(t *testing.T) {
	server, p := puppets(t)
	p.data("before")
	server.hears(t, "before")
	forged := make([]byte, 13+8+100)
	for i := range 3000 {
		rand.Read(forged)
		copy(forged, plainRecord([]byte{typeApplicationData, wire.TypeAlert, wire.TypeHandshake}[i%3], 1, uint64(2+i), nil)[:11])
		forged[11], forged[12] = 0, 108
		p.send(forged)
		if i%100 == 99 {
			// Their numbers are not taken as seen, either.
			p.data("between")
			server.hears(t, "between")
		}
	}
	bad := p.sealed(typeApplicationData, []byte("flipped"))
	bad[len(bad)-1] ^= 1
	p.send(bad)
	p.seq[1]-- // the true one may still come
	p.data("true")
	server.hears(t, "true")
}

// DT-05: whatever comes twice is given once, in whatever order it comes, and what
// is older than the window is not given at all.
func TestDTLSReplays(t *testing.T) {
	server, p := puppets(t)
	record := func(n uint64) []byte { return p.sealedAs(n, typeApplicationData, fmt.Append(nil, n)) }
	heard := func(n uint64) {
		t.Helper()
		server.hears(t, fmt.Sprint(n))
	}
	p.send(record(10))
	heard(10)
	p.send(record(10))
	p.send(record(300))
	heard(300)
	for _, n := range []uint64{300 - 127, 300 - 64, 300 - 65, 300 - 1, 300 - 100} { // late, yet new
		p.send(record(n))
		heard(n)
	}
	for _, n := range []uint64{300, 300 - 127, 300 - 64, 300 - 1, 10, 300 - 128, 300 - 200, 1} { // again, or too old
		p.send(record(n))
	}
	p.send(record(301))
	heard(301)
	p.send(record(1 << 47))
	heard(1 << 47)
	p.send(record(302))
	p.send(record(1<<47 + 1))
	heard(1<<47 + 1)
}

// DT-03: a handshake of which something is left out, comes early or is another's
// gives no session.
func TestDTLSHandshakeOutOfOrder(t *testing.T) {
	s := newSite(t)
	s.asking(AuthRequire)
	s.server.Timeout = 2 * time.Second
	leaf, other := s.ca.Leaf([]string{"c.test"}), s.ca.Leaf([]string{"c.test"})
	hs := byte(wire.TypeHandshake)
	var all sync.WaitGroup // most wait for what does not come
	for _, c := range []struct {
		name   string
		auth   Auth
		do     func(p *puppet)
		reason flow.Reason
	}{
		{"no CertificateVerify", AuthRequire, func(p *puppet) {
			p.send(p.record(hs, p.certificate(leaf)), p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(hs, p.finished()))
		}, flow.ClientTimeout},
		{"no CertificateVerify, where a certificate is optional", AuthOptional, func(p *puppet) {
			p.send(p.record(hs, p.certificate(leaf)), p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(hs, p.finished()))
		}, flow.ClientTimeout},
		{"CertificateVerify by another key", AuthRequire, func(p *puppet) {
			p.send(p.record(hs, p.certificate(leaf)), p.record(hs, p.keyExchange()), p.record(hs, p.certificateVerify(other.Key)))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(hs, p.finished()))
		}, flow.ClientHandshake},
		{"CertificateVerify of another handshake", AuthRequire, func(p *puppet) {
			p.send(p.record(hs, p.certificate(leaf)))
			cke := p.keyExchange()
			p.transcript[10] ^= 1
			cv := p.certificateVerify(leaf.Key)
			p.transcript[10] ^= 1
			p.send(p.record(hs, cke), p.record(hs, cv))
		}, flow.ClientHandshake},
		{"no certificate at all", AuthRequire, func(p *puppet) {
			p.send(p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(hs, p.finished()))
		}, flow.ClientCertMissing},
		{"an empty certificate", AuthRequire, func(p *puppet) {
			p.send(p.record(hs, p.certificate(nil)), p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(hs, p.finished()))
		}, flow.ClientCertMissing},
		{"CertificateVerify without a certificate", AuthRequire, func(p *puppet) {
			p.send(p.record(hs, p.keyExchange()), p.record(hs, p.certificateVerify(leaf.Key)))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(hs, p.finished()))
		}, flow.ClientHandshake},
		{"a certificate that nobody has asked for", AuthNone, func(p *puppet) {
			p.send(p.record(hs, p.certificate(leaf)), p.record(hs, p.keyExchange()))
		}, flow.ClientHandshake},
		{"a wrong Finished", AuthNone, func(p *puppet) {
			p.send(p.record(hs, p.keyExchange()))
			p.agree()
			m := p.finished()
			m[len(m)-1] ^= 1
			p.send(p.changeCipherSpec(), p.sealed(hs, m))
		}, flow.ClientHandshake},
		{"Finished in clear", AuthNone, func(p *puppet) {
			p.send(p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.record(hs, p.finished()))
		}, flow.ClientTimeout},
		{"Finished in clear, after ChangeCipherSpec", AuthNone, func(p *puppet) {
			p.send(p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.changeCipherSpec(), p.record(hs, p.finished()))
		}, flow.ClientTimeout},
		{"ChangeCipherSpec and Finished ahead of any key", AuthNone, func(p *puppet) {
			p.master = make([]byte, 48)
			p.send(p.changeCipherSpec(), plainRecord(hs, 1, 0, p.finished()))
		}, flow.ClientTimeout},
		{"nothing but ChangeCipherSpec", AuthNone, func(p *puppet) {
			for range 100 {
				p.send(p.changeCipherSpec())
			}
		}, flow.ClientTimeout},
		{"data in clear amid the handshake", AuthNone, func(p *puppet) {
			p.send(p.record(typeApplicationData, []byte("early")))
		}, flow.ClientTimeout},
		{"data ahead of Finished", AuthNone, func(p *puppet) {
			p.send(p.record(hs, p.keyExchange()))
			p.agree()
			p.send(p.changeCipherSpec(), p.sealed(typeApplicationData, []byte("early")))
		}, flow.ClientTimeout},
	} {
		all.Go(func() {
			server := s.server
			server.Auth = c.auth
			l := listenDTLS(t, NewDTLSServer(server))
			p := newPuppet(t, l.at(), suiteECDSA)
			p.hello()
			c.do(p)
			if got := l.next(); reasonOf(got.err) != c.reason || len(got.f.Inbound) != 0 || got.c != nil {
				t.Errorf("%s: got %v, %+v, want %s", c.name, got.err, got.f.Inbound, c.reason)
			}
		})
	}
	all.Wait()
}

// DT-06: what comes in parts is put together however it overlaps, and what never
// gets whole is bounded.
func TestDTLSFragments(t *testing.T) {
	s := newSite(t)
	s.psk()
	l := listenDTLS(t, NewDTLSServer(s.server))
	t.Run("of one byte, overlapping, backwards, twice", func(t *testing.T) {
		p := newPuppet(t, l.at(), suitePSK)
		p.hello()
		m := p.keyExchange()
		body, seq := m[12:], uint16(2)
		part := func(from, to int) []byte {
			return p.record(wire.TypeHandshake, fragmentOf(msgClientKeyExchange, seq, len(body), from, body[from:to]))
		}
		for i := len(body) - 1; i > 0; i-- {
			p.send(part(i, i+1), part(i, i+1))
		}
		p.send(part(3, len(body)), part(2, 5), part(1, 1))
		p.send(p.record(wire.TypeHandshake, fragmentOf(msgClientKeyExchange, seq, len(body)+1, 0, body))) // disagrees: no part of it
		p.send(p.record(wire.TypeHandshake, fragmentOf(msgFinished, seq, len(body), 0, body)))
		p.send(p.record(wire.TypeHandshake, fragmentOf(msgClientKeyExchange, seq, len(body), len(body), []byte("beyond"))))
		p.send(part(0, 2))
		p.agree()
		p.send(p.changeCipherSpec(), p.sealed(wire.TypeHandshake, p.finished()))
		p.done()
		if got := l.next(); got.err != nil {
			t.Error(got.err)
		}
	})
	// Parts that cannot be of a handshake harm none, however many there are.
	for name, record := range map[string]func(p *puppet, i int) []byte{
		"huge": func(p *puppet, i int) []byte {
			return fragmentOf(msgClientKeyExchange, 2, 1<<24-1, i*1000, make([]byte, 1000))
		},
		"many": func(p *puppet, i int) []byte { return fragmentOf(msgClientKeyExchange, 2, 1<<24-1, 2*i, []byte{1}) },
		"later": func(p *puppet, i int) []byte {
			return fragmentOf(msgClientKeyExchange, uint16(mostMessages+i), 1000, 0, make([]byte, 1000))
		},
		"malformed": func(p *puppet, i int) []byte { return []byte{msgClientKeyExchange, 0, 0} },
		"beyond":    func(p *puppet, i int) []byte { return fragmentOf(msgClientKeyExchange, 2, 100, 90, make([]byte, 11)) },
		"whole":     func(p *puppet, i int) []byte { return fragmentOf(99, uint16(2+i), 1000, 0, make([]byte, 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPuppet(t, l.at(), suitePSK)
			p.hello()
			for i := range 500 {
				p.send(p.record(wire.TypeHandshake, record(p, i)))
				if i%50 == 49 {
					time.Sleep(time.Millisecond) // what overflows the queue is not counted
				}
			}
			cke := p.keyExchange()
			p.agree()
			finished := p.finished()
			last := func() {
				p.send(p.record(wire.TypeHandshake, cke), p.changeCipherSpec(), p.sealed(wire.TypeHandshake, finished))
			}
			last()
			p.done(last) // the junk may have taken its place in the queue
			if got := l.next(); got.err != nil {
				t.Error(got.err)
			}
		})
	}
	// Those that can be are bounded.
	s.server.Timeout = 2 * time.Second
	l = listenDTLS(t, NewDTLSServer(s.server))
	p := newPuppet(t, l.at(), suitePSK)
	p.hello()
	for i := range 200 {
		p.send(p.record(wire.TypeHandshake, fragmentOf(msgClientKeyExchange, 2, 60_000, 2*i, make([]byte, 1000))))
		if i%50 == 49 {
			time.Sleep(time.Millisecond)
		}
	}
	if got := l.next(); reasonOf(got.err) != flow.ClientHandshake || !strings.Contains(got.err.Error(), "64 KiB") || len(got.f.Inbound) != 0 {
		t.Errorf("got %v", got.err)
	}
}

// Anybody can send in a client's name while its handshake runs: an alert is believed
// of one who is silent after it alone, and rubbish is thrown away.
func TestDTLSSpoofedWhileTheHandshakeRuns(t *testing.T) {
	s := newSite(t)
	s.psk()
	l := listenDTLS(t, NewDTLSServer(s.server))
	p := newPuppet(t, l.at(), suitePSK)
	p.hello()
	for i := range 300 { // 300 KiB and more
		p.send(
			p.record(wire.TypeAlert, []byte{2, 40}), p.record(wire.TypeAlert, []byte{1, 0}), p.record(wire.TypeAlert, []byte{2}),
			p.record(typeApplicationData, make([]byte, 500)), p.record(typeChangeCipherSpec, []byte{2}), p.record(99, []byte("x")),
			plainRecord(typeApplicationData, 1, uint64(1000+i), make([]byte, 500)), plainRecord(wire.TypeHandshake, 1, uint64(2000+i), make([]byte, 40)),
			plainRecord(wire.TypeHandshake, 2, uint64(i), make([]byte, 40)), []byte("rubbish"),
		)
		if i%50 == 49 {
			time.Sleep(time.Millisecond) // what overflows the queue is not counted
		}
	}
	time.Sleep(alertGrace / 2) // as a client whose flight was lost
	cke := p.keyExchange()
	p.agree()
	p.send(p.record(wire.TypeHandshake, cke), p.changeCipherSpec(), p.sealed(wire.TypeHandshake, p.finished()))
	p.done()
	got := l.next()
	if got.err != nil {
		t.Fatal(got.err)
	}
	time.Sleep(alertGrace)
	p.data("and on")
	got.hears(t, "and on")
}

// A client that is silent after its alert has ended its handshake, and is not waited
// for.
func TestDTLSAlertAmidTheHandshake(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	p := newPuppet(t, l.at(), suiteECDSA)
	p.hello()
	p.send(p.record(wire.TypeAlert, []byte{1, 90}), p.record(wire.TypeAlert, []byte{2, 48}), p.record(wire.TypeAlert, []byte{1, 0}))
	if got := l.next(); reasonOf(got.err) != flow.ClientRejectedLeaf {
		t.Errorf("got %v", got.err)
	}
	// Where it came to be doubted, it is what the record says all the same.
	s.server.Timeout = time.Second
	l = listenDTLS(t, NewDTLSServer(s.server))
	p = newPuppet(t, l.at(), suiteECDSA)
	p.hello()
	p.send(p.record(wire.TypeAlert, []byte{2, 48}), p.changeCipherSpec())
	if got := l.next(); reasonOf(got.err) != flow.ClientRejectedLeaf {
		t.Errorf("got %v", got.err)
	}
}

// What a client sends once it is in is bounded too: the engine would keep parts of
// messages for as long as the association lives.
func TestDTLSFragmentsAfterHandshake(t *testing.T) {
	for _, cid := range []bool{false, true} {
		t.Run(fmt.Sprintf("CID %t", cid), func(t *testing.T) {
			s := newSite(t)
			s.psk()
			s.server.CID = cid
			l := listenDTLS(t, NewDTLSServer(s.server))
			p := newPuppet(t, l.at(), suitePSK)
			if cid {
				p.cid = []byte{}
			}
			p.shake()
			server := l.next()
			p.data("in")
			server.hears(t, "in")
			ended := make(chan error, 1)
			go func() { ended <- server.ends(t) }()
			for i := range 1000 {
				p.send(p.sealed(wire.TypeHandshake, fragmentOf(msgClientHello, 100, 1<<24-1, 4000*i, make([]byte, 4000))))
				select {
				case err := <-ended:
					if reasonOf(err) != flow.ClientProtocol {
						t.Errorf("it ended with %v", err)
					}
					return
				default:
				}
				if i%20 == 19 {
					time.Sleep(time.Millisecond) // a full queue would drop them
				}
			}
			t.Error("all were kept")
		})
	}
}

// A peer may send alerts that end nothing, as many as it likes.
func TestDTLSWarnings(t *testing.T) {
	server, p := puppets(t)
	for range 5 {
		for range 100 { // a queue holds 128
			p.send(p.sealed(wire.TypeAlert, []byte{1, 90}))
		}
		p.data("and on")
		server.hears(t, "and on")
	}
}

// What a peer with keys sends against the protocol ends its association alone.
func TestDTLSProtocolErrors(t *testing.T) {
	for name, c := range map[string]struct {
		typ  byte
		body []byte
		want flow.Reason // OK: it goes on
	}{
		"an unknown type":        {99, []byte("x"), flow.OK},
		"a heartbeat":            {24, []byte("xxxx"), flow.ClientProtocol},
		"a fatal alert":          {wire.TypeAlert, []byte{2, 80}, flow.ClientAlert},
		"half an alert":          {wire.TypeAlert, []byte{2}, flow.ClientProtocol},
		"ChangeCipherSpec":       {typeChangeCipherSpec, []byte{1}, flow.OK},
		"a ClientHello":          {wire.TypeHandshake, fragmentOf(msgClientHello, 4, 3, 0, []byte("abc")), flow.OK},
		"a malformed handshake":  {wire.TypeHandshake, []byte("abc"), flow.OK},
		"an empty handshake":     {wire.TypeHandshake, nil, flow.OK},
		"a Finished, once again": {wire.TypeHandshake, fragmentOf(msgFinished, 3, 12, 0, make([]byte, 12)), flow.OK},
	} {
		t.Run(name, func(t *testing.T) {
			server, p := puppets(t)
			p.send(p.sealed(c.typ, c.body))
			if c.want == flow.OK {
				p.data("and on")
				server.hears(t, "and on")
				return
			}
			if err := server.ends(t); reasonOf(err) != c.want {
				t.Errorf("ended with %v, want %s", err, c.want)
			}
		})
	}
}

// DT-04: our randoms are never the same, nor zero.
func TestDTLSRandoms(t *testing.T) {
	s := newSite(t)
	s.psk()
	s.client.Suites, s.server.Suites = []uint16{suitePSK}, []uint16{suitePSK}
	s.server.Timeout = time.Second
	l := listenDTLS(t, NewDTLSServer(s.server))
	const n = 1000
	servers, clients := make([][32]byte, n), make(chan [32]byte, n)
	puppetPool(n, 100, func(i int) { // an address may have 128 handshakes at once
		p := newPuppet(t, l.at(), suitePSK)
		p.hello()
		servers[i] = p.serverRandom
		// Its socket stays open: another's of the same port would hear the flight again.
		l.next() // of one of those that are given up
	})
	// A server that refuses whoever comes.
	refusing, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer refusing.Close()
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := refusing.ReadFrom(b)
			if err != nil {
				return
			}
			if h, err := wire.ParseDTLSHello(b[:n]); err == nil {
				clients <- h.Random
				refusing.WriteTo(wire.AlertRecord(wire.VersionDTLS12, 40), from)
			}
		}
	}()
	layer := NewDTLSClient(s.client)
	puppetPool(n, 4, func(int) {
		if c := dialDTLS(t, refusing.LocalAddr().(*net.UDPAddr).AddrPort(), layer); c.err == nil {
			t.Error("a handshake with nobody")
		} else {
			c.bare.Close()
		}
	})
	seen := map[[28]byte]bool{{}: true} // of a random the first four bytes are the time
	check := func(who string, r [32]byte) {
		if tail := [28]byte(r[4:]); seen[tail] || bytes.Count(tail[:], []byte{0}) > 8 {
			t.Fatalf("the %s's random %x", who, r)
		} else {
			seen[tail] = true
		}
	}
	for _, r := range servers {
		check("server", r)
		check("client", <-clients)
	}
}

// RG-08: a nonce of AES-GCM that comes twice gives the key away.
func TestDTLSNoncesNeverRepeat(t *testing.T) {
	server, p := puppets(t)
	const n = 10_000
	seen := map[[8]byte]bool{}
	last := uint64(0)
	for i := range n {
		server.says(t, "x")
		datagram := p.receive(patience)
		r, _, err := wire.ReadRecord(datagram, 0)
		if err != nil || r.Epoch != 1 || len(r.Body) != 8+1+16 {
			t.Fatalf("%x, %v", datagram, err)
		}
		if nonce := [8]byte(r.Body); seen[nonce] {
			t.Fatalf("record %d has a nonce once more: %x", i, nonce)
		} else {
			seen[nonce] = true
		}
		if r.Seq <= last {
			t.Fatalf("record %d has number %d after %d", i, r.Seq, last)
		}
		last = r.Seq
		if text, err := p.opened(&r); err != nil || string(text) != "x" {
			t.Fatalf("%q, %v", text, err)
		}
	}
}

// A peer that says nothing any more does not hold us up.
func TestDTLSSilentHandshake(t *testing.T) {
	s := newSite(t)
	s.server.Timeout = 200 * time.Millisecond
	l := listenDTLS(t, NewDTLSServer(s.server))
	newPuppet(t, l.at(), suiteECDSA).hello()
	if got := l.next(); reasonOf(got.err) != flow.ClientTimeout || errors.Is(got.err, flow.ErrTruncated) {
		t.Errorf("got %v", got.err)
	}
	s.client.Timeout = 200 * time.Millisecond
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if got := dialDTLS(t, silent.LocalAddr().(*net.UDPAddr).AddrPort(), NewDTLSClient(s.client)); reasonOf(got.err) != flow.ServerTimeout {
		t.Errorf("got %v", got.err)
	}
}
