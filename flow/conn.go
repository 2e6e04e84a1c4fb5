package flow

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Transport tells a byte stream from datagrams.
type Transport uint8

const (
	Stream   Transport = iota // bytes in order, with an end
	Datagram                  // one Read is one datagram
)

func (t Transport) String() string {
	if t == Datagram {
		return "udp"
	}
	return "tcp"
}

// Conn is one end of a flow, bare or with layers over it.
//
// Read returns io.EOF only where the peer ended its direction properly: a FIN on
// a bare stream, close_notify under TLS. A stream that stopped without gives
// [ErrTruncated], a reset gives the system's error.
type Conn interface {
	net.Conn
	Transport() Transport
	// CloseWrite ends our direction: FIN, or close_notify. It does nothing on a Datagram.
	CloseWrite() error
}

// ErrTruncated is what Read gives where a layer was cut off without its own
// ending (RFC 8446, section 6.1).
var ErrTruncated = errors.New("ended without close_notify")

// Bare is an optional interface of a Conn: the socket itself, for splice(2). It
// is nil while bytes are held above the socket.
type Bare interface{ Bare() *net.TCPConn }

// Aborter is an optional interface of a Conn: it ends the connection so that the
// peer cannot take it for a proper end, with a reset and without close_notify.
type Aborter interface{ Abort() error }

// Abort ends c with a reset where it knows how to, else closes it.
func Abort(c Conn) error {
	if a, ok := c.(Aborter); ok {
		return a.Abort()
	}
	return c.Close()
}

// Unsent is an optional interface of a Conn: how many bytes written to it the
// peer has not acknowledged yet. A reset throws them away.
type Unsent interface{ Unsent() (int, error) }

// Rester is an optional interface of a Conn, for one that nothing has moved on for
// a while: what can be made again is let go. It may be called at any time, from
// any goroutine, and the next byte ends the rest.
type Rester interface{ Rest() }

// Waiter is an optional interface of a Conn that can wait without a goroutine.
// WhenReadable has f called, once and on a goroutine of its own, as soon as a read
// would not wait: for bytes, the end, an error, Close, Abort, or a read deadline
// set meanwhile. Until then nobody may read. On an error f is not called.
type Waiter interface{ WhenReadable(f func()) error }

// Peeker is an optional interface of a Conn: bytes that have come are looked at and
// stay where they are. It waits for the first one, and gives 0 at the stream's end.
type Peeker interface{ Peek(p []byte) (int, error) }

// Packets is an optional interface of a Datagram Conn that an acceptor gave, for a
// layer whose peer may change its address. ReadFrom says where each datagram came
// from; WriteTo sends elsewhere than to the client's address as it is now.
type Packets interface {
	net.PacketConn
	// Bind has datagrams with this connection ID (RFC 9146) come here, whatever
	// their source.
	Bind(cid []byte) error
	// Moved says that the peer is at another address from now on: an
	// authenticated record, newer than all before it, came from there.
	Moved(netip.AddrPort)
	// Established says that the handshake is finished. An older association of
	// the same address ends, and the bounds on handshakes count it no more.
	Established()
}

// Unproven is an optional interface of a Datagram Conn: whether its client has yet
// to show that it is where its datagrams claim to come from. Established, of
// [Packets], says that it has.
type Unproven interface{ Unproven() bool }

// Discarder is an optional interface of a Datagram Conn with a layer: how many
// records that came after its handshake it threw away, since they were not authentic,
// had come before, or had no place in its state.
type Discarder interface{ Discarded() int64 }

// ErrTooLarge is what Write on a Datagram Conn gives for a datagram that cannot be
// carried whole, and Read for one that its buffer does not hold. The datagram is
// lost, the connection goes on.
var ErrTooLarge = errors.New("the datagram is too large to be carried")

// UnitReader is an optional interface of a Conn that holds no buffer while it
// waits: lease is called once there is something to read. The unit is the first
// part of what lease gave, filled as far as that is possible without waiting
// again. A leased buffer that comes with an error holds nothing.
type UnitReader interface {
	ReadUnit(lease func() []byte) (unit []byte, err error)
}

// Units gives c's own [UnitReader], or one that leases before it waits. A reader
// keeps it: each call between it and the socket is stack while a flow is idle.
func Units(c Conn) UnitReader {
	if u, ok := c.(UnitReader); ok {
		return u
	}
	return eager{c}
}

type eager struct{ c Conn }

func (e eager) ReadUnit(lease func() []byte) ([]byte, error) {
	p := lease()
	n, err := e.c.Read(p)
	if n > 0 {
		return p[:n], nil
	}
	return nil, err
}

// UnitWriter is an optional interface of a Conn that need not keep what it was given
// for as long as it waits. WriteUnit is Write, and calls taken, once, as soon as nothing of p
// is needed any more: before it waits for a peer that has stopped, as far as that is
// possible. Where it fails it need not call.
type UnitWriter interface {
	WriteUnit(p []byte, taken func()) (int, error)
}

// Writes gives c's own [UnitWriter], or one that keeps what it is given.
func Writes(c Conn) UnitWriter {
	if w, ok := c.(UnitWriter); ok {
		return w
	}
	return keeper{c}
}

type keeper struct{ c Conn }

func (k keeper) WriteUnit(p []byte, _ func()) (int, error) { return k.c.Write(p) }

// Layer is one protocol over a connection, in one role. What it learned it
// appends to f.Inbound or f.Outbound. On an error the connection stays open, and
// belongs to the caller.
type Layer interface {
	Wrap(ctx context.Context, f *Flow, c Conn) (Conn, error)
}

// Acceptor gives the flows of one listener.
type Acceptor interface {
	Accept(ctx context.Context) (*Flow, Conn, error)
	Addr() net.Addr
	Close() error
}

// Retrier is what a connection of a [Dialer] may be that has other servers, for who
// could make no handshake over it. Nothing of the client's may have been sent.
type Retrier interface {
	// Again closes the connection and gives one to another server, or with what
	// the flow ends. failed is why the handshake was not made.
	Again(ctx context.Context, f *Flow, failed error) (Conn, error)
}

// Dialer opens the bare connection towards a flow's server.
type Dialer interface {
	Dial(ctx context.Context, f *Flow) (Conn, error)
}
