// Package lease has the buffers that bytes pass through. A connection has one for a
// moment: while there is something in it, and no larger than that.
package lease

import "sync"

// Buffer is memory that is had until Put.
type Buffer struct {
	Data  []byte // all of it, with what is left from before
	class int
}

// classes are the sizes in bytes, each a whole class of the allocator. The first
// keep what is little for long: the beginning of a record, what a reader that has
// stopped has not taken. The fourth is for one record (RFC 8446, section 5.2), the
// last for a unit of 64 KiB in records of any size.
var classes = [...]int{512, 4 << 10, 9472, 18 << 10, 40 << 10, 72 << 10}

// Most is the largest size that there is, in bytes.
const Most = 72 << 10

// pools are those of each class.
var pools = [len(classes)]sync.Pool{{New: newOf(0)}, {New: newOf(1)}, {New: newOf(2)}, {New: newOf(3)}, {New: newOf(4)}, {New: newOf(5)}}

func newOf(class int) func() any {
	return func() any { return &Buffer{make([]byte, classes[class]), class} }
}

// Get gives the smallest buffer that holds n bytes, of which there must not be more
// than [Most].
func Get(n int) *Buffer {
	return pools[classOf(n)].Get().(*Buffer)
}

func classOf(n int) int {
	class := 0
	for classes[class] < n {
		class++
	}
	return class
}

// Put gives b back, after which nobody may use it; nil is nothing.
func (b *Buffer) Put() {
	if b != nil {
		pools[b.class].Put(b)
	}
}

// Fit moves p, which is part of b, to the smallest buffer that holds it, and gives b
// back; if b is that, all stays where it is. Where b is nil, p is somebody else's.
func (b *Buffer) Fit(p []byte) (*Buffer, []byte) {
	if b != nil && classOf(len(p)) >= b.class {
		return b, p
	}
	fit := Get(len(p))
	p = fit.Data[:copy(fit.Data, p)]
	b.Put()
	return fit, p
}
