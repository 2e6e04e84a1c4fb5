package transport

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sallyport/wire"
)

// half has waiting alone, on a clock of the test's own.
type half struct {
	testing.TB
	w      waiting
	counts PacketCounters
	now    time.Time
}

func newHalf(t testing.TB, l PacketLimits) *half {
	h := &half{TB: t, now: time.Unix(1e9, 0)}
	h.w = waiting{limits: l.withDefaults(), counts: &h.counts}
	return h
}

func from(address string) key {
	return key{client: netip.MustParseAddrPort(address), local: netip.MustParseAddr("10.0.0.1")}
}

func (h *half) more(k key, datagrams ...[]byte) {
	h.Helper()
	for _, p := range datagrams {
		if hello, came := h.w.feed(h.now, &sender{key: k}, p); hello != nil || came != 0 {
			h.Errorf("%v: a hello of %d bytes, too early", k.client, len(hello))
		}
	}
}

func (h *half) whole(k key, datagram, want []byte, wantCame int) {
	h.Helper()
	hello, came := h.w.feed(h.now, &sender{key: k}, datagram)
	if !bytes.Equal(hello, want) || came != wantCame {
		h.Errorf("%v: %d bytes for %d, want %d for %d", k.client, len(hello), came, len(want), wantCame)
	}
}

func (h *half) wants(held int, evicted, bad uint64) {
	h.Helper()
	if n := len(h.w.list); n != held || h.counts[PacketsHalfOpenEvicted].Load() != evicted || h.counts[PacketsBadFragments].Load() != bad {
		h.Errorf("%d held, %d evicted, %d bad; want %d, %d, %d", n, h.counts[PacketsHalfOpenEvicted].Load(), h.counts[PacketsBadFragments].Load(), held, evicted, bad)
	}
}

// inParts is a hello cut at these places, and what it is in one record with the
// last one's number.
func inParts(hello []byte, at ...int) (parts [][]byte, whole []byte) {
	body := hello[25:]
	for i, f := range at {
		to := len(body)
		if i+1 < len(at) {
			to = at[i+1]
		}
		parts = append(parts, helloPart(uint64(i), 0, body, f, to))
	}
	whole = helloOf(uint64(len(at)-1), 0, body)
	whole[1], whole[2] = wire.VersionDTLS10>>8, wire.VersionDTLS10&0xff
	return parts, whole
}

func TestHalfOpen(t *testing.T) {
	h := newHalf(t, PacketLimits{})
	parts, whole := inParts(greeting(1), 0, 20, 40)
	one, two, otherPort := from("192.0.2.1:1"), from("192.0.2.2:1"), from("192.0.2.1:2")
	elsewhere := key{client: one.client, local: netip.MustParseAddr("10.0.0.2")}
	h.more(one, parts[0])
	h.more(two, parts[1])
	h.more(otherPort, parts[2])
	h.more(elsewhere, parts[0], parts[1])
	h.wants(4, 0, 0)
	h.more(one, parts[0], parts[1])
	// Each of them has its own parts, and what it sent twice it sent.
	h.whole(one, parts[2], whole, 2*len(parts[0])+len(parts[1])+len(parts[2]))
	h.wants(3, 0, 0)
	// Parts that make no hello go, and only they.
	other := bytes.Clone(greeting(1)[25:])
	other[30] ^= 1
	h.more(two, helloPart(9, 0, other, 19, 40))
	h.wants(2, 0, 1)
	h.more(two, parts[2], parts[0])
	h.more(otherPort, parts[1])
	h.whole(elsewhere, parts[2], whole, len(parts[0])+len(parts[1])+len(parts[2]))
	h.wants(2, 0, 1)
}

func TestHalfOpenEndsWithItsAge(t *testing.T) {
	h := newHalf(t, PacketLimits{HalfOpenFor: 10 * time.Second})
	parts, whole := inParts(greeting(1), 0, 20, 40)
	one, two, three := from("192.0.2.1:1"), from("192.0.2.2:1"), from("192.0.2.3:1")
	h.more(one, parts[0])
	h.now = h.now.Add(6 * time.Second)
	h.more(two, parts[0])
	// What comes later does not make it younger.
	h.more(one, parts[1])
	h.now = h.now.Add(4 * time.Second)
	h.more(two, parts[1])
	h.wants(2, 0, 0)
	h.now = h.now.Add(1)
	h.more(three, parts[0])
	h.wants(2, 1, 0)
	h.more(one, parts[2]) // begins anew
	h.wants(3, 1, 0)
	h.whole(two, parts[2], whole, len(parts[0])+len(parts[1])+len(parts[2]))
	h.wants(2, 1, 0)
	h.now = h.now.Add(time.Hour)
	h.more(two, parts[0])
	h.wants(1, 3, 0)
}

func TestHalfOpenCaps(t *testing.T) {
	h := newHalf(t, PacketLimits{HalfOpen: 5, HalfOpenPrefix: 2})
	parts, whole := inParts(greeting(1), 0, 20)
	finish := func(address string, there bool) {
		t.Helper()
		if there {
			h.whole(from(address), parts[1], whole, len(parts[0])+len(parts[1]))
		} else {
			h.more(from(address), parts[1])
		}
	}
	for _, address := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:2"} {
		h.more(from(address), parts[0])
	}
	// A third of one prefix has the place of that one's oldest.
	h.more(from("192.0.2.1:3"), parts[0])
	h.wants(3, 1, 0)
	finish("192.0.2.1:2", true)
	finish("192.0.2.1:3", true)
	finish("192.0.2.2:1", true)
	finish("192.0.2.1:1", false)
	h.wants(1, 1, 0)

	h = newHalf(t, PacketLimits{HalfOpen: 5, HalfOpenPrefix: 2})
	for _, address := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1", "192.0.2.6:1"} {
		h.more(from(address), parts[0])
	}
	// A sixth of all has the oldest's.
	h.wants(5, 1, 0)
	h.more(from("192.0.2.6:2"), parts[0])
	h.wants(5, 2, 0)
	finish("192.0.2.3:1", true)
	finish("192.0.2.6:1", true)
	finish("192.0.2.6:2", true)
	finish("192.0.2.2:1", false)
	h.wants(3, 2, 0)
	// An IPv6 prefix is a /64.
	h = newHalf(t, PacketLimits{HalfOpenPrefix: 2})
	for _, address := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::ffff:3]:1", "[2001:db8:0:1::1]:1"} {
		h.more(from(address), parts[0])
	}
	h.wants(3, 1, 0)
}

// DT-06 and DT-10: whatever comes, in whatever order, what is held is bounded.
func TestHalfOpenIsBoundedWhateverComes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	l := PacketLimits{HalfOpen: 20, HalfOpenPrefix: 3, HalfOpenFor: time.Second}
	h := newHalf(t, l)
	large := make([]byte, wire.MaxDTLSHello)
	for range 20_000 {
		h.now = h.now.Add(time.Duration(r.IntN(int(5 * time.Millisecond))))
		k := key{client: netip.AddrPortFrom(spoofed(r.IntN(30)), uint16(1+r.IntN(4))), local: netip.MustParseAddr("10.0.0.1")}
		at := r.IntN(len(large) - 1)
		large[at] = byte(r.IntN(50) / 49) // which another part may have said otherwise
		h.w.feed(h.now, &sender{key: k}, helloPart(0, uint16(r.IntN(2)), large, at, min(at+1+r.IntN(1400), len(large))))
		prefixes := make(map[netip.Prefix]int)
		for i, one := range h.w.list {
			prefixes[one.prefix]++
			if prefixes[one.prefix] > l.HalfOpenPrefix || h.now.Sub(one.born) > l.HalfOpenFor || i > 0 && one.born.Before(h.w.list[i-1].born) {
				t.Fatalf("%d of %v, one for %v", prefixes[one.prefix], one.prefix, h.now.Sub(one.born))
			}
		}
		if len(h.w.list) > l.HalfOpen {
			t.Fatalf("%d held", len(h.w.list))
		}
	}
	if h.counts[PacketsHalfOpenEvicted].Load() == 0 || h.counts[PacketsBadFragments].Load() == 0 {
		t.Error("the bounds were not reached")
	}
}

// A fragmented hello over the wire, as [wire.HelloFragments] has it in all its
// variants: in any order, doubled, overlapping.
func TestFragmentedHello(t *testing.T) {
	body := greeting(1)[25:]
	n := len(body)
	p := func(from, to int) []byte { return helloPart(uint64(from), 0, body, from, to) }
	var bytewise [][]byte
	for i := range n {
		bytewise = append(bytewise, p(i, i+1))
	}
	shuffled := slices.Clone(bytewise)
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		asked := uint64(0)
		for name, datagrams := range map[string][][]byte{
			"in order":    {p(0, 20), p(20, 40), p(40, n)},
			"reversed":    {p(40, n), p(20, 40), p(0, 20)},
			"doubled":     {p(20, 40), p(20, 40), p(0, 20), p(0, 20), p(40, n)},
			"overlapping": {p(0, 20), p(15, 35), p(30, n)},
			"bytewise":    bytewise,
			"shuffled":    shuffled,
		} {
			c := d.caller()
			c.send(datagrams[:len(datagrams)-1]...)
			if heard := c.settle(); len(heard) != 0 {
				t.Errorf("%s: answered before it was whole: %x", name, heard)
			}
			cookie := c.cookie(datagrams[len(datagrams)-1])
			second := again(t, helloOf(0, 0, body), cookie)
			for _, f := range [][]byte{helloPart(3, 1, second[25:], 50, len(second)-25), helloPart(4, 1, second[25:], 0, 50)} {
				c.send(f)
			}
			_, s := d.accept()
			got, err := read(s)
			if err != nil || !bytes.Equal(got[13:], second[13:]) {
				t.Errorf("%s: %x, %v\nwant %x", name, got, err, second)
			}
			asked += 2
		}
		d.wantCounts(map[PacketCount]uint64{PacketsVerifySent: asked, PacketsBegun: asked / 2})
	})
}

func TestFragmentsThatMakeNoHello(t *testing.T) {
	body := greeting(1)[25:]
	other := bytes.Clone(body)
	other[25] ^= 1
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	bad := uint64(0)
	for _, datagrams := range [][][]byte{
		{helloPart(0, 0, body, 0, 30), helloPart(1, 0, other, 20, 40)},
		{helloPart(0, 0, body, 0, 30), helloPart(1, 0, body[:len(body)-1], 30, 40)},
		{helloPart(0, 0, body, 0, 30), append(helloPart(1, 0, body, 30, 40), 1)},
	} {
		c.send(datagrams...)
		bad++
		if heard := c.settle(); len(heard) != 0 {
			t.Errorf("answered by %x", heard)
		}
		wantNothingKept(t, d)
	}
	// 65 parts are one too many.
	large := make([]byte, 10_000)
	for i := range 65 {
		c.send(helloPart(uint64(i), 0, large, i, i+1))
	}
	c.settle()
	d.wantCounts(map[PacketCount]uint64{PacketsBadFragments: bad + 1, PacketsVerifySent: bad + 1})
	wantNothingKept(t, d)
	// And after all that the client's true hello is taken.
	c.begin(greeting(2))
}

// DT-10, of clients that have shown nothing: 10,000 that send a part and no more.
// The oldest go, the last ones and who is established feel nothing.
func TestManyHalfOpen(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		const all = 10_000
		d := listenDTLS(t, sockets, PacketLimits{HalfOpenFor: time.Hour})
		most := d.a.limits.HalfOpen
		c := d.caller()
		live := c.begun(greeting(1))
		s := d.spoofer()
		body := make([]byte, wire.MaxDTLSHello)
		copy(body, greeting(2)[25:])
		for n := range all {
			s.must(n, helloPart(uint64(n), 0, body, 0, 1200))
			if n%1000 == 0 {
				c.send(sealed("still here"))
				wantRead(t, live, string(sealed("still here")))
			}
		}
		await(t, "all that has to go is gone", func() bool { return d.count(PacketsHalfOpenEvicted) == all-uint64(most) })
		d.a.waiting.mu.Lock()
		var held []int
		for _, h := range d.a.waiting.list {
			held = append(held, int(binary.BigEndian.Uint32(append([]byte{0}, h.key.client.Addr().AsSlice()[1:]...)))-1<<16)
		}
		d.a.waiting.mu.Unlock()
		slices.Sort(held)
		// With several sockets who is last of one may be behind who is of another, by a batch of each.
		if slack := batchSize * 4 * (sockets - 1); len(held) != most || held[0] < all-most-slack {
			t.Errorf("%d held, the first of them is %d", len(held), held[0])
		}
		s.must(all-1, helloPart(all, 0, body, 1200, len(body)))
		if seq, _, ok := readVerify(s.hear()); !ok || seq != all {
			t.Error("the last one is not answered")
		}
		d.wantLive(1, 0)
		c.begin(greeting(3))
	})
}
