package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/flow"
)

// How the sockets of datagrams pass to another process, while the associations stay
// with the one that has their keys. Two processes cannot read one socket, for either
// would take what is the other's. So the successor reads alone, and gives back what
// belongs to an association that its predecessor has, which answers by the same
// socket. Between the two is a unix socket that keeps messages apart; each begins
// with one of these bytes.
const (
	// Of the successor.
	sayTaken  = 'T' // it has bound the sockets, and will read them
	sayPacket = 'P' // sender, datagram

	// Of the predecessor, which has ceased to read.
	saySecrets = 'S' // what its cookies were made with: clients bring them still
	sayHere    = 'H' // sender, random of the latest ClientHello: an association is there
	sayGone    = 'G' // sender: none is there any more
	sayCID     = 'I' // connection ID of an association
	sayCIDGone = 'J' // connection ID, which is nobody's any more
	sayAll     = 'A' // so much for what there was at the start
)

// handoverWithin bounds how long a successor waits to be told what is not its own.
const handoverWithin = 5 * time.Second

const (
	addrSize   = 16 + 4 + 2
	senderSize = addrSize + 16 + addrSize + 1
)

// Bits of a sender's last byte.
const (
	saysNamed = 1 << iota // a header names a client
	saysMissing
	saysEach
)

func appendSender(b []byte, from *sender) []byte {
	local, says := from.local.As16(), byte(0)
	if from.who.Client.IsValid() {
		says |= saysNamed
	}
	if from.who.Missing {
		says |= saysMissing
	}
	if from.who.Each {
		says |= saysEach
	}
	b = append(appendZoned(b, from.client), local[:]...)
	return append(appendZoned(b, from.who.Client), says)
}

func appendZoned(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().As16()
	b = binary.BigEndian.AppendUint32(append(b, ip[:]...), zoneNumber(a.Addr().Zone()))
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// readSender wants senderSize bytes at least.
func readSender(b []byte) *sender {
	says := b[senderSize-1]
	from := &sender{key: key{readZoned(b), netip.AddrFrom16([16]byte(b[addrSize:])).Unmap()}}
	from.who.Missing, from.who.Each = says&saysMissing != 0, says&saysEach != 0
	if says&saysNamed != 0 {
		from.who.Client = readZoned(b[addrSize+16:])
	}
	return from
}

func readZoned(b []byte) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(b)).Unmap()
	if zone := binary.BigEndian.Uint32(b[16:]); zone != 0 {
		ip = ip.WithZone(strconv.Itoa(int(zone)))
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[20:]))
}

// messages gives a socket of a pair that keeps messages apart, and the other as a file.
func messages() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	c, err := net.FileConn(near)
	if err != nil {
		far.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), far, nil
}

// Files gives the sockets once more, for a process that takes over from this one, and
// last the one by which the two speak. Who gets them closes them.
func (a *PacketAcceptor) Files() ([]*os.File, error) {
	var files []*os.File
	for _, s := range a.sockets {
		f, err := s.File()
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	near, far, err := messages()
	if err != nil {
		closeAll(files)
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.offered != nil {
		a.offered.Close()
	}
	a.offered = near
	return append(files, far), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Leave ends Accept as Close does. Where another process has bound what Files gave,
// it reads the sockets from then on, and this one's associations go on by what it
// gives back; should it end before them, or leave the sockets to yet another, so do they.
func (a *PacketAcceptor) Leave() error {
	a.mu.Lock()
	c := a.offered
	a.offered = nil
	a.mu.Unlock()
	if c == nil {
		return a.Close()
	}
	if !taken(c) {
		return errors.Join(c.Close(), a.Close())
	}
	for _, s := range a.sockets {
		_ = s.SetReadDeadline(time.Unix(1, 0)) // fails only of one that is closed
	}
	a.readers.Wait()
	if p := a.before.Load(); p != nil {
		p.c.Close() // nobody reads for the process before us any more
	}
	// Not by way of the queue: without an association, Close empties that at once, and
	// clients bring the cookies all the same. An empty socket has room for it.
	_, _ = c.Write(append([]byte{saySecrets}, a.cookies.export(time.Now())...))
	s := newSuccessor(c)
	a.mu.Lock()
	for k := range a.at {
		s.say(sayHere, a.here(&sender{key: k}))
	}
	for k := range a.each {
		s.say(sayHere, a.here(k.sender()))
	}
	for id := range a.cids {
		s.say(sayCID, []byte(id))
	}
	s.say(sayAll, nil)
	if a.successor = s; a.ended {
		s.close()
	}
	a.mu.Unlock()
	go s.write()
	a.readers.Go(func() { a.givenBack(s) })
	return a.Close()
}

// taken says whether the other side of c has bound the sockets.
func taken(c *net.UnixConn) bool {
	var said [1]byte
	n := 0
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), said[:], unix.MSG_DONTWAIT) })
	}
	return n == 1 && said[0] == sayTaken
}

// givenBack takes what the successor reads of ours.
func (a *PacketAcceptor) givenBack(s *successor) {
	r := &reader{a: a, socket: a.sockets[0], baker: baker{jar: &a.cookies}}
	for buf := make([]byte, 1+senderSize+packetMax); ; {
		n, err := s.c.Read(buf)
		if err != nil {
			break
		}
		if n > senderSize && buf[0] == sayPacket {
			r.take(time.Now(), readSender(buf[1:]), buf[1+senderSize:n])
		}
	}
	s.close()
	a.mu.RLock()
	var all []*packetConn
	for _, p := range a.at {
		all = append(all, p.now, p.shadow)
	}
	for _, p := range a.each {
		all = append(all, p.now)
	}
	for _, c := range a.cids {
		all = append(all, c)
	}
	a.mu.RUnlock()
	for _, c := range all {
		if c != nil {
			c.finish(flow.Fail(flow.Drained, "the process that has taken the socket over has ended"))
		}
	}
}

// here is what a successor is to know of whom an association takes.
func (a *PacketAcceptor) here(from *sender) []byte {
	p := a.placeOf(from.key, &from.who)
	latest := p.now
	if p.shadow != nil {
		latest = p.shadow
	}
	return append(appendSender(nil, from), latest.random[:]...)
}

// placed tells a successor what has become of a place. mu is held.
func (a *PacketAcceptor) placed(from sender) {
	switch {
	case a.successor == nil:
	case a.placeOf(from.key, &from.who).now != nil:
		a.successor.say(sayHere, a.here(&from))
	default:
		a.successor.say(sayGone, appendSender(nil, &from))
	}
}

// named tells a successor what has become of a connection ID. mu is held.
func (a *PacketAcceptor) named(kind byte, id string) {
	if a.successor != nil {
		a.successor.say(kind, []byte(id))
	}
}

// successor is the process that reads the sockets now. What it is told waits in out,
// which has no more than a message for each change of an association.
type successor struct {
	c      *net.UnixConn
	mu     sync.Mutex
	some   sync.Cond
	out    [][]byte
	closed bool
}

func newSuccessor(c *net.UnixConn) *successor {
	s := &successor{c: c}
	s.some.L = &s.mu
	return s
}

func (s *successor) say(kind byte, what []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.out = append(s.out, append([]byte{kind}, what...))
		s.some.Signal()
	}
}

func (s *successor) write() {
	for {
		s.mu.Lock()
		for len(s.out) == 0 && !s.closed {
			s.some.Wait()
		}
		out := s.out
		s.out = nil
		s.mu.Unlock()
		if len(out) == 0 {
			return
		}
		for _, m := range out {
			if _, err := s.c.Write(m); err != nil {
				return // which its reader sees too
			}
		}
	}
}

func (s *successor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.out = true, nil
	s.some.Signal()
	s.c.Close()
}

// inherit takes over what Files gave in another process.
func (a *PacketAcceptor) inherit(files []*os.File) error {
	if len(files) < 2 {
		return errors.New("what was handed over are no sockets of datagrams")
	}
	last := len(files) - 1
	for _, f := range files[:last] {
		s, err := packetsOfFile(f)
		if err != nil {
			a.closeSockets()
			return err
		}
		a.sockets = append(a.sockets, s)
	}
	c, err := net.FileConn(files[last])
	u, ok := c.(*net.UnixConn)
	if err == nil && !ok {
		c.Close()
		err = fmt.Errorf("%s is no unix socket", files[last].Name())
	}
	var raw syscall.RawConn
	if err == nil {
		raw, err = u.SyscallConn()
	}
	if err == nil {
		_, err = u.Write([]byte{sayTaken})
	}
	if err != nil {
		a.closeSockets()
		return err
	}
	a.inherited = true
	a.before.Store(&predecessor{c: u, raw: raw, at: map[spokenFor][32]byte{}, cids: map[string]bool{}})
	return nil
}

// Begin has the sockets read that another process had, once that one has left. Before
// it, datagrams wait. It is called once.
func (a *PacketAcceptor) Begin() {
	p := a.before.Load()
	if !a.inherited || p == nil {
		return
	}
	a.inherited = false
	_ = p.c.SetReadDeadline(time.Now().Add(handoverWithin))
	if p.listen(&a.cookies, true) {
		_ = p.c.SetReadDeadline(time.Time{})
		go func() {
			p.listen(&a.cookies, false)
			a.before.Store(nil)
		}()
	} else {
		a.before.Store(nil)
	}
	a.read()
}

// predecessor is the process that had the sockets.
type predecessor struct {
	c   *net.UnixConn
	raw syscall.RawConn

	mu   sync.RWMutex
	at   map[spokenFor][32]byte // where it has an association, by whose ClientHello
	cids map[string]bool
}

// listen takes what the other process says: to the end of what there is at the start,
// where that is asked for, else until it has ended.
func (p *predecessor) listen(j *jar, start bool) (more bool) {
	for buf := make([]byte, 1<<10); ; {
		n, err := p.c.Read(buf)
		if err != nil {
			break
		}
		switch m := buf[1:n]; {
		case buf[0] == saySecrets:
			j.adopt(m, time.Now())
		case buf[0] == sayAll && start:
			return true
		default:
			p.note(buf[0], m)
		}
	}
	p.c.Close()
	return false
}

func (p *predecessor) note(kind byte, m []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case kind == sayHere && len(m) == senderSize+32:
		p.at[readSender(m).spokenFor()] = [32]byte(m[senderSize:])
	case kind == sayGone && len(m) == senderSize:
		delete(p.at, readSender(m).spokenFor())
	case kind == sayCID:
		p.cids[string(m)] = true
	case kind == sayCIDGone:
		delete(p.cids, string(m))
	}
}

// has says whether it has an association that takes what comes from there.
func (p *predecessor) has(from *sender) bool {
	if p == nil {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.at[from.spokenFor()]
	return ok
}

// began says whether it has one that began with the ClientHello of that random.
func (p *predecessor) began(from *sender, random []byte) bool {
	if p == nil {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	r, ok := p.at[from.spokenFor()]
	return ok && string(r[:]) == string(random)
}

func (p *predecessor) hasCID(id []byte) bool {
	if p == nil {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.cids[string(id)]
}

// give gives a datagram back, if it can be taken at once.
func (p *predecessor) give(from *sender, datagram []byte) (taken bool) {
	head := appendSender(append(make([]byte, 0, 1+senderSize), sayPacket), from)
	err := p.raw.Control(func(fd uintptr) {
		_, e := unix.SendmsgBuffers(int(fd), [][]byte{head, datagram}, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		taken = e == nil
	})
	return taken && err == nil
}
