package transport

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sallyport/wire"
)

// halfOpen is one client of whose ClientHello only a part has come.
type halfOpen struct {
	key       key
	prefix    netip.Prefix
	born      time.Time
	came      int // bytes, in datagrams
	fragments wire.HelloFragments
}

// waiting are all of them, the oldest first: the one thing that is kept of a
// client that has not proved its address. A client that must fragment its first
// hello has no other way in, so its place is small and short.
type waiting struct {
	limits PacketLimits
	counts *PacketCounters

	mu   sync.Mutex
	list []*halfOpen // few enough to be searched from end to end
}

// feed takes a part. It gives the hello in one record once it is whole, and how
// many bytes it came in.
func (w *waiting) feed(now time.Time, from *sender, datagram []byte) (hello []byte, came int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(now)
	i := slices.IndexFunc(w.list, func(h *halfOpen) bool { return h.key == from.key })
	if i < 0 {
		i = w.admit(&halfOpen{key: from.key, prefix: prefixOf(from.speaker().Addr()), born: now})
	}
	h := w.list[i]
	h.came += len(datagram)
	hello, err := h.fragments.Feed(datagram)
	if errors.Is(err, wire.ErrMore) {
		return nil, 0
	}
	w.list = slices.Delete(w.list, i, i+1)
	if err != nil {
		w.counts.add(PacketsBadFragments)
		return nil, 0
	}
	return hello, h.came
}

func (w *waiting) expire(now time.Time) {
	n := 0
	for n < len(w.list) && now.Sub(w.list[n].born) > w.limits.HalfOpenFor {
		n++
	}
	w.evict(0, n)
}

func (w *waiting) evict(from, to int) {
	w.counts[PacketsHalfOpenEvicted].Add(uint64(to - from))
	w.list = slices.Delete(w.list, from, to)
}

// admit gives the place of h in the list. Where there is none free, the oldest of
// its prefix goes, or the oldest of all.
func (w *waiting) admit(h *halfOpen) int {
	oldest, same := -1, 0
	for i, other := range w.list {
		if other.prefix == h.prefix {
			if same++; oldest < 0 {
				oldest = i
			}
		}
	}
	switch {
	case same >= w.limits.HalfOpenPrefix:
		w.evict(oldest, oldest+1)
	case len(w.list) >= w.limits.HalfOpen:
		w.evict(0, 1)
	}
	w.list = append(w.list, h)
	return len(w.list) - 1
}
