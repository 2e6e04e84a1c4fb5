package transport

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// SystemdSocket is a socket of sd_listen_fds(3).
type SystemdSocket struct {
	Name string
	File *os.File // nil: it is there, and another process reads its datagrams
}

// handedOver are those that came to this process. systemd's come once, by its
// environment, and those that the process before had when it is taken over, which is
// why this is a global. They stay open for good, so that a reload can listen on them
// anew and no client is refused in between.
var handedOver = sync.OnceValue(func() *systemdSockets {
	s := new(systemdSockets)
	for _, f := range activation.Files(true) {
		s.list = append(s.list, SystemdSocket{f.Name(), f})
	}
	return s
})

type systemdSockets struct {
	mu   sync.Mutex
	list []SystemdSocket
}

// SystemdSockets are the sockets that systemd gave, to this process or one before it.
// Their files are not the caller's to close.
func SystemdSockets() []SystemdSocket {
	s := handedOver()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// InheritSystemd keeps those of another process beside our own, which go first where
// they have the same name. Who calls it closes the files that it gave.
func InheritSystemd(list []SystemdSocket) error {
	s := handedOver()
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := slices.Clone(s.list)
	for _, one := range list {
		if slices.ContainsFunc(ours, one.named) {
			continue
		}
		if err := s.keep(one); err != nil {
			return err
		}
	}
	return nil
}

func (s SystemdSocket) named(o SystemdSocket) bool { return o.Name == s.Name }

// keep adds one, by a descriptor of our own.
func (s *systemdSockets) keep(one SystemdSocket) error {
	if one.File != nil {
		f, err := duplicate(one.File, one.Name)
		if err != nil {
			return fmt.Errorf("systemd's socket %q: %w", one.Name, err)
		}
		one.File = f
	}
	s.list = append(s.list, one)
	return nil
}

// keepRead keeps f where it is known by name alone so far: it is we who read it now.
func (s *systemdSockets) keepRead(name string, f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	unread := func(o SystemdSocket) bool { return o.Name == name && o.File == nil }
	if !slices.ContainsFunc(s.list, unread) {
		return nil
	}
	s.list = slices.DeleteFunc(s.list, unread)
	return s.keep(SystemdSocket{name, f})
}

// duplicate gives what f is once more, under that name.
func duplicate(f *os.File, name string) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func listenSystemd(name string) (*source, error) {
	f, err := byName(SystemdSockets(), name)
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, inWords(err, "the socket is none that listens for streams")
	}
	return sourceOf(l)
}

// sourceOf takes a listener that came as a file.
func sourceOf(l net.Listener) (*source, error) {
	switch l := l.(type) {
	case *net.TCPListener:
		s := tcpSource(l)
		plain := s.accept
		s.accept = func() (socket, error) {
			c, err := plain()
			if err == nil {
				// Over those that package net has just set: a listener from a
				// file has no ListenConfig to say otherwise.
				_ = c.(*net.TCPConn).SetKeepAliveConfig(keepAlive)
			}
			return c, err
		}
		raw, err := l.SyscallConn()
		if err == nil {
			err = control("tcp", "", raw)
		}
		if err != nil {
			l.Close()
			return nil, err
		}
		return s, nil
	case *net.UnixListener:
		return unixSource(l, l.Close), nil
	default:
		l.Close()
		return nil, fmt.Errorf("a %s socket is neither TCP nor unix", l.Addr().Network())
	}
}

// packetsOfSystemd gives the socket of that name. It is one, whatever the number of
// processors, since only who binds an address can share it.
func packetsOfSystemd(name string) (*packetSocket, error) {
	f, err := byName(SystemdSockets(), name)
	if err != nil {
		return nil, err
	}
	return packetsOfFile(f)
}

func packetsOfFile(f *os.File) (*packetSocket, error) {
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, inWords(err, "the socket is none of datagrams; the .socket unit needs ListenDatagram=")
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("a %s socket is not UDP", c.LocalAddr().Network())
	}
	s := &packetSocket{UDPConn: u}
	if s.raw, err = u.SyscallConn(); err == nil {
		err = s.raw.Control(func(fd uintptr) { setPacketOptions(int(fd), false) })
	}
	if err == nil {
		err = s.askForAddress()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func byName(sockets []SystemdSocket, name string) (*os.File, error) {
	var found []*os.File
	var names []string
	for _, s := range sockets {
		if s.Name == name {
			found = append(found, s.File)
		}
		names = append(names, s.Name)
	}
	switch {
	case len(found) == 1 && found[0] == nil:
		return nil, inWords(syscall.EADDRINUSE, "the process before this one read datagrams from it for another listener, and may still, to the end of its associations; restart to have it")
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("systemd handed over %d sockets of that name; give each .socket unit its own FileDescriptorName=", len(found))
	case len(names) == 0:
		return nil, fmt.Errorf("systemd handed over no socket; start the .socket unit with FileDescriptorName=%s, not the service alone", name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("systemd handed over no socket of that name, only %s; see FileDescriptorName= of the .socket unit", strings.Join(names, ", "))
}
