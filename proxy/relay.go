package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/flow"
)

// Relay moves bytes both ways until both directions have ended. It is the
// default [flow.Relayer].
//
// An end of one direction is passed on as what it was: a proper end as
// CloseWrite, anything else as an abort of both connections. Idle is the flow's,
// not a direction's; after the first end, linger takes its place.
type Relay struct{}

// relay is the state of one flow's relay.
type relay struct {
	f      *flow.Flow
	done   func(error)     // told of the end, once
	ends   [2]flow.Conn    // by Direction: where its bytes come from
	lost   [2]atomic.Int64 // datagrams too large for the other end
	ended  atomic.Int32    // directions that have ended properly
	told   [2]atomic.Bool  // ends that have been told of the other's proper end
	moved  atomic.Int64    // when bytes last moved, since start
	start  time.Time
	timer  *time.Timer
	mu     sync.Mutex
	pumps  [2]pumping
	heard  [2]chan struct{} // closed when the direction is over, where somebody waits for it
	woke   time.Duration    // when a direction last woke, since start
	cause  error            // why the relay was ended from inside; the first counts
	whole  flow.Conn        // the end that is not to blame for cause, if one is
	broke  flow.Conn        // the one that is, where it was told so by an alert
	unsent [2]int           // what each end had still to acknowledge when silence was judged
	closed bool

	restless bool // it cannot rest
	parted   bool // of datagrams: one end has said goodbye
}

// Relay implements [flow.Relayer].
func (Relay) Relay(ctx context.Context, f *flow.Flow, client flow.Conn, open flow.Open) error {
	server, err := open(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	relayed(f, client, server, func(err error) { done <- err })
	return <-done
}

// relayed relays, and calls done when that is over: which may be long after it
// has returned, since a flow that rests has no goroutine.
func relayed(f *flow.Flow, client, server flow.Conn, done func(error)) {
	if f.Progress == nil {
		f.Progress = new(flow.Progress)
	}
	r := &relay{f: f, done: done, ends: [2]flow.Conn{flow.Up: client, flow.Down: server}, start: time.Now()}
	r.watch()
	go r.pump(flow.Up)
	r.pump(flow.Down)
}

func (r *relay) finish() error {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	cause, whole, broke := r.cause, r.whole, r.broke
	r.mu.Unlock()
	for d := range r.lost {
		r.f.Sent[d], r.f.TooLarge[d] = r.f.Progress.Bytes(flow.Direction(d)), r.lost[d].Load()
		if c, ok := r.ends[d].(flow.Discarder); ok {
			r.f.Discards[d] = c.Discarded()
		}
	}
	if broke != nil {
		settle(broke) // a reset would overtake the alert
		cut(broke)
	}
	if whole != nil {
		settle(whole)
		cut(whole)
	}
	return cause
}

// fail ends the flow over an error of one end: that one at once, the other when
// it has what was sent before. The first cause stands.
func (r *relay) fail(end flow.Direction, cause *flow.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil || r.closed || r.parted {
		return
	}
	if errors.Is(cause, flow.ErrTruncated) && r.ended.Load() > 0 {
		// Many a peer does not say goodbye to one that has: nobody need mend it.
		cause.Fault = flow.FaultNone
	}
	r.cause, r.whole = cause, r.ends[1-end]
	if broke := r.ends[end]; alerted(broke, cause) {
		r.broke = broke
		broke.SetDeadline(time.Unix(1, 0)) // nobody waits for it
	} else {
		cut(broke)
	}
	r.whole.SetReadDeadline(time.Unix(1, 0)) // its pump has nowhere to write to
	// The other pump may be amid a write to it, and the timer has had its say.
	r.whole.SetWriteDeadline(time.Now().Add(settleTotal))
}

// alerted says whether the layer of c has told its peer of cause.
func alerted(c flow.Conn, cause *flow.Error) bool {
	return c.Transport() == flow.Stream && (cause.Reason == flow.ClientProtocol || cause.Reason == flow.ServerProtocol)
}

const (
	settlePause = 10 * time.Millisecond
	settleQuiet = 5 * time.Second  // without an acknowledgement
	settleTotal = 30 * time.Second // in all
)

// settle waits until the peer of c has taken what was written, or seems not to.
// A server that ends without close_notify has often sent all that it had, and a
// slow client shall have it before the reset.
func settle(c flow.Conn) {
	start := time.Now()
	last, progress := 0, start
	for time.Since(start) < settleTotal && time.Since(progress) < settleQuiet {
		n, err := unsent(c)
		if n == 0 || err != nil {
			return
		}
		if n != last {
			last, progress = n, time.Now()
		}
		time.Sleep(settlePause)
	}
}

func unsent(c flow.Conn) (int, error) {
	if u, ok := c.(flow.Unsent); ok {
		return u.Unsent()
	}
	return 0, nil
}

// abort ends both connections at once; the first cause stands. Whoever has been
// told of a proper end keeps that, and what the kernel still has to send of it.
func (r *relay) abort(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil || r.closed {
		return
	}
	r.cause = cause
	for d, c := range r.ends {
		if r.told[d].Load() {
			c.Close()
		} else {
			cut(c)
		}
	}
}

// pump moves one direction until it ends, or rests.
func (r *relay) pump(d flow.Direction) {
	if r.turn(d) {
		return
	}
	r.mu.Lock()
	r.pumps[d] = over
	if r.heard[d] != nil {
		close(r.heard[d])
	}
	last := r.pumps[1-d] == over
	r.mu.Unlock()
	if last {
		r.done(safely(r.finish))
	}
}

// turn moves one direction until it rests, or is over.
func (r *relay) turn(d flow.Direction) (rests bool) {
	err := safely(func() error {
		move := r.move
		if r.datagrams() {
			move = r.carry
		}
		end, cause := move(d)
		for cause == errRest {
			if r.rest(d) {
				rests = true
				return nil
			}
			end, cause = move(d)
		}
		switch {
		case cause != nil:
			r.fail(end, cause)
		case r.datagrams():
			r.part()
		default:
			r.passOnEnd(d)
		}
		return nil
	})
	if err != nil {
		r.abort(err)
	}
	return rests
}

// passOnEnd tells the other end that direction d has ended properly.
func (r *relay) passOnEnd(d flow.Direction) {
	r.touch()
	r.ended.Add(1)
	r.watch()
	// A peer that has gone for good shows in the other direction.
	if r.ends[1-d].CloseWrite() == nil {
		r.told[1-d].Store(true)
	}
}

// move moves one direction until it ends properly, or says which end has not.
func (r *relay) move(d flow.Direction) (end flow.Direction, cause *flow.Error) {
	src, dst := r.ends[d], r.ends[1-d]
	units, writer := flow.Units(src), flow.Writes(dst)
	var room buffer
	leased, giveBack := room.lease, room.giveBack // bound once
	for {
		if in, out := bareOf(src), bareOf(dst); in != nil && out != nil && r.f.Progress.Bytes(d) >= spliceFrom {
			err := Splice(out, in, func(n int) { r.count(d, n) })
			if errors.Is(err, os.ErrDeadlineExceeded) && r.interrupts(d) {
				return d, errRest
			}
			if end, cause := spliceError(d, err); cause != nil {
				return end, cause
			}
			// It has ended, and src says how; or no file descriptor is left for a
			// pipe, and a buffer has to do.
		}
		p, err := units.ReadUnit(leased)
		var werr error
		if len(p) > 0 {
			all.writers.Add(1)
			_, werr = writer.WriteUnit(p, giveBack)
			all.writers.Add(-1)
		}
		room.giveBack()
		switch {
		case errors.Is(err, io.EOF):
			return d, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && r.interrupts(d):
			return d, errRest
		case err != nil:
			return d, endError(d, err)
		case werr != nil:
			r.hear(1 - d)
			return 1 - d, endError(1-d, werr)
		}
		r.count(d, len(p))
	}
}

// spliceFrom is how many bytes a direction has moved when it begins to splice. What
// is shorter costs less through a buffer: a splice is two system calls more.
const spliceFrom = 256 << 10

// lastWords bounds how long hear waits.
const lastWords = time.Second

// hear waits for the direction that reads from a connection which takes no more
// bytes. What came before its reset is still to be read and may say why: in TLS
// 1.3 a server refuses our certificate after our handshake is done.
func (r *relay) hear(d flow.Direction) {
	r.mu.Lock()
	if r.pumps[d] == over {
		r.mu.Unlock()
		return
	}
	said := make(chan struct{})
	r.heard[d] = said
	r.mu.Unlock()
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-said:
	case <-t.C:
	}
}

func (r *relay) count(d flow.Direction, n int) {
	r.f.Progress.Moved(d, int64(n))
	r.touch()
}

func (r *relay) touch() { r.moved.Store(int64(time.Since(r.start))) }

// watch sets the one timer of the flow for the next moment at which silence may
// have lasted long enough to rest, or silence or age too long. Bytes that move do
// not touch the timer.
func (r *relay) watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait, cause := r.next()
	if cause != nil && wait <= 0 && cause != totalEnd && r.taken() {
		r.touch()
		wait, cause = r.next()
	}
	switch {
	case r.closed || r.cause != nil:
		return
	case cause != nil && wait <= 0:
		go r.abort(cause)
		return
	}
	if rest := r.untilRest(); rest > 0 && (cause == nil || rest < wait) {
		wait = rest
	}
	switch {
	case wait <= 0:
	case r.timer == nil:
		r.timer = time.AfterFunc(wait, r.watch)
	default:
		r.timer.Reset(wait)
	}
}

// taken says whether a peer seems to have acknowledged something since it was last
// asked: a slow one still takes from the kernel what the relay has moved long ago.
func (r *relay) taken() (some bool) {
	for d, c := range r.ends {
		// On an error there is nothing to wait for.
		n, _ := unsent(c)
		some = some || n != r.unsent[d]
		r.unsent[d] = n
	}
	return some
}

// next gives how long until the nearest limit, and what its passing means; no
// cause is no limit.
func (r *relay) next() (wait time.Duration, cause error) {
	t := r.f.Decision.Timeouts
	now := time.Since(r.start)
	silence, reason := t.Idle, idleEnd
	if r.ended.Load() > 0 && t.Linger > 0 {
		silence, reason = t.Linger, lingerEnd
	}
	if silence > 0 {
		wait, cause = time.Duration(r.moved.Load())+silence-now, reason
	}
	if t.Total > 0 {
		if left := t.Total - time.Since(r.f.Start); cause == nil || left < wait {
			wait, cause = left, totalEnd
		}
	}
	return wait, cause
}

var (
	idleEnd   = flow.Fail(flow.IdleTimeout, "%s", flow.IdleTimeout.Meaning())
	lingerEnd = flow.Fail(flow.LingerTimeout, "%s", flow.LingerTimeout.Meaning())
	totalEnd  = flow.Fail(flow.TotalTimeout, "%s", flow.TotalTimeout.Meaning())
)

// endNames and the reasons of each end, by the Direction that it sends.
var (
	endNames       = [2]string{flow.Up: "client", flow.Down: "server"}
	endTruncated   = [2]flow.Reason{flow.ClientTruncated, flow.ServerTruncated}
	endReset       = [2]flow.Reason{flow.ClientReset, flow.ServerReset}
	endRefused     = [2]flow.Reason{flow.ClientUnreachable, flow.DialRefused} // ICMP's word, after the fact
	endUnreachable = [2]flow.Reason{flow.ClientUnreachable, flow.ServerUnreachable}
)

// endError says what an error on the connection of end means.
func endError(end flow.Direction, err error) *flow.Error {
	var known *flow.Error
	reason := endUnreachable[end]
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, flow.ErrTruncated), errors.Is(err, io.ErrUnexpectedEOF):
		reason = endTruncated[end]
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = endRefused[end]
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, net.ErrClosed):
		reason = endReset[end]
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		reason = endUnreachable[end]
	}
	return flow.Fail(reason, "the %s's connection: %w", endNames[end], err)
}

// spliceError says which end an error of [Splice] belongs to, if any.
func spliceError(d flow.Direction, err error) (end flow.Direction, cause *flow.Error) {
	var side *SideError
	switch {
	case err == nil:
		return d, nil
	case !errors.As(err, &side): // no pipe is to be had
		return d, nil
	case side.Side == Writing:
		return 1 - d, endError(1-d, side.Err)
	}
	return d, endError(d, side.Err)
}
