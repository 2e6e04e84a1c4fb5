package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/flow"
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

// parting is how long associations have to say that they end.
const parting = time.Second

// Leave ends every association, and then closes the sockets: another process reads
// what comes to their address from now on, and could not tell whose is whose.
func (a *PacketAcceptor) Leave() error {
	err := a.Close()
	a.mu.RLock()
	var all []*packetConn
	for _, p := range a.at {
		all = append(all, p.now, p.shadow)
	}
	a.mu.RUnlock()
	for _, c := range all {
		if c != nil {
			c.finish(flow.Fail(flow.Drained, "another process of ours has the socket"))
		}
	}
	for end := time.Now().Add(parting); !a.Ended() && time.Now().Before(end); {
		time.Sleep(parting / 200)
	}
	a.mu.Lock()
	if !a.ended {
		err = errors.Join(err, a.closeSockets())
	}
	a.mu.Unlock()
	a.readers.Wait()
	return err
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

// SendFile sends a message with at most one open file over a unix socket.
func SendFile(c *net.UnixConn, message []byte, f *os.File) error {
	var rights []byte
	if f == nil {
		_, _, err := c.WriteMsgUnix(message, nil, nil)
		return err
	}
	raw, err := f.SyscallConn() // Fd would have it block, for the other process too
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) {
		rights = unix.UnixRights(int(fd))
		_, _, err = c.WriteMsgUnix(message, rights, nil)
	}); err != nil {
		return err
	}
	return err
}

// mostMessage bounds what ReceiveFile takes, in bytes.
const mostMessage = 16 << 10

// ReceiveFile takes one message of SendFile's; f is nil where no file came with it.
func ReceiveFile(c *net.UnixConn) (message []byte, f *os.File, err error) {
	buf, oob := make([]byte, mostMessage), make([]byte, unix.CmsgSpace(4*4))
	n, m, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	for _, cm := range messages {
		fds, e := unix.ParseUnixRights(&cm)
		err = errors.Join(err, e)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	if err == nil && (flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 || len(files) > 1) {
		err = fmt.Errorf("a message with %d files, or cut off", len(files))
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, nil, err
	}
	if len(files) == 1 {
		f = files[0]
	}
	return buf[:n], f, nil
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
