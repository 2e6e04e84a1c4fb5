package proxy

import (
	"container/list"
	"context"
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// Peek says whether a listener reads the client's first bytes before it decides.
type Peek uint8

const (
	PeekNever Peek = iota // the server may speak first: decide and dial at once
	PeekMust              // a ClientHello has to come
)

// Listener is what is done with the flows of one acceptor. It is never changed: a
// reload puts another in its place, and flows keep the one that they began with.
type Listener struct {
	Name        string
	Decider     flow.Decider
	Peek        Peek
	PeekTimeout time.Duration
	Preamble    []flow.Layer // what precedes the hello
	// Header is the same for who takes datagrams apart; nil: nothing precedes them.
	Header  flow.Header
	Limits  Limits
	Splices bool // some route passes datagrams on undecrypted; for who judges their first
	// OpenECH gives the inner hello, or nil where there is none that we can open.
	OpenECH func(*wire.Hello) (*wire.Hello, error)
}

// Strangers is how many flows whose client has proved nothing there may be at once,
// beside [Engine].Flows: see [flow.Unproven].
const Strangers = 128

// Engine serves listeners. Its zero value does not work: Observer must be set.
type Engine struct {
	Observer flow.Observer
	Flows    int // how many flows at once; 0 is no limit of ours. Further clients wait in the kernel's queue

	// Handshakes bounds those under way at once, of all listeners; 0 is no bound.
	Handshakes int
	// Full says that no memory is left for new flows; nil: there always is.
	Full func() bool
	// Limited is told of each connection that a bound has kept out, or at
	// LimitProcessFlows has wait; it must not wait itself.
	Limited func(listener string, l Limit)

	ids       atomic.Uint64
	young     nursery
	unproven  atomic.Int32
	strangers seldom // records of flows whose client has proved nothing
	slots     chan struct{}
	once      sync.Once

	mu       sync.Mutex
	live     map[*life]struct{}
	draining bool
	flows    sync.WaitGroup
}

// life is what the engine keeps of a flow that is alive, to end it from outside.
type life struct {
	mu     sync.Mutex
	cancel context.CancelCauseFunc // of what brings the ends up; nil once they are
	conns  []flow.Conn             // bare ones, client first
	cause  error                   // why it was ended from outside; nil while it was not
	drain  time.Duration
	since  time.Time   // when Drain began; zero before
	timer  *time.Timer // ends the flow; set by Drain
	hidden bool        // nobody is told of the flow: see proving
	slot   bool        // of a stranger that has proved itself since

	gate   *gate            // of its acceptor
	client *tally           // of its client there; nil where nobody is counted
	young  [2]*list.Element // among the handshakes of its listener, and of all

	stranger bool // the client had proved nothing when the flow began

	id       uint64
	progress flow.Progress
}

func (l *life) hide() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hidden = true
}

// show says whether the flow was hidden, which it is not any more.
func (l *life) show() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.hidden
	l.hidden = false
	return was
}

// hold notes a bare connection of the flow, which kill ends. A connection that
// comes too late is ended at once.
func (l *life) hold(c flow.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		flow.Abort(c)
		return
	}
	l.conns = append(l.conns, c)
}

func (l *life) kill(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	l.cause = cause
	if l.cancel != nil {
		l.cancel(cause)
	}
	for _, c := range l.conns {
		cut(c)
	}
}

// up says that both ends are: a context, which is half a KiB, has nothing to end
// from here on. Ends of datagrams are noted anew, with the layers that can say
// goodbye.
func (l *life) up(ends ...flow.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel(nil)
		l.cancel = nil
	}
	if len(ends) == 0 || ends[0].Transport() != flow.Datagram {
		return
	}
	l.conns = ends
	if l.cause != nil {
		for _, c := range ends {
			cut(c)
		}
	}
}

func (l *life) killed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// setDrain says how long the flow may last once Drain has begun, which may be
// the case already; 0 is for ever.
func (l *life) setDrain(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drain = d
	l.plan()
}

// plan sets the timer; l.mu is held.
func (l *life) plan() {
	if l.timer != nil {
		l.timer.Stop()
	}
	if !l.since.IsZero() && l.drain > 0 {
		l.timer = time.AfterFunc(l.drain-time.Since(l.since), func() { l.kill(errDrained) })
	}
}

// end forgets the timer.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drain = 0
	l.plan()
}

func (e *Engine) init() {
	e.live = make(map[*life]struct{})
	if e.Flows > 0 {
		e.slots = make(chan struct{}, e.Flows)
	}
}

// Serve accepts from a until it is closed or ctx ends, and gives the error of an
// acceptor that broke. Each flow goes by what listener holds then. Flows accepted
// go on; see Drain.
func (e *Engine) Serve(ctx context.Context, a flow.Acceptor, listener *atomic.Pointer[Listener]) error {
	e.once.Do(e.init)
	var g gate
	for {
		f, c, err := a.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		stranger := unproven(c)
		switch {
		case stranger && !e.acquireStranger():
			c.Close()
			continue
		case !stranger && !e.acquire(ctx, listener):
			c.Close()
			return nil
		}
		l := listener.Load()
		lf := &life{drain: 30 * time.Second, conns: []flow.Conn{c}, stranger: stranger, gate: &g}
		if !e.enter(l, lf, f) {
			e.release(lf)
			flow.Abort(c)
			continue
		}
		f.ID = e.ids.Add(1)
		f.Origin.Listener = l.Name // which a reload may have changed since the socket was bound
		lf.id = f.ID
		if !e.begin(ctx, l, lf, f, c) {
			e.leave(lf)
			e.release(lf)
			c.Close()
			return nil
		}
	}
}

// acquire takes a slot for a flow. One client of each listener waits for it here,
// further ones in the kernel's queue.
func (e *Engine) acquire(ctx context.Context, listener *atomic.Pointer[Listener]) bool {
	if e.slots == nil {
		return ctx.Err() == nil
	}
	select {
	case e.slots <- struct{}{}:
		return true
	default:
		e.limited(listener.Load(), LimitProcessFlows)
	}
	select {
	case e.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// acquireStranger is for a flow whose client has proved nothing: it takes no slot
// of those who have, nor has it them wait.
func (e *Engine) acquireStranger() bool {
	if e.unproven.Add(1) > Strangers {
		e.unproven.Add(-1)
		return false
	}
	return true
}

// admit gives a flow whose client has proved itself a slot like any other's, if one
// is free.
func (e *Engine) admit(l *Listener, lf *life) bool {
	if e.slots != nil {
		select {
		case e.slots <- struct{}{}:
		default:
			e.limited(l, LimitProcessFlows)
			return false
		}
	}
	lf.mu.Lock()
	lf.slot = true
	lf.mu.Unlock()
	e.unproven.Add(-1)
	return true
}

func (e *Engine) release(lf *life) {
	lf.mu.Lock()
	defer lf.mu.Unlock()
	switch {
	case lf.stranger && !lf.slot:
		e.unproven.Add(-1)
	case e.slots != nil:
		<-e.slots
	}
}

func (e *Engine) begin(ctx context.Context, l *Listener, lf *life, f *flow.Flow, c flow.Conn) bool {
	// The flow outlives the context of the listener: Drain decides when it ends.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	lf.cancel = cancel
	f.Progress = &lf.progress

	e.mu.Lock()
	if e.draining {
		e.mu.Unlock()
		cancel(nil)
		return false
	}
	e.live[lf] = struct{}{}
	e.flows.Add(1)
	e.mu.Unlock()

	go roomy(func() { e.run(ctx, l, lf, f, c) })
	return true
}

// run carries a flow from accept to close.
func (e *Engine) run(ctx context.Context, l *Listener, lf *life, f *flow.Flow, c flow.Conn) {
	end := func(err error) {
		defer e.over(lf)
		c.Close()
		e.report(lf, f, err)
	}
	if err := safely(func() error { return e.serve(ctx, l, lf, f, c, end) }); err != nil {
		end(err)
	}
}

func (e *Engine) report(lf *life, f *flow.Flow, err error) {
	end := flow.AsError(err, flow.Internal)
	// A layer of datagrams that was closed reads its own goodbye.
	if cause := lf.killed(); cause != nil && (end != nil || f.Origin.Transport == flow.Datagram) {
		stage := flow.StageRelay
		if end != nil {
			stage = end.Stage
		}
		end = flow.AsError(cause, flow.Drained)
		end = &flow.Error{Stage: stage, Reason: end.Reason, Fault: end.Fault, Err: end.Err}
	}
	if lf.show() {
		// It is told all the same what keeps every client out, but not as often
		// as a stranger wants.
		if end == nil || end.Fault != flow.FaultServer && end.Fault != flow.FaultOurs || !e.strangers.due(time.Now()) {
			return
		}
		if err := safely(func() error { e.Observer.Begin(f); return nil }); err != nil {
			end = flow.AsError(err, flow.Panic)
		}
	}
	// An observer that panics is told of it, once.
	if err := safely(func() error { e.Observer.End(f, end); return nil }); err != nil {
		_ = safely(func() error { e.Observer.End(f, flow.AsError(err, flow.Panic)); return nil })
	}
}

func (e *Engine) over(lf *life) {
	e.forget(lf)
	e.leave(lf)
	e.release(lf)
	e.flows.Done()
}

func (e *Engine) forget(lf *life) {
	lf.end()
	lf.up()
	e.mu.Lock()
	delete(e.live, lf)
	e.mu.Unlock()
}

// Drain takes no new flows, waits for those alive, and ends each one when its
// timeouts.drain has passed (0 waits for ever), or all at once when ctx ends, the
// cause of which is what their records say.
// The caller closes the acceptors first.
func (e *Engine) Drain(ctx context.Context) {
	e.once.Do(e.init)
	e.mu.Lock()
	e.draining = true
	for lf := range e.live {
		lf.mu.Lock()
		lf.since = time.Now()
		lf.plan()
		lf.mu.Unlock()
	}
	e.mu.Unlock()

	done := make(chan struct{})
	go func() { e.flows.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		e.killAll(flow.Fail(flow.Drained, "the process ends, and this flow was still open: %w", context.Cause(ctx)))
		<-done
	}
}

var errDrained = flow.Fail(flow.Drained, "the process ends, and this flow was still open when timeouts.drain had passed")

func (e *Engine) killAll(why error) {
	e.mu.Lock()
	all := make([]*life, 0, len(e.live))
	for lf := range e.live {
		all = append(all, lf)
	}
	e.mu.Unlock()
	for _, lf := range all {
		lf.kill(why)
	}
}

var errKilled = flow.Fail(flow.Killed, "%s", flow.Killed.Meaning())

// Kill ends the flow of that ID at once, and says whether there was one.
func (e *Engine) Kill(id uint64) bool {
	e.once.Do(e.init)
	e.mu.Lock()
	var found *life
	for lf := range e.live {
		if lf.id == id {
			found = lf
			break
		}
	}
	e.mu.Unlock()
	if found != nil {
		found.kill(errKilled)
	}
	return found != nil
}

// safely turns a panic into an error with its stack, so that a fault of ours
// ends one flow and not the process.
func safely(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = flow.Fail(flow.Panic, "panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

// roomy runs f on a stack that has grown already. A handshake takes some 16 KiB,
// and to grow by doubling copies what is there again and again: 4 % of all that a
// handshake costs. A flow that rests has given its stack back.
//
//go:noinline
func roomy(f func()) {
	var room [16 << 10]byte
	touch(&room)
	f()
}

//go:noinline
func touch(room *[16 << 10]byte) { room[0] = 1 }
