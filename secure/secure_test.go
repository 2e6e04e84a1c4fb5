package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/credential"
	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/transport"
	"sallyport/verify"
	"sallyport/wire"
)

// site is a CA with a server's and a client's leaf, and the parameters of both
// roles, which a test changes before it shakes hands.
type site struct {
	t      testing.TB
	ca     *ca.Tester
	server Server
	client Client
	hello  *wire.Hello // put in place of the real one, if set
	now    atomic.Pointer[time.Time]
}

func newSite(t testing.TB) *site {
	s := &site{t: t, ca: ca.Test(t)}
	now := time.Now()
	s.now.Store(&now)
	clock := func() time.Time { return *s.now.Load() }
	params, err := Preset("intermediate")
	if err != nil {
		t.Fatal(err)
	}
	s.server = Server{
		Common:  Common{Params: params, Route: "r", Credential: s.own(s.ca.Leaf([]string{"a.test"})), Timeout: 10 * time.Second, Now: clock},
		Tickets: NewTickets(now),
	}
	s.client = Client{
		Common: Common{Params: params, Route: "r", Timeout: 10 * time.Second, Now: clock},
		SNI:    "a.test", Name: "a.test",
		Verify: verify.With(verify.PKIX{Anchors: s.anchors(s.ca), From: "to.ca", Profile: verify.Private}),
	}
	return s
}

func (s *site) anchors(c *ca.Tester) *verify.Anchors {
	a, err := verify.LoadAnchors(time.Now(), []string{"ca"}, func(string) ([]byte, error) { return c.CertPEM(), nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

type fixed struct{ c *credential.Credential }

func (f fixed) Credential(context.Context, *credential.Request) (*credential.Credential, error) {
	return f.c, nil
}

func (s *site) own(l *ca.Leaf) credential.Source {
	return fixed{&credential.Credential{Chain: s.ca.Chain(l), Key: l.Key}}
}

// asking has the server ask for certificates of the site's CA.
func (s *site) asking(auth Auth, checks ...verify.Check) {
	s.server.Auth, s.server.Anchors = auth, s.anchors(s.ca)
	if checks == nil {
		checks = []verify.Check{verify.AllowAll()}
	}
	s.server.Verify = verify.With(verify.PKIX{Anchors: s.server.Anchors, From: "client.ca", Profile: verify.Private}, checks...)
}

// pair is both ends after a handshake.
type pair struct {
	server, client         flow.Conn
	inbound, outbound      flow.Flow
	serverErr, clientErr   error
	bareServer, bareClient flow.Conn
}

// shake makes one handshake between layers over real sockets.
func (s *site) shake(server, client flow.Layer) *pair {
	s.t.Helper()
	ctx := context.Background()
	l, err := transport.Listen(ctx, "l", transport.Where{Host: "127.0.0.1"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	p := &pair{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, c, err := l.Accept(ctx)
		if err != nil {
			p.serverErr = err
			return
		}
		p.bareServer, p.inbound = c, *f
		c = s.peek(&p.inbound, c)
		if p.server, p.serverErr = server.Wrap(ctx, &p.inbound, c); p.serverErr != nil {
			c.CloseWrite()
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // an alert must not be overtaken by a reset
			io.Copy(io.Discard, struct{ io.Reader }{c})
			c.Close()
		}
	}()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	d := transport.Dialer{Where: transport.Where{Host: addr.Addr().String(), Port: addr.Port()}, Timeout: time.Second}
	p.bareClient, err = d.Dial(ctx, &p.outbound)
	if err != nil {
		s.t.Fatal(err)
	}
	p.outbound.Origin.Client = netip.MustParseAddrPort("192.0.2.1:1")
	p.client, p.clientErr = client.Wrap(ctx, &p.outbound, p.bareClient)
	if p.clientErr == nil && p.outbound.Outbound[0].Version == tls.VersionTLS13 {
		// A TLS 1.3 server's verdict, and its ticket, come with the first read.
		p.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	}
	if p.clientErr != nil {
		p.bareClient.Close()
	}
	<-done
	if p.clientErr == nil {
		p.client.SetReadDeadline(time.Time{})
	}
	s.t.Cleanup(func() {
		p.bareClient.Close()
		if p.bareServer != nil {
			p.bareServer.Close()
		}
	})
	return p
}

// peek does what the engine does ahead of Wrap.
func (s *site) peek(f *flow.Flow, c flow.Conn) flow.Conn {
	var r wire.HelloReader
	var held []byte
	for {
		p := make([]byte, 4096)
		n, err := c.Read(p)
		held = append(held, p[:n]...)
		hello, herr := r.Feed(p[:n])
		if hello != nil {
			f.Hello = hello
			if s.hello != nil {
				f.Hello = s.hello
			}
			return &replayed{Conn: c, r: io.MultiReader(bytes.NewReader(held), struct{ io.Reader }{c})}
		}
		if err != nil || !errors.Is(herr, wire.ErrMore) {
			s.t.Errorf("reading the hello: %v, %v", err, herr)
			return c
		}
	}
}

type replayed struct {
	flow.Conn
	r io.Reader
}

func (r *replayed) Read(p []byte) (int, error) { return r.r.Read(p) }
func (r *replayed) Abort() error               { return flow.Abort(r.Conn) }

func (s *site) good() *pair {
	s.t.Helper()
	return s.goodWith(NewServer(s.server), NewClient(s.client))
}

func (s *site) goodWith(server, client flow.Layer) *pair {
	s.t.Helper()
	p := s.shake(server, client)
	if p.serverErr != nil || p.clientErr != nil {
		s.t.Fatalf("server: %v, client: %v", p.serverErr, p.clientErr)
	}
	p.exchange(s.t)
	return p
}

// exchange moves a line each way, which also brings the client its ticket.
func (p *pair) exchange(t testing.TB) {
	t.Helper()
	for _, d := range [][2]flow.Conn{{p.client, p.server}, {p.server, p.client}} {
		if _, err := d[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(d[1], b); err != nil || string(b) != "hello" {
			t.Fatalf("read %q, %v", b, err)
		}
	}
}

func reasonOf(err error) flow.Reason {
	if err == nil {
		return flow.OK
	}
	return flow.AsError(err, "none").Reason
}

func TestHandshakeIsRecorded(t *testing.T) {
	s := newSite(t)
	s.server.ALPN, s.client.ALPN = []string{"h2", "http/1.1"}, []string{"http/1.1", "h2"}
	p := s.good()
	for _, got := range []flow.Session{p.inbound.Inbound[0], p.outbound.Outbound[0]} {
		if got.Version != tls.VersionTLS13 || got.Group != uint16(tls.X25519MLKEM768) || got.ALPN != "h2" || got.SNI != "a.test" || got.Resumed || got.Took <= 0 {
			t.Errorf("recorded %+v", got)
		}
	}
	if p.inbound.Inbound[0].Peer != nil {
		t.Error("a peer, where no client was verified")
	}
	if got := p.outbound.Outbound[0].Peer; got == nil || len(got.Names) != 1 || got.Names[0] != "a.test" {
		t.Errorf("the server is recorded as %+v", got)
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		server, client string
		low, high      uint16 // of the client
		want           uint16
	}{
		{"intermediate", "intermediate", 0, 0, tls.VersionTLS13},
		{"modern", "intermediate", 0, 0, tls.VersionTLS13},
		{"intermediate", "old", 0, tls.VersionTLS12, tls.VersionTLS12},
		{"old", "old", 0, tls.VersionTLS10, tls.VersionTLS10},
		{"old", "old", 0, tls.VersionTLS11, tls.VersionTLS11},
		{"modern", "old", 0, tls.VersionTLS12, 0},
		{"intermediate", "old", 0, tls.VersionTLS11, 0},
	} {
		s := newSite(t)
		s.server.Params, _ = Preset(c.server)
		s.client.Params, _ = Preset(c.client)
		if c.high != 0 {
			s.client.Max = c.high
		}
		p := s.shake(NewServer(s.server), NewClient(s.client))
		if c.want == 0 {
			if reasonOf(p.serverErr) != flow.VersionUnsupported || reasonOf(p.clientErr) != flow.ServerAlert {
				t.Errorf("%+v: server %v, client %v", c, p.serverErr, p.clientErr)
			}
			continue
		}
		if p.serverErr != nil || p.clientErr != nil || p.inbound.Inbound[0].Version != c.want {
			t.Errorf("%+v: server %v, client %v", c, p.serverErr, p.clientErr)
		}
	}
	if _, err := Preset("newest"); err == nil {
		t.Error("an unknown preset passed")
	}
}

func TestALPN(t *testing.T) {
	t.Run("disjoint is refused in clear", func(t *testing.T) {
		s := newSite(t)
		s.server.ALPN, s.client.ALPN = []string{"h2"}, []string{"http/1.1"}
		p := s.shake(NewServer(s.server), NewClient(s.client))
		if reasonOf(p.serverErr) != flow.NoApplicationProto || reasonOf(p.clientErr) != flow.ServerAlert {
			t.Errorf("server %v, client %v", p.serverErr, p.clientErr)
		}
	})
	t.Run("unset ignores the extension", func(t *testing.T) {
		s := newSite(t)
		s.client.ALPN = []string{"http/1.1"}
		if p := s.good(); p.inbound.Inbound[0].ALPN != "" {
			t.Error("something was chosen")
		}
	})
	t.Run("what the client was given must be what the server chooses", func(t *testing.T) {
		s := newSite(t)
		s.client.Offer = OfferChosen
		client := NewClient(s.client)
		server := NewServer(s.server)
		p := s.shake(server, layerFunc(func(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
			f.Inbound = []flow.Session{{ALPN: "h2"}}
			return client.Wrap(ctx, f, c)
		}))
		if reasonOf(p.clientErr) != flow.ALPNMismatch {
			t.Errorf("got %v", p.clientErr)
		}
	})
}

type layerFunc func(context.Context, *flow.Flow, flow.Conn) (flow.Conn, error)

func (l layerFunc) Wrap(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	return l(ctx, f, c)
}

// The handshake must be about what the route was decided on.
func TestHelloMismatch(t *testing.T) {
	s := newSite(t)
	s.hello = &wire.Hello{Version: 0x0303, Versions: []uint16{tls.VersionTLS13}, SNI: "other.test"}
	if p := s.shake(NewServer(s.server), NewClient(s.client)); reasonOf(p.serverErr) != flow.HelloMismatch {
		t.Errorf("got %v", p.serverErr)
	}
}

func TestServerIsVerified(t *testing.T) {
	other := ca.Test(t)
	for _, c := range []struct {
		name   string
		leaf   func(s *site) *ca.Leaf
		reason flow.Reason
	}{
		{"wrong name", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"b.test"}) }, flow.NameMismatch},
		{"expired", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"a.test"}, ca.Expired()) }, flow.CertExpired},
		{"not yet", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"a.test"}, ca.NotYet()) }, flow.CertNotYetValid},
		{"other CA", func(*site) *ca.Leaf { return other.Leaf([]string{"a.test"}) }, flow.CertUnknownCA},
		{"key usage", func(s *site) *ca.Leaf {
			return s.ca.Leaf([]string{"a.test"}, ca.KeyUsage(x509.KeyUsageKeyEncipherment))
		}, flow.KeyUsage},
		{"client's", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"a.test"}, ca.ClientAuth()) }, flow.KeyUsage},
		{"weak key", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"a.test"}, ca.RSA(1024)) }, flow.WeakKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.server.Credential = s.own(c.leaf(s))
			p := s.shake(NewServer(s.server), NewClient(s.client))
			if reasonOf(p.clientErr) != c.reason {
				t.Errorf("got %v, want %s", p.clientErr, c.reason)
			}
			if reasonOf(p.serverErr) != flow.ClientRejectedLeaf {
				t.Errorf("the server says %v", p.serverErr)
			}
			if len(p.outbound.Outbound) != 0 {
				t.Error("a session is recorded")
			}
		})
	}
}
