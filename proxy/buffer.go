package proxy

import (
	"sync"
	"sync/atomic"
)

const (
	unitSize  = 64 << 10 // room for four TLS records, read and written at once
	smallSize = 16 << 10 // for one
	// wholeMost is how many whole buffers may be out. Who moves bytes has one for
	// microseconds; who waits for a reader that has stopped keeps it, and past so many
	// of those the next one waits with a small one.
	wholeMost = 32
)

// units are buffers of both sizes. A small one has room beyond its length, where
// layers open a record's padding.
type units struct {
	whole, small sync.Pool
	out          atomic.Int32 // whole ones
}

var buffers = units{
	whole: sync.Pool{New: func() any { return new([unitSize]byte) }},
	small: sync.Pool{New: func() any { return new([smallSize + 2<<10]byte) }},
}

// buffer is what a direction reads into. It has memory only while there are bytes
// in it.
type buffer struct {
	whole *[unitSize]byte
	small *[smallSize + 2<<10]byte
}

// lease gives memory, until giveBack.
func (b *buffer) lease() []byte {
	if buffers.out.Add(1) > wholeMost {
		buffers.out.Add(-1)
		b.small = buffers.small.Get().(*[smallSize + 2<<10]byte)
		return b.small[:smallSize]
	}
	b.whole = buffers.whole.Get().(*[unitSize]byte)
	return b.whole[:]
}

func (b *buffer) giveBack() {
	switch {
	case b.whole != nil:
		buffers.whole.Put(b.whole)
		buffers.out.Add(-1)
	case b.small != nil:
		buffers.small.Put(b.small)
	}
	b.whole, b.small = nil, nil
}
