package build

import (
	"cmp"
	"fmt"
	"os"
	"slices"

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

// Listening are the listeners whose sockets are open: those that a reload has removed, and
// whose associations still live, among them.
func (p *Program) Listening() []*Listener {
	return slices.DeleteFunc(slices.Concat(p.Listeners, p.left), func(l *Listener) bool {
		a, ok := l.Acceptor.(reopener)
		return ok && a.Ended()
	})
}

// Systemd are the sockets that systemd gave, without the file where a listener reads
// datagrams from it: one alone can, and it is handed over as the listener's.
func (p *Program) Systemd() []transport.SystemdSocket {
	list, all := transport.SystemdSockets(), p.Listening()
	for i := range list {
		if slices.ContainsFunc(all, func(l *Listener) bool { return l.from.Datagram() && l.where.Systemd == list[i].Name }) {
			list[i].File = nil
		}
	}
	return list
}

// Leave ends accepting, for another process has the sockets. Flows go on.
func (p *Program) Leave() {
	for _, l := range p.Listening() {
		if a, ok := l.Acceptor.(interface{ Leave() error }); ok {
			_ = a.Leave() // whatever comes of it, the other one accepts
		}
	}
}
