package transport

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/flow"
)

// udpServer is a socket that a dialled association is connected to.
type udpServer struct {
	testing.TB
	*net.UDPConn
	port uint16
}

func serveUDP(t testing.TB, host string, port uint16) *udpServer {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &udpServer{t, c, c.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
}

func (s *udpServer) hear(want []byte) (from netip.AddrPort) {
	s.Helper()
	p := make([]byte, 64<<10)
	s.SetReadDeadline(time.Now().Add(patience))
	n, from, err := s.ReadFromUDPAddrPort(p)
	if err != nil || !bytes.Equal(p[:n], want) {
		s.Fatalf("the server hears %d bytes, %v; want %d", n, err, len(want))
	}
	return from
}

func (s *udpServer) say(p []byte, to flow.Conn) {
	s.Helper()
	if _, err := s.WriteTo(p, to.LocalAddr()); err != nil {
		s.Fatal(err)
	}
}

func dialUDP(t testing.TB, d *Dialer) (flow.Conn, *flow.Flow) {
	t.Helper()
	d.Packets = true
	f := &flow.Flow{}
	c, err := d.Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, f
}

func TestDialledPacketsKeepTheirBoundaries(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		s := serveUDP(t, host, 0)
		c, f := dialUDP(t, &Dialer{Where: Where{Host: host, Port: s.port}})
		if f.Dialled.Addr != s.LocalAddr().String() || c.RemoteAddr().String() != f.Dialled.Addr || c.Transport() != flow.Datagram || c.CloseWrite() != nil {
			t.Errorf("%+v, %v, %v", f.Dialled, c.RemoteAddr(), c.Transport())
		}
		for _, size := range payloadSizes {
			p := make([]byte, size)
			rand.Read(p)
			wantWrite(t, c, string(p))
			if from := s.hear(p); from.String() != c.LocalAddr().String() {
				t.Errorf("from %v, which is %v", from, c.LocalAddr())
			}
			s.say(p, c)
			if got, err := read(c); err != nil || got == nil || !bytes.Equal(got, p) {
				t.Fatalf("of %d bytes came back %d, %v", size, len(got), err)
			}
			s.say(p, c)
			buf := make([]byte, size)
			if n, err := c.Read(buf); n != size || err != nil || !bytes.Equal(buf, p) {
				t.Fatalf("Read of %d bytes: %d, %v", size, n, err)
			}
		}
		// Nobody else can get a word in.
		stranger := serveUDP(t, host, 0)
		stranger.say([]byte("stranger"), c)
		s.say([]byte("server"), c)
		wantRead(t, c, "server")
	}
}

func TestDialledPacketsTooLarge(t *testing.T) {
	s := serveUDP(t, "127.0.0.1", 0)
	c, _ := dialUDP(t, &Dialer{Where: Where{Host: "db.example", Port: s.port}, Resolve: []Override{{"db.example", s.port, netip.MustParseAddr("127.0.0.1")}}})
	for _, size := range []int{maxPayload + 1, 1 << 20} {
		n, err := c.Write(make([]byte, size))
		if want := fmt.Sprintf("sending to db.example:%d: the datagram is too large to be carried: it has %d bytes, and UDP carries 65507", s.port, size); n != 0 || !errors.Is(err, flow.ErrTooLarge) || err.Error() != want {
			t.Errorf("%d bytes: %d, %v, want %s", size, n, err, want)
		}
	}
	wantWrite(t, c, "next")
	s.hear([]byte("next"))

	for _, room := range []int{9, 5} {
		s.say([]byte("ten bytes!"), c)
		s.say([]byte("next"), c)
		n, err := c.Read(make([]byte, room))
		if n != 0 || !errors.Is(err, flow.ErrTooLarge) || !strings.Contains(err.Error(), fmt.Sprintf("a datagram of more than %d bytes is lost, the buffer has no more", room)) {
			t.Errorf("%d, %v", n, err)
		}
		wantRead(t, c, "next")
	}
	s.say([]byte("ten bytes!"), c)
	if n, err := c.Read(make([]byte, 10)); n != 10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	s.say([]byte("x"), c)
	if n, err := c.Read(nil); n != 0 || !errors.Is(err, flow.ErrTooLarge) {
		t.Errorf("%d, %v", n, err)
	}
	s.say(nil, c)
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	s.say([]byte("next"), c)
	wantRead(t, c, "next")
}

// A server that is not there is known by what its host answers, to the next read
// or write; the association itself is there all the same, should it come up.
func TestDialledPacketsRefused(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		gone := serveUDP(t, host, 0)
		gone.Close()
		c, _ := dialUDP(t, &Dialer{Where: Where{Host: "db.example", Port: gone.port}, Resolve: []Override{{"*", gone.port, netip.MustParseAddr(host)}}})
		at := net.JoinHostPort(host, fmt.Sprint(gone.port))
		want := fmt.Sprintf("the association with db.example:%d (%s): nobody listens there (ICMP port unreachable); is the server running?", gone.port, at)
		refused := func(err error) {
			t.Helper()
			e, ok := errors.AsType[*flow.Error](err)
			if !ok || e.Reason != flow.DialRefused || e.Fault != flow.FaultServer || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		wantWrite(t, c, "x")
		_, err := read(c)
		refused(err)
		wantWrite(t, c, "x")
		await(t, "the next write is told", func() bool {
			_, err = c.Write([]byte("x"))
			return err != nil
		})
		refused(err)

		back := serveUDP(t, host, gone.port)
		for { // what has been sent before may still be answered
			if _, err := c.Write([]byte("again")); err == nil {
				break
			}
		}
		back.hear([]byte("again"))
		back.say([]byte("answer"), c)
		await(t, "the answer comes", func() bool {
			p, err := read(c)
			return err == nil && string(p) == "answer"
		})
	}
	// Where it was asked for by its address, that stands there once.
	gone := serveUDP(t, "127.0.0.1", 0)
	gone.Close()
	c, _ := dialUDP(t, &Dialer{Where: Where{Host: "127.0.0.1", Port: gone.port}})
	wantWrite(t, c, "x")
	if _, err := read(c); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("the association with 127.0.0.1:%d: nobody", gone.port)) {
		t.Error(err)
	}
}

func TestDialledPacketsErrorsAreWords(t *testing.T) {
	s := serveUDP(t, "127.0.0.1", 0)
	c, _ := dialUDP(t, &Dialer{Where: Where{Host: "127.0.0.1", Port: s.port}})
	for errno, want := range map[syscall.Errno]struct {
		r    flow.Reason
		text string
	}{
		syscall.ECONNREFUSED: {flow.DialRefused, "nobody listens there"},
		syscall.EHOSTUNREACH: {flow.ServerUnreachable, "no way there; `ip route get`"},
		syscall.ENETUNREACH:  {flow.ServerUnreachable, "no way there; `ip route get`"},
		syscall.EPERM:        {flow.ServerUnreachable, "a firewall of this host, or one on the way, refuses it"},
		syscall.EACCES:       {flow.ServerUnreachable, "a firewall of this host, or one on the way, refuses it"},
		syscall.ENOPROTOOPT:  {flow.ServerUnreachable, "that host does not speak UDP"},
	} {
		err := c.(*datagrams).failure(&net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("write", errno)})
		e, ok := errors.AsType[*flow.Error](err)
		if !ok || e.Reason != want.r || !errors.Is(err, errno) || !strings.Contains(err.Error(), want.text) || !strings.Contains(err.Error(), s.LocalAddr().String()) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	for _, other := range []error{net.ErrClosed, os.ErrDeadlineExceeded, syscall.ENOBUFS, flow.ErrTooLarge} {
		if err := c.(*datagrams).failure(other); err != other {
			t.Errorf("%v became %v", other, err)
		}
	}

	d := &Dialer{Where: Where{Host: "no-such-host.invalid", Port: 1}, Packets: true}
	if _, err := d.Dial(t.Context(), &flow.Flow{}); flow.AsError(err, flow.Internal).Reason != flow.NameNotResolved || !strings.Contains(err.Error(), "connecting to no-such-host.invalid:1: the name ") {
		t.Error(err)
	}
}

func TestDialledPacketsClose(t *testing.T) {
	s := serveUDP(t, "127.0.0.1", 0)
	for range 30 {
		c, _ := dialUDP(t, &Dialer{Where: Where{Host: "127.0.0.1", Port: s.port}})
		done := make(chan error)
		go func() { _, err := c.Read(make([]byte, 10)); done <- err }()
		c.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	c, _ := dialUDP(t, &Dialer{Where: Where{Host: "127.0.0.1", Port: s.port}})
	for range 2 {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
	c.SetReadDeadline(time.Time{})
	s.say([]byte("x"), c)
	wantRead(t, c, "x")
}

// No buffer is held while an association is idle, and with a poller no goroutine.
func TestDialledPacketsRest(t *testing.T) {
	p := poller(t)
	s := serveUDP(t, "127.0.0.1", 0)
	c, _ := dialUDP(t, &Dialer{Where: Where{Host: "127.0.0.1", Port: s.port}, Poller: p})
	var leased atomic.Int32
	var reader sync.WaitGroup
	reader.Go(func() {
		unit, err := flow.Units(c).ReadUnit(func() []byte { leased.Add(1); return make([]byte, 10) })
		if string(unit) != "first" || err != nil {
			t.Errorf("%q, %v", unit, err)
		}
	})
	wantWrite(t, c, "ask")
	s.hear([]byte("ask"))
	if n := leased.Load(); n != 0 {
		t.Errorf("%d buffers leased with nothing to read", n)
	}
	s.say([]byte("first"), c)
	reader.Wait()
	if n := leased.Load(); n != 1 {
		t.Errorf("%d buffers leased", n)
	}
	for _, payload := range []string{"second", ""} {
		woken := rests(t, c)
		s.say([]byte(payload), c)
		within(t, "a datagram", woken)
		wantRead(t, c, payload)
	}
	// What the server's host answers wakes it as well.
	s.Close()
	woken := rests(t, c)
	wantWrite(t, c, "x")
	within(t, "an ICMP error", woken)
	if _, err := read(c); flow.AsError(err, flow.Internal).Reason != flow.DialRefused {
		t.Error(err)
	}
	woken = rests(t, c)
	c.Close()
	within(t, "Close", woken)
}
