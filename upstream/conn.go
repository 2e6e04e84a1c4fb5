package upstream

import (
	"errors"
	"sync/atomic"
	"time"

	"sallyport/flow"
)

// socket is what every connection of package transport has of the optional
// interfaces of [flow.Conn]; what is wrapped keeps them all.
type socket interface {
	flow.Conn
	flow.Bare
	flow.Aborter
	flow.UnitReader
	flow.UnitWriter
	flow.Unsent
	flow.Waiter
}

// conn is a connection to a server, which counts until it is closed. The engine
// closes it however its flow ends, and on whatever goroutine, so that this is where
// the end of a flow is known.
type conn struct {
	socket
	pool   *Pool
	member *member
	tried  attempts // before it
	closed atomic.Bool
	blamed atomic.Bool // it has counted against its server
}

// hold has the server know when c ends.
func (p *Pool) hold(c flow.Conn, m *member, tried attempts) (flow.Conn, error) {
	s, ok := c.(socket)
	if !ok {
		m.server.leave()
		c.Close()
		return nil, flow.Fail(flow.Internal, "a connection to %s lacks what the relay needs", m.server.spec.Addr)
	}
	held := &conn{socket: s, pool: p, member: m, tried: tried}
	if c.Transport() == flow.Datagram {
		return &association{conn: held}, nil
	}
	return held, nil
}

func (c *conn) Close() error {
	c.end()
	return c.socket.Close()
}

func (c *conn) Abort() error {
	c.end()
	return c.socket.Abort()
}

func (c *conn) end() {
	if !c.closed.Swap(true) {
		c.member.server.leave()
	}
}

// association is a conn of datagrams. Dialling one says nothing of the server; what
// does is the first answer, and ICMP.
type association struct {
	*conn
	answered atomic.Bool
}

func (c *association) ReadUnit(lease func() []byte) ([]byte, error) {
	p, err := c.socket.ReadUnit(lease)
	c.note(err, true)
	return p, err
}

func (c *association) Read(p []byte) (int, error) {
	n, err := c.socket.Read(p)
	c.note(err, true)
	return n, err
}

func (c *association) Write(p []byte) (int, error) {
	n, err := c.socket.Write(p)
	c.note(err, false)
	return n, err
}

// WriteUnit implements [flow.UnitWriter].
func (c *association) WriteUnit(p []byte, _ func()) (int, error) { return c.Write(p) }

// note tells the server of the first answer, and of the first error that is its own.
func (c *association) note(err error, read bool) {
	switch {
	case err == nil && read:
		// Where there is a handshake, an answer may yet be a refusal.
		if c.member.Layer == nil && !c.answered.Load() && !c.answered.Swap(true) {
			c.member.server.pass(time.Now())
		}
	case err != nil:
		if e, ok := errors.AsType[*flow.Error](err); ok && e.Fault == flow.FaultServer && !c.blamed.Swap(true) {
			c.member.server.fail(time.Now(), err)
		}
	}
}
