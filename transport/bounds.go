package transport

import (
	"net/netip"
	"time"
)

// PacketLimits bound what strangers can have a datagram listener hold. A prefix is
// one IPv4 address, or an IPv6 /64. Zero is the default, which is named behind each.
type PacketLimits struct {
	Associations     int           // 16384
	PerPrefix        int           // associations, 4096
	Handshakes       int           // associations whose handshake is not finished, 1024
	HandshakesPrefix int           // 128
	HalfOpen         int           // clients whose ClientHello comes in fragments, 256
	HalfOpenPrefix   int           // 4
	HalfOpenFor      time.Duration // 5 s
	Queue            int           // datagrams that an association has not read, 128
	QueueBytes       int           // the same in bytes of memory, 512 KiB
	QueueAll         int           // bytes that all associations have not read, 64 MiB; above, each may have one datagram
	Strangers        int           // associations that are passed on, and whose client has not shown the server's cookie, 128
}

func (l PacketLimits) withDefaults() PacketLimits {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&l.Associations, 16384}, {&l.PerPrefix, 4096}, {&l.Handshakes, 1024}, {&l.HandshakesPrefix, 128}, {&l.Strangers, 128},
		{&l.HalfOpen, 256}, {&l.HalfOpenPrefix, 4}, {&l.Queue, 128}, {&l.QueueBytes, 512 << 10}, {&l.QueueAll, 64 << 20},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.HalfOpenFor == 0 {
		l.HalfOpenFor = 5 * time.Second
	}
	return l
}

// tally counts by prefix, up to a bound in all and one for each.
type tally struct {
	all, most, mostEach int
	each                map[netip.Prefix]int
}

func newTally(most, mostEach int) tally {
	return tally{most: most, mostEach: mostEach, each: make(map[netip.Prefix]int)}
}

func (t *tally) full(p netip.Prefix) bool { return t.all >= t.most || t.each[p] >= t.mostEach }

func (t *tally) take(p netip.Prefix) {
	t.all++
	t.each[p]++
}

func (t *tally) give(p netip.Prefix) {
	t.all--
	if t.each[p]--; t.each[p] == 0 {
		delete(t.each, p)
	}
}

// prefixOf is the part of an address that one customer has as a rule.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	// Fails only for lengths that an address does not have. It drops the zone.
	p, _ := a.Prefix(bits)
	return p
}
