package transport

import (
	"bytes"
	"net/netip"
	"testing"

	"sallyport/flow"
)

// tagged has a datagram say by one letter ahead of it whose it is: "a" to "z" are
// clients, "-" is a header that names nobody, "!" a bad one. Anything else has none.
func tagged(each bool) func() flow.Header {
	return func() flow.Header {
		return func(from netip.AddrPort, p []byte) (flow.Announced, []byte, flow.Reason) {
			who := flow.Announced{Each: each}
			switch {
			case len(p) == 0 || p[0] < 'a' && p[0] != '-' && p[0] != '!':
				if each {
					return flow.Announced{}, nil, flow.ProxyHeaderMissing
				}
				return flow.Announced{Missing: true}, p, ""
			case p[0] == '!':
				return flow.Announced{}, nil, flow.ProxyHeaderBad
			case p[0] >= 'a':
				who.Client, who.Local = letter(p[0]), letter('L')
			}
			return who, p[1:], ""
		}
	}
}

func letter(b byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, b}), uint16(b))
}

// One client by one address of the proxy: its header has to come first, and nobody
// else's comes after it.
func TestHeaderBeginsAssociation(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{Headers: tagged(false)})
	c := d.caller()
	c.send([]byte("NO"), []byte("!x"), []byte("aFIRST"))
	f, s := d.accept()
	if f.Client() != letter('a') || f.Reached() != letter('L') || f.Origin.Client != c.addr() {
		t.Errorf("%+v", f)
	}
	wantRead(t, s, "FIRST")
	c.send([]byte("SECOND"), []byte("aAGAIN"), []byte("bFORGED"), []byte("LAST"))
	for _, p := range []string{"SECOND", "AGAIN", "LAST"} {
		wantRead(t, s, p)
	}
	s.Write([]byte("answer"))
	c.wantHear("answer")
	d.wantLive(1, 0)
	d.wantCounts(map[PacketCount]uint64{PacketsBegun: 1, PacketsHeaderMissing: 1, PacketsHeaderBad: 1, PacketsHeaderOther: 1})
}

// Clients that share one address of the proxy, each with an association of its own
// and answered by that address; and the proxy itself.
func TestHeaderSharesAddress(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{Headers: tagged(true), Limits: PacketLimits{PerPrefix: 1}})
	c := d.caller()
	c.send([]byte("aONE"), []byte("bTWO"), []byte("-SELF"), []byte("NONE"), []byte("aTHREE"))
	said := map[netip.AddrPort][]string{letter('a'): {"ONE", "THREE"}, letter('b'): {"TWO"}, c.addr(): {"SELF"}}
	var first *packetConn
	for range 3 {
		f, s := d.accept()
		for _, p := range said[f.Client()] {
			wantRead(t, s, p)
		}
		if f.Client() == letter('a') {
			first = s
		}
		delete(said, f.Client())
		s.Write([]byte("answer"))
		c.wantHear("answer")
	}
	if len(said) > 0 {
		t.Errorf("left: %v", said)
	}
	d.wantLive(3, 0)
	// Its association over, the client begins another.
	first.Close()
	c.send([]byte("aANEW"))
	f, s := d.accept()
	if wantRead(t, s, "ANEW"); f.Client() != letter('a') {
		t.Error(f.Client())
	}
	d.wantCounts(map[PacketCount]uint64{PacketsBegun: 4, PacketsHeaderMissing: 1})
}

// Bounds are for whom a header names, as are routes.
func TestHeaderCountsItsClient(t *testing.T) {
	refused := func(client, _ netip.AddrPort, _ []byte) Verdict {
		if client == letter('z') {
			return Refuse
		}
		return Take
	}
	d := listenDemux(t, "127.0.0.1", PacketOptions{Headers: tagged(true), Judge: refused, Limits: PacketLimits{PerPrefix: 1}})
	one, two := d.caller(), d.caller()
	one.send([]byte("aX"), []byte("zX"))
	d.accept()
	two.send([]byte("aX")) // the same client by another address of the proxy
	d.wantCounts(map[PacketCount]uint64{PacketsBegun: 1, PacketsRefused: 1, PacketsOverAssociations: 1})
}

// A cookie is good in the name that was said when it was asked for, and the hello
// that brings it has to say it again.
func TestHeaderAndCookie(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{DTLS: true, Headers: tagged(false)})
	c := d.caller()
	ahead := func(by string, p []byte) []byte { return append([]byte(by), p...) }
	ask := func(by string) []byte {
		t.Helper()
		c.send(ahead(by, greeting(1)))
		_, cookie, ok := readVerify(c.hear())
		if !ok {
			t.Fatal("no HelloVerifyRequest")
		}
		return bytes.Clone(cookie)
	}
	cookie := ask("a")
	second := again(t, greeting(1), cookie)
	c.send(second, ahead("b", second))
	if _, other, ok := readVerify(c.hear()); !ok || bytes.Equal(other, cookie) {
		t.Errorf("another client: %v, %x", ok, other)
	}
	c.send(ahead("a", second))
	f, s := d.accept()
	if f.Client() != letter('a') || f.Origin.Client != c.addr() {
		t.Errorf("%+v", f)
	}
	wantRead(t, s, string(second))
	c.send(sealed("REST")) // needs none
	wantRead(t, s, string(sealed("REST")))
	d.wantCounts(map[PacketCount]uint64{PacketsBegun: 1, PacketsHeaderMissing: 1, PacketsBadCookie: 1, PacketsVerifySent: 2})
}

// Another process that takes the socket over knows whose the clients are that share
// an address, and whose the address is that one client has to itself.
func TestHeaderAndSuccession(t *testing.T) {
	for _, each := range []bool{true, false} {
		o := PacketOptions{Sockets: 1, Headers: tagged(each)}
		d := listenDemux(t, "127.0.0.1", o)
		c := d.caller()
		c.send([]byte("aFIRST"))
		_, old := d.accept()
		wantRead(t, old, "FIRST")
		next := d.succeed(o)
		c.send([]byte("aAGAIN"))
		wantRead(t, old, "AGAIN")
		c.send([]byte("bOTHER"))
		if each {
			f, s := next.accept()
			if wantRead(t, s, "OTHER"); f.Client() != letter('b') {
				t.Error(f.Client())
			}
		} else {
			d.wantCounts(map[PacketCount]uint64{PacketsBegun: 1, PacketsHeaderOther: 1})
			c.send([]byte("MORE"))
			wantRead(t, old, "MORE")
		}
		old.Close()
		await(t, "the successor is told of its end", func() bool {
			return !next.a.before.Load().has(&sender{old.key, old.who})
		})
		c.send([]byte("aANEW"))
		f, s := next.accept()
		if wantRead(t, s, "ANEW"); f.Client() != letter('a') {
			t.Error(f.Client())
		}
	}
}
