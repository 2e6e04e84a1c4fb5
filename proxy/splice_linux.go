package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Side says at which of its two connections a copy failed.
type Side uint8

const (
	Reading Side = iota // the source
	Writing             // the destination
)

// SideError is an error of one side of a copy.
type SideError struct {
	Side Side
	Err  error
}

func (e *SideError) Error() string { return e.Err.Error() }
func (e *SideError) Unwrap() error { return e.Err }

// Splice moves bytes from src to dst by splice(2), which copies none of them
// through this process, until src ends; then it gives nil, and dst is not closed.
// Its errors are a [*SideError], or plain where there is no pipe to be had. moved
// is told of what dst has taken.
//
// The pipe between the two sockets is held only while bytes are in it, so that a
// direction that is idle costs neither memory nor descriptors. Bytes in it are
// lost where dst fails or its deadline passes; src's deadline loses nothing.
//
// io.Copy would use splice(2) also, but holds its pipe while it waits.
func Splice(dst, src *net.TCPConn, moved func(n int)) error {
	in, err := src.SyscallConn()
	if err != nil {
		return &SideError{Reading, err}
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return &SideError{Writing, err}
	}
	s := splicer{moved: moved}
	fill, drain := s.fill, s.drain
	for {
		if err := s.settle(in.Read(fill)); err != nil {
			s.release()
			if err == io.EOF {
				return nil
			}
			if s.noPipe {
				return err
			}
			return &SideError{Reading, err}
		}
		err := s.settle(out.Write(drain))
		s.release()
		if err != nil {
			return &SideError{Writing, err}
		}
	}
}

// splicer is the state of one Splice: empty and without a pipe, or with a pipe
// that holds n bytes.
type splicer struct {
	moved  func(int)
	pipe   *pipe
	n      int
	err    error
	noPipe bool
}

const (
	spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	// A pipe's usual capacity. Larger ones save system calls, but past
	// fs.pipe-user-pages-soft (1,024 pipes of this size) the kernel gives a user
	// none but tiny ones; and it is what a flow buffers towards a slow reader.
	spliceMax = 64 << 10
)

func (s *splicer) fill(fd uintptr) (done bool) {
	if s.pipe == nil {
		if s.pipe, s.err = takePipe(); s.err != nil {
			s.err, s.noPipe = fmt.Errorf("no pipe for splice: %w", s.err), true
			return true
		}
	}
	n, err := splice(int(fd), s.pipe.w, spliceMax)
	switch {
	case err == unix.EAGAIN:
		s.release()
		return false
	case err != nil:
		s.err = err
	case n == 0:
		s.err = io.EOF
	}
	s.n = n
	return true
}

func (s *splicer) drain(fd uintptr) (done bool) {
	for s.n > 0 {
		n, err := splice(s.pipe.r, int(fd), s.n)
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			s.err = err
			return true
		case n == 0:
			s.err = io.ErrShortWrite
			return true
		}
		s.n -= n
		s.moved(n)
	}
	return true
}

func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, spliceFlags)
		if err != unix.EINTR {
			return int(max(n, 0)), err
		}
	}
}

// settle joins what the runtime says of a wait with what the calls met.
func (s *splicer) settle(wait error) error {
	err := s.err
	s.err = nil
	if wait != nil {
		if op, ok := errors.AsType[*net.OpError](wait); ok {
			op.Op = "splice"
		}
		return wait
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return &net.OpError{Op: "splice", Net: "tcp", Err: errno}
	}
	return err
}

// release gives an empty pipe back; one with bytes in it would give them to
// another flow, and is closed.
func (s *splicer) release() {
	if s.pipe == nil {
		return
	}
	p, empty := s.pipe, s.n == 0
	s.pipe, s.n = nil, 0
	defer func() { <-pipesInUse }()
	if empty {
		select {
		case pipes <- p:
			return
		default:
		}
	}
	p.close()
}

// pipes are empty ones, for any flow. Not a sync.Pool: that forgets what it holds,
// and a descriptor would then wait for a collection that an idle process, or one
// that moves bytes without garbage, does not run.
var pipes = make(chan *pipe, 64)

// pipesInUse counts those that hold bytes. Peers that do not read must not take
// the file descriptors that others' sockets need: past so many, bytes go through
// a buffer.
var pipesInUse = make(chan struct{}, MaxPipes)

// MaxPipes is how many there are at most, of two descriptors each.
const MaxPipes = 128

var errNoPipe = errors.New("too many pipes are in use")

type pipe struct{ r, w int }

func takePipe() (*pipe, error) {
	select {
	case pipesInUse <- struct{}{}:
	default:
		return nil, errNoPipe
	}
	select {
	case p := <-pipes:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		<-pipesInUse
		return nil, err
	}
	return &pipe{r: fds[0], w: fds[1]}, nil
}

func (p *pipe) close() {
	// Nothing can be done about a pipe that does not close.
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}
