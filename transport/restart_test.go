package transport

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// exchange is of the handshake, in clear.
var exchange = recordOf(wire.TypeHandshake, 0, 2, []byte{16, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0})

// A client that begins anew from its address and port has both until the new one
// is established: nobody else can end the old one.
func TestClientRestarts(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		c := d.caller()
		first := again(t, greeting(1), c.cookie(greeting(1)))
		old := c.begun(greeting(1))
		second := again(t, greeting(2), c.cookie(greeting(2)))
		shadow := c.begin(greeting(2))
		d.wantLive(2, 1)

		c.send(sealed("for either"))
		wantRead(t, old, string(sealed("for either")))
		wantRead(t, shadow, string(sealed("for either")))
		c.send(exchange)
		wantRead(t, shadow, string(exchange))
		wantWrite(t, old, "old")
		c.wantHear("old")
		wantWrite(t, shadow, "new")
		c.wantHear("new")
		c.send(first)
		wantRead(t, old, string(first))
		c.send(second)
		wantRead(t, shadow, string(second))
		c.settle()
		wantEmpty(t, old, shadow)

		// It begins once more: there is one shadow at most.
		third := c.begin(greeting(3))
		wantReason(t, shadow, flow.ClientRestarted)
		d.wantLive(2, 1)
		if n := d.count(PacketsRestarted); n != 1 {
			t.Errorf("%d restarted", n)
		}
		c.send(sealed("still here"))
		wantRead(t, old, string(sealed("still here")))
		wantRead(t, third, string(sealed("still here")))
		shadow.Established() // too late, and no harm
		shadow.Close()
		d.wantLive(2, 1)

		third.Established()
		wantReason(t, old, flow.ClientRestarted)
		d.wantLive(1, 0)
		c.send(sealed("for the new one"), exchange)
		wantRead(t, third, string(sealed("for the new one")))
		wantRead(t, third, string(exchange))
		c.settle()
		wantEmpty(t, old, third)
		if n := d.count(PacketsRestarted); n != 2 {
			t.Errorf("%d restarted", n)
		}
		// What has ended takes nothing along when it is closed.
		old.Established()
		old.Close()
		d.wantLive(1, 0)
		c.send(sealed("goes on"))
		wantRead(t, third, string(sealed("goes on")))
	})
}

// Who can only send from the client's address, and does not see what we answer,
// gets no further than being asked for a cookie.
func TestSpoofedHelloEndsNothing(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{HandshakesPrefix: 2})
		c := d.caller()
		old := c.begun(greeting(1))
		for n := range uint64(50) {
			c.send(greeting(2+n), again(t, greeting(2+n), make([]byte, cookieSize)))
			body := greeting(2 + n)[25:]
			c.send(helloPart(0, 0, body, 0, 20), helloPart(0, 1, body, 30, 40))
		}
		c.send(sealed("x"))
		wantRead(t, old, string(sealed("x")))
		c.settle()
		d.wantLive(1, 0)
		if n := d.count(PacketsBegun); n != 1 {
			t.Errorf("%d associations begun", n)
		}
		// Nor does one who does see it, and begins without end: each takes the place of the one before.
		for n := range uint64(20) {
			s := c.begin(greeting(100 + n))
			d.wantLive(2, 1)
			c.send(sealed("y"))
			wantRead(t, old, string(sealed("y")))
			wantRead(t, s, string(sealed("y")))
			if n%2 == 0 {
				s.Close() // as it does once its handshake has taken too long
				d.wantLive(1, 0)
				c.send(exchange)
				wantRead(t, old, string(exchange))
			}
		}
		wantWrite(t, old, "alive")
		if got := c.settle(); len(got) == 0 || string(got[len(got)-1]) != "alive" {
			t.Errorf("the client hears %q", got)
		}
	})
}

// Where the old one ends by itself, the new one has the address alone.
func TestShadowMovesUp(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	old := c.begun(greeting(1))
	shadow := c.begin(greeting(2))
	old.Close()
	d.wantLive(1, 1)
	c.send(exchange, sealed("x"))
	wantRead(t, shadow, string(exchange))
	wantRead(t, shadow, string(sealed("x")))
	shadow.Established()
	d.wantLive(1, 0)
	// And the next restart has this one as the old one.
	next := c.begin(greeting(3))
	c.send(sealed("y"))
	wantRead(t, shadow, string(sealed("y")))
	wantRead(t, next, string(sealed("y")))
	next.Established()
	wantReason(t, shadow, flow.ClientRestarted)
	if n := d.count(PacketsRestarted); n != 1 {
		t.Errorf("%d restarted", n)
	}
}

// A client may begin anew before it has finished.
func TestClientRestartsAmidItsHandshake(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	first := c.begin(greeting(1))
	second := c.begin(greeting(2))
	d.wantLive(2, 2)
	second.Established()
	d.wantLive(1, 0)
	wantReason(t, first, flow.ClientRestarted)

	// The old one may be the one that finishes.
	third := c.begin(greeting(3))
	second.Established()
	d.wantLive(2, 1)
	third.Close()
	d.wantLive(1, 0)
	c.send(exchange)
	wantRead(t, second, string(exchange))
}

// A shadow counts like any other association, and where a bound is reached there
// is none; the old one goes on.
func TestShadowIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		limits PacketLimits
		count  PacketCount
	}{
		"associations":            {PacketLimits{Associations: 1}, PacketsOverAssociations},
		"associations per prefix": {PacketLimits{PerPrefix: 1}, PacketsOverAssociations},
	} {
		t.Run(name, func(t *testing.T) {
			d := listenDTLS(t, 1, c.limits)
			by := d.caller()
			old := by.begun(greeting(1))
			by.prove(greeting(2))
			by.settle()
			d.wantLive(1, 0)
			if n := d.count(c.count); n != 1 {
				t.Errorf("%s: %d", c.count, n)
			}
			by.send(exchange)
			wantRead(t, old, string(exchange))
		})
	}
	t.Run("handshakes", func(t *testing.T) {
		d := listenDTLS(t, 1, PacketLimits{Handshakes: 1})
		by := d.caller()
		old := by.begun(greeting(1))
		d.caller().begin(greeting(2))
		by.prove(greeting(3))
		by.settle()
		d.wantLive(2, 1)
		if n := d.count(PacketsOverHandshakes); n != 1 {
			t.Errorf("%d over handshakes", n)
		}
		by.send(exchange)
		wantRead(t, old, string(exchange))
	})
	t.Run("another shadow", func(t *testing.T) { // has the room of the first
		d := listenDTLS(t, 1, PacketLimits{Associations: 2, Handshakes: 1})
		by := d.caller()
		by.begun(greeting(1))
		first := by.begin(greeting(2))
		by.begin(greeting(3))
		wantReason(t, first, flow.ClientRestarted)
		d.wantLive(2, 1)
	})
}

// bind gives s a connection ID.
func bind(t testing.TB, s *packetConn, cid string) {
	t.Helper()
	if err := s.Bind([]byte(cid)); err != nil {
		t.Fatal(err)
	}
}

// wantFrom reads what came from an address.
func wantFrom(t testing.TB, s *packetConn, want []byte, from netip.AddrPort) {
	t.Helper()
	p := make([]byte, 64<<10)
	s.SetReadDeadline(time.Now().Add(patience))
	n, at, err := s.ReadFrom(p)
	if err != nil || string(p[:n]) != string(want) || at.(*net.UDPAddr).AddrPort() != from {
		t.Fatalf("read %q from %v, %v; want %q from %v", p[:n], at, err, want, from)
	}
}

// DT-08: with a connection ID a client is known wherever it is.
func TestConnectionIDRoams(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		home, away := d.caller(), d.call("127.0.0.9", "127.0.0.1")
		s := home.begun(greeting(1))
		bind(t, s, "the-cid1")
		home.send(withCID("the-cid1", "at home"))
		wantFrom(t, s, withCID("the-cid1", "at home"), home.addr())
		away.send(withCID("the-cid1", "away"), withCID("the-cid2", "away"))
		wantFrom(t, s, withCID("the-cid1", "away"), away.addr())
		away.settle()
		if n := d.count(PacketsUnknownCID); n != 1 {
			t.Errorf("%d with an unknown connection ID", n)
		}
		wantEmpty(t, s)

		// Until that record has proved itself, answers go home; it may be replayed.
		wantWrite(t, s, "answer")
		home.wantHear("answer")
		if n, err := s.WriteTo([]byte("probe"), net.UDPAddrFromAddrPort(away.addr())); n != 5 || err != nil {
			t.Error(n, err)
		}
		away.wantHear("probe")
		away.send(sealed("without"))
		away.settle()
		home.send(sealed("from home"))
		wantFrom(t, s, sealed("from home"), home.addr())

		s.Moved(away.addr())
		if s.RemoteAddr().String() != away.addr().String() {
			t.Errorf("it is at %v", s.RemoteAddr())
		}
		wantWrite(t, s, "answer")
		away.wantHear("answer")
		away.send(sealed("without"))
		wantFrom(t, s, sealed("without"), away.addr())
		home.send(withCID("the-cid1", "late"))
		wantFrom(t, s, withCID("the-cid1", "late"), home.addr())
		home.send(sealed("late"))
		home.settle()
		wantEmpty(t, s)
		if n := d.count(PacketsNoAssociation); n != 2 {
			t.Errorf("%d from an address of nobody", n)
		}
		// Its old address is free for another.
		other := home.begun(greeting(2))
		d.wantLive(2, 0)
		away.send(sealed("x"))
		wantRead(t, s, string(sealed("x")))
		s.Close()
		away.send(sealed("y"), withCID("the-cid1", "y"))
		away.settle()
		if n := d.count(PacketsNoAssociation) + d.count(PacketsUnknownCID); n != 5 {
			t.Errorf("%d for nobody", n)
		}
		home.send(sealed("z"))
		wantRead(t, other, string(sealed("z")))
		d.wantLive(1, 0)
	})
}

// A client at another's address gets its answers there, and the other one keeps
// what comes from it.
func TestMovedOntoAnAddressThatIsTaken(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	a, b, c := d.caller(), d.caller(), d.caller()
	mine, theirs := a.begun(greeting(1)), b.begun(greeting(2))
	bind(t, mine, "12345678")
	mine.Moved(b.addr())
	b.send(sealed("theirs"), withCID("12345678", "mine"), exchange)
	wantRead(t, theirs, string(sealed("theirs")))
	wantRead(t, theirs, string(exchange))
	wantFrom(t, mine, withCID("12345678", "mine"), b.addr())
	wantWrite(t, mine, "to b")
	b.wantHear("to b")
	// Its own address has gone, and closing it takes nothing of the other's along.
	a.send(sealed("nobody's"))
	a.settle()
	if n := d.count(PacketsNoAssociation); n != 1 {
		t.Errorf("%d for nobody", n)
	}
	mine.Moved(b.addr())
	mine.Moved(c.addr())
	c.send(sealed("at c"))
	wantRead(t, mine, string(sealed("at c")))
	mine.Moved(b.addr())
	mine.Close()
	b.send(sealed("still theirs"))
	wantRead(t, theirs, string(sealed("still theirs")))
	c.send(sealed("nobody's"))
	c.settle()
	d.wantLive(1, 0)
	wantEmpty(t, mine, theirs)

	// The other one's end frees the address for whoever begins there.
	theirs.Close()
	b.begun(greeting(3))
	d.wantLive(1, 0)
}

func TestMovedToWhereItIs(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	s := c.begun(greeting(1))
	shadow := c.begin(greeting(2))
	mapped := netip.AddrPortFrom(netip.AddrFrom16(c.addr().Addr().As16()), c.addr().Port())
	s.Moved(c.addr())
	s.Moved(mapped)
	if got := s.RemoteAddr().(*net.UDPAddr).AddrPort(); got != c.addr() {
		t.Errorf("it is at %v", got)
	}
	c.send(sealed("x"))
	wantRead(t, s, string(sealed("x")))
	wantRead(t, shadow, string(sealed("x")))
	// A shadow that goes elsewhere is none any more, and ends nothing.
	away := d.caller()
	shadow.Moved(away.addr())
	shadow.Established()
	c.send(exchange)
	wantRead(t, s, string(exchange))
	away.send(sealed("y"))
	wantRead(t, shadow, string(sealed("y")))
	d.wantLive(2, 0)
	// Nor does one that has closed come back.
	s.Close()
	s.Moved(away.addr())
	away.send(sealed("z"))
	wantRead(t, shadow, string(sealed("z")))
	c.send(sealed("z"))
	c.settle()
	if n := d.count(PacketsNoAssociation); n != 1 {
		t.Errorf("%d for nobody", n)
	}
}

func TestBind(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{DTLS: true, Sockets: 1, CIDLength: 3})
	a, b := d.caller(), d.caller()
	one, other := a.begun(greeting(1)), b.begun(greeting(2))
	for _, cid := range []string{"", "ab", "abcd"} {
		if err := one.Bind([]byte(cid)); err == nil {
			t.Errorf("a connection ID of %d bytes", len(cid))
		}
	}
	for _, cid := range []string{"aaa", "bbb", "ccc", "ddd"} {
		p := []byte(cid)
		if err := one.Bind(p); err != nil {
			t.Fatal(err)
		}
		clear(p)
		bind(t, one, cid)
		if err := other.Bind([]byte(cid)); err == nil {
			t.Errorf("%s is bound twice", cid)
		}
	}
	if err := one.Bind([]byte("eee")); err == nil {
		t.Error("a fifth connection ID")
	}
	bind(t, other, "eee")
	for _, cid := range []string{"aaa", "bbb", "ccc", "ddd"} {
		b.send(withCID(cid, "x"))
		wantRead(t, one, string(withCID(cid, "x")))
	}
	a.send(withCID("eee", "x"))
	wantRead(t, other, string(withCID("eee", "x")))
	// One that has closed has none, and gets none.
	one.Close()
	if err := one.Bind([]byte("fff")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := one.Bind([]byte("eee")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	bind(t, other, "aaa")
	b.send(withCID("bbb", "x"), withCID("fff", "x"), withCID("aaa", "x"))
	wantRead(t, other, string(withCID("aaa", "x")))
	b.settle()
	if n := d.count(PacketsUnknownCID); n != 2 {
		t.Errorf("%d with unknown connection IDs", n)
	}
}

// Whoever has a connection ID may have moved, and another client have its address
// now: it goes on by its ID alone.
func TestRestartLeavesConnectionIDs(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	old := c.begun(greeting(1))
	bind(t, old, "12345678")
	shadow := c.begin(greeting(2))
	if shadow.Bind([]byte("12345678")) == nil {
		t.Error("the old one's connection ID is given to another")
	}
	bind(t, shadow, "abcdefgh")
	c.send(withCID("12345678", "x"), withCID("abcdefgh", "y"))
	wantRead(t, old, string(withCID("12345678", "x")))
	wantRead(t, shadow, string(withCID("abcdefgh", "y")))
	shadow.Established()
	c.send(withCID("12345678", "x"), withCID("abcdefgh", "z"))
	wantRead(t, shadow, string(withCID("abcdefgh", "z")))
	wantRead(t, old, string(withCID("12345678", "x")))
	old.Close()
	c.send(withCID("12345678", "x"))
	c.settle()
	if n := d.count(PacketsUnknownCID); n != 1 {
		t.Errorf("%d with unknown connection IDs", n)
	}
}
