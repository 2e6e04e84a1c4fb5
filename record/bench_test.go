package record

import (
	"runtime/debug"
	"slices"
	"testing"

	"sallyport/flow"
)

// loop is a socket without one: what is written is given again and again.
type loop struct {
	flow.Conn
	unit []byte
}

func (l *loop) Write(p []byte) (int, error) { return len(p), nil }
func (l *loop) ReadUnit(lease func() []byte) ([]byte, error) {
	p := lease()
	return p[:copy(p, l.unit)], nil
}

// BenchmarkSeal is one unit of the relay's, written.
func BenchmarkSeal(b *testing.B) {
	c, err := New(&loop{}, Params{Suite: 0x1301, Read: secretOf(0x1301, 1), Write: secretOf(0x1301, 2)})
	if err != nil {
		b.Fatal(err)
	}
	unit := make([]byte, 64<<10)
	b.SetBytes(int64(len(unit)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(unit); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is one unit of four records, read.
func BenchmarkOpen(b *testing.B) {
	h, err := newHalf(0x1301, secretOf(0x1301, 1))
	if err != nil {
		b.Fatal(err)
	}
	l := &loop{}
	for range 4 {
		l.unit = h.seal(l.unit, typeApplicationData, make([]byte, maxPlaintext))
	}
	c, err := New(l, Params{Suite: 0x1301, Read: secretOf(0x1301, 1), Write: secretOf(0x1301, 2)})
	if err != nil {
		b.Fatal(err)
	}
	unit := make([]byte, 64<<10)
	lease := func() []byte { return unit }
	b.SetBytes(int64(len(unit)))
	b.ReportAllocs()
	for b.Loop() {
		c.read.seq = 0 // the same records again
		if u, err := c.ReadUnit(lease); err != nil || len(u) != len(unit) {
			b.Fatal(len(u), err)
		}
	}
}

// A unit costs no allocation, not even where reads end within records.
func TestNoGarbage(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("under the race detector a sync.Pool loses some of what it is given")
	}
	x := newPair(t, 0x1301, nil)
	l := &loop{}
	x.conn.lower, x.conn.units = l, l
	data := make([]byte, 64<<10)
	if n := testing.AllocsPerRun(50, func() { x.conn.Write(data) }); n > 0 {
		t.Errorf("%v allocations a unit written", n)
	}
	lease := func() []byte { return data }
	l.unit = make([]byte, 0, 128<<10)
	if n := testing.AllocsPerRun(50, func() {
		x.write.seq, x.conn.read.seq = 0, 0
		stream := x.write.seal(x.write.seal(l.unit[:0], 23, data[:maxPlaintext]), 23, data[:9000])
		for _, part := range [][]byte{stream[:20_000], stream[20_000:]} {
			l.unit = part
			x.conn.ReadUnit(lease)
		}
		l.unit = stream
	}); n > 0 {
		t.Errorf("%v allocations a unit read", n)
	}
}
