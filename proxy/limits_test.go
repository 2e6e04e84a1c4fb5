package proxy

import (
	"net/netip"
	"testing"
	"time"
)

func TestClientsAreCountedByPrefix(t *testing.T) {
	l := &Limits{FlowsPerIP: 2, Prefix4: 24, Prefix6: 64}
	var g gate
	now := time.Unix(1e9, 0)
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	var all []*tally
	for _, c := range []struct {
		from string
		hit  Limit
	}{
		{"192.0.2.1:1", ""}, {"[::ffff:192.0.2.9]:1", ""}, {"192.0.2.2:1", LimitFlowsPerIP}, {"192.0.3.1:1", ""},
		{"[2001:db8::1]:1", ""}, {"[2001:db8::2%eth0]:1", ""}, {"[2001:db8:0:0:ffff::3]:1", LimitFlowsPerIP}, {"[2001:db8:0:1::1]:1", ""},
	} {
		client, hit := g.enterClient(l, at(c.from), now)
		if hit != c.hit {
			t.Errorf("%s: %q, want %q", c.from, hit, c.hit)
		}
		if hit == "" {
			all = append(all, client)
		}
	}
	for _, client := range all {
		g.leave(client)
	}
	if _, hit := g.enterClient(l, at("192.0.2.2:1"), now); hit != "" {
		t.Errorf("%q although all have gone", hit)
	}
	if client, hit := g.enterClient(l, netip.AddrPort{}, now); hit != "" || client != nil {
		t.Error("a unix socket has no clients to count")
	}
}

func TestRate(t *testing.T) {
	l := &Limits{RatePerIP: 10, Prefix4: 32}
	var g gate
	now := time.Unix(1e9, 0)
	try := func() bool {
		client, hit := g.enterClient(l, netip.MustParseAddrPort("192.0.2.1:1"), now)
		if hit == "" {
			g.leave(client)
		}
		return hit == ""
	}
	count := func() (n int) {
		for try() {
			n++
		}
		return n
	}
	if n := count(); n != 10 {
		t.Errorf("%d at once", n)
	}
	now = now.Add(500 * time.Millisecond)
	if n := count(); n != 5 {
		t.Errorf("%d after half a second", n)
	}
	now = now.Add(time.Hour)
	if n := count(); n != 10 {
		t.Errorf("%d after an hour", n)
	}
	for i := range 1000 { // strangers leave nothing behind
		now = now.Add(time.Second / 500)
		g.enterClient(l, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1), now)
	}
	for _, c := range g.clients {
		c.flows = 0
	}
	now = now.Add(2 * time.Second)
	if try(); len(g.clients) != 1 {
		t.Errorf("%d clients are kept", len(g.clients))
	}
}

func TestTheOldestHandshakeIsShed(t *testing.T) {
	var n nursery
	a, b, c := &life{}, &life{}, &life{}
	placeA, old := n.add(a, 2)
	_, old2 := n.add(b, 2)
	if old != nil || old2 != nil {
		t.Error("shed below the bound")
	}
	if _, old := n.add(c, 2); old != a {
		t.Error("not the oldest")
	}
	n.leave(placeA) // it ends, having been shed
	if n.all.Len() != 2 {
		t.Errorf("%d are left", n.all.Len())
	}
}
