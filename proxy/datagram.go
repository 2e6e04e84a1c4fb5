package proxy

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"sallyport/flow"
)

// carry moves one direction's datagrams, each as it came, until an end says
// goodbye, or says which end failed.
func (r *relay) carry(d flow.Direction) (end flow.Direction, cause *flow.Error) {
	dst, units := r.ends[1-d], flow.Units(r.ends[d])
	var unit *[unitSize]byte
	lease := func() []byte {
		unit = buffers.Get().(*[unitSize]byte)
		return unit[:]
	}
	for {
		p, err := units.ReadUnit(lease)
		var werr error
		if err == nil {
			_, werr = dst.Write(p)
		}
		if unit != nil {
			buffers.Put(unit)
			unit = nil
		}
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
