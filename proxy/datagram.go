package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// readDatagramHello reads the one datagram that a ClientHello is, whole as an
// acceptor gives it.
func readDatagramHello(c flow.Conn) (*wire.Hello, []byte, error) {
	var room buffer
	defer room.giveBack()
	unit := room.whole()
	n, err := c.Read(unit)
	held := bytes.Clone(unit[:n])
	if err != nil {
		return nil, held, helloReadError(err, n)
	}
	// note forgets what shares memory with the datagram, so that it can go.
	hello, err := wire.ParseDTLSHello(held)
	switch {
	case errors.Is(err, wire.ErrNotTLS):
		return nil, held, flow.Fail(flow.NotTLS, "the client does not speak DTLS: it began with %q", held[:min(n, 16)])
	case err != nil:
		return nil, held, helloError(err, held)
	}
	return hello, held, nil
}

// packetReplay is replay for a layer that asks where each datagram came from.
type packetReplay struct {
	*replay
	packets flow.Packets // Conn
}

var _ flow.Packets = (*packetReplay)(nil)

func (r *packetReplay) ReadFrom(p []byte) (int, net.Addr, error) {
	if r.held != nil {
		return r.take(p), r.RemoteAddr(), nil
	}
	return r.packets.ReadFrom(p)
}

func (r *packetReplay) WriteTo(p []byte, to net.Addr) (int, error) { return r.packets.WriteTo(p, to) }
func (r *packetReplay) Bind(cid []byte) error                      { return r.packets.Bind(cid) }
func (r *packetReplay) Moved(to netip.AddrPort)                    { r.packets.Moved(to) }
func (r *packetReplay) Established()                               { r.packets.Established() }

// carry moves one direction's datagrams, each as it came, until an end says
// goodbye, or says which end failed.
func (r *relay) carry(d flow.Direction) (end flow.Direction, cause *flow.Error) {
	dst, units := r.ends[1-d], flow.Units(r.ends[d])
	var room buffer
	leased := room.whole // bound once
	for {
		p, err := units.ReadUnit(leased)
		var werr error
		if err == nil {
			_, werr = dst.Write(p)
		}
		room.giveBack()
		switch {
		case errors.Is(err, io.EOF):
			return d, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && r.hasParted():
			return d, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && r.interrupts(d):
			return d, errRest
		case err != nil:
			return d, endError(d, err)
		case errors.Is(werr, flow.ErrTooLarge):
			r.lost[d].Add(1)
			r.touch()
		case errors.Is(werr, syscall.ECONNREFUSED):
			return 1 - d, endError(1-d, werr) // which the other direction is not told as well
		case werr != nil:
			r.hear(1 - d)
			return 1 - d, endError(1-d, werr)
		default:
			r.count(d, len(p))
		}
	}
}

func (r *relay) datagrams() bool { return r.f.Origin.Transport == flow.Datagram }

// part ends the flow well, since one end has said goodbye: an association of
// datagrams has no half that could go on.
func (r *relay) part() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil || r.closed {
		return
	}
	r.parted = true
	for _, c := range r.ends {
		c.SetReadDeadline(time.Unix(1, 0))
	}
}

func (r *relay) hasParted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parted
}

// cut ends c, which has not ended by itself. Where c carries datagrams the peer is
// told by the protocol's goodbye, if it has one: what came before it was whole, and
// without it the peer would go on sending to nobody.
func cut(c flow.Conn) {
	if c.Transport() == flow.Datagram {
		c.Close()
		return
	}
	flow.Abort(c)
}
