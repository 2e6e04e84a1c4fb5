package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller waits for many connections at once, so that a connection that rests
// needs no goroutine: package net has one wait in each read.
//
// It is an epoll instance within the runtime's own, and takes no thread either.
type Poller struct {
	file *os.File
	raw  syscall.RawConn
	done chan struct{}

	mu      sync.Mutex
	waiting map[int32]*conn // by descriptor; Close of a conn takes it out before it closes that
}

// NewPoller starts a poller; Close ends it.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a poller: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("making a poller: %w", err)
	}
	p := &Poller{file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), waiting: make(map[int32]*conn)}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("making a poller: %w", err)
	}
	go p.run()
	return p, nil
}

// Close ends the poller. What waits by it is not called any more.
func (p *Poller) Close() error {
	err := p.file.Close()
	<-p.done
	return err
}

func (p *Poller) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		// The runtime's poller is edge-triggered: it is waited for only after there
		// was nothing.
		if err := p.raw.Read(func(fd uintptr) bool {
			for {
				got, err := unix.EpollWait(int(fd), events, 0)
				if err != unix.EINTR {
					n = max(got, 0)
					return n > 0
				}
			}
		}); err != nil {
			return
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			c := p.waiting[e.Fd]
			p.mu.Unlock()
			if c != nil {
				c.wake()
			}
		}
	}
}

// add has c woken once when it is readable.
func (p *Poller) add(c *conn, fd int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.left.Load() {
		return net.ErrClosed // forget has been here, or has seen that it need not come
	}
	op := unix.EPOLL_CTL_MOD
	if p.waiting[int32(fd)] != c {
		op = unix.EPOLL_CTL_ADD
		p.waiting[int32(fd)] = c
	}
	var err error
	if cerr := p.raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)})
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		delete(p.waiting, int32(fd))
	}
	return err
}

// forget is called before fd is closed, and may be another's.
func (p *Poller) forget(c *conn, fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[int32(fd)] == c {
		delete(p.waiting, int32(fd))
	}
}

var errNoPoller = errors.New("no poller")

// WhenReadable implements flow.Waiter.
func (c *conn) WhenReadable(f func()) error {
	if c.poller == nil {
		return errNoPoller
	}
	c.waits.Store(true)
	c.waiter.Store(&f)
	var err error
	if cerr := c.raw.Control(func(fd uintptr) { err = c.poller.add(c, int(fd)) }); cerr != nil {
		err = cerr
	}
	if err != nil && c.waiter.Swap(nil) == nil {
		return nil // woken all the same, by Close
	}
	return err
}

// leave takes c out of its poller; it comes before the descriptor is closed.
func (c *conn) leave() {
	c.left.Store(true)
	if c.waits.Load() {
		// Fails only on a closed socket, which has left.
		_ = c.raw.Control(func(fd uintptr) { c.poller.forget(c, int(fd)) })
	}
}

// wake calls what waits, if anything does.
func (c *conn) wake() {
	if f := c.waiter.Swap(nil); f != nil {
		go (*f)()
	}
}
