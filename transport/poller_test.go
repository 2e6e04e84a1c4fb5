package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/flow"
)

func poller(t testing.TB) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// rests has c wait and gives what is closed when it is woken.
func rests(t testing.TB, c flow.Conn) chan struct{} {
	t.Helper()
	woken := make(chan struct{})
	if err := c.(flow.Waiter).WhenReadable(func() { close(woken) }); err != nil {
		t.Fatal(err)
	}
	return woken
}

func within(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not woken", what)
	}
}

func TestWhenReadableIsWokenByAllThatEndsARead(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(own, peer flow.Conn)
		want error // of the read after it
	}{
		{"bytes", func(_, peer flow.Conn) { peer.Write([]byte("x")) }, nil},
		{"the end", func(_, peer flow.Conn) { peer.CloseWrite() }, io.EOF},
		{"close of the peer", func(_, peer flow.Conn) { peer.Close() }, io.EOF},
		{"a reset", func(_, peer flow.Conn) { flow.Abort(peer) }, syscall.ECONNRESET},
		{"Close", func(own, _ flow.Conn) { own.Close() }, net.ErrClosed},
		{"Abort", func(own, _ flow.Conn) { flow.Abort(own) }, net.ErrClosed},
		{"a read deadline", func(own, _ flow.Conn) { own.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"a deadline", func(own, _ flow.Conn) { own.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/before=%t", c.what, before), func(t *testing.T) {
				own, peer, _ := pair(t, Where{Host: "127.0.0.1"})
				own.(*conn).poller = poller(t)
				if c.want == net.ErrClosed || c.want == os.ErrDeadlineExceeded {
					before = false // it is an end of the waiting, which has to be
				}
				if before {
					c.do(own, peer)
				}
				woken := rests(t, own)
				if !before {
					select {
					case <-woken:
						t.Fatal("woken by nothing")
					default:
					}
					c.do(own, peer)
				}
				within(t, c.what, woken)
				_, err := own.Read(make([]byte, 1))
				if !errors.Is(err, c.want) {
					t.Errorf("read after it: %v, want %v", err, c.want)
				}
			})
		}
	}
}

// Descriptors are numbers that come back: a connection is never woken for another
// one that had its number, and each is woken as often as it waits.
func TestWhenReadableOfManyAndAgain(t *testing.T) {
	p := poller(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				own, peer, _ := pair(t, Where{Host: "127.0.0.1"})
				own.(*conn).poller = p
				for i := range 10 {
					woken := rests(t, own)
					peer.Write([]byte{byte(i)})
					within(t, "bytes", woken)
					var b [1]byte
					own.SetReadDeadline(time.Now().Add(20 * time.Second)) // nobody waits: it wakes nobody
					if n, err := own.Read(b[:]); n != 1 || b[0] != byte(i) {
						t.Errorf("read %d of %x: %v", n, b, err)
					}
				}
				woken := rests(t, own)
				own.Close()
				within(t, "close", woken)
				peer.Close()
			}
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 {
		t.Errorf("%d closed connections are still known", len(p.waiting))
	}
}

// Close may come while it is being noted down who waits: then either that is
// undone, or it was never done; and what waits is called once, or told so.
func TestCloseAmidWhenReadable(t *testing.T) {
	p := poller(t)
	for range 500 {
		own, peer, _ := pair(t, Where{Host: "127.0.0.1"})
		own.(*conn).poller = p
		var calls atomic.Int32
		var wg, called sync.WaitGroup
		called.Add(1)
		wg.Go(func() {
			if own.(flow.Waiter).WhenReadable(func() { calls.Add(1); called.Done() }) != nil {
				called.Done()
			}
		})
		wg.Go(func() { own.Close() })
		wg.Wait()
		called.Wait()
		peer.Close()
		if calls.Load() > 1 {
			t.Fatal("called twice")
		}
		p.mu.Lock()
		n := len(p.waiting)
		p.mu.Unlock()
		if n > 0 {
			t.Fatalf("%d closed connections are still known", n)
		}
	}
}

func TestRestingTakesNoGoroutine(t *testing.T) {
	p := poller(t)
	before := runtime.NumGoroutine()
	var woken []chan struct{}
	var peers []flow.Conn
	for range 50 {
		own, peer, _ := pair(t, Where{Host: "127.0.0.1"})
		own.(*conn).poller = p
		woken, peers = append(woken, rests(t, own)), append(peers, peer)
	}
	if n := runtime.NumGoroutine() - before; n > 10 {
		t.Errorf("%d goroutines more for 50 connections that rest", n)
	}
	for i, w := range woken {
		peers[i].Write([]byte("x"))
		within(t, "bytes", w)
	}
}

func TestWithoutAPoller(t *testing.T) {
	own, _, _ := pair(t, Where{Host: "127.0.0.1"})
	if err := own.(flow.Waiter).WhenReadable(func() { t.Error("called") }); err == nil {
		t.Error("waits without a poller")
	}
}
