package transport

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// Where a client has moved to, it gets three times what came from there, and where
// it made its handshake, all.
func TestCreditOfWhoHasMoved(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c, there, third := d.caller(), d.caller(), d.caller()
	s := c.begun(greeting(1))
	bind(t, s, "12345678")
	from := func(by *caller, text string) {
		t.Helper()
		by.send(withCID("12345678", text))
		p := make([]byte, 1000)
		if n, at, err := s.ReadFrom(p); err != nil || string(p[:n]) != string(withCID("12345678", text)) || at.String() != by.addr().String() {
			t.Fatalf("%q from %v, %v", p[:n], at, err)
		}
	}
	write := func(n int) {
		t.Helper()
		wantWrite(t, s, strings.Repeat("x", n))
	}
	for range 100 {
		write(1000)
	}
	one := len(withCID("12345678", "moved"))
	from(there, "moved")
	s.Moved(there.addr())
	write(2 * one)
	there.wantHear(strings.Repeat("x", 2*one))
	// Nor has he less who is there where others say that they are elsewhere.
	from(third, "a copy")
	from(third, "another")
	write(one)
	there.wantHear(strings.Repeat("x", one))
	for _, n := range []int{1, 1000} {
		write(n)
	}
	if heard := there.settle(); len(heard) > 0 {
		t.Errorf("%d datagrams more than it has credit for", len(heard))
	}
	d.wantCounts(map[PacketCount]uint64{PacketsOverCredit: 2, PacketsReceived: d.count(PacketsReceived), PacketsBegun: 1, PacketsVerifySent: d.count(PacketsVerifySent), PacketsNoAssociation: d.count(PacketsNoAssociation)})
	from(there, "more")
	write(3*one - 3)
	there.wantHear(strings.Repeat("x", 3*one-3))
	if heard := third.settle(); len(heard) > 0 {
		t.Errorf("%q for one where the client never was", heard)
	}
	s.Moved(c.addr())
	c.settle()
	write(60000)
	c.wantHear(strings.Repeat("x", 60000))
}

// The engine answers to a new address before it says that the client is there.
func TestCreditBeforeTheMove(t *testing.T) {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port) }
	c := credit{home: at(1)}
	if c.spend(at(2), 1) {
		t.Error("nothing came from there")
	}
	c.came(at(2), 10)
	if !c.spend(at(2), 20) || c.spend(at(2), 11) {
		t.Error("20 of 30 bytes, then 11")
	}
	c.moved(at(2))
	if !c.spend(at(2), 10) || c.spend(at(2), 1) {
		t.Error("the rest")
	}
	c.moved(at(3))
	if c.spend(at(3), 1) || c.spend(at(2), 1) || !c.spend(at(1), 1<<20) {
		t.Error("an address that nothing came from")
	}
}

func TestShortOfRoom(t *testing.T) {
	for err, want := range map[error]bool{syscall.ENOBUFS: true, syscall.ENOMEM: true, syscall.EAGAIN: true, syscall.EMSGSIZE: false, syscall.EBADF: false, nil: false} {
		if err != nil {
			err = fmt.Errorf("sendmsg: %w", err)
		}
		if short(err) != want {
			t.Errorf("%v", err)
		}
	}
}
