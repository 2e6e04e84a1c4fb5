package proxy

import (
	"time"

	"sallyport/flow"
)

// restAfter is how long nothing has moved when a flow lets its goroutines go, with
// their stacks, and whatever its connections can make again. Shorter would spare
// little memory, and cost flows that speak every second.
const restAfter = 2 * time.Second

// pumping is what a direction does.
type pumping uint8

const (
	running     pumping = iota
	interrupted         // told to rest; its read will say so
	resting             // without a goroutine, until there is something to read
	over
)

// errRest is what move gives where it was interrupted.
var errRest = flow.Fail(flow.Internal, "interrupted, to rest")

// untilRest gives when the flow is due to rest, or has the directions rest that do
// not yet, and 0. mu is held.
func (r *relay) untilRest() time.Duration {
	due := max(time.Duration(r.moved.Load()), r.woke) + restAfter - time.Since(r.start)
	for d, p := range r.pumps {
		if _, can := r.ends[d].(flow.Waiter); p != running || !can || r.restless {
			continue
		}
		if due > 0 {
			return due
		}
		r.pumps[d] = interrupted
		r.ends[d].SetReadDeadline(time.Unix(1, 0))
	}
	return 0
}

// interrupts says whether a read of d was ended so that it rests.
func (r *relay) interrupts(d flow.Direction) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pumps[d] == interrupted && r.cause == nil && !r.parted
}

// rest leaves d to be woken, and says whether it is. Its goroutine goes.
func (r *relay) rest(d flow.Direction) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil || r.parted {
		return false // the next read says what it has to
	}
	src := r.ends[d]
	src.SetReadDeadline(time.Time{})
	if s, ok := src.(flow.Rester); ok {
		s.Rest()
	}
	r.pumps[d] = resting
	if src.(flow.Waiter).WhenReadable(func() { r.wake(d) }) != nil {
		// Out of memory for it, or of watches: then as without.
		r.pumps[d], r.restless = running, true
		return false
	}
	return true
}

// wake goes on with d.
func (r *relay) wake(d flow.Direction) {
	r.mu.Lock()
	r.pumps[d] = running
	r.woke = time.Since(r.start)
	r.mu.Unlock()
	r.watch()
	r.pump(d)
}
