package record

import (
	"net"
	"time"

	"sallyport/lease"
	"sallyport/wire"
)

const (
	// maxSealed is how many records we seal with one key. AES-GCM is good for
	// 2^24.5 full ones (RFC 8446, section 5.5).
	maxSealed = 1 << 23
	// firstRecord is what fits one TCP segment of IPv6's smallest MTU. Records grow
	// by as much each from a connection's first on, so that a browser need not
	// wait for a second flight before it can open any.
	firstRecord = 1280 - 40 - 32 - overhead
	// headroom is for what 16 KiB become in records, the first of a connection, with a
	// KeyUpdate. Where it is too little a second system call takes the rest.
	headroom = 512
	// alertTime bounds how long a fatal alert waits for a peer that does not read.
	alertTime = time.Second
)

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) { return c.WriteUnit(p, func() {}) }

// WriteUnit implements [flow.UnitWriter]. It seals p and writes up to 64 KiB of it
// with one system call; what is sealed need not be kept in clear.
func (c *Conn) WriteUnit(p []byte, taken func()) (n int, err error) {
	c.writing.Add(1)
	defer c.writing.Add(-1)
	c.wmu.Lock()
	defer c.leaveWrite()
	if err := c.writable(); err != nil {
		return 0, err
	}
	defer c.sent()
	for rest := p; len(rest) > 0; n = len(p) - len(rest) {
		if c.sealed == nil {
			c.sealed = lease.Get(min(len(rest)+headroom, lease.Most))
		}
		out := c.sealed.Data[:0]
		for len(rest) > 0 && len(out)+keyUpdateSize+overhead < cap(out) {
			if c.answer.Swap(false) || c.write.seq >= c.limit {
				out = c.updateWrite(out)
			}
			size := min(len(rest), maxPlaintext, firstRecord*int(1+c.write.seq), cap(out)-len(out)-overhead)
			out = c.write.seal(out, typeApplicationData, rest[:size])
			rest = rest[size:]
		}
		if len(rest) == 0 {
			taken()
		}
		if _, c.werr = c.below.WriteUnit(out, c.sent); c.werr != nil {
			return n, c.werr
		}
	}
	return len(p), nil
}

// writable says why nothing may be written.
func (c *Conn) writable() error {
	switch {
	case c.werr != nil:
		return c.werr
	case c.write.suite == nil:
		return net.ErrClosed
	case c.finished.Load():
		return errFinished
	}
	return nil
}

// send writes whole records. After an error the peer may have part of one, and
// none can follow.
func (c *Conn) send(records []byte) error {
	_, err := c.lower.Write(records)
	c.werr = err
	return err
}

// goodbye sends close_notify once.
func (c *Conn) goodbye() error {
	if c.finished.Load() {
		return nil
	}
	if err := c.writable(); err != nil {
		return err
	}
	err := c.send(c.write.seal(nil, typeAlert, alertMessage(wire.AlertCloseNotify)))
	c.finished.Store(err == nil)
	return err
}

// keyUpdateSize is a whole record with a KeyUpdate.
const keyUpdateSize = overhead + 5

// updateWrite appends a KeyUpdate, which asks for none, and goes on to our next
// key. An answer waits for our next data (RFC 8446, section 4.6.3): sent by
// whoever reads, it would wait there for a peer that does not.
func (c *Conn) updateWrite(out []byte) []byte {
	out = c.write.seal(out, typeHandshake, []byte{typeKeyUpdate, 0, 0, 1, 0})
	c.write.update()
	return out
}

// leaveWrite lets the next writer in, and does what could not wait for the lock.
func (c *Conn) leaveWrite() {
	c.wmu.Unlock()
	if c.owed.Load() != 0 {
		c.sendOwed()
	}
	c.wipe()
}

// sendOwed sends the fatal alert that is owed, after which nothing can be sent. A
// writer who is at it does so on leaving: it may wait long for a peer that does
// not read, and the reader must not.
func (c *Conn) sendOwed() {
	if !c.wmu.TryLock() {
		return
	}
	if a := wire.Alert(c.owed.Swap(0)); a != 0 && c.werr == nil && c.write.suite != nil {
		c.lower.SetWriteDeadline(time.Now().Add(alertTime))
		c.send(c.write.seal(nil, typeAlert, alertMessage(a)))
		c.werr = &Fault{a, "write after a fatal alert"}
	}
	c.wmu.Unlock()
	c.wipe()
}
