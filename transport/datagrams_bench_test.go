package transport

import (
	"net/netip"
	"testing"
	"time"
)

// What it costs to find the association of a datagram, as it comes from the kernel
// until it is read, where no header precedes it.
func BenchmarkDatagrams(b *testing.B) {
	d := listenDemux(b, "127.0.0.1", PacketOptions{Sockets: 1})
	c := d.caller()
	c.send([]byte("first"))
	_, conn := d.accept()
	wantRead(b, conn, "first")
	r := newReader(d.a, d.a.sockets[0])
	k := key{client: c.addr(), local: netip.MustParseAddr("127.0.0.1")}
	p, room, now := make([]byte, 1200), make([]byte, 2048), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.datagram(now, nil, k, p)
		if _, err := conn.Read(room); err != nil {
			b.Fatal(err)
		}
	}
}
