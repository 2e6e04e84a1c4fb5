package record

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/flow"
	"sallyport/lease"
	"sallyport/wire"
)

// Params are what a handshake leaves behind.
type Params struct {
	Suite       uint16 // as on the wire
	Client      bool   // our role
	Read, Write []byte // application traffic secrets, which New copies
	Flight      []byte // whole records, written last; those at its end may be sealed with Write already
	Pending     []byte // come from the socket already, under Read; New keeps it
	Lenient     bool   // a stream that ends without close_notify has ended properly
	// Explain gives the form in which Read returns an error that lasts: a [*Fault], a
	// [RemoteAlert] or one of the connection below. nil leaves it. It is not asked
	// about io.EOF and flow.ErrTruncated.
	Explain func(error) error
	// Tickets is given each record, as it came, that holds parts of
	// NewSessionTicket messages alone, until it says false or another record has
	// come. nil needs none.
	Tickets func(record []byte) bool
}

// Conn is a connection under TLS 1.3 after the handshake. One goroutine reads,
// several may write.
type Conn struct {
	lower   flow.Conn
	units   flow.UnitReader // lower's
	leased  func() []byte   // fill, bound once
	below   flow.UnitWriter // lower
	sealed  *lease.Buffer   // what is being written; wmu is held
	sent    func()          // gives it back; bound once
	explain func(error) error
	client  bool
	lenient bool

	// rmu is over the secret, since Rest and Close come from elsewhere. It is not
	// held while waiting.
	rmu     sync.Mutex
	read    half
	tickets func(record []byte) bool

	// The reader's own.
	in      []byte        // came, and is still to be opened
	held    *lease.Buffer // which in and plain are part of; nil if none is leased
	room    int           // of the unit that was last read
	plain   []byte        // opened, and is still to be read
	hand    []byte        // the beginning of a handshake message
	useless int           // records and messages since the last byte of data
	err     error         // what Read gives once all before it is read

	wmu      sync.Mutex
	write    half
	limit    uint64      // of records sealed with one key
	werr     error       // of a write that failed: the peer may have part of a record
	finished atomic.Bool // close_notify is sent
	writing  atomic.Int32
	answer   atomic.Bool   // the peer asks for a KeyUpdate
	owed     atomic.Uint32 // a fatal alert to be sent
	closed   atomic.Bool
}

var (
	_ flow.Conn       = (*Conn)(nil)
	_ flow.UnitReader = (*Conn)(nil)
	_ flow.UnitWriter = (*Conn)(nil)
	_ flow.Aborter    = (*Conn)(nil)
	_ flow.Unsent     = (*Conn)(nil)
	_ flow.Rester     = (*Conn)(nil)
	_ flow.Waiter     = (*Conn)(nil)
)

// New carries on over c. It fails only where Params contradict themselves.
func New(c flow.Conn, p Params) (*Conn, error) {
	read, err := newHalf(p.Suite, p.Read)
	if err != nil {
		return nil, err
	}
	write, err := newHalf(p.Suite, p.Write)
	if err == nil {
		err = write.skip(p.Flight)
	}
	if err != nil {
		return nil, err
	}
	conn := &Conn{
		lower: c, units: flow.Units(c), below: flow.Writes(c), explain: p.Explain, client: p.Client, lenient: p.Lenient,
		read: read, write: write, limit: maxSealed, tickets: p.Tickets, in: p.Pending,
	}
	conn.leased = conn.fill
	conn.sent = func() {
		conn.sealed.Put()
		conn.sealed = nil
	}
	return conn, nil
}

func (c *Conn) Transport() flow.Transport          { return c.lower.Transport() }
func (c *Conn) LocalAddr() net.Addr                { return c.lower.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr               { return c.lower.RemoteAddr() }
func (c *Conn) SetDeadline(t time.Time) error      { return c.lower.SetDeadline(t) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.lower.SetReadDeadline(t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.lower.SetWriteDeadline(t) }

// CloseWrite sends close_notify and no FIN: a KeyUpdate may still have to come
// from the peer, and an alert go to it (RFC 8446, section 6.1). It waits for a
// peer that is slow to read, as Write does.
func (c *Conn) CloseWrite() error {
	c.wmu.Lock()
	defer c.leaveWrite()
	return c.goodbye()
}

// goodbyeTime bounds how long Close waits for a peer that does not read.
const goodbyeTime = 5 * time.Second

// Close sends close_notify, unless CloseWrite has, and closes the socket. Amid a
// Write it breaks that and sends nothing.
func (c *Conn) Close() error {
	if !c.finished.Load() && !c.closed.Load() && c.writing.Load() == 0 {
		c.lower.SetWriteDeadline(time.Now().Add(goodbyeTime))
		c.wmu.Lock()
		c.goodbye()
		c.leaveWrite()
	}
	c.closed.Store(true)
	err := c.lower.Close()
	c.wipe()
	return err
}

// Abort resets the connection, without close_notify.
func (c *Conn) Abort() error {
	c.closed.Store(true)
	err := flow.Abort(c.lower)
	c.wipe()
	return err
}

// wipe forgets the secrets of a closed connection. Who is amid a read or a write
// does it on leaving.
func (c *Conn) wipe() {
	if !c.closed.Load() {
		return
	}
	if c.rmu.TryLock() {
		c.read.wipe()
		c.tickets = nil
		c.rmu.Unlock()
	}
	if c.wmu.TryLock() {
		c.write.wipe()
		c.wmu.Unlock()
	}
}

// Rest implements [flow.Rester]. Tickets that come after a rest are not kept:
// servers send them at once, and what takes them is larger than all else here.
func (c *Conn) Rest() {
	if c.rmu.TryLock() {
		c.read.rest()
		c.tickets = nil
		c.leaveRead()
	}
	if c.wmu.TryLock() {
		c.write.rest()
		c.leaveWrite()
	}
}

// WhenReadable implements [flow.Waiter]: by the socket, unless something is left
// that was read from it.
func (c *Conn) WhenReadable(f func()) error {
	if !c.waits() {
		go f()
		return nil
	}
	w, ok := c.lower.(flow.Waiter)
	if !ok {
		return errors.ErrUnsupported
	}
	return w.WhenReadable(f)
}

// Unsent implements [flow.Unsent].
func (c *Conn) Unsent() (int, error) {
	if u, ok := c.lower.(flow.Unsent); ok {
		return u.Unsent()
	}
	return 0, nil
}

// fail ends reading with f, once what was opened before is read, and tells the peer.
func (c *Conn) fail(f *Fault) {
	c.end(f)
	c.owed.Store(uint32(f.Alert))
	c.sendOwed()
}

// end is what Read gives from now on.
func (c *Conn) end(err error) {
	if c.explain != nil && err != io.EOF && err != flow.ErrTruncated {
		err = c.explain(err)
	}
	c.err = err
}

var errFinished = errors.New("write after close_notify")

func alertMessage(a wire.Alert) []byte {
	level := wire.AlertFatal
	if a == wire.AlertCloseNotify {
		level = wire.AlertWarning
	}
	return []byte{byte(level), byte(a)}
}
