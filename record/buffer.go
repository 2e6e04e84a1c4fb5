package record

import "sync"

// buffer is one that a connection holds for a moment. Larger ones take whole
// reads and writes; the smaller ones keep the beginning of a record until the
// rest has come, so that a stranger's few bytes hold few.
type buffer struct {
	class int
	data  []byte
}

// classes are the sizes, each a whole class of the allocator. The last has room
// for a unit of 64 KiB in records of any size that Write makes.
var classes = [...]int{512, 4 << 10, 18 << 10, 72 << 10}

const whole = len(classes) - 1

// pools hold the buffers of each class.
var pools = [...]sync.Pool{
	{New: func() any { return newBuffer(0) }},
	{New: func() any { return newBuffer(1) }},
	{New: func() any { return newBuffer(2) }},
	{New: func() any { return newBuffer(whole) }},
}

func newBuffer(class int) *buffer { return &buffer{class, make([]byte, classes[class])} }

func get(class int) *buffer { return pools[class].Get().(*buffer) }

// getFor gives the smallest that holds n bytes.
func getFor(n int) *buffer {
	class := 0
	for classes[class] < n {
		class++
	}
	return get(class)
}

func put(b *buffer) {
	if b != nil {
		pools[b.class].Put(b)
	}
}
