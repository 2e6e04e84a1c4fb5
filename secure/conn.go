package secure

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"sallyport/flow"
)

// conn is a TLS connection after its handshake, as a [flow.Conn].
type conn struct {
	tls     *tls.Conn
	under   *under
	role    *role
	lenient bool    // unsafe.truncation
	first   [1]byte // see ReadUnit
	more    bool    // crypto/tls may have more to give without the socket

	finished atomic.Bool // close_notify is sent
	writing  atomic.Int32
}

func (c *conn) Transport() flow.Transport          { return c.under.Transport() }
func (c *conn) LocalAddr() net.Addr                { return c.under.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr               { return c.under.RemoteAddr() }
func (c *conn) SetDeadline(t time.Time) error      { return c.under.Conn.SetDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.under.Conn.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.under.Conn.SetWriteDeadline(t) }

// CloseWrite sends close_notify and no FIN: under TLS 1.3 alerts and KeyUpdate
// may still have to follow (RFC 8446, section 6.1). It waits for a peer that is
// slow to read, as Write does.
func (c *conn) CloseWrite() error {
	err := c.tls.CloseWrite()
	c.finished.Store(err == nil)
	return err
}

// Close sends close_notify, unless CloseWrite has, and closes the socket. Amid a
// Write it breaks that and sends nothing.
func (c *conn) Close() error {
	// crypto/tls would wait for a write: of its own goodbye, or of who is amid one.
	if c.finished.Load() || c.writing.Load() > 0 {
		return c.under.Conn.Close()
	}
	c.SetWriteDeadline(time.Now().Add(goodbye))
	return c.tls.Close()
}

// goodbye bounds how long Close waits for a peer that does not read.
const goodbye = 5 * time.Second

// Abort resets the connection, without close_notify.
func (c *conn) Abort() error { return flow.Abort(c.under.Conn) }

// WhenReadable implements [flow.Waiter], with the socket: whatever of it has been
// read is part of a record, and says nothing yet.
func (c *conn) WhenReadable(f func()) error {
	w, ok := c.under.Conn.(flow.Waiter)
	if !ok {
		return errors.ErrUnsupported
	}
	return w.WhenReadable(f)
}

// Unsent implements [flow.Unsent].
func (c *conn) Unsent() (int, error) {
	if u, ok := c.under.Conn.(flow.Unsent); ok {
		return u.Unsent()
	}
	return 0, nil
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	if n > 0 {
		return n, nil
	}
	return 0, c.ending(err)
}

// ReadUnit waits with no buffer held, for the socket and then for a record by a
// read of one byte. It takes that record's rest and every further record that is
// here already.
func (c *conn) ReadUnit(lease func() []byte) ([]byte, error) {
	if !c.more {
		c.under.await()
	}
	if n, err := c.tls.Read(c.first[:]); n == 0 {
		return nil, c.ending(err)
	}
	p := lease()
	p[0] = c.first[0]
	n := 1
	var err error
	c.under.ready = true
	for n < len(p) && err == nil {
		var m int
		m, err = c.tls.Read(p[n:])
		n += m
	}
	c.under.ready = false
	c.under.settle()
	// An error that lasts, crypto/tls gives again with the next read.
	c.more = !errors.Is(err, errNotHere)
	return p[:n], nil
}

// ending tells a close_notify from a stream that merely stopped.
func (c *conn) ending(err error) error {
	switch {
	case err == nil:
		return nil // an empty record
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if !c.under.eof || c.lenient {
			return io.EOF
		}
		return flow.ErrTruncated
	}
	return c.role.relayError(err)
}

func (c *conn) Write(p []byte) (int, error) { return c.WriteUnit(p, func() {}) }

// WriteUnit implements [flow.UnitWriter].
func (c *conn) WriteUnit(p []byte, taken func()) (int, error) {
	c.writing.Add(1)
	defer c.writing.Add(-1)
	return c.under.gathered(len(p), func() (int, error) {
		n, err := c.tls.Write(p)
		taken()
		return n, err
	})
}
