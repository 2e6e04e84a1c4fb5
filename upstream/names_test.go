package upstream

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a resolver whose one answer the test changes.
type zone struct {
	mu    sync.Mutex
	addr  string // "" does not resolve
	ttl   time.Duration
	asked int
	hold  chan struct{} // nil: it answers at once
}

func (z *zone) set(addr string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addr = addr
}

func (z *zone) count() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}

func (z *zone) Addrs(_ context.Context, host string) ([]netip.Addr, time.Duration, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.hold != nil {
		z.mu.Unlock()
		<-z.hold
		z.mu.Lock()
	}
	if z.addr == "" {
		return nil, 0, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr(z.addr)}, z.ttl, nil
}

func (*zone) Targets(context.Context, string) ([]Target, time.Duration, error) {
	return nil, 0, errors.New("no services here")
}

func TestANameIsLookedUpByItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		z := &zone{addr: "10.0.0.1", ttl: 20 * time.Second}
		set := NewSet(slog.New(slog.NewTextHandler(&log, nil)), z, nil)
		n := set.Name("db.test")
		ctx, cancel := context.WithCancel(context.Background())
		var work sync.WaitGroup
		for _, f := range set.Work() {
			work.Go(func() { f(ctx) })
		}
		is := func(want string) {
			t.Helper()
			if addrs, err := n.Addrs(ctx); err != nil || len(addrs) != 1 || addrs[0].String() != want {
				t.Fatalf("%v, %v; want %s", addrs, err, want)
			}
		}
		synctest.Wait()
		is("10.0.0.1")
		z.set("10.0.0.2")
		time.Sleep(19 * time.Second)
		is("10.0.0.1")
		time.Sleep(2 * time.Second)
		is("10.0.0.2")
		if got := z.count(); got != 2 {
			t.Errorf("asked %d times in 21 s, of a TTL of 20 s", got)
		}

		// The last good answer stays, and the log says so once.
		z.set("")
		time.Sleep(10 * time.Minute)
		is("10.0.0.2")
		if n := strings.Count(log.String(), "any more"); n != 1 {
			t.Errorf("it says so %d times:\n%s", n, &log)
		}
		z.set("10.0.0.3")
		time.Sleep(35 * time.Second)
		is("10.0.0.3")
		if !strings.Contains(log.String(), "resolves again") {
			t.Errorf("it does not say that the name is back:\n%s", &log)
		}

		// A TTL of 0 does not have us ask without end.
		z.mu.Lock()
		z.ttl, z.asked = time.Nanosecond, 0
		z.mu.Unlock()
		time.Sleep(60 * time.Second)
		if got := z.count(); got > 13 {
			t.Errorf("asked %d times in a minute", got)
		}
		cancel()
		work.Wait()
	})
}

// Flows that come while a name does not resolve share one look-up, and one that is
// gone takes it from nobody.
func TestALookUpIsShared(t *testing.T) {
	z := &zone{hold: make(chan struct{})}
	n := NewSet(quiet, z, nil).Name("db.test")
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := n.Addrs(first); gone <- err }()
	for z.count() == 0 {
		runtime.Gosched()
	}
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who left was told %v", err)
	}
	var flows sync.WaitGroup
	for range 100 {
		flows.Go(func() {
			if addrs, err := n.Addrs(t.Context()); err != nil || addrs[0].String() != "10.0.0.1" {
				t.Errorf("%v, %v", addrs, err)
			}
		})
	}
	z.set("10.0.0.1")
	close(z.hold)
	flows.Wait()
	if got := z.count(); got > 2 { // a flow may have come after the first look-up
		t.Errorf("%d look-ups", got)
	}
}

func TestANameThatNeverResolved(t *testing.T) {
	z := &zone{}
	before := NewSet(quiet, z, nil)
	n := before.Name("db.test")
	if _, err := n.Addrs(t.Context()); err == nil {
		t.Fatal("it resolves")
	}
	z.set("10.0.0.1")
	if addrs, err := n.Addrs(t.Context()); err != nil || addrs[0].String() != "10.0.0.1" {
		t.Fatalf("%v, %v", addrs, err)
	}
	// A reload while the resolver is gone goes on with what was known.
	z.set("")
	if addrs, err := NewSet(quiet, z, before).Name("db.test").Addrs(t.Context()); err != nil || addrs[0].String() != "10.0.0.1" {
		t.Errorf("%v, %v", addrs, err)
	}
}
