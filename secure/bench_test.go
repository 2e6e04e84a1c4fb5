package secure

import (
	"context"
	"runtime"
	"testing"

	"sallyport/flow"
)

// cut is a connection that after its handshake is none: what is written is kept,
// or not even that, and what is read is given.
type cut struct {
	flow.Conn
	off, keep bool
	kept      []byte
	given     []byte
}

func (c *cut) Write(p []byte) (int, error) {
	if !c.off {
		return c.Conn.Write(p)
	}
	if c.keep {
		c.kept = append(c.kept, p...)
	}
	return len(p), nil
}

func (c *cut) Read(p []byte) (int, error) {
	if c.given == nil {
		return c.Conn.Read(p)
	}
	n := copy(p, c.given)
	c.given = c.given[n:]
	return n, nil
}

func (c *cut) ReadUnit(lease func() []byte) ([]byte, error) {
	p := lease()
	n, err := c.Read(p)
	return p[:n], err
}

// cutPair makes a handshake whose server is under either record layer.
func cutPair(b *testing.B, ours bool) (p *pair, server, client *cut) {
	s := newSite(b)
	s.server.Record, s.client.Record = ours, false
	over := func(l flow.Layer, at **cut) flow.Layer {
		return layerFunc(func(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
			*at = &cut{Conn: c}
			return l.Wrap(ctx, f, *at)
		})
	}
	p = s.goodWith(over(NewServer(s.server), &server), over(NewClient(s.client), &client))
	return p, server, client
}

func layerName(ours bool) string { return map[bool]string{true: "record", false: "cryptotls"}[ours] }

// BenchmarkWrite is one unit of a relay's, sealed, without a socket.
func BenchmarkWrite(b *testing.B) {
	for _, ours := range []bool{true, false} {
		b.Run(layerName(ours), func(b *testing.B) {
			p, server, _ := cutPair(b, ours)
			server.off = true
			unit := make([]byte, unitSize)
			b.SetBytes(unitSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.server.Write(unit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead is one unit, opened, without a socket.
func BenchmarkRead(b *testing.B) {
	for _, ours := range []bool{true, false} {
		b.Run(layerName(ours), func(b *testing.B) {
			p, server, client := cutPair(b, ours)
			client.off, client.keep = true, true
			unit := make([]byte, unitSize)
			for range b.N {
				if _, err := p.client.Write(unit); err != nil {
					b.Fatal(err)
				}
			}
			server.given = client.kept
			units := flow.Units(p.server)
			lease := func() []byte { return unit }
			b.SetBytes(unitSize)
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N * unitSize; left > 0; {
				u, err := units.ReadUnit(lease)
				if err != nil {
					b.Fatal(err)
				}
				left -= len(u)
			}
		})
	}
}

// BenchmarkIdle says what a connection holds after its handshake and a line each
// way, with its socket, and with the closed one of its peer.
func BenchmarkIdle(b *testing.B) {
	for _, ours := range []bool{true, false} {
		b.Run(layerName(ours), func(b *testing.B) {
			s := newSite(b)
			s.server.Record, s.client.Record = ours, false
			server, client := NewServer(s.server), NewClient(s.client)
			const n = 200
			var before, after runtime.MemStats
			var held []flow.Conn
			for b.Loop() {
				held = nil
				runtime.GC()
				runtime.ReadMemStats(&before)
				for range n {
					p := s.goodWith(server, client)
					if r, ok := p.server.(flow.Rester); ok {
						r.Rest()
					}
					p.client.Close()
					held = append(held, p.server)
					*p = pair{bareServer: p.bareServer, bareClient: p.bareClient} // what Cleanup needs
				}
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&after)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/conn")
			runtime.KeepAlive(held)
		})
	}
}
