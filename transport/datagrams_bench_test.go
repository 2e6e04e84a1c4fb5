package transport

import (
	"net/netip"
	"strconv"
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

// What a datagram costs over loopback, its sending with it, one by one and by what
// fills a batch: as far as the batch, to the association of it, and by a dialled one.
func BenchmarkLoopback(b *testing.B) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, burst := range []int{1, batchSize} {
			name := host + "/" + strconv.Itoa(burst)
			b.Run("batch/"+name, func(b *testing.B) { benchBatch(b, host, burst) })
			b.Run("association/"+name, func(b *testing.B) { benchAssociation(b, host, burst) })
			b.Run("dialled/"+name, func(b *testing.B) { benchDialled(b, host, burst) })
		}
	}
}

// inBursts sends bursts and takes them until b.N datagrams have come.
func inBursts(b *testing.B, burst int, send func(p []byte) error, take func() (n int, err error)) {
	p := make([]byte, 200)
	b.ReportAllocs()
	b.ResetTimer()
	for sent, came := 0, 0; came < b.N; {
		for ; sent < came+burst; sent++ {
			if err := send(p); err != nil {
				b.Fatal(err)
			}
		}
		for came < sent {
			n, err := take()
			if err != nil {
				b.Fatal(err)
			}
			came += n
		}
	}
}

func benchBatch(b *testing.B, host string, burst int) {
	sockets, err := listenPackets(b.Context(), Where{Host: host}, 1)
	if err != nil {
		b.Fatal(err)
	}
	defer sockets[0].Close()
	to := sockets[0].LocalAddr()
	c := serveUDP(b, host, 0)
	batch := newReader(&PacketAcceptor{}, sockets[0]).batch
	inBursts(b, burst, func(p []byte) error { _, err := c.WriteTo(p, to); return err }, func() (int, error) {
		n, err, _ := batch.read()
		for i := range n {
			if !batch.from(i).IsValid() || !batch.to(i).IsValid() || len(batch.payload(i)) != 200 {
				b.Fatal(batch.from(i), batch.to(i), len(batch.payload(i)))
			}
		}
		return n, err
	})
}

func benchAssociation(b *testing.B, host string, burst int) {
	d := listenDemux(b, host, PacketOptions{Sockets: 1})
	c := d.call(host, host)
	c.send([]byte("first"))
	_, conn := d.accept()
	wantRead(b, conn, "first")
	room := make([]byte, 2048)
	inBursts(b, burst, func(p []byte) error { c.send(p); return nil }, func() (int, error) {
		_, err := conn.Read(room)
		return 1, err
	})
}

func benchDialled(b *testing.B, host string, burst int) {
	s := serveUDP(b, host, 0)
	c, _ := dialUDP(b, &Dialer{Where: Where{Host: host, Port: s.port}})
	room, to := make([]byte, 2048), c.LocalAddr()
	inBursts(b, burst, func(p []byte) error { _, err := s.WriteTo(p, to); return err }, func() (int, error) {
		_, err := c.Read(room)
		return 1, err
	})
}
