package build

import (
	"cmp"
	"fmt"
	"net"
	"os"

	"sallyport/transport"
)

// Handed is the socket of one listener, from the process that ran before.
type Handed struct {
	File *os.File // nil of datagrams, whose address is shared for a moment instead
	Port uint16   // of datagrams, as bound
}

// Inherit has Bind take these sockets, by their listeners' keys, in place of binding.
func (p *Program) Inherit(handed map[string]Handed) { p.handed = handed }

// Key is by what another process knows the listener's socket.
func (l *Listener) Key() string {
	a := l.address()
	return fmt.Sprintf("%s %s %q", cmp.Or(a.datagrams, "stream"), a.Where, a.name)
}

// Hand gives the listener's socket once more; who gets it closes it.
func (l *Listener) Hand() (Handed, error) {
	switch a := l.Acceptor.(type) {
	case *transport.Acceptor:
		f, err := a.File()
		return Handed{File: f}, err
	case *transport.PacketAcceptor:
		return Handed{Port: a.Addr().(*net.UDPAddr).AddrPort().Port()}, nil
	}
	return Handed{}, fmt.Errorf("%s: no socket to hand over", l.Name)
}

// Leave ends accepting, for another process has the sockets. Flows of streams go on;
// associations of datagrams cannot.
func (p *Program) Leave() {
	for _, l := range p.Listeners {
		if a, ok := l.Acceptor.(interface{ Leave() error }); ok {
			_ = a.Leave() // whatever comes of it, the other one accepts
		}
	}
}
