package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/transport"
)

// dialer dials a test's server.
func dialer(addr string, packets bool) *transport.Dialer {
	at := netip.MustParseAddrPort(addr)
	return &transport.Dialer{Where: transport.Where{Host: at.Addr().String(), Port: at.Port()}, Packets: packets}
}

// poolOf has the servers at those addresses, which nobody checks.
func poolOf(set *Set, packets bool, addrs ...string) *Pool {
	p := &Pool{Retry: 1, Timeout: 2 * time.Second}
	for _, a := range addrs {
		p.Add(set.Server(Spec{Addr: a, ID: a, Fall: 3}), Member{Weight: 1, Dial: dialer(a, packets)})
	}
	return p
}

func accepts(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// silent gives an address that takes no connection and does not refuse one: its
// queue is full.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(local.(*syscall.SockaddrInet4).Port)).String()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return addr
}

// refuses gives an address that a socket holds which does not listen.
func refuses(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(local.(*syscall.SockaddrInet4).Port)).String()
}

func reasonOf(err error) flow.Reason {
	if e, ok := errors.AsType[*flow.Error](err); ok {
		return e.Reason
	}
	return ""
}

// A connection keeps what the relay asks of one, and counts until it is closed,
// once, however often that is said.
func TestAConnectionCounts(t *testing.T) {
	set := NewSet(quiet, System{}, nil)
	p := poolOf(set, false, accepts(t))
	f := &flow.Flow{}
	c, err := p.Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := c.(flow.Bare); !ok || b.Bare() == nil {
		t.Error("it cannot be spliced")
	}
	if _, ok := c.(flow.Waiter); !ok {
		t.Error("it cannot rest")
	}
	for name, ok := range map[string]bool{
		"Aborter": is[flow.Aborter](c), "Unsent": is[flow.Unsent](c), "UnitReader": is[flow.UnitReader](c),
	} {
		if !ok {
			t.Errorf("it is no %s any more", name)
		}
	}
	if f.Dialled.Server != p.members[0].server.spec.Addr || f.Dialled.Took <= 0 {
		t.Errorf("%+v", f.Dialled)
	}
	flows := func() int { return set.servers[0].condition().flows }
	if flows() != 1 {
		t.Errorf("%d flows", flows())
	}
	flow.Abort(c)
	c.Close()
	if flows() != 0 {
		t.Errorf("%d flows after the end of the only one", flows())
	}
}

func is[T any](c flow.Conn) bool { _, ok := c.(T); return ok }

func TestAnotherServerIsTried(t *testing.T) {
	good := accepts(t)
	for name, bad := range map[string]string{"refuses": refuses(t), "silent": silent(t)} {
		t.Run(name, func(t *testing.T) {
			set := NewSet(quiet, System{}, nil)
			p := poolOf(set, false, bad, good)
			for range 4 {
				f := &flow.Flow{}
				start := time.Now()
				c, err := p.Dial(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				// The one that says nothing has half of the two seconds.
				if f.Dialled.Addr != good || time.Since(start) > 1900*time.Millisecond {
					t.Errorf("%+v after %s", f.Dialled, time.Since(start))
				}
			}
			for _, s := range set.servers {
				if n := s.condition().flows; n != 0 {
					t.Errorf("%s has %d flows after the end of all", s.spec.Addr, n)
				}
			}
		})
	}
}

func TestNothingIsLeftToTry(t *testing.T) {
	a, b, c := refuses(t), refuses(t), refuses(t)
	set := NewSet(quiet, System{}, nil)
	for _, step := range []struct {
		name   string
		pool   *Pool
		reason flow.Reason
		words  []string
	}{
		{"alone", poolOf(set, false, a), flow.DialRefused, []string{a}},
		{"both", poolOf(set, false, a, b), flow.NoServerUp, []string{a, b, "refused"}},
		{"two of three", poolOf(set, false, a, b, c), flow.DialRefused, []string{"2 servers tried"}},
	} {
		_, err := step.pool.Dial(t.Context(), &flow.Flow{})
		if reasonOf(err) != step.reason {
			t.Errorf("%s: %v (%s), want %s", step.name, err, reasonOf(err), step.reason)
			continue
		}
		for _, w := range step.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: it does not say %q: %v", step.name, w, err)
			}
		}
	}
	drained := poolOf(set, false, a, b)
	if err := errors.Join(set.Drain(a), set.Drain(b)); err != nil {
		t.Fatal(err)
	}
	if _, err := drained.Dial(t.Context(), &flow.Flow{}); reasonOf(err) != flow.NoServerUp || !strings.Contains(err.Error(), "drained") {
		t.Errorf("all are taken out: %v", err)
	}
}

// Who gave up is not the server's fault.
func TestAClientThatGoesIsNoFailure(t *testing.T) {
	set := NewSet(quiet, System{}, nil)
	p := poolOf(set, false, silent(t), silent(t))
	for range 4 {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(flow.Fail(flow.ClientGone, "gone")) })
		if _, err := p.Dial(ctx, &flow.Flow{}); reasonOf(err) != flow.ClientGone {
			t.Errorf("%v", err)
		}
	}
	for _, s := range set.servers {
		if s.failed != 0 || s.condition().flows != 0 {
			t.Errorf("%d failures, %d flows", s.failed, s.condition().flows)
		}
	}
}

// Of datagrams, ICMP counts as a failure, once an association; an answer as a pass.
func TestAssociations(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	set := NewSet(quiet, System{}, nil)
	p := poolOf(set, true, pc.LocalAddr().String())
	s := set.servers[0]
	ping := func() flow.Conn {
		t.Helper()
		c, err := p.Dial(t.Context(), &flow.Flow{})
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	s.fail(time.Now(), errTest)
	c := ping()
	var b [64]byte
	n, from, err := pc.ReadFrom(b[:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.WriteTo(b[:n], from); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b[:]); err != nil || s.failed != 0 {
		t.Errorf("an answer: %v, %d failures", err, s.failed)
	}
	c.Close()
	pc.Close()
	for i := range 3 {
		c := ping()
		for range 2 {
			if _, err := flow.Units(c).ReadUnit(func() []byte { return b[:] }); err == nil || errors.Is(err, io.EOF) {
				t.Fatalf("an answer of nobody: %v", err)
			}
			c.SetDeadline(time.Unix(1, 0))
		}
		c.Close()
		if s.isDown() != (i == 2) {
			t.Errorf("after %d that were refused, down is %t", i+1, s.isDown())
		}
	}
}

// A server that only flows found to be down is asked until it takes a connection.
func TestRescue(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	set := NewSet(quiet, System{}, nil)
	s := set.Server(Spec{Addr: addr, ID: addr, Fall: 1, Probe: Probe(dialer(addr, false))})
	d := set.Server(Spec{Addr: "udp://a:1", ID: "udp", Fall: 2})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { set.Work()[1](ctx); close(done) }()
	for range 2 { // twice, since a rescue must not be the last one
		s.fail(time.Now(), errTest)
		d.fail(time.Now(), errTest)
		d.fail(time.Now(), errTest)
		for end := time.Now().Add(5 * time.Second); s.isDown() || d.isDown(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("5 s later they are down: %t, %t", s.isDown(), d.isDown())
			}
		}
	}
	d.fail(time.Now(), errTest)
	if !d.isDown() {
		t.Error("one that is tried again and fails at once is up")
	}
	cancel()
	<-done
}

func TestStatus(t *testing.T) {
	set := NewSet(quiet, System{}, nil)
	p := poolOf(set, false, "10.0.0.1:1", "10.0.0.2:1")
	p.Route, p.Balance = "tls-443/1", Least
	set.Add(p)
	for range 3 {
		set.servers[1].fail(time.Now(), errTest)
	}
	set.servers[0].join()
	if err := set.Drain("10.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	all := set.Pools()
	if len(all) != 1 || all[0].Route != "tls-443/1" || all[0].Balance != "least" || len(all[0].Servers) != 2 {
		t.Fatalf("%+v", all)
	}
	a, b := all[0].Servers[0], all[0].Servers[1]
	if a.State != Drained || a.Flows != 1 || b.State != Down || b.Err != "refused" || b.Weight != 1 {
		t.Errorf("%+v\n%+v", a, b)
	}
}
