package transport

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// handedOver are the sockets of sd_listen_fds(3). They come once a process, by
// its environment, which is why this is a global. They stay open for good, so
// that a reload can listen on them anew and no client is refused in between.
var handedOver = sync.OnceValue(func() []*os.File { return activation.Files(true) })

func listenSystemd(name string) (*source, error) {
	f, err := byName(handedOver(), name)
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
	f, err := byName(handedOver(), name)
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

func byName(files []*os.File, name string) (*os.File, error) {
	var found []*os.File
	var names []string
	for _, f := range files {
		if f.Name() == name {
			found = append(found, f)
		}
		names = append(names, f.Name())
	}
	switch {
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
