package secure

import (
	"runtime"
	"testing"

	"sallyport/flow"
)

// BenchmarkStream moves units over a socket, with our end under either record
// layer. The peer, whose work counts as well, is crypto/tls.
func BenchmarkStream(b *testing.B) {
	for _, ours := range []bool{true, false} {
		for _, down := range []bool{true, false} {
			b.Run(map[bool]string{true: "record", false: "cryptotls"}[ours]+map[bool]string{true: "/write", false: "/read"}[down], func(b *testing.B) {
				s := newSite(b)
				s.server.Record, s.client.Record = ours, false
				p := s.good()
				from, to := p.server, p.client
				if !down {
					from, to = to, from
				}
				unit, buf := make([]byte, unitSize), make([]byte, unitSize)
				go func() {
					for {
						if _, err := from.Write(unit); err != nil {
							return
						}
					}
				}()
				units := flow.Units(to)
				lease := func() []byte { return buf }
				b.SetBytes(unitSize)
				b.ReportAllocs()
				for got := 0; b.Loop(); got -= unitSize {
					for got < unitSize {
						p, err := units.ReadUnit(lease)
						if err != nil {
							b.Fatal(err)
						}
						got += len(p)
					}
				}
			})
		}
	}
}

// BenchmarkIdle says what a connection holds after its handshake and a line each
// way, with its socket, and with the closed one of its peer.
func BenchmarkIdle(b *testing.B) {
	for _, ours := range []bool{true, false} {
		b.Run(map[bool]string{true: "record", false: "cryptotls"}[ours], func(b *testing.B) {
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
