package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"sallyport/flow"
)

// datagramSocket has what a stream socket has beside.
type datagramSocket struct{ *net.UDPConn }

func (datagramSocket) CloseWrite() error { return nil }

// datagrams is a connected UDP socket: the server's end of an association. An
// ICMP error that came for it comes out of the next read or write.
//
// Those of a host or network that cannot be reached now do not: they pass (RFC
// 1122, section 4.1.3.3), and Linux keeps them to itself. Idle time ends what they
// do not pass from.
type datagrams struct {
	*conn
	where Where
}

var (
	_ flow.Conn       = (*datagrams)(nil)
	_ flow.UnitReader = (*datagrams)(nil)
	_ flow.Waiter     = (*datagrams)(nil)
)

func newDatagrams(c *net.UDPConn, p *Poller, w Where) (*datagrams, error) {
	below, err := newConn(datagramSocket{c}, p)
	if err != nil {
		return nil, err
	}
	below.unit.datagram = true
	return &datagrams{below, w}, nil
}

func (c *datagrams) Transport() flow.Transport { return flow.Datagram }

func (c *datagrams) CloseWrite() error { return nil }

// ReadUnit implements [flow.UnitReader]: one unit is one datagram, which may be empty.
func (c *datagrams) ReadUnit(lease func() []byte) ([]byte, error) {
	p, err := c.conn.ReadUnit(lease)
	if err != nil {
		return nil, c.failure(err)
	}
	if p == nil {
		p = []byte{}
	}
	return p, nil
}

// Read reads one datagram. It gives an error where p is too short for it.
func (c *datagrams) Read(p []byte) (int, error) {
	unit, err := c.ReadUnit(func() []byte { return p })
	return len(unit), err
}

// Write sends one datagram. Above 65,507 bytes it gives [flow.ErrTooLarge].
func (c *datagrams) Write(p []byte) (int, error) {
	if len(p) > maxPayload {
		return 0, fmt.Errorf("sending to %s: %w", c.where, tooLarge(len(p)))
	}
	n, err := c.conn.Write(p)
	switch {
	case errors.Is(err, syscall.EMSGSIZE):
		return 0, fmt.Errorf("sending to %s: %w", c.where, tooLarge(len(p)))
	case err != nil:
		return n, c.failure(err)
	}
	return n, nil
}

// WriteUnit implements [flow.UnitWriter].
func (c *datagrams) WriteUnit(p []byte, _ func()) (int, error) { return c.Write(p) }

// failure says in words what an ICMP error means.
func (c *datagrams) failure(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	reason, what := flow.ServerUnreachable, ""
	switch errno {
	case syscall.ECONNREFUSED:
		reason, what = flow.DialRefused, "nobody listens there (ICMP port unreachable); is the server running?"
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENONET:
		what = "no way there; `ip route get` shows where it would go"
	case syscall.EACCES, syscall.EPERM:
		what = "a firewall of this host, or one on the way, refuses it"
	case syscall.ENOPROTOOPT:
		what = "that host does not speak UDP"
	default:
		return err
	}
	return flow.Fail(reason, "%w", inWords(err, "the association with %s: %s", c.remote(), what))
}

// remote is the server as configured, and the address that it has where that is another.
func (c *datagrams) remote() string {
	where, at := c.where.String(), c.RemoteAddr().String()
	if where != at {
		where += " (" + at + ")"
	}
	return where
}
