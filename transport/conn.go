package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"sallyport/flow"
)

// socket is what *net.TCPConn and *net.UnixConn have in common. It leaves out
// ReadFrom and WriteTo: the relay decides how bytes move, not io.Copy.
type socket interface {
	net.Conn
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

// conn implements flow.Conn and its optional interfaces over a stream socket.
// One goroutine reads at a time.
type conn struct {
	socket
	raw  syscall.RawConn
	unit unit
}

var (
	_ flow.Conn       = (*conn)(nil)
	_ flow.Bare       = (*conn)(nil)
	_ flow.Aborter    = (*conn)(nil)
	_ flow.UnitReader = (*conn)(nil)
)

func newConn(s socket) (*conn, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{socket: s, raw: raw}
	// Bound once: a method value made at each read would be garbage of each read.
	c.unit.step = c.unit.try
	return c, nil
}

func (c *conn) Transport() flow.Transport { return flow.Stream }

func (c *conn) Bare() *net.TCPConn {
	t, _ := c.socket.(*net.TCPConn)
	return t
}

// Abort sends a reset over TCP. A unix socket knows none: there the peer sees
// the end of the stream, or ECONNRESET if it had sent what we did not read.
func (c *conn) Abort() error {
	if t, ok := c.socket.(*net.TCPConn); ok {
		// Fails only on a closed socket, of which Close tells.
		_ = t.SetLinger(0)
	}
	return c.socket.Close()
}

// ReadUnit implements flow.UnitReader.
func (c *conn) ReadUnit(lease func() []byte) ([]byte, error) {
	u := &c.unit
	u.lease, u.p, u.n, u.err, u.woken = lease, nil, 0, nil, false
	err := c.raw.Read(u.step)
	p, n := u.p, u.n
	if err == nil {
		err = u.err
	}
	u.lease, u.p, u.err = nil, nil, nil
	switch {
	case err == io.EOF:
		return nil, io.EOF
	case err != nil:
		return nil, c.readError(err)
	}
	return p[:n], nil
}

// readError gives err the form that Read of package net would have given it.
func (c *conn) readError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	} else if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = os.NewSyscallError("read", errno)
	}
	local, remote := c.LocalAddr(), c.RemoteAddr()
	return &net.OpError{Op: "read", Net: local.Network(), Source: local, Addr: remote, Err: err}
}

// unit is the state of one ReadUnit. The runtime calls step at once, and again
// after each wait.
//
// The first call must ask the socket: the poller is edge-triggered and RawConn
// forgets an edge that came before, so that waiting without having seen EAGAIN
// would sleep on bytes that are already there. Asking by read(2) needs a buffer,
// which is held while waiting if there is nothing; poll(2) needs none, and
// unlike recv(2) with MSG_PEEK it does not lock the socket, does not eat a
// pending error, and takes half the time (0.7 of 1.4 µs). It costs only where
// bytes are waiting already: a wait has its EAGAIN either way.
type unit struct {
	step  func(fd uintptr) (done bool)
	lease func() []byte
	p     []byte
	n     int
	err   error
	woken bool
}

func (u *unit) try(fd uintptr) (done bool) {
	if !u.woken && !readable(int(fd)) {
		u.woken = true
		return false
	}
	if u.p == nil {
		u.p = u.lease()
	}
	for {
		n, err := unix.Read(int(fd), u.p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			// Woken by the edge of bytes that the unit before this one took: the
			// poller's thread was late. Rare, and the buffer is kept for the wait.
			u.woken = true
			return false
		case err != nil:
			u.err = err
		case n == 0 && len(u.p) > 0:
			u.err = io.EOF
		default:
			u.n = n
		}
		return true
	}
}

// readable says whether a read gives something at once: bytes, the end or an
// error. Where poll itself fails, so will the read, with the better error.
func readable(fd int) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p[:], 0)
		if err != unix.EINTR {
			return n != 0
		}
	}
}
