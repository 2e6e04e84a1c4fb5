package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"sallyport/flow"
	"sallyport/proxy"
	"sallyport/transport"
)

// Socket is a listener's bound socket with what is done with its flows. A reload
// that names the address again keeps the socket and changes what is done.
type Socket struct {
	Acceptor flow.Acceptor
	Current  atomic.Pointer[proxy.Listener]
}

// Change is what becomes of sockets where one program follows another.
type Change struct {
	Added   []*Listener // of the new program, ready to serve
	Kept    []*Listener // of the new program; the old one's go on until Install
	Removed []*Listener // of the old one
}

// Bind opens every socket, or none, but for those that old has already: these are
// shared from then on, and nothing of old has changed. A nil old has none.
func (p *Program) Bind(ctx context.Context, old *Program) (*Change, error) {
	had := map[address]*Listener{}
	if old != nil {
		for _, l := range old.Listeners {
			had[l.address()] = l
		}
	}
	c := &Change{}
	for _, l := range p.Listeners {
		if before := had[l.address()]; before != nil {
			delete(had, l.address())
			l.Socket = before.Socket
			c.Kept = append(c.Kept, l)
			continue
		}
		if err := p.open(ctx, l, old); err != nil {
			l.Socket = nil
			for _, l := range c.Added {
				l.Acceptor.Close()
			}
			return nil, heldByUs(err, l, old)
		}
		c.Added = append(c.Added, l)
	}
	if old != nil {
		c.Removed = slices.DeleteFunc(slices.Clone(old.Listeners), func(l *Listener) bool { return had[l.address()] != l })
		p.left = slices.DeleteFunc(slices.Concat(old.left, c.Removed), func(o *Listener) bool {
			a, ok := o.Acceptor.(reopener)
			return !ok || a.Ended() || slices.ContainsFunc(c.Added, func(l *Listener) bool { return l.Socket == o.Socket })
		})
	}
	return c, nil
}

// reopener is an acceptor whose sockets outlive its end while flows do.
type reopener interface {
	Reopen() bool
	Ended() bool
}

// open binds l's address, or takes the socket that a listener removed earlier still
// has there for the sake of its flows.
func (p *Program) open(ctx context.Context, l *Listener, old *Program) (err error) {
	if old != nil {
		for _, o := range old.left {
			if o.address() != l.address() {
				continue
			}
			l.Socket = o.Socket
			l.Install()
			if o.Acceptor.(reopener).Reopen() {
				return nil
			}
		}
	}
	// A port the system would refuse. A socket of systemd's two would read, each a part.
	if old != nil && l.where.Systemd != "" && slices.ContainsFunc(slices.Concat(old.Listeners, old.left), l.sharesWith) {
		return fmt.Errorf("listening on %s: %w", l.where, syscall.EADDRINUSE)
	}
	l.Socket = new(Socket)
	l.Install()
	l.Acceptor, err = l.listen(ctx, l.Socket, p.poller, p.handed[l.Key()])
	return err
}

// sharesWith says whether o has l's socket and reads datagrams from it still.
func (l *Listener) sharesWith(o *Listener) bool {
	a, ok := o.Acceptor.(reopener)
	return ok && o.where == l.where && !a.Ended()
}

// address is by what a reload knows a listener again: its name may change, and
// tcp:// become tls://. What takes datagrams apart knows which of the two it does.
type address struct {
	transport.Where
	datagrams string // udp or dtls
	name      string // tells those apart whose port the kernel picked
}

func (l *Listener) address() address {
	a := address{Where: l.where}
	if l.from.Datagram() {
		a.datagrams = l.from.Carrier
	}
	if a.Port == 0 && a.Unix == "" && a.Systemd == "" {
		a.name = l.Name
	}
	return a
}

// heldByUs says where the process that has the address is this one.
func heldByUs(err error, l *Listener, old *Program) error {
	if old == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	overlaps := func(o *Listener) bool {
		if o.from.Datagram() != l.from.Datagram() {
			return false
		}
		return o.where == l.where || o.from.Port != 0 && o.from.Port == l.from.Port && (covers(o.from, l.from) || covers(l.from, o.from))
	}
	for _, o := range old.Listeners {
		if overlaps(o) {
			return fmt.Errorf("%s overlaps with %s, which %s holds until a restart: %w", l.from, o.from, o.Name, syscall.EADDRINUSE)
		}
	}
	for _, o := range old.left {
		if overlaps(o) {
			return fmt.Errorf("%s overlaps with %s, which %s, removed by an earlier reload, holds until its last association ends: %w", l.from, o.from, o.Name, syscall.EADDRINUSE)
		}
	}
	return err
}

// Install has the listener's socket go by it, from the next flow on.
func (l *Listener) Install() { l.Current.Store(&l.Listener) }

// Bound is a listener's name, what was asked for and where it listens.
type Bound struct{ Name, From, Addr string }

// Bound is known after Bind.
func (l *Listener) Bound() Bound {
	a := l.Acceptor.Addr()
	addr := a.String()
	if a.Network() == "unix" {
		addr = "unix:" + addr
	}
	return Bound{l.Name, l.from.Text, addr}
}

// Places are the addresses that p listens on, or holds for the associations of listeners
// that are gone.
func (p *Program) Places() (froms []string) {
	for _, l := range p.Listening() {
		froms = append(froms, l.from.String())
	}
	return froms
}

// Unbind closes the sockets; flows go on.
func (p *Program) Unbind() {
	for _, l := range p.Listeners {
		l.Acceptor.Close()
	}
}

// OnTrouble has f told of each error that accepting outlives. It is called after
// Bind, before serving.
func (l *Listener) OnTrouble(f func(error)) {
	if a, ok := l.Acceptor.(interface{ OnTrouble(func(error)) }); ok {
		a.OnTrouble(f)
	}
}
