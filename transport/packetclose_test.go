package transport

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/flow"
)

func TestPacketConnCloses(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		for i := range 30 {
			d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets})
			c := d.caller()
			c.send([]byte("x"))
			_, s := d.accept()
			wantRead(t, s, "x")
			done := make(chan error, 3)
			read := func() { _, err := s.Read(make([]byte, 10)); done <- err }
			for range 3 {
				go read()
			}
			if i%2 == 0 {
				c.send([]byte("y")) // just now
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				go read()
			}
			var closers sync.WaitGroup
			for range 2 {
				closers.Go(func() {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			closers.Wait()
			for range 3 {
				if err := <-done; !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}
			wantClosed(t, s)
			d.wantLive(0, 0)
		}
	})
}

func wantClosed(t testing.TB, s *packetConn) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	_, readErr := s.Read(make([]byte, 10))
	_, _, fromErr := s.ReadFrom(make([]byte, 10))
	_, unitErr := s.ReadUnit(func() []byte { t.Error("a buffer for nothing"); return nil })
	_, writeErr := s.Write([]byte("x"))
	_, toErr := s.WriteTo([]byte("x"), s.RemoteAddr())
	for _, err := range []error{readErr, fromErr, unitErr, writeErr, toErr} {
		if op, ok := errors.AsType[*net.OpError](err); !ok || !errors.Is(err, net.ErrClosed) || op.Net != "udp" || op.Source.String() != s.LocalAddr().String() || op.Addr.String() != s.RemoteAddr().String() {
			t.Errorf("%v", err)
		}
	}
	within(t, "its end", rests(t, s))
}

func TestPacketConnKeepsDeadlines(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	c := d.caller()
	c.send([]byte("x"))
	_, s := d.accept()
	wantRead(t, s, "x")
	timesOut := func(what string, err error) {
		t.Helper()
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: %v", what, err)
		}
	}
	past := time.Unix(1, 0)
	for name, set := range map[string]func(time.Time) error{"SetDeadline": s.SetDeadline, "SetReadDeadline": s.SetReadDeadline} {
		if err := set(past); err != nil {
			t.Fatal(err)
		}
		_, err := s.Read(make([]byte, 10))
		timesOut(name, err)
		// One that passes while it waits.
		set(time.Now().Add(time.Millisecond))
		_, err = s.Read(make([]byte, 10))
		timesOut(name, err)
		// One that is set while it waits.
		set(time.Time{})
		done := make(chan error)
		go func() { _, err := s.Read(make([]byte, 10)); done <- err }()
		set(past)
		timesOut(name, <-done)
		set(time.Time{})
	}
	for name, set := range map[string]func(time.Time) error{"SetDeadline": s.SetDeadline, "SetWriteDeadline": s.SetWriteDeadline} {
		for _, at := range []time.Time{past, time.Unix(0, 0), time.Unix(-5, 0), time.Now()} {
			set(at)
			n, err := s.Write([]byte("late"))
			if timesOut(name, err); n != 0 {
				t.Error(n)
			}
			_, err = s.WriteTo([]byte("late"), s.RemoteAddr())
			timesOut(name, err)
		}
		set(time.Now().Add(time.Hour))
		wantWrite(t, s, "in time")
		c.wantHear("in time")
		set(past)
		set(time.Time{})
		wantWrite(t, s, "in time")
		c.wantHear("in time")
	}
	// A deadline for writes is none for reads, nor the other way round.
	s.SetWriteDeadline(past)
	c.send([]byte("y"))
	wantRead(t, s, "y")
	s.SetWriteDeadline(time.Time{})
	s.SetReadDeadline(past)
	wantWrite(t, s, "z")
	c.wantHear("z")
}

func TestPacketConnWakes(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	s := c.begun(greeting(1))
	for name, act := range map[string]func(){
		"a datagram":                 func() { c.send(sealed("x")) },
		"a deadline that has passed": func() { s.SetReadDeadline(time.Unix(1, 0)) },
		"one that passes":            func() { s.SetDeadline(time.Now().Add(time.Millisecond)) },
	} {
		woken := rests(t, s)
		act()
		within(t, name, woken)
		s.SetDeadline(time.Time{})
		if name == "a datagram" {
			wantRead(t, s, string(sealed("x")))
		}
	}
	woken := rests(t, s)
	next := c.begun(greeting(2))
	within(t, "a restart", woken)
	wantReason(t, s, flow.ClientRestarted)
	woken = rests(t, next)
	next.Close()
	within(t, "Close", woken)
}

func TestWriteToWhatIsNoUDPAddress(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	c := d.caller()
	c.send([]byte("x"))
	_, s := d.accept()
	if n, err := s.WriteTo([]byte("x"), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}); n != 0 || err == nil {
		t.Error(n, err)
	}
	// IPv4 in the form of IPv6, as package net gives it.
	at := c.addr()
	if n, err := s.WriteTo([]byte("y"), &net.UDPAddr{IP: net.IP(at.Addr().AsSlice()).To16(), Port: int(at.Port())}); n != 1 || err != nil {
		t.Error(n, err)
	}
	c.wantHear("y")
}

func TestPacketAcceptorCloses(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets})
		done := make(chan error)
		for range 3 {
			go func() { _, _, err := d.a.Accept(context.Background()); done <- err }()
		}
		var closers sync.WaitGroup
		for range 2 {
			closers.Go(func() {
				if err := d.a.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		for range 3 {
			if err := <-done; !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "accepting on 127.0.0.1:") {
				t.Error(err)
			}
		}
		closers.Wait()
		if _, _, err := d.a.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		wantPortFree(t, d)
	})
}

// wantPortFree says that the sockets are closed: another one can be bound.
func wantPortFree(t testing.TB, d *demux) {
	t.Helper()
	await(t, "its port is free again", func() bool {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(d.addr("127.0.0.1")))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// What lives goes on; no more is taken, and the last one puts out the light.
func TestPacketAcceptorClosesWithLiveAssociations(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		c, other, unaccepted, late := d.caller(), d.caller(), d.caller(), d.caller()
		s, o := c.begun(greeting(1)), other.begun(greeting(2))
		bind(t, s, "12345678")
		unaccepted.prove(greeting(3))
		unaccepted.settle()
		lateCookie := late.cookie(greeting(4))
		d.wantLive(3, 1)
		if err := d.a.Close(); err != nil {
			t.Fatal(err)
		}
		d.wantLive(2, 0)
		if _, _, err := d.a.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		late.send(again(t, greeting(4), lateCookie))
		unaccepted.send(sealed("nobody's"))
		c.send(sealed("goes on"), withCID("12345678", "goes on"))
		wantRead(t, s, string(sealed("goes on")))
		wantRead(t, s, string(withCID("12345678", "goes on")))
		wantWrite(t, s, "so it does")
		c.wantHear("so it does")
		c.prove(greeting(5)) // nor a shadow
		for _, by := range []*caller{late, unaccepted, c} {
			by.settle()
		}
		d.wantLive(2, 0)
		if n := d.count(PacketsBegun); n != 3 {
			t.Errorf("%d associations begun", n)
		}
		o.Close()
		c.send(sealed("and on"))
		wantRead(t, s, string(sealed("and on")))
		s.Close()
		wantClosed(t, s)
		wantPortFree(t, d)
		if err := d.a.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What was closed takes new ones again while an old one lives, and not after.
func TestPacketAcceptorReopens(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		c, other := d.caller(), d.caller()
		s := c.begun(greeting(1))
		if d.a.Reopen() {
			t.Error("it was not closed")
		}
		for range 2 {
			if err := d.a.Close(); err != nil {
				t.Fatal(err)
			}
			if d.a.Ended() || !d.a.Reopen() {
				t.Fatal("it does not take new ones again")
			}
		}
		o := other.begun(greeting(2))
		c.send(sealed("goes on"))
		wantRead(t, s, string(sealed("goes on")))
		s.Close()
		if err := d.a.Close(); err != nil {
			t.Error(err)
		}
		other.send(sealed("goes on"))
		wantRead(t, o, string(sealed("goes on")))
		o.Close()
		if !d.a.Ended() || d.a.Reopen() {
			t.Error("it has no sockets any more")
		}
		wantPortFree(t, d)
	})
}

// Those who come while it closes are taken whole, or not at all.
func TestPacketAcceptorClosesAmidArrivals(t *testing.T) {
	for range 20 {
		d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: 4})
		var work sync.WaitGroup
		work.Go(func() {
			for {
				_, c, err := d.a.Accept(context.Background())
				if err != nil {
					return
				}
				work.Go(func() {
					defer c.Close()
					unit, err := read(c)
					if err != nil {
						t.Error(err)
					}
					if _, err := c.Write(unit); err != nil {
						t.Error(err)
					}
				})
			}
		})
		conns := make([]*net.UDPConn, 40)
		for i := range conns {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(d.addr("127.0.0.1")))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns[i] = c
		}
		work.Go(func() {
			for _, c := range conns {
				c.Write([]byte("x")) // after the end it is refused
			}
		})
		await(t, "some are there", func() bool { return d.count(PacketsBegun) > 5 })
		d.a.Close()
		work.Wait()
		d.wantLive(0, 0)
		wantPortFree(t, d)
	}
}
