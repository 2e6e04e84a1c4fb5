package admin

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// share is how many places clients of one address may have, so that one host cannot
// have them all. Clients of a unix socket have no address, and the mode of its file.
const share = connections / 2

// bounded is a listener with so many connections at once. Where all places are taken,
// the connection gives way from which no request has come for the longest: a client that
// means to ask does so at once, while who says nothing, or a byte now and then, would
// keep everybody out.
type bounded struct {
	net.Listener
	full func() // told of each connection that is closed for want of a place

	mu     sync.Mutex
	places []*place // the oldest first
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := &place{Conn: c, of: b, host: hostOf(c)}
		out := b.enter(p)
		if out != nil {
			b.full()
			out.Close()
		}
		if out != p {
			return p, nil
		}
	}
}

// enter gives p a place, and gives whose place it was; p itself where all others are
// being answered.
func (b *bounded) enter(p *place) (out *place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	same := 0
	for _, o := range b.places {
		if p.host.IsValid() && o.host == p.host {
			same++
		}
	}
	crowd := same >= share // its own have to make room
	if crowd || len(b.places) >= connections {
		out = p
		for _, o := range b.places {
			if !o.asked && (!crowd || o.host == p.host) {
				out = o
				break
			}
		}
		if out == p {
			return p
		}
		b.remove(out)
	}
	b.places = append(b.places, p)
	return out
}

// remove is called while mu is held, and may be again.
func (b *bounded) remove(p *place) {
	for i, o := range b.places {
		if o == p {
			b.places = append(b.places[:i], b.places[i+1:]...)
			return
		}
	}
}

// hostOf is the client's address, of IPv6 its network: any host has 2^64 of those.
func hostOf(c net.Conn) netip.Prefix {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits) // the zero one where there is no address
	return p
}

type place struct {
	net.Conn
	of    *bounded
	host  netip.Prefix
	asked bool // a request has come; of's mu is held
}

func (p *place) Close() error {
	p.of.mu.Lock()
	p.of.remove(p)
	p.of.mu.Unlock()
	return p.Conn.Close()
}

type placeKey struct{}

// placed has handlers know the place of their connection.
func placed(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, placeKey{}, c)
}

// asks notes that a request has come whole; none that is asked here has a body, which
// could be long in coming. It stays so: the connection ends with the answer, which has
// a bound in time.
func asks(r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		return
	}
	if p, ok := r.Context().Value(placeKey{}).(*place); ok {
		p.of.mu.Lock()
		p.asked = true
		p.of.mu.Unlock()
	}
}
