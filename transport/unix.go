package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

func unixSource(l *net.UnixListener, close func() error) *source {
	return &source{
		Listener: l,
		accept: func() (socket, error) {
			c, err := l.AcceptUnix()
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		setDeadline: func(past bool) error { return l.SetDeadline(deadline(past)) },
		close:       close,
	}
}

// listenUnix makes the socket with mode, as far as the umask lets it. The file has it
// from its beginning: Linux takes it from the socket that is bound (unix_bind in
// net/unix/af_unix.c).
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (*source, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), uint32(mode)) })
		return cmp.Or(err, failed)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(ctx, path); err != nil {
			return nil, err
		}
		l, err = lc.Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, unixListenError(path, err)
	}
	u := l.(*net.UnixListener)
	if strings.HasPrefix(path, "@") {
		return unixSource(u, u.Close), nil
	}
	return removing(u, path)
}

// removing has the socket's file go with it.
func removing(u *net.UnixListener, path string) (*source, error) {
	// Package net would remove whatever has that path at Close, even the socket
	// of the process that took over from us.
	u.SetUnlinkOnClose(false)
	ours, err := os.Lstat(path)
	if err != nil {
		u.Close()
		return nil, err
	}
	// Once: the number of a file that has gone is given to the next, which may be the
	// socket of the process that took over.
	return unixSource(u, sync.OnceValue(func() error {
		if now, err := os.Lstat(path); err == nil && os.SameFile(ours, now) {
			// Whether it goes or not, nothing is left to be done about it.
			_ = os.Remove(path)
		}
		return u.Close()
	})), nil
}

// removeStale removes the socket file of a process that is gone. Only what
// refuses a connection is taken for one.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if strings.HasPrefix(path, "@") {
			return inWords(syscall.EADDRINUSE, "another process listens there; `ss -lxp` shows which")
		}
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return inWords(syscall.EADDRINUSE, "%s exists and is no socket; remove it, or choose another path", path)
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		c.Close()
		return inWords(syscall.EADDRINUSE, "another process listens there; `ss -lxp src %s` shows which", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("%s is in use, or another user's (%w)", path, err)
}

func unixListenError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return inWords(fs.ErrNotExist, "the folder of %s does not exist", path)
	case errors.Is(err, syscall.EACCES):
		return inWords(syscall.EACCES, "no permission to make %s; its folder must be writable for this user", path)
	case errors.Is(err, syscall.EINVAL):
		return inWords(syscall.EINVAL, "a unix socket's path may have 107 bytes, this one has %d", len(path))
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
