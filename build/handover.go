package build

import (
	"cmp"
	"fmt"
	"os"

	"sallyport/transport"
)

// Inherit has Bind take these sockets, by their listeners' keys, in place of binding:
// of streams one, of datagrams what [transport.PacketAcceptor.Files] gives.
func (p *Program) Inherit(handed map[string][]*os.File) { p.handed = handed }

// Begin has what was inherited read, once the process before has left it.
func (p *Program) Begin() {
	for _, l := range p.Listeners {
		if a, ok := l.Acceptor.(interface{ Begin() }); ok {
			a.Begin()
		}
	}
}

// Key is by what another process knows the listener's socket.
func (l *Listener) Key() string {
	a := l.address()
	return fmt.Sprintf("%s %s %q", cmp.Or(a.datagrams, "stream"), a.Where, a.name)
}

// Hand gives the listener's sockets once more; who gets them closes them.
func (l *Listener) Hand() ([]*os.File, error) {
	switch a := l.Acceptor.(type) {
	case *transport.Acceptor:
		f, err := a.File()
		return []*os.File{f}, err
	case *transport.PacketAcceptor:
		return a.Files()
	}
	return nil, fmt.Errorf("%s: no socket to hand over", l.Name)
}

// Leave ends accepting, for another process has the sockets. Flows go on.
func (p *Program) Leave() {
	for _, l := range p.Listeners {
		if a, ok := l.Acceptor.(interface{ Leave() error }); ok {
			_ = a.Leave() // whatever comes of it, the other one accepts
		}
	}
}
