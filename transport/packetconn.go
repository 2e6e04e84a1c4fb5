package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/flow"
)

// packetConn is the client's end of an association. It has no socket of its own
// and no goroutine: a reader fills its queue.
type packetConn struct {
	a      *PacketAcceptor
	socket *packetSocket // by which it answers
	oob    []byte        // from which address
	local  netip.AddrPort
	begun  time.Time
	who    flow.Announced // by the header of the datagram that began it
	random [32]byte       // of the ClientHello that began it
	passes bool           // it is passed on undecrypted, with the server's cookie
	prefix netip.Prefix
	client atomic.Pointer[netip.AddrPort]
	queue  queue
	seen   *net.UDPAddr // what ReadFrom gave last
	credit credit

	writeBy atomic.Int64 // Unix nanoseconds; 0: no deadline

	// Under a.mu:
	key       key
	cids      []string
	counted   bool // it has a place and stands in the tallies
	handshake bool // and in that of handshakes
	unproven  bool
}

var (
	_ flow.Conn       = (*packetConn)(nil)
	_ flow.Packets    = (*packetConn)(nil)
	_ flow.Unproven   = (*packetConn)(nil)
	_ flow.UnitReader = (*packetConn)(nil)
	_ flow.Waiter     = (*packetConn)(nil)
)

func newPacketConn(a *PacketAcceptor, s *packetSocket, from *sender, now time.Time) *packetConn {
	client, speaker := from.client, from.speaker()
	c := &packetConn{
		a: a, socket: s, oob: answerFrom(from.local, s.inet6), local: netip.AddrPortFrom(from.local, a.port),
		begun: now, who: from.who, prefix: prefixOf(speaker.Addr()), key: from.key,
	}
	c.client.Store(&client)
	c.credit.home = client
	c.queue.some.L = &c.queue.mu
	return c
}

// deliver queues a copy of p, or drops it.
func (c *packetConn) deliver(p []byte, from netip.AddrPort) {
	d := c.a.pool.get(p, from)
	if !c.queue.put(d, &c.a.limits, &c.a.queued) {
		c.a.pool.put(d)
		c.a.counts.add(PacketsQueueFull)
	}
}

func (c *packetConn) Transport() flow.Transport { return flow.Datagram }

func (c *packetConn) CloseWrite() error { return nil }

func (c *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// RemoteAddr is where the client is now.
func (c *packetConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(*c.client.Load()) }

// take gives the next datagram in a leased buffer.
func (c *packetConn) take(lease func() []byte) (unit []byte, from netip.AddrPort, err error) {
	d, err := c.queue.take(&c.a.queued)
	if err != nil {
		return nil, from, c.opError("read", err)
	}
	defer c.a.pool.put(d)
	p := lease()
	if len(p) < d.n {
		return nil, from, c.opError("read", tooShort(d.n, len(p)))
	}
	if p == nil {
		p = []byte{} // an empty datagram is one all the same
	}
	return p[:copy(p, d.data[:d.n])], d.from, nil
}

func tooShort(n, room int) error {
	return fmt.Errorf("%w: a datagram of %d bytes is lost, the buffer has %d", flow.ErrTooLarge, n, room)
}

// ReadUnit implements [flow.UnitReader]: one unit is one datagram, which may be empty.
func (c *packetConn) ReadUnit(lease func() []byte) ([]byte, error) {
	p, _, err := c.take(lease)
	return p, err
}

// Read reads one datagram. It gives an error where p is too short for it.
func (c *packetConn) Read(p []byte) (int, error) {
	unit, _, err := c.take(func() []byte { return p })
	return len(unit), err
}

// ReadFrom is Read, and says where the datagram came from. The address must not
// be changed.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	unit, from, err := c.take(func() []byte { return p })
	if err != nil {
		return 0, nil, err
	}
	c.credit.came(from, len(unit))
	if c.seen == nil || c.seen.AddrPort() != from {
		c.seen = net.UDPAddrFromAddrPort(from)
	}
	return len(unit), c.seen, nil
}

// maxPayload is what an IPv4 datagram carries: 65,535 bytes less two headers.
const maxPayload = 65507

// Write sends one datagram to the client. Above 65,507 bytes it gives [flow.ErrTooLarge].
func (c *packetConn) Write(p []byte) (int, error) { return c.send(p, *c.client.Load()) }

// WriteTo is Write to another address.
func (c *packetConn) WriteTo(p []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", fmt.Errorf("%v is no UDP address", to))
	}
	at := u.AddrPort()
	return c.send(p, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
}

func (c *packetConn) send(p []byte, to netip.AddrPort) (int, error) {
	if err := c.queue.ended(); err != nil {
		return 0, c.opError("write", err)
	}
	if by := c.writeBy.Load(); by != 0 && time.Now().UnixNano() >= by {
		return 0, c.opError("write", os.ErrDeadlineExceeded)
	}
	if len(p) > maxPayload {
		c.a.counts.add(PacketsTooLarge)
		return 0, c.opError("write", tooLarge(len(p)))
	}
	if !c.credit.spend(to, len(p)) {
		c.a.counts.add(PacketsOverCredit) // for the client it is lost, as datagrams may be
		return len(p), nil
	}
	n, _, err := c.socket.WriteMsgUDPAddrPort(p, c.oob, to)
	switch {
	case short(err):
		c.a.counts.add(PacketsUnsent)
		return len(p), nil
	case errors.Is(err, syscall.EMSGSIZE):
		c.a.counts.add(PacketsTooLarge)
		return 0, c.opError("write", tooLarge(len(p)))
	case err != nil:
		return 0, err
	}
	return n, nil
}

// short says that the system had no room for a datagram just then. It is lost, as
// any may be, and no reason to end an association, least of all for a socket that
// all of them share.
func short(err error) bool {
	return errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EAGAIN)
}

func tooLarge(n int) error {
	return fmt.Errorf("%w: it has %d bytes, and UDP carries %d", flow.ErrTooLarge, n, maxPayload)
}

func (c *packetConn) opError(op string, err error) error {
	if _, ok := errors.AsType[*flow.Error](err); ok {
		return err
	}
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func (c *packetConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.queue.setDeadline(t)
	return nil
}

// SetWriteDeadline is for a deadline that has passed: a write does not wait longer
// than the network card does.
func (c *packetConn) SetWriteDeadline(t time.Time) error {
	var by int64
	if !t.IsZero() {
		by = max(t.UnixNano(), 1)
	}
	c.writeBy.Store(by)
	return nil
}

// WhenReadable implements [flow.Waiter].
func (c *packetConn) WhenReadable(f func()) error {
	c.queue.whenReadable(f)
	return nil
}

func (c *packetConn) Close() error {
	c.finish(net.ErrClosed)
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	c.a.forget(c)
	return nil
}

// restarted ends c for the association that its client has begun instead.
func (c *packetConn) restarted() {
	c.a.counts.add(PacketsRestarted)
	c.finish(flow.Fail(flow.ClientRestarted, "the client has begun anew from the same address"))
}

func (c *packetConn) finish(err error) {
	for d := c.queue.close(err, &c.a.queued); d != nil; {
		next := d.next
		c.a.pool.put(d)
		d = next
	}
}

// cidsEach bounds the connection IDs of one association.
const cidsEach = 4

// Bind implements [flow.Packets]. All connection IDs of a listener have one length.
func (c *packetConn) Bind(cid []byte) error {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	id := string(cid)
	switch holder := c.a.cids[id]; {
	case len(cid) != c.a.cidSize:
		return fmt.Errorf("a connection ID of %d bytes, where this listener's have %d", len(cid), c.a.cidSize)
	case !c.counted:
		return net.ErrClosed
	case holder == c:
		return nil
	case holder != nil:
		return errors.New("another association has this connection ID")
	case len(c.cids) == cidsEach:
		return fmt.Errorf("more than %d connection IDs for one association", cidsEach)
	}
	c.a.cids[id] = c
	c.cids = append(slices.Clip(c.cids), id)
	c.a.named(sayCID, id)
	return nil
}

// Moved implements [flow.Packets]. Where another association has that address, it
// keeps it, and this one goes by its connection ID alone: nobody can end another's
// association by sending from its address.
func (c *packetConn) Moved(to netip.AddrPort) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	c.client.Store(&to)
	c.credit.moved(to)
	if !c.counted || c.key.client == to {
		return
	}
	c.a.vacate(c)
	c.key.client = to
	if _, taken := c.a.at[c.key]; !taken {
		c.a.at[c.key] = place{now: c}
		c.a.placed(sender{c.key, c.who})
	}
}

// Unproven implements [flow.Unproven].
func (c *packetConn) Unproven() bool {
	c.a.mu.RLock()
	defer c.a.mu.RUnlock()
	return c.unproven
}

// Established implements [flow.Packets].
func (c *packetConn) Established() {
	c.a.mu.Lock()
	c.unproven = false
	c.a.settled(c)
	var old *packetConn
	if p := c.a.at[c.key]; p.shadow == c {
		if old = p.now; len(old.cids) > 0 {
			c.a.vacate(old) // it goes by its connection ID alone: this may be another client, which has its address now
			old = nil
		} else {
			c.a.forget(old)
		}
		// c has moved up.
	}
	c.a.mu.Unlock()
	if old != nil {
		old.restarted()
	}
}
