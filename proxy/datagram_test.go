package proxy

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// packets is one end of an association in memory.
type packets struct {
	*end // for its addresses
	in   *queue
	out  *queue
	most int // what it carries
}

// queue is what one end is sent.
type queue struct {
	mu   sync.Mutex
	cond *sync.Cond
	list [][]byte
	err  error // after list
	past bool  // the read deadline is in the past
	wait func()
}

func (q *queue) change(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
	q.cond.Broadcast()
	if q.wait != nil && q.ready() {
		go q.wait()
		q.wait = nil
	}
}

func (q *queue) ready() bool { return len(q.list) > 0 || q.err != nil || q.past }

func association() (a, b *packets) {
	x, y := &queue{}, &queue{}
	x.cond, y.cond = sync.NewCond(&x.mu), sync.NewCond(&y.mu)
	return &packets{in: x, out: y, most: 65507}, &packets{in: y, out: x, most: 65507}
}

func (p *packets) ReadUnit(lease func() []byte) ([]byte, error) {
	q := p.in
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.ready() {
		q.cond.Wait()
	}
	switch {
	case q.past:
		return nil, os.ErrDeadlineExceeded
	case len(q.list) == 0:
		return nil, q.err
	}
	first := q.list[0]
	q.list = q.list[1:]
	b := lease()
	return b[:copy(b, first)], nil
}

func (p *packets) Read(b []byte) (int, error) {
	unit, err := p.ReadUnit(func() []byte { return b })
	return len(unit), err
}

func (p *packets) Write(b []byte) (int, error) {
	if len(b) > p.most {
		return 0, flow.ErrTooLarge
	}
	p.in.mu.Lock()
	err := p.in.err
	p.in.mu.Unlock()
	if errors.Is(err, syscall.ECONNREFUSED) {
		return 0, err
	}
	p.out.change(func() { p.out.list = append(p.out.list, bytes.Clone(b)) })
	return len(b), nil
}

// Close says goodbye, as close_notify does.
func (p *packets) Close() error {
	p.finish(p.out, io.EOF)
	p.finish(p.in, net.ErrClosed)
	return nil
}

func (p *packets) finish(q *queue, err error) {
	q.change(func() {
		if q.err == nil {
			q.err = err
		}
	})
}

func (p *packets) Abort() error              { return p.Close() }
func (p *packets) Transport() flow.Transport { return flow.Datagram }
func (p *packets) CloseWrite() error         { return nil }
func (p *packets) SetReadDeadline(t time.Time) error {
	p.in.change(func() { p.in.past = !t.IsZero() })
	return nil
}

func (p *packets) WhenReadable(f func()) error {
	p.in.change(func() { p.in.wait = f })
	return nil
}

// talk is a relay between two associations, and their far ends.
type talk struct {
	user, service *packets
	f             *flow.Flow
	ended         chan error
}

func talks(timeouts flow.Timeouts) *talk {
	k := &talk{ended: make(chan error, 1)}
	client, user := association()
	server, service := association()
	server.most = 8150
	k.user, k.service = user, service
	k.f = &flow.Flow{Start: time.Now(), Origin: flow.Origin{Transport: flow.Datagram}, Decision: &flow.Decision{Timeouts: timeouts}}
	go relayed(k.f, client, server, func(err error) { k.ended <- err })
	return k
}

// hears wants the next datagram of p to have n bytes.
func hears(t *testing.T, p *packets, n int) {
	t.Helper()
	b := make([]byte, unitSize)
	if got, err := p.Read(b); err != nil || got != n {
		t.Fatalf("a datagram of %d bytes (%v), want %d", got, err, n)
	}
}

func TestDatagramsKeepTheirBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := talks(flow.Timeouts{})
		sizes := []int{0, 1, 1200, 8150, 8151, 65507, 0, 7}
		for _, n := range sizes {
			k.user.Write(make([]byte, n))
			k.service.Write(make([]byte, n))
		}
		for _, n := range sizes {
			hears(t, k.user, n)
			if n <= 8150 {
				hears(t, k.service, n)
			}
		}
		k.user.Close()
		if err := <-k.ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		if k.f.TooLarge != [2]int64{2, 0} {
			t.Errorf("%v were too large, want 2 and 0", k.f.TooLarge)
		}
		if want := int64(1 + 1200 + 8150 + 7); k.f.Sent != [2]int64{want, want + 8151 + 65507} {
			t.Errorf("counted %v bytes", k.f.Sent)
		}
	})
}

// A goodbye of one end is the flow's, at once, whatever the other is about.
func TestDatagramGoodbye(t *testing.T) {
	for name, pause := range map[string]time.Duration{"awake": 0, "resting": restAfter + time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bubble := runtime.NumGoroutine()
				k := talks(flow.Timeouts{Idle: time.Hour, Linger: time.Minute})
				k.user.Write([]byte("x"))
				hears(t, k.service, 1)
				time.Sleep(pause)
				synctest.Wait()
				if n := runtime.NumGoroutine(); pause > 0 && n > bubble {
					t.Errorf("%d goroutines while it rests, %d before", n, bubble)
				}
				start := time.Now()
				k.service.Close()
				if err := <-k.ended; err != nil || time.Since(start) != 0 {
					t.Errorf("ended with %v after %v", err, time.Since(start))
				}
			})
		})
	}
}

func TestRestingDatagramsWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := talks(flow.Timeouts{})
		for range 3 {
			time.Sleep(restAfter + time.Second)
			k.user.Write(nil)
			hears(t, k.service, 0)
			k.service.Write([]byte("yes"))
			hears(t, k.user, 3)
		}
		k.user.Close()
		if err := <-k.ended; err != nil {
			t.Error(err)
		}
	})
}

// Silence is how an association ends, and both peers are told.
func TestDatagramIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := talks(flow.Timeouts{Idle: 5 * time.Minute})
		time.Sleep(time.Minute)
		k.user.Write([]byte("x"))
		hears(t, k.service, 1)
		start := time.Now()
		err := <-k.ended
		if e := flow.AsError(err, flow.Internal); e == nil || e.Reason != flow.IdleTimeout || e.Fault != flow.FaultNone {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(start); took != 5*time.Minute {
			t.Errorf("after %v", took)
		}
		for _, p := range []*packets{k.user, k.service} {
			if _, err := p.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a peer reads %v, want a goodbye", err)
			}
		}
	})
}

// Nobody listens at the server's port: ICMP says so to the next read or write.
func TestDatagramRefused(t *testing.T) {
	for _, by := range []string{"read", "write"} {
		synctest.Test(t, func(t *testing.T) {
			k := talks(flow.Timeouts{})
			time.Sleep(restAfter + time.Second)
			if by == "write" {
				k.user.Write([]byte("x"))
			}
			k.service.finish(k.service.out, syscall.ECONNREFUSED)
			err := <-k.ended
			if e := flow.AsError(err, flow.Internal); e == nil || e.Reason != flow.DialRefused || e.Fault != flow.FaultServer {
				t.Errorf("%s: ended with %v", by, err)
			}
		})
	}
}

// Layers that are closed by Drain say goodbye, and the record says why it was.
func TestDatagramDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&flow.Decision{Action: flow.Terminate, Timeouts: flow.Timeouts{Drain: time.Minute}})
		near, user := association()
		a := <-w.accepted
		a.c, a.f.Origin.Transport = near, flow.Datagram
		w.accepted <- a
		dialled := dialsPackets{make(chan *packets, 1)}
		w.listener.Load().Decider.(decided).d.Upstream = dialled
		served := make(chan struct{})
		go func() { w.engine.Serve(context.Background(), w, &w.listener); close(served) }()
		service := <-dialled.far
		user.Write([]byte("x"))
		hears(t, service, 1)
		w.Close()
		<-served
		start := time.Now()
		w.engine.Drain(context.Background())
		if took := time.Since(start); took != time.Minute {
			t.Errorf("drained after %v", took)
		}
		if r := <-w.records; r.e == nil || r.e.Reason != flow.Drained {
			t.Errorf("ended with %v", r.e)
		}
		if _, err := user.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client reads %v, want a goodbye", err)
		}
	})
}

type dialsPackets struct{ far chan *packets }

func (d dialsPackets) Dial(context.Context, *flow.Flow) (flow.Conn, error) {
	near, far := association()
	d.far <- far
	return near, nil
}

// ReadFrom and the rest of flow.Packets, for a layer that follows its peer.
func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.Read(b)
	return n, p.RemoteAddr(), err
}
func (p *packets) WriteTo(b []byte, _ net.Addr) (int, error) { return p.Write(b) }
func (p *packets) Bind([]byte) error                         { return nil }
func (p *packets) Moved(netip.AddrPort)                      {}
func (p *packets) Established()                              {}

var _ flow.Packets = (*packets)(nil)

// hello is a ClientHello in one datagram, for a server name.
func hello(t *testing.T, seq uint16, cookie []byte) []byte {
	t.Helper()
	body := "fefd" + strings.Repeat("07", 32) + "00" + "00" + "0004c02bc02f" + "0100" + "0011" + "0000000d000b000008" + hex.EncodeToString([]byte("a.exampl"))
	raw, err := hex.DecodeString("16fefd" + "0000000000000000" + fmt.Sprintf("%04x", 12+len(body)/2) +
		"01" + fmt.Sprintf("%06x", len(body)/2) + "0000" + "000000" + fmt.Sprintf("%06x", len(body)/2) + body)
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseDTLSHello(raw)
	if err != nil {
		t.Fatal(err)
	}
	return h.DTLSRecord(seq, uint64(seq), cookie)
}

// A hello is read once to decide and once more by whoever it is for: as one
// datagram, whichever way that one reads.
func TestDatagramPeek(t *testing.T) {
	first := hello(t, 1, []byte("cookie"))
	for name, read := range map[string]func(flow.Conn, []byte) (int, error){
		"Read":     func(c flow.Conn, b []byte) (int, error) { return c.Read(b) },
		"ReadFrom": func(c flow.Conn, b []byte) (int, error) { n, _, err := c.(flow.Packets).ReadFrom(b); return n, err },
		"ReadUnit": func(c flow.Conn, b []byte) (int, error) {
			p, err := flow.Units(c).ReadUnit(func() []byte { return b })
			return len(p), err
		},
	} {
		near, far := association()
		far.Write(first)
		far.Write([]byte("second"))
		f := &flow.Flow{Start: time.Now(), Origin: flow.Origin{Transport: flow.Datagram}}
		c, err := peek(&Listener{Peek: PeekMust}, f, near)
		if err != nil {
			t.Fatal(err)
		}
		if f.Hello.SNI != "a.exampl" || f.Print.JA4 == "" || !f.Hello.DTLS {
			t.Errorf("read %+v", f.Hello)
		}
		b := make([]byte, unitSize)
		for _, want := range []string{string(first), "second"} {
			if n, err := read(c, b); err != nil || string(b[:n]) != want {
				t.Errorf("%s: %q, %v", name, b[:n], err)
			}
		}
	}
}

// Where a hello came, a refusal is an alert of DTLS; other datagrams get no answer.
func TestDatagramRefusals(t *testing.T) {
	for _, c := range []struct {
		sent   []byte
		reason flow.Reason
		alert  bool
	}{
		{hello(t, 1, []byte("cookie")), flow.UnrecognizedName, true},
		{[]byte("rubbish"), flow.NotTLS, false},
		{[]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), flow.NotTLS, false},
		{nil, flow.NotTLS, false},
	} {
		near, far := association()
		far.Write(c.sent)
		w := newWorld(&flow.Decision{Action: flow.Reject, Reason: flow.UnrecognizedName})
		a := <-w.accepted
		a.c, a.f.Origin.Transport = near, flow.Datagram
		w.accepted <- a
		l := *w.listener.Load()
		l.Peek = PeekMust
		w.listener.Store(&l)
		if r := w.run(func() {}); r.e == nil || r.e.Reason != c.reason {
			t.Errorf("%.20q ended with %v, want %s", c.sent, r.e, c.reason)
		}
		b := make([]byte, 100)
		n, err := far.Read(b)
		if alert := n == 15 && b[0] == 21 && b[14] == 112; alert != c.alert || !c.alert && err != io.EOF {
			t.Errorf("%.20q was answered by %x, %v", c.sent, b[:n], err)
		}
	}
}
