package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/flow"
)

// PacketOptions are those of [ListenPackets]. The zero value listens for plain UDP.
type PacketOptions struct {
	DTLS      bool // an association begins with a ClientHello that proved its address
	Sockets   int  // 0: one a processor, up to 4
	CIDLength int  // bytes of the connection IDs that will be bound; 0 is 8
	Limits    PacketLimits

	// Inherited are of another process, by [PacketAcceptor.Files], and taken in place
	// of binding. Nothing is read before [PacketAcceptor.Begin].
	Inherited []*os.File

	// Headers gives what takes off a datagram what its sender says ahead of it of
	// whose it is, or nil while nothing stands there; a nil Headers always does. It is asked now and then.
	Headers func() flow.Header

	// Judge is asked before anything is kept of a client, whom a header may name; nil
	// takes all. local is where the datagram came to. hello is
	// the datagram with its ClientHello, which brings no cookie of ours; nil
	// without DTLS. It must not block, nor keep hello, and readers call it side by side.
	Judge func(client, local netip.AddrPort, hello []byte) Verdict
}

// Verdict says what becomes of one who sends a first datagram.
type Verdict uint8

const (
	Take   Verdict = iota // an association, under DTLS once the client has shown our cookie
	Pass                  // a [flow.Unproven] association at once: it is passed on undecrypted, and the cookie is to be the server's
	Refuse                // none; the datagram is dropped
)

// PacketAcceptor gives the associations of one UDP address as flows. Its
// connections are a [flow.Packets], a [flow.UnitReader] and a [flow.Waiter].
//
// Close takes no new ones; those that live go on, and the last closes the sockets.
// Until then Reopen has it take new ones again.
type PacketAcceptor struct {
	listener string
	dtls     bool
	cidSize  int
	limits   PacketLimits
	headers  func() flow.Header
	judge    func(client, local netip.AddrPort, hello []byte) Verdict
	addr     net.Addr
	port     uint16
	host     netip.Addr // unspecified: all addresses
	sockets  []*packetSocket
	readers  sync.WaitGroup
	backlog  chan *packetConn

	counts  PacketCounters
	pool    packetPool
	queued  atomic.Int64 // bytes in all queues
	cookies jar
	waiting waiting

	mu           sync.RWMutex
	at           map[key]place
	each         map[spokenFor]place // those that have an association of their own by their header
	cids         map[string]*packetConn
	associations tally
	handshakes   tally
	strangers    tally // those who have to show the server's cookie: they take no place from who has shown ours
	closing      bool
	closed       chan struct{} // once closing; Reopen makes another
	ended        bool          // the sockets are closed
	offered      *net.UnixConn // to a process that may take the sockets over
	successor    *successor    // which has; nil: none

	inherited bool                        // the sockets are another process's, and not yet read; of Begin alone
	before    atomic.Pointer[predecessor] // which has associations there still; nil: nobody
}

var _ flow.Acceptor = (*PacketAcceptor)(nil)

// key is whose datagrams an association takes.
type key struct {
	client netip.AddrPort
	local  netip.Addr
}

// sender is where a datagram came from, and for whom it is said to speak.
type sender struct {
	key
	who flow.Announced
}

// spokenFor is one client of several for whom an address speaks.
type spokenFor struct {
	key
	named netip.AddrPort
}

func (s spokenFor) sender() *sender {
	return &sender{key: s.key, who: flow.Announced{Client: s.named, Each: true}}
}

// spokenFor is by what an association is found in another process.
func (s *sender) spokenFor() spokenFor {
	if s.who.Each {
		return spokenFor{s.key, s.who.Client}
	}
	return spokenFor{key: s.key}
}

// speaker is whose datagram it is.
func (s *sender) speaker() netip.AddrPort {
	if s.who.Client.IsValid() {
		return s.who.Client
	}
	return s.client
}

// place is the association of an address, and beside it the one that the client
// has begun anew, until that has finished its handshake.
type place struct{ now, shadow *packetConn }

// backlogSize is how many associations wait to be accepted.
const backlogSize = 1024

// ListenPackets binds w for the listener of that name.
func ListenPackets(ctx context.Context, listener string, w Where, o PacketOptions) (*PacketAcceptor, error) {
	if w.Unix != "" {
		return nil, fmt.Errorf("listening on %s: datagrams need a host and a port", w)
	}
	if o.Sockets == 0 {
		o.Sockets = defaultSockets()
	}
	if o.CIDLength == 0 {
		o.CIDLength = 8
	}
	l := o.Limits.withDefaults()
	if o.Headers == nil {
		o.Headers = func() flow.Header { return nil }
	}
	if o.Judge == nil {
		o.Judge = func(netip.AddrPort, netip.AddrPort, []byte) Verdict { return Take }
	}
	a := &PacketAcceptor{
		listener: listener, dtls: o.DTLS, cidSize: o.CIDLength, limits: l, headers: o.Headers, judge: o.Judge,
		backlog: make(chan *packetConn, backlogSize), closed: make(chan struct{}),
		at: make(map[key]place), each: make(map[spokenFor]place), cids: make(map[string]*packetConn),
		associations: newTally(l.Associations, l.PerPrefix), handshakes: newTally(l.Handshakes, l.HandshakesPrefix),
		strangers: newTally(l.Strangers, l.HandshakesPrefix),
	}
	a.waiting = waiting{limits: l, counts: &a.counts}
	var err error
	if len(o.Inherited) > 0 {
		err = a.inherit(o.Inherited)
		if err == nil && w.Systemd != "" {
			err = handedOver().keepRead(w.Systemd, o.Inherited[0])
		}
	} else {
		a.sockets, err = listenPackets(ctx, w, o.Sockets)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", w, err)
	}
	a.addr = a.sockets[0].LocalAddr()
	bound := a.addr.(*net.UDPAddr).AddrPort()
	a.port, a.host = bound.Port(), bound.Addr().Unmap()
	if !a.inherited {
		a.read()
	}
	return a, nil
}

func (a *PacketAcceptor) read() {
	for _, s := range a.sockets {
		a.readers.Go(newReader(a, s).run)
	}
}

// Addr is the address as bound.
func (a *PacketAcceptor) Addr() net.Addr { return a.addr }

// Counters are of all that came and went.
func (a *PacketAcceptor) Counters() *PacketCounters { return &a.counts }

// Live is how many associations there are, and how many of them have not finished
// their handshake.
func (a *PacketAcceptor) Live() (associations, handshakes int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.associations.all, a.handshakes.all + a.strangers.all
}

// Accept gives the next association, with Start and Origin filled, and in Asked whom
// a header names: by it the association was found. With DTLS the
// first datagram that its connection reads is a whole ClientHello in one record,
// whose cookie was ours, unless the connection is unproven. After Close it gives [net.ErrClosed].
func (a *PacketAcceptor) Accept(ctx context.Context) (*flow.Flow, flow.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	a.mu.RLock()
	closed := a.closed
	a.mu.RUnlock()
	select {
	case c := <-a.backlog:
		return &flow.Flow{Start: c.begun, Origin: flow.Origin{
			Listener: a.listener, Transport: flow.Datagram, Client: *c.client.Load(), Local: c.local,
		}, Asked: flow.Asked{Client: c.who.Client, Local: c.who.Local}}, c, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-closed:
		return nil, nil, fmt.Errorf("accepting on %s: %w", a.addr, net.ErrClosed)
	}
}

// Close implements [flow.Acceptor].
func (a *PacketAcceptor) Close() error {
	a.mu.Lock()
	if a.closing {
		a.mu.Unlock()
		return nil
	}
	a.closing = true
	close(a.closed)
	a.mu.Unlock()
	for {
		select {
		case c := <-a.backlog: // which nobody will accept
			c.Close()
			continue
		default:
		}
		break
	}
	a.mu.Lock()
	empty := a.associations.all == 0
	var err error
	if empty {
		err = a.closeSockets()
	}
	a.mu.Unlock()
	if empty {
		a.readers.Wait()
	}
	return err
}

// Reopen has an acceptor that was closed take new associations again, which its
// sockets, while an old one lives, keep any other from doing at this address. It
// says whether that was still possible; if not, the address is free.
func (a *PacketAcceptor) Reopen() bool {
	a.mu.Lock()
	ended, again := a.ended, a.closing && !a.ended
	if again {
		a.closing, a.closed = false, make(chan struct{})
	}
	a.mu.Unlock()
	if ended {
		a.readers.Wait()
	}
	return again
}

// Ended says that the acceptor is closed, and the last association gone.
func (a *PacketAcceptor) Ended() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ended
}

// closeSockets ends the readers; mu is held, and it may be called again.
func (a *PacketAcceptor) closeSockets() error {
	a.ended = true
	var all []error
	for _, s := range a.sockets {
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	if a.offered != nil {
		a.offered.Close()
	}
	if a.successor != nil {
		a.successor.close()
	}
	if p := a.before.Load(); p != nil {
		p.c.Close()
	}
	return errors.Join(all...)
}

// begin makes an association of the datagram that began it. random is that of
// its ClientHello, and unproven says that no cookie of ours came with it. Where a
// bound is reached there is none.
func (a *PacketAcceptor) begin(now time.Time, s *packetSocket, from *sender, random, datagram []byte, unproven bool) {
	c := newPacketConn(a, s, from, now)
	copy(c.random[:], random)
	c.passes, c.unproven = unproven, unproven
	c.deliver(datagram, from.client)

	a.mu.Lock()
	old, ok := a.enter(c)
	a.mu.Unlock()
	if !ok {
		c.Close()
	}
	if old != nil {
		old.restarted()
	}
}

// enter gives c its place, if there is one left for it, and what it takes the
// place of. mu is held.
func (a *PacketAcceptor) enter(c *packetConn) (old *packetConn, ok bool) {
	p := a.placeOf(c.key, &c.who)
	switch {
	case a.closing || !a.dtls && p.now != nil: // another reader was first
		return nil, false
	case p.shadow != nil && c.unproven: // a stranger displaces nobody, and cannot have it begin and end without end
		a.counts.add(PacketsOverHandshakes)
		return nil, false
	case p.shadow != nil: // whose room in the tallies it takes, too
	case a.associations.full(c.prefix):
		a.counts.add(PacketsOverAssociations)
		return nil, false
	case a.dtls && a.pending(c).full(c.prefix):
		a.counts.add(PacketsOverHandshakes)
		return nil, false
	}
	select {
	case a.backlog <- c:
	default:
		a.counts.add(PacketsOverBacklog)
		return nil, false
	}
	if old = p.shadow; old != nil {
		a.forget(old)
	}
	if c.counted, c.handshake = true, a.dtls; c.handshake {
		a.pending(c).take(c.prefix)
	}
	a.associations.take(c.prefix)
	a.counts.add(PacketsBegun)
	if p.now == nil {
		p.now = c
	} else {
		p.shadow = c
	}
	a.setPlace(c, p)
	return old, true
}

// forget has nothing come to c any more, nor be counted for it. mu is held.
func (a *PacketAcceptor) forget(c *packetConn) {
	if !c.counted {
		return
	}
	c.counted = false
	a.associations.give(c.prefix)
	a.settled(c)
	for _, cid := range c.cids {
		delete(a.cids, cid)
		a.named(sayCIDGone, cid)
	}
	a.vacate(c)
	if a.closing && a.associations.all == 0 {
		_ = a.closeSockets() // nobody is left to be told
	}
}

// vacate frees c's place. Where it was an old association's, the client's new one moves up.
func (a *PacketAcceptor) vacate(c *packetConn) {
	p := a.placeOf(c.key, &c.who)
	defer a.placed(sender{c.key, c.who})
	switch c {
	case p.now:
		p.now, p.shadow = p.shadow, nil
	case p.shadow:
		p.shadow = nil
	default:
		return
	}
	a.setPlace(c, p)
}

// placeOf is who takes what comes from k in the name of who. mu is held.
func (a *PacketAcceptor) placeOf(k key, who *flow.Announced) place {
	if who.Each {
		return a.each[spokenFor{k, who.Client}]
	}
	return a.at[k]
}

// setPlace has p be c's place. mu is held.
func (a *PacketAcceptor) setPlace(c *packetConn, p place) {
	switch named := (spokenFor{c.key, c.who.Client}); {
	case c.who.Each && p.now == nil:
		delete(a.each, named)
	case c.who.Each:
		a.each[named] = p
	case p.now == nil:
		delete(a.at, c.key)
	default:
		a.at[c.key] = p
	}
}

// pending is the tally in which c's handshake stands.
func (a *PacketAcceptor) pending(c *packetConn) *tally {
	if c.passes {
		return &a.strangers
	}
	return &a.handshakes
}

// settled counts c's handshake no more. mu is held.
func (a *PacketAcceptor) settled(c *packetConn) {
	if c.handshake {
		c.handshake = false
		a.pending(c).give(c.prefix)
	}
}
