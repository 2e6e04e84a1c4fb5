package main

import (
	"context"
	"crypto/rand"
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
// $RUNTIME_DIRECTORY that only its user can reach. The next one asks, by a byte; the
// running one sends an offer for each listener, with the socket where there is one,
// and each is acknowledged by its token; then an offer without a key. The next one
// binds, and begins to accept; it says so by the last token, which has the running one
// stop and close the connection. Until then nothing has changed, and whatever goes
// wrong, or is said by who has not read the offers, leaves the running one as it is.
type offer struct {
	Key   string `json:"key"`
	Token string `json:"token"` // of this offer alone

	// In the last one: where the service manager listens, and how often it wants to hear.
	Notify   string        `json:"notify,omitempty"`
	Watchdog time.Duration `json:"watchdog,omitempty"`
}

const (
	handoverStep  = 10 * time.Second // for one message
	handoverBuild = time.Minute      // for the next one to bind and begin
)

// What the next one says. It asks by one byte, the version of all this, so that to a
// process of another version, which may take any byte for an acknowledgement, it has
// not said enough to begin.
const (
	sayAsks  = "1"
	sayHas   = "has"
	sayBegun = "begun"
)

// Offers of what is no listener's have keys that begin so.
const (
	paneOffer    = "pane "
	drainedOffer = "drained " // the address of a server that gets no new flows
	systemdOffer = "systemd " // the name of a socket, which comes with it unless a listener's is the same
)

// Bounds of what is taken over besides.
const (
	mostDrained        = 4096
	mostDrainedAddress = 1024 // bytes
	mostSystemd        = 1024
	mostSystemdName    = 255 // bytes, as systemd has it
)

// mostAsking bounds those who have connected at one time.
const mostAsking = 8

func answer(word, token string) string { return word + " " + token + "\n" }

// hear wants exactly that of c, and refuses anything else at its first byte.
func hear(c net.Conn, want string, within time.Duration) error {
	c.SetDeadline(time.Now().Add(within))
	got := make([]byte, len(want))
	for n := 0; n < len(want); {
		m, err := c.Read(got[n:])
		n += m
		if string(got[:n]) != want[:n] {
			return errors.New("what it says does not answer what was offered: it is no `sallyport upgrade`, or one of another version")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

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
		asking := make(chan struct{}, mostAsking)
		for {
			asking <- struct{}{}
			c, err := door.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				<-asking
				s.log.Warn("accepting who takes over: " + err.Error())
				time.Sleep(handoverStep / 100)
				continue
			}
			// Each by itself: one that says nothing holds up nobody.
			s.serving.Go(func() {
				defer func() { <-asking }()
				defer c.Close()
				ended := context.AfterFunc(ctx, func() { c.Close() })
				defer ended()
				if err := s.handOver(c, door); err != nil && ctx.Err() == nil {
					s.log.Warn("not handed over, what ran before goes on", "err", err.Error())
				}
			})
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
	if err := hear(c, sayAsks, handoverStep); err != nil {
		return fmt.Errorf("process %d did not ask for the sockets: %w", pid, err)
	}
	if err := s.offerTo(c); err != nil {
		return fmt.Errorf("process %d %w", pid, err)
	}
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

// offerTo has c begin with what there is. There is no reload in between, nor a server
// drained, and none after: who waits to do so learns that it is another's by then.
func (s *service) offerTo(c *net.UnixConn) error {
	s.upgrading.Lock()
	defer s.upgrading.Unlock()
	if s.taken.Load() {
		return fmt.Errorf("comes late: %w", errTaken)
	}
	last, err := s.offerAll(c)
	if err != nil {
		return fmt.Errorf("did not get all: %w", err)
	}
	if err := hear(c, answer(sayBegun, last), handoverBuild); err != nil {
		return fmt.Errorf("did not begin: %w", err)
	}
	s.taken.Store(true)
	return nil
}

// offerAll gives the token of the last offer.
func (s *service) offerAll(c *net.UnixConn) (string, error) {
	s.mu.Lock()
	listeners, systemd := s.program.Listening(), s.program.Systemd()
	panes, drained := maps.Clone(s.panes), s.program.Servers().Drained()
	s.mu.Unlock()
	for _, l := range listeners {
		handed, err := l.Hand()
		if errors.Is(err, net.ErrClosed) && !slices.Contains(s.program.Listeners, l) {
			continue // its last association has just ended
		}
		if err == nil {
			_, err = sendOffer(c, offer{Key: l.Key()}, handed...)
		}
		if err != nil {
			return "", fmt.Errorf("handing over %s: %w", l.Name, err)
		}
	}
	for key, p := range panes {
		f, err := p.listener.(interface{ File() (*os.File, error) }).File()
		if err == nil {
			_, err = sendOffer(c, offer{Key: paneKey(key, p.addr)}, f)
		}
		if err != nil {
			return "", fmt.Errorf("handing over %s: %w", key, err)
		}
	}
	for _, one := range systemd {
		var files []*os.File
		if one.File != nil {
			files = append(files, one.File)
		}
		if _, err := sendKept(c, offer{Key: systemdOffer + one.Name}, files...); err != nil {
			return "", fmt.Errorf("handing over systemd:%s: %w", one.Name, err)
		}
	}
	for _, addr := range drained {
		if _, err := sendOffer(c, offer{Key: drainedOffer + addr}); err != nil {
			return "", fmt.Errorf("handing over what is drained: %w", err)
		}
	}
	return sendOffer(c, offer{Notify: os.Getenv("NOTIFY_SOCKET"), Watchdog: watchdog(s.log)})
}

// sendOffer gives the offer's token, once c has acknowledged it.
func sendOffer(c *net.UnixConn, o offer, files ...*os.File) (string, error) {
	defer closeFiles(files)
	return sendKept(c, o, files...)
}

// sendKept leaves the files open.
func sendKept(c *net.UnixConn, o offer, files ...*os.File) (string, error) {
	o.Token = rand.Text()
	text, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	c.SetDeadline(time.Now().Add(handoverStep))
	if err := transport.SendFiles(c, text, files...); err != nil {
		return "", err
	}
	return o.Token, hear(c, answer(sayHas, o.Token), handoverStep)
}

// predecessor is the process that runs, for who takes over from it.
type predecessor struct {
	c      *net.UnixConn
	last   string // the token of its last offer
	handed map[string][]*os.File
	panes  map[string]*os.File

	drained []string // addresses of servers that it has taken out
	systemd []transport.SystemdSocket
}

// takeOver fetches the sockets of the process behind path.
func takeOver(path string) (*predecessor, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("reaching the process that runs: %w\nhint: it opens %s where its $RUNTIME_DIRECTORY says so (RuntimeDirectory= of the unit)", err, path)
	}
	p := &predecessor{c: c, handed: map[string][]*os.File{}, panes: map[string]*os.File{}}
	if err := p.fetch(); err != nil {
		p.Close()
		return nil, fmt.Errorf("taking over the sockets of the process that runs: %w\nhint: its log says why, and it goes on", err)
	}
	return p, nil
}

func (p *predecessor) fetch() error {
	if _, err := p.c.Write([]byte(sayAsks)); err != nil {
		return err
	}
	for {
		o, files, err := p.receive()
		if err != nil {
			return err
		}
		if o.Key == "" {
			closeFiles(files)
			inheritManager(o)
			p.last = o.Token
			return nil
		}
		if err := p.take(o.Key, files); err != nil {
			closeFiles(files)
			return err
		}
	}
}

func (p *predecessor) take(key string, files []*os.File) error {
	if addr, ok := strings.CutPrefix(key, drainedOffer); ok {
		closeFiles(files)
		return p.takeDrained(addr)
	}
	if name, ok := strings.CutPrefix(key, systemdOffer); ok {
		return p.takeSystemd(name, files)
	}
	if !strings.HasPrefix(key, paneOffer) {
		p.handed[key] = files
		return nil
	}
	if len(files) != 1 {
		return fmt.Errorf("%q comes with %d sockets", key, len(files))
	}
	p.panes[key] = files[0]
	return nil
}

func (p *predecessor) takeDrained(addr string) error {
	switch _, _, ok := strings.Cut(addr, "://"); {
	case len(p.drained) == mostDrained:
		return fmt.Errorf("more than %d servers are drained there", mostDrained)
	case !ok || len(addr) > mostDrainedAddress:
		return fmt.Errorf("%.100q is drained there, which is no address of a server", addr)
	}
	p.drained = append(p.drained, addr)
	return nil
}

func (p *predecessor) takeSystemd(name string, files []*os.File) error {
	switch {
	case len(p.systemd) == mostSystemd:
		return fmt.Errorf("more than %d sockets of systemd's", mostSystemd)
	case name == "" || len(name) > mostSystemdName || len(files) > 1:
		return fmt.Errorf("%.100q comes with %d sockets of systemd's", name, len(files))
	}
	one := transport.SystemdSocket{Name: name}
	if len(files) == 1 {
		one.File = files[0]
	}
	p.systemd = append(p.systemd, one)
	return nil
}

// inherit has the program go by what the process behind door hands over; "" is nobody.
func (s *service) inherit(door string) (err error) {
	if door == "" {
		return nil
	}
	if s.before, err = takeOver(door); err != nil {
		return err
	}
	if err := transport.InheritSystemd(s.before.systemd); err != nil {
		return fmt.Errorf("taking over: %w", err)
	}
	s.program.Inherit(s.before.handed)
	if known := s.program.Servers().KeepOut(s.before.drained); len(known) > 0 {
		s.log.Info("drained before, and so still: these servers get no new flows", "servers", strings.Join(known, ","))
	}
	return nil
}

// receive takes one offer, and acknowledges it.
func (p *predecessor) receive() (o offer, files []*os.File, err error) {
	p.c.SetDeadline(time.Now().Add(handoverStep))
	text, files, err := transport.ReceiveFiles(p.c)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err == nil && o.Token == "" {
		err = errors.New("it is a version of sallyport that hands over in another way: restart it")
	}
	if err == nil {
		_, err = p.c.Write([]byte(answer(sayHas, o.Token)))
	}
	if err != nil {
		closeFiles(files)
	}
	return o, files, err
}

func paneKey(key string, addr config.Address) string { return paneOffer + key + " " + addr.String() }

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
	if _, err := p.c.Write([]byte(answer(sayBegun, p.last))); err != nil {
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
	for _, one := range p.systemd {
		one.File.Close() // of nil, an error that changes nothing
	}
	p.handed, p.panes, p.systemd = nil, nil, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Close ends it, whatever has come of it. A nil one has nothing to end.
func (p *predecessor) Close() {
	if p == nil {
		return
	}
	p.release()
	p.c.Close()
}
