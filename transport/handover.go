package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// errNoFile is of a listening socket that no other process can have.
var errNoFile = errors.New("this socket has no descriptor to hand over")

// File gives the listening socket once more, for a process that takes over from this
// one. Both may accept from it.
func (a *Acceptor) File() (*os.File, error) { return fileOf(a.source.Listener) }

func fileOf(l net.Listener) (*os.File, error) {
	s, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errNoFile
	}
	return s.File()
}

// Leave ends Accept as Close does, for another process has the socket: a unix
// socket's file stays, and nobody who waits to be accepted is reset.
func (a *Acceptor) Leave() error {
	a.closing.Do(func() {
		close(a.closed)
		a.closeErr = a.source.Listener.Close()
	})
	return a.closeErr
}

// listenHanded takes over a socket that another process has bound, for w.
func listenHanded(w Where) (*source, error) {
	l, err := net.FileListener(w.File)
	if err != nil {
		return nil, inWords(err, "what was handed over is no socket that listens for streams")
	}
	s, err := sourceOf(l)
	if u, ok := l.(*net.UnixListener); ok && err == nil && w.Unix != "" && w.Unix[0] != '@' {
		return removing(u, w.Unix)
	}
	return s, err
}

// mostFiles bounds the files of one message.
const mostFiles = 8

// SendFiles sends a message with up to 8 open files over a unix socket.
func SendFiles(c *net.UnixConn, message []byte, files ...*os.File) error {
	var fds []int
	for _, f := range files {
		raw, err := f.SyscallConn() // Fd would have it block, for the other process too
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return err
		}
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix(message, rights, nil)
	runtime.KeepAlive(files)
	return err
}

// mostMessage bounds what ReceiveFiles takes, in bytes.
const mostMessage = 16 << 10

// ReceiveFiles takes one message of SendFiles, and what came with it.
func ReceiveFiles(c *net.UnixConn) (message []byte, files []*os.File, err error) {
	buf, oob := make([]byte, mostMessage), make([]byte, unix.CmsgSpace(mostFiles*4))
	n, m, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	for _, cm := range messages {
		fds, e := unix.ParseUnixRights(&cm)
		err = errors.Join(err, e)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	if err == nil && flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		err = fmt.Errorf("a message with %d files that was cut off", len(files))
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return buf[:n], files, nil
}

// PeerOf says who is at the other end of a unix socket (unix(7), SO_PEERCRED).
func PeerOf(c *net.UnixConn) (pid, uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, 0, e
	}
	if err != nil {
		return 0, 0, err
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// Door is a unix socket for one's own processes, in a folder of one's own.
type Door struct {
	*net.UnixListener
	close func() error
}

// ListenDoor binds path, which nobody else may listen on.
func ListenDoor(ctx context.Context, path string) (*Door, error) {
	s, err := listenUnix(ctx, path, Private)
	if err != nil {
		return nil, fmt.Errorf("listening on unix:%s: %w", path, err)
	}
	return &Door{s.Listener.(*net.UnixListener), s.close}, nil
}

// Close removes the socket's file too.
func (d *Door) Close() error { return d.close() }
