package transport

import (
	"golang.org/x/sys/unix"

	"sallyport/lease"
)

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) { return c.WriteUnit(p, func() {}) }

// WriteUnit implements [flow.UnitWriter]. A reader that has stopped may be waited for
// long: what the kernel does not take of p is moved to a buffer that is no larger than
// it need be.
func (c *conn) WriteUnit(p []byte, taken func()) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	r := &c.remains
	r.p, r.taken, r.err = p, taken, nil
	err := c.raw.Write(r.step)
	n, werr := len(p)-len(r.p), r.err
	r.held.Put()
	r.p, r.held, r.taken, r.err = nil, nil, nil, nil
	switch {
	case err != nil:
		return n, c.opError("write", err)
	case werr != nil:
		return n, c.opError("write", werr)
	}
	return n, nil
}

// remainder is the state of one WriteUnit: what is still to be written. The runtime calls
// step at once, and again after each wait.
type remainder struct {
	step  func(fd uintptr) (done bool)
	p     []byte
	held  *lease.Buffer // that p is part of, once it has been moved
	taken func()
	err   error
}

func (r *remainder) try(fd uintptr) (done bool) {
	for {
		n, err := unix.Write(int(fd), r.p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			r.move()
			return false
		case err != nil:
			r.err = err
			return true
		}
		if r.p = r.p[n:]; len(r.p) == 0 {
			return true
		}
	}
}

// move keeps what is left in the smallest buffer that holds it, if one does.
func (r *remainder) move() {
	if len(r.p) > lease.Most {
		return
	}
	others := r.held == nil
	if r.held, r.p = r.held.Fit(r.p); others {
		r.taken()
	}
}
