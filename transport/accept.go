package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"sallyport/flow"
)

// Acceptor gives the flows of one listening socket.
type Acceptor struct {
	listener string
	source   *source
	trouble  func(error)
	poller   *Poller
	closing  sync.Once
	closed   chan struct{}
	closeErr error
}

var _ flow.Acceptor = (*Acceptor)(nil)

func newAcceptor(listener string, s *source) *Acceptor {
	return &Acceptor{listener: listener, source: s, trouble: func(error) {}, closed: make(chan struct{})}
}

// OnTrouble has f told of each error that Accept outlives, such as being out of
// file descriptors: at most two hundred times a second, and once a second where
// it lasts. It is called before the first Accept.
func (a *Acceptor) OnTrouble(f func(error)) { a.trouble = f }

// RestOn says where the connections that Accept gives rest. It is called before
// the first Accept.
func (a *Acceptor) RestOn(p *Poller) { a.poller = p }

// Addr is the address as bound.
func (a *Acceptor) Addr() net.Addr { return a.source.Addr() }

// Close ends Accept, and removes a unix socket's file.
func (a *Acceptor) Close() error {
	a.closing.Do(func() {
		close(a.closed)
		a.closeErr = a.source.close()
	})
	return a.closeErr
}

const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second // the time to recover once descriptors are free again
)

// Accept gives the next flow, with Start and Origin filled. It outlives whatever
// is not the end of the listening socket itself; after Close it gives
// [net.ErrClosed].
func (a *Acceptor) Accept(ctx context.Context) (*flow.Flow, flow.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	// A deadline in the past is how an accept that waits is interrupted.
	stop := context.AfterFunc(ctx, func() { _ = a.source.setDeadline(true) })
	defer stop()
	pause := minPause
	for {
		s, err := a.source.accept()
		if err == nil {
			return a.flow(s)
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if isTimeout(err) {
			// Left behind by an Accept whose context ended just as it had a connection.
			_ = a.source.setDeadline(false)
			continue
		}
		if ended(err) {
			return nil, nil, fmt.Errorf("accepting on %s: %w", a.source.Addr(), err)
		}
		a.trouble(fmt.Errorf("accepting on %s: %w", a.source.Addr(), troubleText(err)))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-a.closed:
			return nil, nil, fmt.Errorf("accepting on %s: %w", a.source.Addr(), net.ErrClosed)
		}
		pause = min(2*pause, maxPause)
	}
}

func (a *Acceptor) flow(s socket) (*flow.Flow, flow.Conn, error) {
	c, err := newConn(s, a.poller)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	f := &flow.Flow{Start: time.Now(), Origin: flow.Origin{
		Listener:  a.listener,
		Transport: flow.Stream,
		// Package net asked for both at accept; this costs no system call.
		Client: addrPort(s.RemoteAddr()),
		Local:  addrPort(s.LocalAddr()),
	}}
	return f, c, nil
}

// addrPort unmaps: a socket of both families shows IPv4 clients as ::ffff:a.b.c.d,
// which no rule for 10.0.0.0/8 would match.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// ended says that the listening socket itself is no more. All else passes:
// accept(2) also reports errors of the connection that it would have given.
func ended(err error) bool {
	for _, end := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func troubleText(err error) error {
	if errors.Is(err, syscall.EMFILE) {
		return inWords(err, "out of file descriptors; raise LimitNOFILE= or `ulimit -n`")
	}
	return err
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

func deadline(past bool) time.Time {
	if past {
		return time.Unix(1, 0)
	}
	return time.Time{}
}
