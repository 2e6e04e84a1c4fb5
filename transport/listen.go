package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// Listen binds w for the listener of that name.
func Listen(ctx context.Context, listener string, w Where) (*Acceptor, error) {
	var (
		s   *source
		err error
	)
	switch {
	case w.File != nil:
		s, err = listenHanded(w)
	case w.Systemd != "":
		s, err = listenSystemd(w.Systemd)
	case w.Unix != "":
		s, err = listenUnix(ctx, w.Unix, 0o777)
	default:
		s, err = listenTCP(ctx, w)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", w, err)
	}
	return newAcceptor(listener, s), nil
}

// Private is the mode of a socket that only its owner may connect to.
const Private fs.FileMode = 0o600

// Window binds w, a host and port or a unix socket of that mode, for what is no flow:
// who looks at the process from outside.
func Window(ctx context.Context, w Where, mode fs.FileMode) (net.Listener, error) {
	bind := func() (*source, error) { return listenTCP(ctx, w) }
	if w.File != nil {
		bind = func() (*source, error) { return listenHanded(w) }
	} else if w.Unix != "" {
		bind = func() (*source, error) { return listenUnix(ctx, w.Unix, mode) }
	}
	s, err := bind()
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", w, err)
	}
	return &window{Listener: s.Listener, close: s.close}, nil
}

type window struct {
	net.Listener
	close func() error
	left  atomic.Bool
}

// File gives the socket once more, for a process that takes over.
func (w *window) File() (*os.File, error) { return fileOf(w.Listener) }

// Leave has Close leave the place to another process.
func (w *window) Leave() { w.left.Store(true) }

func (w *window) Close() error {
	if w.left.Load() {
		return w.Listener.Close()
	}
	return w.close()
}

// source is a listening socket of any kind.
type source struct {
	net.Listener
	accept      func() (socket, error)
	setDeadline func(past bool) error
	close       func() error
}

func tcpSource(l *net.TCPListener) *source {
	return &source{
		Listener: l,
		accept: func() (socket, error) {
			c, err := l.AcceptTCP()
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		setDeadline: func(past bool) error { return l.SetDeadline(deadline(past)) },
		close:       l.Close,
	}
}

func listenTCP(ctx context.Context, w Where) (*source, error) {
	lc := net.ListenConfig{Control: control, KeepAlive: -1}
	// Multipath TCP, Go's default for listeners, inherits socket options by
	// subflow and version of the kernel, and has no splice(2).
	lc.SetMultipathTCP(false)
	// Package net makes one socket of both families for an empty host, and an
	// IPv4 one where the kernel has no IPv6.
	network := "tcp"
	if w.Host == "0.0.0.0" {
		network = "tcp4" // package net takes any unspecified address for both families
	}
	l, err := lc.Listen(ctx, network, w.String())
	if err != nil {
		return nil, listenError(w, err, "t")
	}
	return tcpSource(l.(*net.TCPListener)), nil
}

// listenError says in words why w cannot be bound, and what to do. kind is ss's
// letter for the protocol.
func listenError(w Where, err error, kind string) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return inWords(dns, "%q does not resolve to an address of this host", w.Host)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return inWords(syscall.EADDRINUSE, "another process listens on %s; `ss -l%snp sport = :%d` shows which", w, kind, w.Port)
	case errors.Is(err, syscall.EACCES) && w.Port < 1024:
		return inWords(syscall.EACCES, "port %d needs CAP_NET_BIND_SERVICE or root, or a socket from systemd", w.Port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return inWords(syscall.EADDRNOTAVAIL, "%s is no address of this host; `ip -brief address` lists them", w.Host)
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return inWords(syscall.EAFNOSUPPORT, "this host has no such address family as %s's", w.Host)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
