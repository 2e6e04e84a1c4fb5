package secure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/testnet"
	"sallyport/transport"
	"sallyport/wire"
)

// both runs a test with each end in the place of the one that is looked at.
func both(t *testing.T, f func(t *testing.T, here, there *side)) {
	s := newSite(t)
	t.Run("server", func(t *testing.T) {
		s.t = t
		server, client := s.oursGood()
		f(t, server, client)
	})
	t.Run("client", func(t *testing.T) {
		s.t = t
		server, client := s.oursGood()
		f(t, client, server)
	})
}

func TestDTLSGoodbye(t *testing.T) {
	both(t, func(t *testing.T, here, there *side) {
		if err := there.c.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := here.ends(t); err != io.EOF {
				t.Errorf("read %v", err)
			}
		}
		if err := there.ends(t); !errors.Is(err, net.ErrClosed) && err != io.EOF { // a goodbye is answered by one
			t.Errorf("who has closed reads %v", err)
		}
		for _, s := range []*side{here, there} {
			eventually(t, "writing to end", func() bool { _, err := s.c.Write([]byte("x")); return errors.Is(err, net.ErrClosed) })
			s.c.Close()
			s.c.Close() // once more does no harm
		}
	})
}

// What came before a goodbye is read before it.
func TestDTLSGoodbyeComesLast(t *testing.T) {
	for range 30 {
		s := newSite(t)
		s.psk()
		s.client.Suites = []uint16{suitePSK}
		server, client := s.oursGood()
		for i := range 5 {
			client.says(t, fmt.Sprint(i))
		}
		client.c.Close()
		for i := range 5 {
			server.hears(t, fmt.Sprint(i))
		}
		if err := server.ends(t); err != io.EOF {
			t.Fatalf("read %v", err)
		}
	}
}

// Who says what it has to say and goes is heard, even where its goodbye comes before
// the engine has noted that the handshake is over: one in a thousand or two without
// [datagrams.settle].
func TestDTLSGoodbyeAtOnce(t *testing.T) {
	for name, resumes := range map[string]bool{"full": false, "resumed": true} {
		t.Run(name, func(t *testing.T) {
			const each, callers = 60, 16
			s := newSite(t)
			s.psk()
			s.client.Suites = []uint16{suitePSK}
			layer := NewDTLSClient(s.client)
			l := listenDTLS(t, NewDTLSServer(s.server))
			if resumes {
				client := dialDTLS(t, l.at(), layer)
				talkDTLS(t, l.next(), client)
			}
			var calls sync.WaitGroup
			for range callers {
				calls.Go(func() {
					for range each {
						by := layer
						if !resumes {
							by = NewDTLSClient(s.client)
						}
						c := dialDTLS(t, l.at(), by)
						if c.err != nil {
							t.Error(c.err)
							return
						}
						if c.session(t).Resumed != resumes {
							t.Errorf("resumed is %t", !resumes)
						}
						c.says(t, "in haste")
						c.c.Close()
					}
				})
			}
			for range each * callers {
				server := l.next()
				if server.err != nil {
					t.Fatal(server.err)
				}
				server.hears(t, "in haste")
				server.c.Close()
			}
			calls.Wait()
		})
	}
}

// The end of a handshake, data and the goodbye may come in one datagram.
func TestDTLSGoodbyeInOneDatagram(t *testing.T) {
	for name, w := range map[string]testnet.Way{"full, to the client": testnet.ToClient, "resumed, to the server": testnet.ToServer} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			layer := NewDTLSClient(s.client)
			l := listenDTLS(t, NewDTLSServer(s.server))
			r := testnet.Relay(t, l.at(), testnet.Weather{})
			if w == testnet.ToServer {
				client := dialDTLS(t, r.Addr(), layer)
				talkDTLS(t, l.next(), client)
			}
			var held []byte
			encrypted := 0
			r.Through(func(client int, way testnet.Way, _ int, p []byte) [][]byte {
				if way != w || client == 0 && w == testnet.ToServer {
					return [][]byte{p}
				}
				for rest := p; len(rest) > 0; {
					record, after, err := wire.ReadRecord(rest, 0)
					if err != nil {
						t.Fatal(err)
					}
					rest = after
					if record.Epoch == 1 {
						encrypted++
					}
				}
				if encrypted == 0 {
					return [][]byte{p}
				}
				if held = append(held, p...); encrypted < 4 { // Finished, twice data, close_notify
					return nil
				}
				return [][]byte{held}
			})
			dialled := make(chan *side, 1)
			go func() { dialled <- dialDTLS(t, r.Addr(), layer) }()
			first, second := l.next, func() *side { return <-dialled }
			if w == testnet.ToServer {
				first, second = second, first
			}
			from := first()
			from.says(t, "in")
			from.says(t, "haste")
			from.c.Close()
			to := second()
			if to.err != nil {
				t.Fatal(to.err)
			}
			if to.session(t).Resumed != (w == testnet.ToServer) {
				t.Errorf("resumed is %t", to.session(t).Resumed)
			}
			to.hears(t, "in")
			to.hears(t, "haste")
			if err := to.ends(t); err != io.EOF {
				t.Errorf("it ends by %v", err)
			}
		})
	}
}

// Who is cut off is not told: a truncation is no proper end.
func TestDTLSAbort(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	r := testnet.Relay(t, l.at(), testnet.Weather{})
	client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
	server := l.next()
	talkDTLS(t, server, client)
	before := [2]testnet.Passage{r.Passed(testnet.ToServer), r.Passed(testnet.ToClient)}
	if err := flow.Abort(client.c); err != nil {
		t.Error(err)
	}
	if err := client.ends(t); !errors.Is(err, net.ErrClosed) {
		t.Errorf("who aborted reads %v", err)
	}
	server.c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := server.c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other reads %v", err)
	}
	flow.Abort(server.c)
	if after := [2]testnet.Passage{r.Passed(testnet.ToServer), r.Passed(testnet.ToClient)}; after != before {
		t.Errorf("something was said: %+v, before %+v", after, before)
	}
}

func TestDTLSDeadlines(t *testing.T) {
	both(t, func(t *testing.T, here, there *side) {
		b := make([]byte, 100)
		for _, at := range []time.Time{time.Unix(1, 0), time.Now(), time.Now().Add(30 * time.Millisecond)} {
			here.c.SetReadDeadline(at)
			for range 2 {
				if _, err := here.c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read %v", err)
				}
			}
		}
		here.c.SetReadDeadline(time.Time{})
		// A reader that waits is let out by a deadline that is set meanwhile.
		read := make(chan error, 1)
		go func() { _, err := here.c.Read(b); read <- err }()
		here.c.SetReadDeadline(time.Unix(1, 0))
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %v", err)
		}
		here.c.SetWriteDeadline(time.Unix(1, 0))
		if _, err := here.c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %v", err)
		}
		here.c.SetDeadline(time.Time{})
		talkDTLS(t, here, there)
		here.c.SetDeadline(time.Unix(1, 0))
		_, rerr := here.c.Read(b)
		_, werr := here.c.Write(b)
		if !errors.Is(rerr, os.ErrDeadlineExceeded) || !errors.Is(werr, os.ErrDeadlineExceeded) {
			t.Errorf("read %v, wrote %v", rerr, werr)
		}
		if err := here.c.CloseWrite(); err != nil {
			t.Error(err)
		}
		here.c.SetDeadline(time.Time{})
		talkDTLS(t, here, there)
	})
}

// Close lets a reader out.
func TestDTLSCloseAmidRead(t *testing.T) {
	for name, end := range map[string]func(flow.Conn) error{"Close": flow.Conn.Close, "Abort": flow.Abort} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, here, _ *side) {
				read := make(chan error, 1)
				go func() { _, err := here.c.Read(make([]byte, 1)); read <- err }()
				end(here.c)
				select {
				case err := <-read:
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("read %v", err)
					}
				case <-time.After(patience):
					t.Error("it still reads")
				}
			})
		})
	}
}

func TestDTLSServerThatIsNotThere(t *testing.T) {
	s := newSite(t)
	gone, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := gone.LocalAddr().(*net.UDPAddr).AddrPort()
	gone.Close()
	start := time.Now()
	client := dialDTLS(t, at, NewDTLSClient(s.client))
	if reasonOf(client.err) != flow.DialRefused || !strings.Contains(client.err.Error(), "nobody listens there") {
		t.Errorf("got %v", client.err)
	}
	if took := time.Since(start); took >= s.client.Timeout {
		t.Errorf("after %v", took)
	}
}

// A server that goes away without a goodbye is found out by what ICMP says of the
// next datagram.
func TestDTLSServerThatGoesAway(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	r := testnet.Relay(t, l.at(), testnet.Weather{})
	client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
	talkDTLS(t, l.next(), client)
	r.Close()
	client.says(t, "is anybody there?")
	if err := client.ends(t); reasonOf(err) != flow.DialRefused {
		t.Errorf("got %v", err)
	}
}

// A client that begins anew from its address ends its association of before.
func TestDTLSClientThatRestarts(t *testing.T) {
	s := newSite(t)
	s.psk()
	l := listenDTLS(t, NewDTLSServer(s.server))
	p := newPuppet(t, l.at(), suitePSK).shake()
	before := l.next()
	p.data("before")
	before.hears(t, "before")
	again := newPuppet(t, l.at(), suitePSK)
	again.socket.Close()
	again.socket = p.socket
	again.hello()
	p.data("while it begins")
	before.hears(t, "while it begins")
	cke := again.keyExchange()
	again.agree()
	again.send(again.record(wire.TypeHandshake, cke), again.changeCipherSpec(), again.sealed(wire.TypeHandshake, again.finished()))
	again.done()
	if err := before.ends(t); reasonOf(err) != flow.ClientRestarted {
		t.Errorf("the old one ended with %v", err)
	}
	after := l.next()
	again.data("after")
	after.hears(t, "after")
}

// An error leaves the connection to its owner, open and as it was.
func TestDTLSConnectionIsGivenBack(t *testing.T) {
	s := newSite(t)
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, cancelled := range map[string]bool{"in time": false, "when it is told to": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if s.client.Timeout = 100 * time.Millisecond; cancelled {
				s.client.Timeout = time.Minute
				time.AfterFunc(50*time.Millisecond, cancel)
			}
			at := silent.LocalAddr().(*net.UDPAddr).AddrPort()
			d := transport.Dialer{Where: transport.Where{Host: at.Addr().String(), Port: at.Port()}, Packets: true}
			f := &flow.Flow{}
			bare, err := d.Dial(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			defer bare.Close()
			if _, err := NewDTLSClient(s.client).Wrap(ctx, f, bare); err == nil {
				t.Fatal("a handshake with nobody")
			}
			if _, err := bare.Write([]byte("still open")); err != nil {
				t.Error(err)
			}
			silent.WriteTo([]byte("answer"), bare.LocalAddr())
			b := make([]byte, 100)
			if n, err := bare.Read(b); err != nil || string(b[:n]) != "answer" {
				t.Errorf("read %q, %v", b[:n], err)
			}
		})
	}
}

// Waiting needs no goroutine and no buffer, also after records came that held nothing.
func TestDTLSIdle(t *testing.T) {
	server, p := puppets(t)
	var woken atomic.Int32
	rest := func() { server.c.(flow.Waiter).WhenReadable(func() { woken.Add(1) }) }
	gate := &server.c.(*dtlsConn).under.gate
	eventually(t, "the engine to rest", gate.waits)
	rest()
	p.data("one")
	eventually(t, "a record to wake it", func() bool { return woken.Load() == 1 })
	server.hears(t, "one")
	for i := range 3 {
		rest()
		forged := plainRecord(typeApplicationData, 1, uint64(1000+i), make([]byte, 30))
		p.send(forged)
		eventually(t, "a record to wake it", func() bool { return woken.Load() == int32(2+i) })
		leased := false
		server.c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := flow.Units(server.c).ReadUnit(func() []byte { leased = true; return make([]byte, 10) }); !errors.Is(err, os.ErrDeadlineExceeded) || leased {
			t.Errorf("read %v, leased is %t", err, leased)
		}
		server.c.SetReadDeadline(time.Time{})
		eventually(t, "it to rest again", gate.waits)
	}
	rest()
	p.send(p.sealed(wire.TypeAlert, []byte{1, 0}))
	eventually(t, "the goodbye to wake it", func() bool { return woken.Load() == 5 })
	if err := server.ends(t); err != io.EOF {
		t.Errorf("ended with %v", err)
	}
}

// WhenReadable is told of every kind of end as well.
func TestDTLSWhenReadable(t *testing.T) {
	for name, do := range map[string]func(here, there *side){
		"Close": func(here, _ *side) { here.c.Close() }, "Abort": func(here, _ *side) { flow.Abort(here.c) },
		"a deadline": func(here, _ *side) { here.c.SetReadDeadline(time.Unix(1, 0)) }, "a deadline to come": func(here, _ *side) { here.c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) },
		"an empty datagram": func(_, there *side) { there.c.Write(nil) }, "a goodbye": func(_, there *side) { there.c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, here, there *side) {
				var woken atomic.Int32
				here.c.(flow.Waiter).WhenReadable(func() { woken.Add(1) })
				do(here, there)
				eventually(t, "it to be woken", func() bool { return woken.Load() == 1 })
			})
		})
	}
}

// Nothing is left of an association, however it ended.
func TestDTLSLeavesNoGoroutine(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	layer := NewDTLSClient(s.client)
	wrong := s.client
	wrong.Name = "b.test"
	before := runtime.NumGoroutine()
	for name, end := range map[string]func(server, client *side){
		"client closes": func(_, c *side) { c.c.Close() }, "server closes": func(s, _ *side) { s.c.Close() },
		"client aborts": func(_, c *side) { flow.Abort(c.c) }, "server aborts": func(s, _ *side) { flow.Abort(s.c) },
		"both close": func(s, c *side) { s.c.Close(); c.c.Close() },
		"a read waits": func(s, c *side) {
			go s.c.Read(make([]byte, 1))
			go c.c.Read(make([]byte, 1))
		},
	} {
		client := dialDTLS(t, l.at(), layer)
		server := l.next()
		talkDTLS(t, server, client)
		end(server, client)
		server.c.Close()
		client.c.Close()
		eventually(t, name+": nothing to be left", func() bool { return runtime.NumGoroutine() <= before })
	}
	client := dialDTLS(t, l.at(), NewDTLSClient(wrong))
	server := l.next()
	if client.err == nil || server.err == nil {
		t.Fatal("a wrong name passed")
	}
	client.bare.Close()
	eventually(t, "nothing to be left of a failed handshake", func() bool { return runtime.NumGoroutine() <= before })
	if n, h := l.Live(); n != 0 || h != 0 {
		t.Errorf("%d associations and %d handshakes are counted", n, h)
	}
}

// Once its handshake is made an association counts as one that made it.
func TestDTLSEstablished(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	client := dialDTLS(t, l.at(), NewDTLSClient(s.client))
	server := l.next()
	talkDTLS(t, server, client)
	if n, h := l.Live(); n != 1 || h != 0 {
		t.Errorf("%d associations and %d handshakes are counted", n, h)
	}
	if at := server.c.RemoteAddr().(*net.UDPAddr).AddrPort(); at == (netip.AddrPort{}) {
		t.Error("from nowhere")
	}
}
