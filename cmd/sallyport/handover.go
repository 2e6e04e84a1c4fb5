package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/config"
	"sallyport/transport"
)

// How a process hands its sockets to the next, over a unix socket in
// $RUNTIME_DIRECTORY that only its user can reach. The running one sends an offer
// for each listener, with the socket where there is one, and each is acknowledged by
// a byte; then an offer without a key. The next one binds, and begins to accept; its
// byte has the running one stop, which closes the connection. Until then nothing has
// changed, and whatever goes wrong leaves the running one as it is.
type offer struct {
	Key string `json:"key"`

	// In the last one: where the service manager listens, and how often it wants to hear.
	Notify   string        `json:"notify,omitempty"`
	Watchdog time.Duration `json:"watchdog,omitempty"`
}

const (
	handoverStep  = 10 * time.Second // for one message
	handoverBuild = time.Minute      // for the next one to bind and begin
)

var acknowledged = []byte{'\n'}

// doorPath is where a process waits for the next; "" is nowhere.
func doorPath(runtime string) string {
	dir, _, _ := strings.Cut(runtime, ":")
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "upgrade.sock")
}

// openDoor waits for the next process, where there is a folder to do so in.
func (s *service) openDoor(ctx context.Context) {
	if s.doorPath == "" {
		return
	}
	door, err := transport.ListenDoor(ctx, s.doorPath)
	if err != nil {
		s.log.Warn("no `sallyport upgrade` of this process: " + err.Error())
		return
	}
	s.serving.Go(func() {
		defer door.Close()
		stop := context.AfterFunc(ctx, func() { door.Close() })
		defer stop()
		for {
			c, err := door.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				s.log.Warn("accepting who takes over: " + err.Error())
				time.Sleep(handoverStep / 100)
				continue
			}
			ended := context.AfterFunc(ctx, func() { c.Close() })
			if err := s.handOver(c, door); err != nil {
				s.log.Warn("not handed over, what ran before goes on", "err", err.Error())
			}
			ended()
			c.Close()
		}
	})
}

// handOver gives c all sockets, and ends accepting once they are served there.
func (s *service) handOver(c *net.UnixConn, door *transport.Door) error {
	pid, uid, err := transport.PeerOf(c)
	if err != nil {
		return err
	}
	if uid != os.Getuid() && uid != 0 {
		return fmt.Errorf("uid %d is neither ours nor root", uid)
	}
	s.upgrading.Lock() // no reload in between: what was offered is what there is
	defer s.upgrading.Unlock()
	if err := s.offerAll(c); err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(handoverBuild))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return fmt.Errorf("process %d did not begin: %w", pid, err)
	}
	s.taken.Store(true)
	s.log.Info("another process has taken over: open connections may finish", "pid", pid)
	s.manager.tell(fmt.Sprintf("MAINPID=%d", pid))
	door.Close() // before c, whose end tells the other one that the place is free
	select {
	case s.successor <- pid:
	case <-s.left: // it ends in any case
	}
	<-s.left
	return nil
}

func (s *service) offerAll(c *net.UnixConn) error {
	s.mu.Lock()
	listeners, panes := s.program.Listeners, maps.Clone(s.panes)
	s.mu.Unlock()
	for _, l := range listeners {
		handed, err := l.Hand()
		if err == nil {
			err = sendOffer(c, offer{Key: l.Key()}, handed...)
		}
		if err != nil {
			return fmt.Errorf("handing over %s: %w", l.Name, err)
		}
	}
	for key, p := range panes {
		f, err := p.listener.(interface{ File() (*os.File, error) }).File()
		if err == nil {
			err = sendOffer(c, offer{Key: paneKey(key, p.addr)}, f)
		}
		if err != nil {
			return fmt.Errorf("handing over %s: %w", key, err)
		}
	}
	return sendOffer(c, offer{Notify: os.Getenv("NOTIFY_SOCKET"), Watchdog: watchdog(s.log)})
}

func sendOffer(c *net.UnixConn, o offer, files ...*os.File) error {
	defer closeFiles(files)
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(handoverStep))
	if err := transport.SendFiles(c, text, files...); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// predecessor is the process that runs, for who takes over from it.
type predecessor struct {
	c      *net.UnixConn
	handed map[string][]*os.File
	panes  map[string]*os.File
}

// takeOver fetches the sockets of the process behind path.
func takeOver(path string) (*predecessor, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("reaching the process that runs: %w\nhint: it opens %s where its $RUNTIME_DIRECTORY says so (RuntimeDirectory= of the unit)", err, path)
	}
	p := &predecessor{c: c, handed: map[string][]*os.File{}, panes: map[string]*os.File{}}
	for {
		c.SetDeadline(time.Now().Add(handoverStep))
		text, files, err := transport.ReceiveFiles(c)
		var o offer
		if err == nil {
			err = json.Unmarshal(text, &o)
		}
		if err == nil {
			_, err = c.Write(acknowledged)
		}
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("taking over the sockets of the process that runs: %w", err)
		}
		if o.Key == "" {
			inheritManager(o)
			return p, nil
		}
		switch {
		case !strings.HasPrefix(o.Key, "pane "):
			p.handed[o.Key] = files
		case len(files) == 1:
			p.panes[o.Key] = files[0]
		default:
			closeFiles(files)
		}
	}
}

func paneKey(key string, addr config.Address) string { return "pane " + key + " " + addr.String() }

// pane gives the socket of what a process is looked at by; nil is none.
func (p *predecessor) pane(key string, addr config.Address) *os.File {
	if p == nil {
		return nil
	}
	return p.panes[paneKey(key, addr)]
}

// begun has the other process stop accepting, and returns when it has.
func (p *predecessor) begun() error {
	p.c.SetDeadline(time.Now().Add(handoverStep))
	if _, err := p.c.Write(acknowledged); err != nil {
		return err
	}
	_, err := p.c.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("the process before us has not stopped accepting: %w", err)
}

// release lets go of what was fetched: what was used has been opened once more.
func (p *predecessor) release() {
	for _, files := range p.handed {
		closeFiles(files)
	}
	closeFiles(slices.Collect(maps.Values(p.panes)))
	p.handed, p.panes = nil, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Close ends it, whatever has come of it.
func (p *predecessor) Close() {
	p.release()
	p.c.Close()
}
