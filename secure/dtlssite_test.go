package secure

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/transport"
	"sallyport/wire"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// keys are pre-shared keys by identity.
type keys map[string]string

func (k keys) Key(identity []byte) ([]byte, bool) {
	key, ok := k[string(identity)]
	return []byte(key), ok
}

// side is one end of an association, or why there is none.
type side struct {
	f    flow.Flow
	c    flow.Conn
	bare flow.Conn
	err  error
}

// session is what the handshake has agreed on.
func (s *side) session(t testing.TB) flow.Session {
	t.Helper()
	if s.err != nil {
		t.Fatal(s.err)
	}
	all := append(s.f.Inbound, s.f.Outbound...)
	if len(all) != 1 {
		t.Fatalf("%d sessions are recorded", len(all))
	}
	return all[0]
}

// hears wants the next datagram to be this one.
func (s *side) hears(t testing.TB, want string) {
	t.Helper()
	s.c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 65536)
	if n, err := s.c.Read(b); err != nil || string(b[:n]) != want {
		t.Fatalf("read %.80q, %v, want %.80q", b[:n], err, want)
	}
	s.c.SetReadDeadline(time.Time{})
}

func (s *side) says(t testing.TB, text string) {
	t.Helper()
	if n, err := s.c.Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("wrote %d bytes, %v", n, err)
	}
}

// ends wants reading to end, and gives how.
func (s *side) ends(t testing.TB) error {
	t.Helper()
	s.c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 100)
	n, err := s.c.Read(b)
	if err == nil {
		t.Fatalf("read %q, want an end", b[:n])
	}
	return err
}

// listener is a DTLS listener as the engine has it: the acceptor, a look at the
// hello, the layer.
type listener struct {
	*transport.PacketAcceptor
	t    testing.TB
	done chan *side
}

func listenDTLS(t testing.TB, layer flow.Layer) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a, err := transport.ListenPackets(ctx, "l", transport.Where{Host: "127.0.0.1"}, transport.PacketOptions{DTLS: true, Sockets: 1})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{PacketAcceptor: a, t: t, done: make(chan *side, 2000)}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			f, c, err := a.Accept(ctx)
			if err != nil {
				return
			}
			s := &side{f: *f, bare: c}
			go func() {
				if s.c, s.err = s.wrap(ctx, layer); s.err != nil {
					c.Close()
				}
				l.done <- s
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		a.Close()
		<-accepting
		for {
			select {
			case s := <-l.done:
				s.bare.Close()
				continue
			default:
			}
			return
		}
	})
	return l
}

func (s *side) wrap(ctx context.Context, layer flow.Layer) (flow.Conn, error) {
	b := make([]byte, 1<<16)
	n, err := s.bare.Read(b)
	if err != nil {
		return nil, err
	}
	if s.f.Hello, err = wire.ParseDTLSHello(b[:n]); err != nil {
		return nil, err
	}
	return layer.Wrap(ctx, &s.f, &heldDatagram{s.bare, s.bare.(flow.Packets), b[:n]})
}

// heldDatagram gives a datagram that was looked at once more.
type heldDatagram struct {
	flow.Conn
	packets flow.Packets // Conn
	held    []byte
}

func (h *heldDatagram) Read(p []byte) (int, error) {
	n, _, err := h.ReadFrom(p)
	return n, err
}

func (h *heldDatagram) ReadFrom(p []byte) (int, net.Addr, error) {
	if h.held != nil {
		n := copy(p, h.held)
		h.held = nil
		return n, h.RemoteAddr(), nil
	}
	return h.packets.ReadFrom(p)
}

func (h *heldDatagram) WriteTo(p []byte, to net.Addr) (int, error) { return h.packets.WriteTo(p, to) }
func (h *heldDatagram) Bind(cid []byte) error                      { return h.packets.Bind(cid) }
func (h *heldDatagram) Moved(to netip.AddrPort)                    { h.packets.Moved(to) }
func (h *heldDatagram) Established()                               { h.packets.Established() }

func (l *listener) at() netip.AddrPort { return l.Addr().(*net.UDPAddr).AddrPort() }

// next is the association that ends its handshake next, well or not.
func (l *listener) next() *side {
	l.t.Helper()
	select {
	case s := <-l.done:
		l.t.Cleanup(func() {
			if s.c != nil {
				s.c.Close()
			}
			s.bare.Close()
		})
		return s
	case <-time.After(patience):
		l.t.Fatal("no association has come")
		return nil
	}
}

// dialDTLS begins an association by a client's layer.
func dialDTLS(t testing.TB, to netip.AddrPort, layer flow.Layer, inbound ...flow.Session) *side {
	t.Helper()
	d := transport.Dialer{Where: transport.Where{Host: to.Addr().String(), Port: to.Port()}, Timeout: time.Second, Packets: true}
	s := &side{f: flow.Flow{Hello: &wire.Hello{}, Inbound: inbound}}
	var err error
	if s.bare, err = d.Dial(context.Background(), &s.f); err != nil {
		t.Fatal(err)
	}
	s.c, s.err = layer.Wrap(context.Background(), &s.f, s.bare)
	s.f.Inbound = nil
	t.Cleanup(func() {
		if s.c != nil {
			s.c.Close()
		}
		s.bare.Close()
	})
	return s
}

// ours is a handshake between both our layers.
func (s *site) ours() (server, client *side) {
	s.t.Helper()
	return s.oursWith(NewDTLSServer(s.server), NewDTLSClient(s.client))
}

func (s *site) oursWith(server, client flow.Layer) (*side, *side) {
	s.t.Helper()
	l := listenDTLS(s.t, server)
	c := dialDTLS(s.t, l.at(), client)
	return l.next(), c
}

// oursGood is ours, which must succeed and carry something.
func (s *site) oursGood() (server, client *side) {
	s.t.Helper()
	server, client = s.ours()
	talkDTLS(s.t, server, client)
	return server, client
}

func talkDTLS(t testing.TB, server, client *side) {
	t.Helper()
	if server.err != nil || client.err != nil {
		t.Fatalf("server: %v, client: %v", server.err, client.err)
	}
	client.says(t, "up")
	server.hears(t, "up")
	server.says(t, "down")
	client.hears(t, "down")
}

// pionClient begins an association by the engine itself.
func pionClient(t testing.TB, to netip.AddrPort, opts ...dtls.ClientOption) (*dtls.Conn, error) {
	t.Helper()
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return pionClientOver(t, socket, to, opts...)
}

func pionClientOver(t testing.TB, socket net.PacketConn, to netip.AddrPort, opts ...dtls.ClientOption) (*dtls.Conn, error) {
	t.Helper()
	opts = append([]dtls.ClientOption{dtls.WithInsecureSkipVerify(true), dtls.WithServerName("a.test")}, opts...)
	c, err := dtls.ClientWithOptions(socket, net.UDPAddrFromAddrPort(to), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); socket.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c, c.HandshakeContext(ctx)
}

// pionServer answers one association after another by the engine itself, each of
// which gets back what it sends.
func pionServer(t testing.TB, opts ...dtls.ServerOption) netip.AddrPort {
	t.Helper()
	l, err := dtls.ListenWithOptions("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) || err != nil && c == nil {
				return
			}
			go echo(c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.UDPAddr).AddrPort()
}

func echo(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 8192)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		c.Write(b[:n])
	}
}
