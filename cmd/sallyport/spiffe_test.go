package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// agent is a SPIFFE agent that tells every workload the same.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	addr string // unix:PATH

	mu      sync.Mutex
	now     *workload.X509SVIDResponse // nil: nobody is known
	changed chan struct{}
}

func newAgent(t testing.TB) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &agent{addr: "unix:" + filepath.Join(dir, "agent.sock"), changed: make(chan struct{})}
}

// serve answers until the test's end, or until stop.
func (a *agent) serve(t testing.TB) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", strings.TrimPrefix(a.addr, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	done := make(chan struct{})
	go func() { server.Serve(l); close(done) }()
	stop = sync.OnceFunc(func() { server.Stop(); <-done })
	t.Cleanup(stop)
	return stop
}

// FetchX509SVID is the one call that there is.
func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, s grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return grpcstatus.Error(codes.InvalidArgument, "no security header")
	}
	for {
		a.mu.Lock()
		now, changed := a.now, a.changed
		a.mu.Unlock()
		if now == nil {
			return grpcstatus.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := s.Send(now); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return nil
		}
	}
}

// tell has workloads be who l is, and trust roots of corp and of the domains beside it.
func (a *agent) tell(t testing.TB, l *ca.Leaf, roots []*ca.Tester, federated map[string]*ca.Tester) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(l.Key)
	if err != nil {
		t.Fatal(err)
	}
	svid := &workload.X509SVID{SpiffeId: l.Cert.URIs[0].String(), X509SvidKey: key}
	for _, der := range l.Chain {
		svid.X509Svid = append(svid.X509Svid, der...)
	}
	for _, r := range roots {
		svid.Bundle = append(svid.Bundle, r.Cert.Raw...)
	}
	said := &workload.X509SVIDResponse{Svids: []*workload.X509SVID{svid}, FederatedBundles: map[string][]byte{}}
	for domain, r := range federated {
		said.FederatedBundles["spiffe://"+domain] = r.Cert.Raw
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = said
	close(a.changed)
	a.changed = make(chan struct{})
}

// Two programs that know each other by what their agents say, as bridge and
// encrypt over TLS and DTLS.
func TestSPIFFETunnel(t *testing.T) {
	t.Parallel()
	root := ca.Test(t)
	near, far := newAgent(t), newAgent(t)
	near.tell(t, root.Leaf([]string{"spiffe://corp/near"}), []*ca.Tester{root}, nil)
	far.tell(t, root.Leaf([]string{"spiffe://corp/far"}), []*ca.Tester{root}, nil)
	near.serve(t)
	far.serve(t)
	end := start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--spiffe", far.addr, "--allow-uri", "spiffe://corp/near")
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tls://"+end.Addr(""), "--to-spiffe", near.addr, "--to-name", "spiffe://corp/far")
	for range 3 {
		mustAsk(t, p.Addr(""), "hello", "web got hello")
	}
	wantFields(t, p.Reason("ok"), testnet.Record{"out_peer": "spiffe://corp/far", "out_peer_by": "pkix"})
	wantFields(t, end.Reason("ok"), testnet.Record{"in_peer": "spiffe://corp/near", "in_peer_by": "pkix,allow"})

	wrong := start(t, "proxy", "tcp://127.0.0.1:0", "tls://"+end.Addr(""), "--to-spiffe", near.addr, "--to-name", "spiffe://corp/other")
	if got, err := ask(wrong.Addr(""), "hello"); err == nil {
		t.Errorf("got %q", got)
	}
	wrong.Reason("name_mismatch")
	other := start(t, "proxy", "tcp://127.0.0.1:0", "tls://"+end.Addr(""), "--to-spiffe", far.addr, "--to-name", "spiffe://corp/far")
	if got, err := ask(other.Addr(""), "hello"); err == nil {
		t.Errorf("got %q", got)
	}
	end.Reason("client_not_allowed")

	dend := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--spiffe", far.addr, "--allow-uri", "spiffe://corp/near")
	dp := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+dend.Addr(""), "--to-spiffe", near.addr, "--to-name", "spiffe://corp/far")
	mustEcho(t, dialUDP(t, dp.Addr("")), []byte("hello"))
	endAtOnce(dp)
	endAtOnce(dend)
}

// Who is no SVID, or not of a domain whose anchors vouch for it, does not pass.
func TestSPIFFEClients(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	corp, partner, stranger := s.Tester, ca.Test(t), ca.Test(t)
	a := newAgent(t)
	a.tell(t, corp.Leaf([]string{"spiffe://corp/web", "web.x.test"}), []*ca.Tester{corp}, map[string]*ca.Tester{"partner": partner})
	a.serve(t)
	p := start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--spiffe", a.addr, "--allow-uri", "spiffe://corp/ops/**", "--allow-uri", "spiffe://partner/**")
	for i, c := range []struct {
		by     *ca.Tester
		names  []string
		opts   []ca.Option
		reason string
	}{
		{corp, []string{"spiffe://corp/ops/a"}, nil, "ok"},
		{corp, []string{"spiffe://corp/ops/a", "a.example"}, nil, "ok"},
		{partner, []string{"spiffe://partner/a"}, nil, "ok"},
		{corp, []string{"spiffe://corp/dev/a"}, nil, "client_not_allowed"},
		{partner, []string{"spiffe://corp/ops/a"}, nil, "client_cert_unknown_ca"}, // a partner's CA speaks for partners
		{corp, []string{"spiffe://partner/a"}, nil, "client_cert_unknown_ca"},
		{corp, []string{"spiffe://elsewhere/a"}, nil, "client_cert_unknown_ca"},
		{stranger, []string{"spiffe://corp/ops/a"}, nil, "client_cert_unknown_ca"},
		{corp, []string{"spiffe://corp/ops/a", "spiffe://corp/ops/b"}, nil, "client_cert_rejected"},
		{corp, []string{"a.example"}, nil, "client_cert_rejected"},
		{corp, []string{"https://corp/ops/a"}, nil, "client_cert_rejected"},
		{corp, []string{"spiffe://corp/ops/a"}, []ca.Option{ca.IsCA(true)}, "client_cert_rejected"},
		{corp, []string{"spiffe://corp/ops/a"}, []ca.Option{ca.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign)}, "client_cert_rejected"},
		{corp, []string{"spiffe://corp/ops/a"}, []ca.Option{ca.Expired()}, "client_cert_expired"},
	} {
		cert, _, err := c.by.Leaf(c.names, c.opts...).Write(s.dir, fmt.Sprintf("spiffe-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		sni := "web.x.test"
		out, err := s.sClient(t, p.Addr(""), sni, "-tls1_3", "-cert", cert, "-key", keyOf(cert))
		if (err == nil && strings.Contains(out, "web got")) != (c.reason == "ok") {
			t.Errorf("%q: %v\n%s", c.names, err, out)
		}
		if r := p.Flows(i + 1)[i]; r.Text("reason") != c.reason {
			t.Errorf("%q: %v, want %s", c.names, r, c.reason)
		}
	}
}

// What the agent says holds from then on, for both ends, without a reload, and goes
// on to hold while the agent is away.
func TestSPIFFERotation(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	old, young := s.Tester, ca.Test(t)
	a := newAgent(t)
	p := start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--spiffe", a.addr, "--allow", "all")
	p.WaitLog("until it answers, who needs it is refused")
	write := func(by *ca.Tester, stem string) string {
		cert, _, err := by.Leaf([]string{"spiffe://corp/app"}).Write(s.dir, stem)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	oldApp, youngApp := write(old, "old-app"), write(young, "young-app")
	asks := func(cert, trust string) bool {
		out, err := execute(t, "hello\n", "openssl", "s_client", "-connect", p.Addr(""), "-servername", "web.x.test", "-CAfile", trust,
			"-verify_return_error", "-ign_eof", "-cert", cert, "-key", keyOf(cert))
		return err == nil && strings.Contains(out, "web got")
	}
	if asks(oldApp, old.File()) {
		t.Error("served before the agent has said anything")
	}
	p.Reason("no_credential")

	a.tell(t, old.Leaf([]string{"spiffe://corp/web"}), []*ca.Tester{old}, nil)
	stop := a.serve(t)
	eventually(t, "the first identity", func() bool { return asks(oldApp, old.File()) })
	if asks(youngApp, old.File()) {
		t.Error("an unknown anchor was taken")
	}
	a.tell(t, young.Leaf([]string{"spiffe://corp/web"}), []*ca.Tester{old, young}, nil)
	eventually(t, "the second identity", func() bool { return asks(youngApp, young.File()) })
	if !asks(oldApp, young.File()) {
		t.Error("an anchor that still holds was not taken")
	}
	a.tell(t, young.Leaf([]string{"spiffe://corp/web"}), []*ca.Tester{young}, nil)
	eventually(t, "the old anchor to go", func() bool { return !asks(oldApp, young.File()) })
	p.Reason("client_cert_unknown_ca")

	stop()
	p.WaitLog("no word from the SPIFFE agent; what it said last holds")
	if !asks(youngApp, young.File()) {
		t.Error("what the agent said last does not hold")
	}
}
