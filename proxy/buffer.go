package proxy

import (
	"sync/atomic"

	"sallyport/lease"
)

const (
	unitSize  = 64 << 10 // room for four TLS records, read and written at once
	smallSize = 16 << 10 // for one
	// wholeMost is how many writers there may be before units are small. Who moves
	// bytes is one for microseconds, who waits for a reader that has stopped stays
	// one, with as much of the unit as has not been taken.
	wholeMost = 16
)

// crowd counts the directions of the process that are amid a write.
type crowd struct{ writers atomic.Int32 }

var all = crowd{}

// buffer is what a direction reads into. It has memory only while there are bytes
// in it.
type buffer struct{ held *lease.Buffer }

// lease gives memory, until giveBack. There is room beyond its length, where layers
// open a record's padding.
func (b *buffer) lease() []byte {
	size := unitSize
	if all.writers.Load() > wholeMost {
		size = smallSize
	}
	return b.of(size)
}

// whole gives memory for any datagram, until giveBack.
func (b *buffer) whole() []byte { return b.of(unitSize) }

func (b *buffer) of(size int) []byte {
	b.held = lease.Get(size)
	return b.held.Data[:size]
}

func (b *buffer) giveBack() {
	b.held.Put()
	b.held = nil
}
