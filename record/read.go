package record

import (
	"bytes"
	"errors"
	"io"
	"net"

	"sallyport/flow"
	"sallyport/lease"
)

const (
	// readSize is four full records: what one unit of the relay's takes.
	readSize = 4 * (overhead + maxPlaintext)
	// readLittle has room for the largest record. More is not read at once for a
	// reader whose own room was for one: what it cannot take would wait here.
	readLittle = 18 << 10
	// small records are opened where they lie, and copied: one that turns out to
	// be no data then costs the reader no lease.
	small = 1 << 10
)

// ReadUnit implements [flow.UnitReader]: it takes the record that has come and
// every further one that is here already. A large record that holds no data
// gives an empty unit. It calls the connection below by itself: a flow spends its
// life in that call, and few frames above it let the stack be small.
func (c *Conn) ReadUnit(lease func() []byte) ([]byte, error) {
	for {
		if c.waits() {
			unit, err := c.units.ReadUnit(c.leased)
			if err := c.came(unit, err); err != nil {
				return nil, err
			}
		}
		unit, leased := c.gather(lease)
		if len(unit) > 0 {
			return unit, nil
		}
		if c.err != nil || leased {
			return nil, c.err
		}
	}
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	p = p[:len(p):len(p)] // what lies behind it is not ours: see open
	lease := func() []byte { return p }
	for len(p) > 0 {
		if unit, err := c.ReadUnit(lease); len(unit) > 0 || err != nil {
			return len(unit), err
		}
	}
	return 0, nil
}

// waits says whether nothing can be given without the socket.
func (c *Conn) waits() bool {
	record, fault := c.next()
	return record == nil && fault == nil && len(c.plain) == 0 && c.err == nil
}

// next is the next record, nil while it is not whole. A header that is none shows
// before the rest has come.
func (c *Conn) next() ([]byte, *Fault) {
	if len(c.in) < headerSize {
		return nil, nil
	}
	size, fault := header(c.in)
	if fault != nil || len(c.in) < headerSize+size {
		return nil, fault
	}
	return c.in[:headerSize+size], nil
}

// fill leases a buffer for the socket, with what is held of a record in front.
func (c *Conn) fill() []byte {
	size := readSize
	if c.room > 0 && c.room <= maxPlaintext {
		size = readLittle
	}
	b := lease.Get(size)
	n := copy(b.Data, c.in)
	c.held.Put()
	c.held, c.in = b, b.Data[:n]
	return b.Data[n:size]
}

// came takes what the socket gave. An error that passes it gives back; one that
// lasts is for later.
func (c *Conn) came(unit []byte, err error) error {
	if err == nil {
		c.in = c.in[:len(c.in)+len(unit)]
		return nil
	}
	defer c.settle()
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF) && c.lenient:
		c.end(io.EOF)
	case errors.Is(err, io.EOF):
		c.end(flow.ErrTruncated)
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	default:
		c.end(err)
	}
	return nil
}

// gather opens what records are here and have room in one unit. leased says
// whether it called lease.
func (c *Conn) gather(lease func() []byte) (unit []byte, leased bool) {
	c.rmu.Lock()
	defer c.leaveRead()
	if c.read.suite == nil && c.err == nil {
		c.end(net.ErrClosed)
	}
	var p []byte
	n := 0
	for {
		if len(c.plain) > 0 {
			if p == nil {
				p = lease()
			}
			m := copy(p[n:], c.plain)
			n, c.plain = n+m, c.plain[m:]
		}
		if len(c.plain) > 0 || c.err != nil {
			break
		}
		record, fault := c.next()
		if fault != nil {
			c.fail(fault)
			break
		}
		inner := len(record) - headerSize - tagSize
		if record == nil || n > 0 && inner-1 > len(p)-n {
			break
		}
		dst, direct := record[headerSize:], false
		if inner > small {
			if p == nil {
				p = lease()
			}
			// The content type, which is cut off, needs room as well.
			if inner-1 <= len(p)-n && inner <= cap(p)-n {
				dst, direct = p[n:], true
			}
		}
		n += c.open(dst, record, direct)
	}
	c.settle()
	if p != nil {
		c.room = len(p)
	}
	return p[:n], p != nil
}

// open opens the next record into dst and gives how many bytes of data are there,
// if that is direct, the reader's own buffer; else they become plain.
func (c *Conn) open(dst, record []byte, direct bool) int {
	var sealed []byte
	if c.tickets != nil {
		sealed = bytes.Clone(record)
	}
	typ, content, fault := c.read.open(dst, record)
	c.in = c.in[len(record):]
	switch {
	case fault != nil:
	case typ == typeApplicationData:
		fault = c.data(content)
		switch {
		case fault != nil:
		case direct:
			return len(content)
		default:
			c.plain = content
		}
	default:
		fault = c.message(typ, content, sealed)
	}
	if fault != nil {
		c.fail(fault)
	}
	return 0
}

// settle holds no more than has come: all of a buffer while there is something to
// be given without the socket, else the beginning of a record.
func (c *Conn) settle() {
	if len(c.plain) > 0 || c.err == nil && !c.waits() {
		return
	}
	if c.err != nil {
		c.in, c.hand = nil, nil
	}
	if len(c.in) == 0 {
		c.held.Put()
		c.held, c.in = nil, nil
		return
	}
	c.held, c.in = c.held.Fit(c.in)
}

// leaveRead lets Rest and Close at the secret.
func (c *Conn) leaveRead() {
	c.rmu.Unlock()
	c.wipe()
}
