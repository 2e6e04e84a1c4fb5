package transport

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// packet is one datagram that waits to be read.
type packet struct {
	next *packet
	from netip.AddrPort
	n    int
	data []byte // of one of packetSizes
}

// packetSizes: most datagrams fit an Ethernet frame, a DTLS record has at most
// 16 KiB, and UDP 64.
var packetSizes = [...]int{2 << 10, 20 << 10, 64 << 10}

// packetPool has packets of each size.
type packetPool [len(packetSizes)]sync.Pool

func (pool *packetPool) get(p []byte, from netip.AddrPort) *packet {
	size := 0
	for packetSizes[size] < len(p) {
		size++
	}
	d, ok := pool[size].Get().(*packet)
	if !ok {
		d = &packet{data: make([]byte, packetSizes[size])}
	}
	d.from, d.n = from, copy(d.data, p)
	return d
}

func (pool *packetPool) put(d *packet) {
	d.next = nil
	for i, size := range packetSizes {
		if len(d.data) == size {
			pool[i].Put(d)
		}
	}
}

// queue has the datagrams of one association that nobody has read yet. It never
// has its writer wait: what is too much is dropped.
type queue struct {
	mu          sync.Mutex
	some        sync.Cond // something has changed for who reads
	first, last *packet
	count, size int
	end         error // set once; nothing can be read any more
	expired     bool  // the deadline has passed
	timer       *time.Timer
	deadlines   int // so far, to tell a timer of an earlier one
	waiter      func()
}

func (q *queue) readable() bool { return q.first != nil || q.end != nil || q.expired }

// wake is called with mu held, after a change.
func (q *queue) wake() {
	q.some.Broadcast()
	if q.waiter != nil && q.readable() {
		go q.waiter()
		q.waiter = nil
	}
}

// put takes d if there is room. all counts the bytes of all queues.
func (q *queue) put(d *packet, l *PacketLimits, all *atomic.Int64) bool {
	size := len(d.data)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end != nil || q.count >= l.Queue || q.first != nil && (q.size+size > l.QueueBytes || all.Load()+int64(size) > int64(l.QueueAll)) {
		return false
	}
	if q.last == nil {
		q.first = d
	} else {
		q.last.next = d
	}
	q.last = d
	q.count++
	q.size += size
	all.Add(int64(size))
	q.wake()
	return true
}

// take waits for the next datagram.
func (q *queue) take(all *atomic.Int64) (*packet, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.readable() {
		q.some.Wait()
	}
	switch {
	case q.end != nil:
		return nil, q.end
	case q.expired:
		return nil, os.ErrDeadlineExceeded
	}
	d := q.first
	if q.first = d.next; q.first == nil {
		q.last = nil
	}
	q.count--
	q.size -= len(d.data)
	all.Add(-int64(len(d.data)))
	return d, nil
}

// close has all reads give err from now on, and gives what nobody will read.
func (q *queue) close(err error, all *atomic.Int64) (left *packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end != nil {
		return nil
	}
	q.end = err
	if q.timer != nil {
		q.timer.Stop()
	}
	all.Add(-int64(q.size))
	left = q.first
	q.first, q.last, q.count, q.size = nil, nil, 0, 0
	q.wake()
	return left
}

func (q *queue) ended() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.end
}

// setDeadline is that of net.Conn, for reads.
func (q *queue) setDeadline(t time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	q.deadlines++
	q.expired = !t.IsZero() && time.Until(t) <= 0
	if !t.IsZero() && !q.expired && q.end == nil {
		mine := q.deadlines
		q.timer = time.AfterFunc(time.Until(t), func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			if q.deadlines == mine {
				q.expired = true
				q.wake()
			}
		})
	}
	q.wake()
}

// whenReadable is [flow.Waiter]'s.
func (q *queue) whenReadable(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiter = f
	q.wake()
}
