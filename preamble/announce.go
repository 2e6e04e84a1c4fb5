package preamble

import (
	"bytes"
	"sync"
	"sync/atomic"

	"sallyport/flow"
	"sallyport/wire"
)

// Ahead says which datagrams have the header: it stands in front of the payload, in
// the same datagram, since of two either may be lost, or come first.
type Ahead uint8

const (
	// AheadUntilAnswered is for servers that know an association by our address:
	// as the first datagram may be lost, each has the header until the server answers.
	AheadUntilAnswered Ahead = iota
	// AheadOfHellos is for DTLS: each ClientHello has it, the second one that a
	// cookie is asked for by too, since the server keeps nothing of the first (RFC
	// 6347, section 4.2.1).
	AheadOfHellos
	// AheadOfEach is for servers that know no associations.
	AheadOfEach
)

// association is what the relay needs of the connection to a server of datagrams.
type association interface {
	flow.Conn
	flow.Aborter
	flow.UnitReader
	flow.Waiter
}

// announced is an association whose server is told by a header who the client is.
//
// A payload that begins as a header does has ours ahead, whenever it comes: the
// server believes us, and must not take a client's own words for ours.
type announced struct {
	association
	header   []byte
	ahead    Ahead
	answered atomic.Bool
}

func announce(c flow.Conn, header []byte, ahead Ahead) (flow.Conn, error) {
	a, ok := c.(association)
	if !ok {
		return nil, flow.Fail(flow.Internal, "a PROXY header cannot be put ahead of the datagrams of a %T", c)
	}
	return &announced{association: a, header: header, ahead: ahead}, nil
}

// due says whether p has the header.
func (c *announced) due(p []byte) bool {
	switch {
	case bytes.HasPrefix(p, signature):
		return true
	case c.ahead == AheadOfHellos:
		r, _, err := wire.ReadRecord(p, 0)
		return err == nil && r.IsClientHello()
	}
	return c.ahead == AheadOfEach || !c.answered.Load()
}

// units have room for a header and the largest datagram. An association has one only while it writes.
var units = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// Write sends p, where the header is due behind it. If both together are too large
// for a datagram, neither is sent.
func (c *announced) Write(p []byte) (int, error) {
	if !c.due(p) {
		return c.association.Write(p)
	}
	unit := units.Get().(*[128 << 10]byte)
	defer units.Put(unit)
	n, err := c.association.Write(append(append(unit[:0], c.header...), p...))
	return max(n-len(c.header), 0), err
}

func (c *announced) ReadUnit(lease func() []byte) ([]byte, error) {
	p, err := c.association.ReadUnit(lease)
	c.heard(err)
	return p, err
}

func (c *announced) Read(p []byte) (int, error) {
	n, err := c.association.Read(p)
	c.heard(err)
	return n, err
}

func (c *announced) heard(err error) {
	if err == nil && !c.answered.Load() {
		c.answered.Store(true)
	}
}
