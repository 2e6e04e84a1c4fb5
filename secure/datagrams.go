package secure

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/lease"
	"sallyport/wire"
)

// datagrams is the connection below the DTLS engine, as under is below crypto/tls.
// It adds what the engine lacks:
//
//   - a cookie exchange that was made outside, where it costs no state: see [afterCookie];
//   - only such records as the state of the connection has a place for. The engine
//     would answer data in clear, which anybody can send from a false address, by
//     ending the connection, and it keeps fragments in clear as long as it lives;
//   - a bound on what the engine is shown before the peer has finished its handshake,
//     and on what it keeps of messages after it;
//   - doubt: see [rumour];
//   - the order of the handshake's end and of what comes after it: see [datagrams.settle];
//   - the gate, which says when a read of the engine would find something.
//
// The engine reads in one goroutine, writes in several, and closes from any.
type datagrams struct {
	flow.Conn
	packets flow.Packets // Conn; nil where the peer cannot move
	engine  *dtls.Conn
	gate    gate

	pending [][]byte   // handed up before anything is read
	behind  int        // records that may be data in pending, behind the Finished that came with them
	hello   wire.Hello // of the client; of a server's connection
	cookie  []byte     // that the client has shown already
	planted bool       // the engine has it

	left, leftEarly int         // bytes that the peer may still send in its handshake, in clear and encrypted
	spent           atomic.Bool // left is below zero
	rumour          rumour

	from   net.Addr       // of the datagram handed up last
	peer   netip.AddrPort // where the connection knows its peer
	bound  atomic.Int32   // length of the connection IDs that we gave out; 0 is none
	open   atomic.Bool    // the handshake is finished
	closed atomic.Bool

	settled  chan struct{}   // closed when the engine's handshake has come to its end, good or bad
	until    <-chan struct{} // closed when it has no more time
	finished [2]atomic.Bool  // an encrypted message was read and written, as only Finished is
	awaited  bool            // settled was waited for

	discarded atomic.Int64 // records that came after the handshake, and have no place in any state

	err error // why reading ended; once gate is over

	// last is the flight that ends a handshake, if it is ours, by datagrams: the
	// engine forgets that it may have to be sent again, or is not shown what asks for
	// it (RFC 6347, section 4.2.4).
	last   atomic.Pointer[[][]byte]
	repeat int

	parts [2]reflect.Value // of messages that the engine keeps: how many, and their bytes
}

const (
	// mostParts and mostPartBytes are what the engine may keep of messages that come
	// after the handshake. There are none that anybody needs, but a peer that would
	// like to agree anew may send them in parts.
	mostParts     = 16
	mostPartBytes = 16 << 10
	// mostRepeats bounds how often last is sent: who asks for it is not known.
	mostRepeats = 8

	// settleTime is more than an engine that has all it needs takes to say so.
	settleTime = 250 * time.Millisecond

	cookieSize = 20 // as the engine's are

	typeChangeCipherSpec = 20
	typeApplicationData  = 23
	typeClientHello      = 1
	typeServerHello      = 2
	typeCertificate      = 11

	typeCertificateVerify = 15
	typeClientKeyExchange = 16

	typeHelloVerify = 3
)

// newDatagrams goes below an engine in the client's role.
func newDatagrams(c flow.Conn) *datagrams {
	d := &datagrams{Conn: c, left: mostHandshake, leftEarly: mostEarly, peer: addrPortOf(c.RemoteAddr()), settled: make(chan struct{})}
	d.packets, _ = c.(flow.Packets)
	d.gate.init()
	return d
}

// afterCookie goes below an engine in the server's role. The client's first
// datagram is a hello with a cookie, which was verified where no state is kept; the
// engine knows only cookies of its own. So it is first shown a hello without one,
// made from the client's. Its HelloVerifyRequest goes nowhere, and brings its
// cookie to be replaced by the client's: then comes the hello as the client sent it,
// with which both transcripts begin (RFC 6347, section 4.2.1).
func afterCookie(c flow.Conn, deadline time.Time) (*datagrams, error) {
	d := newDatagrams(c)
	unit := lease.Get(unitSize)
	defer unit.Put()
	p := unit.Data[:unitSize]
	c.SetReadDeadline(deadline)
	n, from, err := d.receive(p)
	c.SetReadDeadline(time.Time{})
	if err != nil {
		return nil, err
	}
	datagram := bytes.Clone(p[:n])
	hello, err := wire.ParseDTLSHello(datagram)
	switch {
	case err != nil:
		return nil, flow.Fail(flow.HelloMalformed, "reading the ClientHello: %w", err)
	case len(hello.Cookie) != cookieSize:
		return nil, flow.Fail(flow.Internal, "a ClientHello with a cookie of %d bytes came past the cookie exchange", len(hello.Cookie))
	case hello.MessageSeq != 1:
		// The engine numbers its messages by the hellos that it has seen, two.
		return nil, flow.Fail(flow.ClientHandshake, "the client's ClientHello with a cookie is message %d of its handshake, and not 1", hello.MessageSeq)
	}
	before := hello.RecordSeq - 1
	if hello.RecordSeq == 0 {
		before = 1
	}
	d.hello, d.cookie, d.from = *hello, bytes.Clone(hello.Cookie), from
	d.pending = [][]byte{hello.DTLSRecord(0, before, nil), datagram}
	return d, nil
}

// errUnfit says that the engine is not the one that this was written for.
var errUnfit = errors.New("this DTLS engine does not keep its cookie where the cookie exchange needs it; the version of github.com/pion/dtls that sallyport was built with is not fit for it")

// cookieOf is the memory in which the engine has its cookie. It is empty until a
// first hello has come.
func cookieOf(engine *dtls.Conn) (cookie []byte, err error) {
	state := fieldOf(engine, "state")
	if !state.IsValid() {
		return nil, errUnfit
	}
	field := state.FieldByName("cookie")
	if !field.IsValid() || field.Type() != bytesType {
		return nil, errUnfit
	}
	return field.Bytes(), nil
}

// partsOf are the engine's own counts of the parts of messages that it keeps.
func partsOf(engine *dtls.Conn) (parts [2]reflect.Value, ok bool) {
	buffer := reflect.Indirect(reflect.ValueOf(engine).Elem().FieldByName("fragmentBuffer"))
	if buffer.Kind() != reflect.Struct {
		return parts, false
	}
	parts = [2]reflect.Value{buffer.FieldByName("totalFragmentCount"), buffer.FieldByName("totalBufferSize")}
	return parts, parts[0].Kind() == reflect.Int && parts[1].Kind() == reflect.Int
}

// heldOf counts what the engine has read and not given; it is nil if that cannot be told.
func heldOf(engine *dtls.Conn) func() int {
	held := reflect.ValueOf(engine).Elem().FieldByName("decrypted")
	if held.Kind() != reflect.Chan {
		return nil
	}
	return held.Len
}

// plant is called while the engine writes, in its own goroutine.
func (d *datagrams) plant() error {
	cookie, err := cookieOf(d.engine)
	if err != nil {
		return err
	}
	if len(cookie) != len(d.cookie) {
		return errUnfit
	}
	copy(cookie, d.cookie)
	d.planted = true
	return nil
}

func (d *datagrams) WriteTo(p []byte, to net.Addr) (int, error) {
	switch {
	case d.closed.Load():
		return 0, net.ErrClosed
	case d.cookie != nil && !d.planted && isHandshake(p, typeHelloVerify):
		return len(p), d.plant()
	case !d.open.Load():
		d.keep(p)
	}
	if d.packets != nil && d.bound.Load() > 0 {
		return d.packets.WriteTo(p, to)
	}
	return d.Conn.Write(p)
}

// isHandshake says whether p begins with this message in clear.
func isHandshake(p []byte, message uint8) bool {
	r, _, err := wire.ReadRecord(p, 0)
	return err == nil && r.Type == wire.TypeHandshake && r.Epoch == 0 && len(r.Body) > 0 && r.Body[0] == message
}

func (d *datagrams) receive(p []byte) (int, net.Addr, error) {
	if d.packets != nil {
		return d.packets.ReadFrom(p)
	}
	n, err := d.Conn.Read(p)
	return n, d.Conn.RemoteAddr(), err
}

// ReadFrom gives the engine its next datagram. When it comes for one, it has done
// with the one before.
func (d *datagrams) ReadFrom(p []byte) (int, net.Addr, error) {
	d.follow()
	if len(d.pending) > 0 {
		if d.ended() {
			d.settle()
		}
		n := copy(p, d.pending[0])
		d.pending = d.pending[1:]
		d.gate.add(d.behind)
		d.behind = 0
		return n, d.from, nil
	}
	d.gate.rest()
	for {
		if d.closed.Load() {
			return 0, nil, d.end(net.ErrClosed)
		}
		if d.hoards() {
			return 0, nil, d.end(errHoard)
		}
		n, from, err := d.receive(p)
		switch {
		case d.closed.Load():
			return 0, nil, d.end(net.ErrClosed)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if a, _, believed := d.rumour.last(); believed {
				return 0, nil, d.end(inbound.alertError(a))
			}
			return 0, nil, err // set by the engine, which knows why
		case errors.Is(err, flow.ErrTooLarge):
			continue
		case err != nil:
			return 0, nil, d.end(err)
		}
		ended := d.ended()
		kept, finished, records := d.pass(p[:n])
		if kept == 0 {
			continue
		}
		if ended && records > 0 {
			d.settle()
		}
		d.from = from
		if 0 < finished && finished < kept && !ended {
			d.pending, d.behind = append(d.pending, bytes.Clone(p[finished:kept])), records
			kept, records = finished, 0
		}
		d.gate.add(records)
		return kept, from, nil
	}
}

// ended says whether the engine has sent and been shown all that ends a handshake, so
// that it is about to say so itself. What it was shown may be a forgery.
func (d *datagrams) ended() bool { return d.finished[0].Load() && d.finished[1].Load() }

// settle waits until the engine has noted the end of its handshake, which it does a
// moment after it has sent its last flight, or has read its peer's. It would take a
// close_notify that comes before for the failure of a handshake that was good.
func (d *datagrams) settle() {
	if d.open.Load() || d.awaited {
		return
	}
	d.awaited = true
	select {
	case <-d.settled:
	case <-d.until:
	case <-time.After(settleTime):
	}
}

// errHoard is about a peer with keys. The engine would keep two megabytes of it.
var errHoard = errors.New("it sends parts of handshake messages that never get whole")

// hoards is called while the engine looks at nothing.
func (d *datagrams) hoards() bool {
	return d.open.Load() && d.parts[0].IsValid() && (d.parts[0].Int() > mostParts || d.parts[1].Int() > mostPartBytes)
}

// end notes why there is nothing more to read; the first reason counts. The engine
// is only told that there is an end: another error it would take for one that passes.
func (d *datagrams) end(err error) error {
	d.gate.finish(func() {
		if d.err == nil {
			d.err = err
		}
	})
	return net.ErrClosed
}

// why is what end has noted.
func (d *datagrams) why() error {
	d.gate.mu.Lock()
	defer d.gate.mu.Unlock()
	return d.err
}

// pass moves those records of p together that the engine is to see, and gives
// their length, that of those up to a Finished, and how many of them may be data.
func (d *datagrams) pass(p []byte) (kept, finished, data int) {
	bound, open := int(d.bound.Load()), d.open.Load()
	for rest := p; len(rest) > 0; {
		r, after, err := wire.ReadRecord(rest, bound)
		if err != nil {
			d.discard(open)
			break // what is cut off, or no record, is not answered (RFC 6347, section 4.1.2.7)
		}
		rest = after
		ends := false
		switch {
		case r.Epoch <= 1 && !open && !d.early(&r, d.cookie != nil):
			continue
		case r.Epoch == 1:
			if r.Type == wire.TypeCID && bound == 0 || r.Type == typeChangeCipherSpec {
				d.discard(open) // the engine takes a ChangeCipherSpec without decrypting it
				continue
			}
			if r.Type != wire.TypeHandshake {
				data++
			}
			// Under a connection ID the first record is Finished, whatever it is called.
			if !open && (r.Type == wire.TypeHandshake || r.Type == wire.TypeCID) {
				ends = finished == 0
				d.finished[0].Store(true)
			}
		case r.Epoch > 1:
			d.discard(open)
			continue
		case open:
			d.again(&r)
			continue
		}
		kept += copy(p[kept:], r.Raw)
		if ends {
			finished = kept
		}
	}
	return kept, finished, data
}

func (d *datagrams) discard(open bool) {
	if open {
		d.discarded.Add(1)
	}
}

// again answers a peer that has not got the flight that ends the handshake, and
// therefore sends its own once more: a server from its ServerHello on, where a session
// is resumed, else a client from its ClientKeyExchange on. A client of this engine
// gives its Finished the number that it had before, so that nothing else of that
// flight is new.
func (d *datagrams) again(r *wire.Record) {
	asks := uint8(typeServerHello)
	if d.cookie != nil {
		asks = typeClientKeyExchange
	}
	last := d.last.Load()
	if last == nil || d.repeat >= mostRepeats || r.Type != wire.TypeHandshake || len(r.Body) == 0 || r.Body[0] != asks {
		d.discard(true)
		return
	}
	d.repeat++
	for _, p := range *last {
		d.Conn.Write(p)
	}
}

// keep notes a Finished, and keeps the flight that ends a handshake, which begins with
// ChangeCipherSpec.
func (d *datagrams) keep(p []byte) {
	if len(p) < 5 {
		return
	}
	for rest := p; len(rest) > 0; {
		r, after, err := wire.ReadRecord(rest, 0)
		if r.Epoch == 1 || rest[0] == wire.TypeCID { // whose length is the peer's affair
			d.finished[1].Store(true)
		}
		if err != nil {
			break
		}
		rest = after
	}
	switch last := d.last.Load(); {
	case p[0] == typeChangeCipherSpec:
		d.last.Store(&[][]byte{bytes.Clone(p)})
	case last != nil && p[4] == 1: // the epoch
		flight := append((*last)[:len(*last):len(*last)], bytes.Clone(p))
		d.last.Store(&flight)
	}
}

// follow tells the connection where its peer is, once the engine has taken a newer
// record from there (RFC 9146, section 6).
func (d *datagrams) follow() {
	if d.bound.Load() == 0 || d.packets == nil || d.from == nil || !d.open.Load() {
		return
	}
	at := addrPortOf(d.from)
	if at == d.peer || !at.IsValid() || d.engine.RemoteAddr() != d.from {
		return
	}
	d.peer = at
	d.packets.Moved(at)
}

func addrPortOf(a net.Addr) netip.AddrPort {
	if u, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		at := u.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// established lets only encrypted records pass from now on, and keeps the last
// flight where it may have to be sent again.
func (d *datagrams) established(repeats bool) {
	if parts, ok := partsOf(d.engine); ok {
		d.parts = parts
	}
	d.gate.know(heldOf(d.engine))
	d.open.Store(true)
	d.rumour.deny()
	if !repeats {
		d.last.Store(nil)
	}
	if d.packets != nil {
		d.packets.Established()
	}
}

// Close is the engine's. It ends its reading and writing, and leaves the connection
// open, for an alert of ours or for its owner.
func (d *datagrams) Close() error {
	if d.closed.CompareAndSwap(false, true) {
		d.rumour.deny()
		d.gate.finish(nil)
		d.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// SetDeadline and SetWriteDeadline are not the engine's to use: whoever holds the
// connection sets the deadlines of its writes.
func (d *datagrams) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (d *datagrams) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline is how the engine ends a read when its context does.
func (d *datagrams) SetReadDeadline(t time.Time) error {
	if t.IsZero() && d.closed.Load() {
		return nil
	}
	return d.Conn.SetReadDeadline(t)
}

// connectionID makes one and has datagrams with it come here; without, the client
// is told that it need not send any.
func (d *datagrams) connectionID() []byte {
	id := make([]byte, cidSize)
	rand.Read(id)
	if d.packets == nil || d.packets.Bind(id) != nil {
		return nil
	}
	d.bound.Store(cidSize)
	return id
}

// cidSize is the length of our connection IDs. They are random, so that nobody finds
// another's (RFC 9146, section 9).
const cidSize = 8
