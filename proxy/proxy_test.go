package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sallyport/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// end is one end of a connection in memory with the endings of a real one.
type end struct {
	in, out  *half
	deadline time.Time
}

type half struct {
	mu   sync.Mutex
	cond *sync.Cond
	data bytes.Buffer
	err  error  // what comes after data
	wait func() // see WhenReadable
}

// stir wakes whoever waits for h to change. h.mu is held.
func (h *half) stir() {
	h.cond.Broadcast()
	if h.wait != nil {
		go h.wait()
		h.wait = nil
	}
}

func duplex() (a, b *end) {
	x, y := &half{}, &half{}
	x.cond, y.cond = sync.NewCond(&x.mu), sync.NewCond(&y.mu)
	return &end{in: x, out: y}, &end{in: y, out: x}
}

func (h *half) finish(err error, drop bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
	if drop {
		h.data.Reset()
	}
	h.stir()
}

func (e *end) Read(p []byte) (int, error) {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	for e.in.data.Len() == 0 && e.in.err == nil {
		if !e.deadline.IsZero() {
			return 0, os.ErrDeadlineExceeded
		}
		e.in.cond.Wait()
	}
	if e.in.data.Len() > 0 {
		return e.in.data.Read(p)
	}
	return 0, e.in.err
}

func (e *end) Write(p []byte) (int, error) {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	if e.out.err != nil {
		return 0, syscall.EPIPE
	}
	e.out.data.Write(p)
	e.out.stir()
	return len(p), nil
}

func (e *end) CloseWrite() error { e.out.finish(io.EOF, false); return nil }

func (e *end) Close() error {
	e.out.finish(io.EOF, false)
	e.in.finish(net.ErrClosed, false)
	return nil
}

func (e *end) Abort() error {
	e.out.finish(syscall.ECONNRESET, true)
	e.in.finish(net.ErrClosed, true)
	return nil
}

func (e *end) Transport() flow.Transport          { return flow.Stream }
func (e *end) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (e *end) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (e *end) SetDeadline(t time.Time) error      { return e.SetReadDeadline(t) }
func (e *end) SetWriteDeadline(t time.Time) error { return nil }

// SetReadDeadline ends reads at once: no test waits for one.
func (e *end) SetReadDeadline(t time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.deadline = t
	if t.IsZero() {
		e.in.cond.Broadcast()
	} else {
		e.in.stir()
	}
	return nil
}

func (e *end) WhenReadable(f func()) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.wait = f
	if e.in.data.Len() > 0 || e.in.err != nil {
		e.in.stir()
	}
	return nil
}

// mark is a layer that writes its name ahead of what passes, so that a test
// reads which layers stood at which end.
type mark struct {
	name string
	fail error
}

func (m mark) Wrap(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	if m.name == "panic" {
		panic("a layer's fault")
	}
	return &marked{Conn: c, mark: []byte(m.name)}, nil
}

type marked struct {
	flow.Conn
	mark []byte
}

func (m *marked) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(append(m.mark, p...))
	n = max(n-len(m.mark), 0)
	m.mark = nil
	return n, err
}
func (m *marked) Abort() error { return flow.Abort(m.Conn) }

// world is an engine with one client and one server in memory.
type world struct {
	engine         *Engine
	listener       atomic.Pointer[Listener]
	client, server *end // the far ends
	accepted       chan accepted
	records        chan record
	dialled        chan struct{}
	dialErr        error
	closed         chan struct{}
}

type accepted struct {
	f *flow.Flow
	c flow.Conn
}

type record struct {
	f *flow.Flow
	e *flow.Error
}

func newWorld(d *flow.Decision) *world {
	w := &world{accepted: make(chan accepted, 1), records: make(chan record, 1), dialled: make(chan struct{}, 1), closed: make(chan struct{})}
	w.engine = &Engine{Observer: w}
	near, far := duplex()
	w.client = far
	w.accepted <- accepted{&flow.Flow{Start: time.Now(), Origin: flow.Origin{Client: netip.MustParseAddrPort("192.0.2.1:1")}}, near}
	d.Upstream = w
	w.listener.Store(&Listener{Name: "l", Decider: decided{d}})
	return w
}

type decided struct{ d *flow.Decision }

func (d decided) Decide(*flow.Flow) *flow.Decision { return d.d }

func (w *world) Accept(ctx context.Context) (*flow.Flow, flow.Conn, error) {
	select {
	case a := <-w.accepted:
		return a.f, a.c, nil
	case <-w.closed:
		return nil, nil, net.ErrClosed
	}
}
func (w *world) Addr() net.Addr                  { return &net.TCPAddr{} }
func (w *world) Close() error                    { close(w.closed); return nil }
func (w *world) Begin(*flow.Flow)                {}
func (w *world) End(f *flow.Flow, e *flow.Error) { w.records <- record{f, e} }

func (w *world) Dial(context.Context, *flow.Flow) (flow.Conn, error) {
	if w.dialErr != nil {
		return nil, w.dialErr
	}
	near, far := duplex()
	w.server = far
	w.dialled <- struct{}{}
	return near, nil
}

// run serves the one client while body plays both far ends, and gives the record.
func (w *world) run(body func()) record {
	done := make(chan struct{})
	go func() { w.engine.Serve(context.Background(), w, &w.listener); close(done) }()
	body()
	r := <-w.records
	w.Close()
	<-done
	w.engine.Drain(context.Background())
	return r
}

func readAll(e *end) string { b, _ := io.ReadAll(struct{ io.Reader }{e}); return string(b) }

// The table of modes: what a pair of ends amounts to.
func TestModes(t *testing.T) {
	in, out := mark{name: "in:"}, mark{name: "out:"}
	for _, m := range []struct {
		name               string
		d                  flow.Decision
		toServer, toClient string
	}{
		{"offload", flow.Decision{Action: flow.Terminate, Inbound: []flow.Layer{in}}, "ping", "in:pong"},
		{"encrypt", flow.Decision{Action: flow.Terminate, Outbound: []flow.Layer{out}}, "out:ping", "pong"},
		{"bridge", flow.Decision{Action: flow.Terminate, Inbound: []flow.Layer{in}, Outbound: []flow.Layer{out}}, "out:ping", "in:pong"},
		{"bridge, server first", flow.Decision{Action: flow.Terminate, DialFirst: true, Inbound: []flow.Layer{in}, Outbound: []flow.Layer{out}}, "out:ping", "in:pong"},
		{"pass-through", flow.Decision{Action: flow.Splice}, "ping", "pong"},
		{"plain", flow.Decision{Action: flow.Terminate}, "ping", "pong"},
		{"two layers", flow.Decision{Action: flow.Terminate, Inbound: []flow.Layer{mark{name: "1"}, mark{name: "2"}}}, "ping", "12pong"},
	} {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(&m.d)
			var up, down string
			r := w.run(func() {
				<-w.dialled
				w.client.Write([]byte("ping"))
				w.client.CloseWrite()
				up = readAll(w.server)
				w.server.Write([]byte("pong"))
				w.server.CloseWrite()
				down = readAll(w.client)
			})
			if up != m.toServer || down != m.toClient {
				t.Errorf("the server read %q, the client %q; want %q and %q", up, down, m.toServer, m.toClient)
			}
			if r.e != nil {
				t.Errorf("ended with %v", r.e)
			}
			if r.f.Sent != [2]int64{4, 4} {
				t.Errorf("counted %v bytes, want 4 and 4", r.f.Sent)
			}
		})
	}
}

func TestEndings(t *testing.T) {
	fails := flow.Fail(flow.CertExpired, "expired")
	for _, c := range []struct {
		name   string
		d      flow.Decision
		dial   error
		play   func(w *world)
		reason flow.Reason
		stage  flow.Stage
		fault  flow.Fault
	}{
		{"rejected", flow.Decision{Action: flow.Reject, Reason: flow.UnrecognizedName}, nil, nil, flow.UnrecognizedName, flow.StageDecide, flow.FaultClient},
		{"the zero decision refuses", flow.Decision{Reason: flow.NoRoute}, nil, nil, flow.NoRoute, flow.StageDecide, flow.FaultClient},
		{"server refuses", flow.Decision{Action: flow.Terminate}, flow.Fail(flow.DialRefused, "refused"), nil, flow.DialRefused, flow.StageDial, flow.FaultServer},
		{"outbound fails", flow.Decision{Action: flow.Terminate, Outbound: []flow.Layer{mark{fail: fails}}}, nil, nil, flow.CertExpired, flow.StageOutbound, flow.FaultServer},
		{"inbound fails", flow.Decision{Action: flow.Terminate, Inbound: []flow.Layer{mark{fail: flow.Fail(flow.ClientCertMissing, "none")}}}, nil, nil, flow.ClientCertMissing, flow.StageInbound, flow.FaultClient},
		{"an error that nobody named is ours", flow.Decision{Action: flow.Terminate, Inbound: []flow.Layer{mark{fail: errors.New("odd")}}}, nil, nil, flow.Internal, flow.StageInbound, flow.FaultOurs},
		{"a panic ends its flow alone", flow.Decision{Action: flow.Terminate, Inbound: []flow.Layer{mark{name: "panic"}}}, nil, nil, flow.Panic, flow.StageInbound, flow.FaultOurs},
		{"client resets", flow.Decision{Action: flow.Terminate}, nil, func(w *world) {
			<-w.dialled
			w.client.Abort()
			if _, err := w.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the server saw %v, want a reset", err)
			}
		}, flow.ClientReset, flow.StageRelay, flow.FaultClient},
		{"server resets", flow.Decision{Action: flow.Terminate}, nil, func(w *world) {
			<-w.dialled
			w.server.Abort()
			if _, err := w.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client saw %v, want a reset", err)
			}
		}, flow.ServerReset, flow.StageRelay, flow.FaultServer},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(&c.d)
			w.dialErr = c.dial
			r := w.run(func() {
				if c.play != nil {
					c.play(w)
				} else {
					w.client.CloseWrite() // so that farewell has nothing to wait for
				}
			})
			if r.e == nil || r.e.Reason != c.reason || r.e.Stage != c.stage || r.e.Fault != c.fault {
				t.Errorf("ended with %+v, want %s at %s, fault %s", r.e, c.reason, c.stage, c.fault)
			}
		})
	}
}

// Idle is the flow's: one direction that moves keeps both alive. After the first
// end, linger takes its place, and bytes prolong it.
func TestSilence(t *testing.T) {
	limits := flow.Timeouts{Idle: time.Minute, Linger: 10 * time.Second, Total: time.Hour}
	for _, c := range []struct {
		name   string
		play   func(w *world)
		reason flow.Reason
		after  time.Duration
	}{
		{"nothing moves", func(*world) {}, flow.IdleTimeout, time.Minute},
		{"one direction moves", func(w *world) {
			for range 5 {
				time.Sleep(50 * time.Second)
				w.server.Write([]byte("x"))
			}
		}, flow.IdleTimeout, 250*time.Second + time.Minute},
		{"one end finished", func(w *world) {
			time.Sleep(5 * time.Second)
			w.client.CloseWrite()
		}, flow.LingerTimeout, 15 * time.Second},
		{"one end finished, the other goes on", func(w *world) {
			w.client.CloseWrite()
			for range 9 {
				time.Sleep(9 * time.Second)
				w.server.Write([]byte("x"))
			}
		}, flow.LingerTimeout, 91 * time.Second},
		{"too old", func(w *world) {
			for range 71 {
				time.Sleep(50 * time.Second)
				w.server.Write([]byte("x"))
			}
		}, flow.TotalTimeout, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(&flow.Decision{Action: flow.Terminate, Timeouts: limits})
				start := time.Now()
				var took time.Duration
				r := w.run(func() {
					<-w.dialled
					go c.play(w)
					readAll(w.client)
					took = time.Since(start)
				})
				if r.e == nil || r.e.Reason != c.reason {
					t.Fatalf("ended with %v, want %s", r.e, c.reason)
				}
				if took != c.after {
					t.Errorf("ended after %v, want %v", took, c.after)
				}
			})
		})
	}
}

func TestDrain(t *testing.T) {
	t.Run("a flow that finishes in time is not touched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(&flow.Decision{Action: flow.Terminate, Timeouts: flow.Timeouts{Drain: time.Minute}})
			r, took := drain(w, context.Background(), func() {
				time.Sleep(30 * time.Second)
				w.client.CloseWrite()
				w.server.CloseWrite()
			})
			if r.e != nil || took != 30*time.Second {
				t.Errorf("ended with %v after %v", r.e, took)
			}
		})
	})
	t.Run("one that does not is ended at the deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(&flow.Decision{Action: flow.Terminate, Timeouts: flow.Timeouts{Drain: time.Minute}})
			r, took := drain(w, context.Background(), func() {})
			if r.e == nil || r.e.Reason != flow.Drained || took != time.Minute {
				t.Errorf("ended with %v after %v", r.e, took)
			}
		})
	})
	t.Run("a second signal ends all at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(&flow.Decision{Action: flow.Terminate, Timeouts: flow.Timeouts{Drain: time.Minute}})
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			r, took := drain(w, ctx, func() {})
			if r.e == nil || r.e.Reason != flow.Drained || took != time.Second {
				t.Errorf("ended with %v after %v", r.e, took)
			}
		})
	})
}

func drain(w *world, ctx context.Context, play func()) (record, time.Duration) {
	served := make(chan struct{})
	go func() { w.engine.Serve(ctx, w, &w.listener); close(served) }()
	<-w.dialled
	synctest.Wait()
	start := time.Now()
	w.Close()
	<-served
	go play()
	w.engine.Drain(ctx)
	return <-w.records, time.Since(start)
}
