package secure

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/wire"
)

// dtlsConn is a DTLS connection after its handshake, as a [flow.Conn].
type dtlsConn struct {
	engine *dtls.Conn
	under  *datagrams
	role   *role
	ear    *ear
	most   int   // bytes that one datagram carries
	early  int64 // records that were discarded during the handshake, as where flights are sent again
}

const (
	// engineBuffer is the largest datagram that the engine reads.
	engineBuffer = 8192
	// maxDatagram is the most that we promise to carry in one.
	maxDatagram = 8150
)

var dtlsBuffers = sync.Pool{New: func() any { return new([engineBuffer]byte) }}

func (c *dtlsConn) Transport() flow.Transport { return c.under.Transport() }
func (c *dtlsConn) LocalAddr() net.Addr       { return c.under.LocalAddr() }
func (c *dtlsConn) RemoteAddr() net.Addr      { return c.under.RemoteAddr() }

func (c *dtlsConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *dtlsConn) SetReadDeadline(t time.Time) error {
	// The engine's first: who is let through the gate must not wait behind it.
	err := c.engine.SetReadDeadline(t)
	c.under.gate.deadline(t)
	return err
}

func (c *dtlsConn) SetWriteDeadline(t time.Time) error {
	return errors.Join(c.engine.SetWriteDeadline(t), c.under.Conn.SetWriteDeadline(t))
}

// Discarded implements [flow.Discarder].
func (c *dtlsConn) Discarded() int64 {
	return c.ear.discarded.Load() - c.early + c.under.discarded.Load()
}

// CloseWrite does nothing: an association has no half that could go on.
func (c *dtlsConn) CloseWrite() error { return nil }

// Close sends close_notify and closes the connection below.
func (c *dtlsConn) Close() error {
	c.under.Conn.SetWriteDeadline(time.Now().Add(goodbye))
	c.engine.Close()
	return c.under.Conn.Close()
}

// Abort ends the connection without close_notify.
func (c *dtlsConn) Abort() error {
	c.under.Close() // nothing is written any more
	c.engine.Close()
	return flow.Abort(c.under.Conn)
}

// WhenReadable implements [flow.Waiter].
func (c *dtlsConn) WhenReadable(f func()) error {
	c.under.gate.when(f)
	return nil
}

func (c *dtlsConn) Read(p []byte) (int, error) {
	unit, err := c.ReadUnit(func() []byte { return p })
	return len(unit), err
}

// ReadUnit waits with no buffer held and gives one datagram, which may be empty. Of
// one that is larger than what lease gave the rest is lost.
func (c *dtlsConn) ReadUnit(lease func() []byte) ([]byte, error) {
	for {
		c.under.gate.wait()
		unit, err := c.unit(lease)
		if err != errWarning {
			return unit, err
		}
	}
}

func (c *dtlsConn) unit(lease func() []byte) ([]byte, error) {
	// The engine loses a datagram that it has to give into less.
	buf := dtlsBuffers.Get().(*[engineBuffer]byte)
	defer dtlsBuffers.Put(buf)
	n, took, err := c.take(buf[:])
	c.under.gate.leave(took)
	if err != nil {
		return nil, err
	}
	p := lease()
	return p[:copy(p, buf[:n])], nil
}

// errWarning says that the engine gave an alert that ends nothing.
var errWarning = errors.New("a warning")

// take reads the engine. took says that it gave something, be it an error.
func (c *dtlsConn) take(buf []byte) (n int, took bool, err error) {
	for range mostTries {
		n, err := c.engine.Read(buf)
		switch {
		case err == nil:
			return n, true, nil
		case errors.Is(err, context.DeadlineExceeded):
			return 0, false, os.ErrDeadlineExceeded
		case errors.Is(err, io.EOF):
			// Where the engine has both its end and a last datagram to tell of, it
			// chooses at random.
			if !c.under.gate.left() {
				return 0, false, c.ending()
			}
		default:
			if _, warning := dtlsAlert(err); warning {
				return 0, true, errWarning
			}
			return 0, true, c.role.dtlsRelayError(err)
		}
	}
	return 0, false, c.ending()
}

// mostTries makes it sure enough that nothing is left: half of them would find it.
const mostTries = 64

// ending says why there is nothing more to read.
func (c *dtlsConn) ending() error {
	if fatal := c.ear.fatal.Load(); fatal > 0 {
		return c.role.alertError(wire.Alert(fatal - 1))
	}
	if c.ear.goodbye.Load() {
		return io.EOF
	}
	switch why := c.under.why(); {
	case errors.Is(why, errHoard):
		return c.role.dtlsRelayError(why)
	case why != nil:
		return why
	}
	return net.ErrClosed
}

// Write sends one datagram.
func (c *dtlsConn) Write(p []byte) (int, error) {
	if len(p) > c.most {
		return 0, flow.ErrTooLarge
	}
	_, err := c.engine.Write(p)
	switch {
	case err == nil:
		return len(p), nil
	case errors.Is(err, context.DeadlineExceeded):
		return 0, os.ErrDeadlineExceeded
	case errors.Is(err, dtls.ErrConnClosed), errors.Is(err, net.ErrClosed):
		return 0, net.ErrClosed
	case errors.Is(err, flow.ErrTooLarge):
		return 0, flow.ErrTooLarge
	}
	return 0, c.role.dtlsRelayError(err)
}
