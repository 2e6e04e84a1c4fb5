package secure

import (
	"io"
	"sync"
	"time"

	"sallyport/flow"
	"sallyport/lease"
	"sallyport/wire"
)

// under is the connection below crypto/tls. It adds what crypto/tls does not
// tell or do:
//
//   - whether the socket itself has ended, since crypto/tls gives io.EOF for
//     close_notify and for a bare FIN at the border of two records alike;
//   - a fatal alert in clear, in which clients may refuse a TLS 1.3 certificate
//     (RFC 8446, appendix A.1). crypto/tls has changed keys by then and finds a
//     bad record; the alert only explains such a failure;
//   - no buffer while nothing has come: one is leased with the first bytes and
//     goes back with the last. crypto/tls is handed one record at a time, so that
//     the buffer which it keeps does not grow past one;
//   - records gathered: after more, Read gives only whole records that are here
//     already; after cork, writes wait for flush and leave in one system call.
//
// One goroutine reads. Several may write: the relay's, and crypto/tls's own
// answers from the reading one.
type under struct {
	flow.Conn
	units flow.UnitReader // Conn's

	in    []byte             // what of buf is still to be read
	buf   *lease.Buffer      // that in is part of
	head  [recordHeader]byte // of the record being handed up
	have  int                // bytes of head handed up
	need  int                // bytes of the record's body still to be handed up
	eof   bool               // the socket has ended
	err   error              // met by await, for Read to give
	alert wire.Alert         // a fatal one that came in clear
	ready bool               // give only what is here

	wmu    sync.Mutex // over what follows, and the order of writes
	corked bool
	out    []byte
	keys   *secrets // if the handshake is to be taken over from
	flight []byte   // written since keys were known
	taken  bool     // crypto/tls writes no more
	werr   error    // of a write that failed: the peer may have part of a record
}

const (
	unitSize     = 64 << 10
	recordHeader = 5
	recordAlert  = 21
	alertFatal   = 2
)

// errNotHere says that no whole record is here. crypto/tls forgets an error that
// calls itself temporary, and Read may be called again.
var errNotHere error = notHere{}

type notHere struct{}

func (notHere) Error() string   { return "no whole record is here" }
func (notHere) Timeout() bool   { return true }
func (notHere) Temporary() bool { return true }

func (u *under) Read(p []byte) (int, error) {
	if u.ready && u.have == 0 && u.need == 0 && !u.whole() {
		return 0, errNotHere
	}
	if u.await(); len(u.in) == 0 {
		err := u.err
		u.err = nil
		return 0, err
	}
	n := u.hand(p)
	if len(u.in) == 0 {
		u.giveBack()
	}
	return n, nil
}

// whole says whether all of the next record is here.
func (u *under) whole() bool {
	return len(u.in) >= recordHeader && len(u.in) >= recordHeader+bodyLen(u.in)
}

func bodyLen(head []byte) int { return int(head[3])<<8 | int(head[4]) }

// await waits until there is something to hand up, or err. A flow waits here most
// of its life: called by the relay's read itself, and not from deep within
// crypto/tls, it leaves a stack so small that the collector halves it.
func (u *under) await() {
	if len(u.in) == 0 && u.err == nil {
		u.err = u.fill()
	}
}

func (u *under) fill() error {
	if u.eof {
		return io.EOF
	}
	unit, err := u.units.ReadUnit(u.lease)
	if err != nil {
		u.giveBack()
		u.eof = u.eof || err == io.EOF
		return err
	}
	u.in = unit
	return nil
}

// hand copies no further than the end of the record that p is filled from.
func (u *under) hand(p []byte) int {
	if u.need > 0 {
		n := copy(p, u.in[:min(len(u.in), u.need)])
		if u.head[0] == recordAlert && n == 2 && u.need == 2 && bodyLen(u.head[:]) == 2 && p[0] == alertFatal {
			u.alert = wire.Alert(p[1])
		}
		u.in, u.need = u.in[n:], u.need-n
		return n
	}
	n := copy(p, u.in[:min(len(u.in), recordHeader-u.have)])
	copy(u.head[u.have:], u.in[:n])
	u.in, u.have = u.in[n:], u.have+n
	if u.have == recordHeader {
		u.have, u.need = 0, bodyLen(u.head[:])
	}
	return n
}

func (u *under) lease() []byte {
	if u.buf == nil {
		u.buf = lease.Get(unitSize)
	}
	return u.buf.Data[:unitSize]
}

func (u *under) giveBack() {
	u.buf.Put()
	u.buf, u.in = nil, nil
}

// settle holds no more than has come and is still to be read.
func (u *under) settle() {
	if len(u.in) == 0 {
		u.giveBack()
	} else {
		u.buf, u.in = u.buf.Fit(u.in)
	}
}

func (u *under) Write(p []byte) (int, error) {
	u.wmu.Lock()
	defer u.wmu.Unlock()
	switch {
	case u.taken:
		// It would seal with a key and a counter that are in use elsewhere.
		return 0, errTaken
	case u.werr != nil:
		return 0, u.werr
	case u.keys != nil && u.keys.known():
		u.flight = append(u.flight, p...)
	}
	if !u.corked {
		n, err := u.Conn.Write(p)
		u.werr = err
		return n, err
	}
	u.out = append(u.out, p...)
	return len(p), nil
}

// SetWriteDeadline is crypto/tls's alone, around its close_notify: five seconds for
// it, then none at all for what follows. But a slow reader shall have it as well,
// and a KeyUpdate that cannot be answered makes the peer's next record unreadable.
// Whoever holds the connection sets deadlines on the one below.
func (u *under) SetWriteDeadline(time.Time) error { return nil }

// gathered runs write, whose records leave in one system call. An alert or a
// KeyUpdate that the reading side sends meanwhile takes its turn among them:
// crypto/tls orders the records, the lock keeps that order to the socket.
//
// size is how many bytes write writes. Should its records have no room, with their
// headers, nonces and tags, the buffer grows and is not kept.
func (u *under) gathered(size int, write func() (int, error)) (int, error) {
	buf := lease.Get(min(size+size/16, lease.Most))
	sent := func() {
		buf.Put()
		buf = nil
	}
	defer sent()
	u.wmu.Lock()
	u.out, u.corked = buf.Data[:0], true
	u.wmu.Unlock()

	n, err := write()

	u.wmu.Lock()
	defer u.wmu.Unlock()
	out := u.out
	u.out, u.corked = nil, false
	if len(out) > 0 {
		if _, u.werr = flow.Writes(u.Conn).WriteUnit(out, sent); u.werr != nil {
			return 0, u.werr
		}
	}
	return n, err
}
