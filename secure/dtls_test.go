package secure

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	pion "github.com/pion/dtls/v3/pkg/crypto/elliptic"

	"sallyport/credential"
	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/verify"
	"sallyport/wire"
)

func TestDTLSHandshakeIsRecorded(t *testing.T) {
	s := newSite(t)
	s.server.ALPN, s.client.ALPN = []string{"coap", "x"}, []string{"y", "x"}
	server, client := s.oursGood()
	for _, got := range []flow.Session{server.session(t), client.session(t)} {
		if got.Proto != "dtls" || got.Version != wire.VersionDTLS12 || got.Group != uint16(tls.X25519) || got.ALPN != "x" || got.SNI != "a.test" ||
			got.Suite != tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 || got.Resumed || got.Took <= 0 || got.PSK != "" {
			t.Errorf("recorded %+v", got)
		}
	}
	if server.session(t).Peer != nil || len(server.session(t).Chain) != 0 {
		t.Error("a peer, where no client was verified")
	}
	if got := client.session(t).Peer; got == nil || !slices.Equal(got.Names, []string{"a.test"}) {
		t.Errorf("the server is recorded as %+v", got)
	}
	if a, h := server.f.Origin, server.f.Hello; a.Transport != flow.Datagram || h.SNI != "a.test" || server.c.Transport() != flow.Datagram || client.c.Transport() != flow.Datagram {
		t.Errorf("%+v, %+v", a, h)
	}
	if server.c.RemoteAddr().String() != client.c.LocalAddr().String() || server.c.LocalAddr().String() != client.c.RemoteAddr().String() {
		t.Errorf("%v–%v and %v–%v", server.c.LocalAddr(), server.c.RemoteAddr(), client.c.LocalAddr(), client.c.RemoteAddr())
	}
}

func TestDTLSGroups(t *testing.T) {
	for g, want := range map[pion.Curve]tls.CurveID{pion.X25519: tls.X25519, pion.P256: tls.CurveP256, pion.P384: tls.CurveP384} {
		s := newSite(t)
		l := listenDTLS(t, NewDTLSServer(s.server))
		if _, err := pionClient(t, l.at(), dtls.WithEllipticCurves(g)); err != nil {
			t.Errorf("%s: %v", want, err)
		} else if got := l.next().session(t).Group; got != uint16(want) {
			t.Errorf("%s is recorded as %d", want, got)
		}
		// The configuration's word counts, in both roles.
		s.client.Groups = []uint16{uint16(tls.X25519MLKEM768), uint16(want)}
		if server, client := s.oursGood(); server.session(t).Group != uint16(want) || client.session(t).Group != uint16(want) {
			t.Errorf("%s: recorded %d and %d", want, server.session(t).Group, client.session(t).Group)
		}
		s.client.Groups, s.server.Groups = nil, []uint16{uint16(want)}
		if server, _ := s.oursGood(); server.session(t).Group != uint16(want) {
			t.Errorf("%s: recorded %d", want, server.session(t).Group)
		}
	}
	s := newSite(t)
	s.server.Groups = []uint16{uint16(tls.CurveP384)}
	l := listenDTLS(t, NewDTLSServer(s.server))
	if _, err := pionClient(t, l.at(), dtls.WithEllipticCurves(pion.X25519)); err == nil {
		t.Error("a handshake without a shared group")
	}
	if got := l.next(); reasonOf(got.err) != flow.NoSharedCipher {
		t.Errorf("without a shared group: %v", got.err)
	}
}

// byName is a source as a store is one.
type byName map[string]*credential.Credential

func (b byName) Credential(_ context.Context, r *credential.Request) (*credential.Credential, error) {
	if c, ok := b[r.ServerName]; ok {
		return c, nil
	}
	return nil, credential.ErrNoCredential
}

func TestDTLSCertificateBySNI(t *testing.T) {
	s := newSite(t)
	source := byName{}
	for _, name := range []string{"a.test", "b.test"} {
		l := s.ca.Leaf([]string{name})
		source[name] = &credential.Credential{Chain: s.ca.Chain(l), Key: l.Key}
	}
	s.server.Credential = source
	for _, name := range []string{"a.test", "b.test"} {
		s.client.SNI, s.client.Name = name, name
		server, client := s.oursGood()
		if server.session(t).SNI != name || client.session(t).Chain[0].DNSNames[0] != name {
			t.Errorf("%s: the server had SNI %q, the client a certificate for %q", name, server.session(t).SNI, client.session(t).Chain[0].DNSNames)
		}
	}
	s.client.SNI, s.client.Name = "c.test", "c.test"
	server, client := s.ours()
	if reasonOf(server.err) != flow.NoCredential || reasonOf(client.err) != flow.ServerAlert {
		t.Errorf("a name without a certificate: server %v, client %v", server.err, client.err)
	}
}

// With both kinds of key the client's abilities decide.
func TestDTLSKindOfCertificate(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	o := credential.Options{Now: *s.now.Load(), Env: os.Getenv}
	write := func(name string, l *ca.Leaf) {
		cert, key, err := l.Write(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		o.Certs, o.Keys = append(o.Certs, cert), append(o.Keys, key)
	}
	write("ec", s.ca.Leaf([]string{"a.test"}))
	write("rsa", s.ca.Leaf([]string{"a.test"}, ca.SharedRSA()))
	store, _, err := credential.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	s.server.Credential = store
	for _, c := range []struct {
		suite  dtls.CipherSuiteID
		scheme tls.SignatureScheme
		want   x509.PublicKeyAlgorithm
	}{
		{0, 0, x509.ECDSA},
		{dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 0, x509.RSA},
		{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 0, x509.ECDSA},
		{0, tls.PKCS1WithSHA256, x509.RSA},
		{0, tls.ECDSAWithP256AndSHA256, x509.ECDSA},
	} {
		l := listenDTLS(t, NewDTLSServer(s.server))
		var opts []dtls.ClientOption
		if c.suite != 0 {
			opts = append(opts, dtls.WithCipherSuites(c.suite))
		}
		if c.scheme != 0 {
			opts = append(opts, dtls.WithSignatureSchemes(c.scheme))
		}
		p, err := pionClient(t, l.at(), opts...)
		if err != nil {
			t.Errorf("%v, %v: %v; the server: %v", c.suite, c.scheme, err, l.next().err)
			continue
		}
		st, _ := p.ConnectionState()
		leaf, err := x509.ParseCertificate(st.PeerCertificates[0])
		if err != nil || leaf.PublicKeyAlgorithm != c.want {
			t.Errorf("%v, %v: a key of %v, want %v", c.suite, c.scheme, leaf.PublicKeyAlgorithm, c.want)
		}
	}
}

// What no key of ours can do is the client's fault, whatever the engine would try.
func TestDTLSNoKindOfCertificate(t *testing.T) {
	for _, c := range []struct {
		key ca.Option
		opt dtls.ClientOption
	}{
		{ca.ECDSA(elliptic.P256()), dtls.WithCipherSuites(dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)},
		{ca.SharedRSA(), dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)},
		{ca.SharedRSA(), dtls.WithSignatureSchemes(tls.PSSWithSHA256)}, // the engine signs as of old
	} {
		s := newSite(t)
		dir := t.TempDir()
		cert, _, err := s.ca.Leaf([]string{"a.test"}, c.key).Write(dir, "leaf")
		if err != nil {
			t.Fatal(err)
		}
		store, _, err := credential.Load(credential.Options{Certs: []string{cert}, Now: *s.now.Load()})
		if err != nil {
			t.Fatal(err)
		}
		s.server.Credential = store
		l := listenDTLS(t, NewDTLSServer(s.server))
		if _, err := pionClient(t, l.at(), c.opt); err == nil {
			t.Error("a client took a key that it cannot verify")
		}
		if got := l.next(); reasonOf(got.err) != flow.NoSharedCipher {
			t.Errorf("no kind of key shared: %v", got.err)
		}
	}
}

func TestDTLSALPN(t *testing.T) {
	t.Run("disjoint is refused in clear", func(t *testing.T) {
		s := newSite(t)
		s.server.ALPN, s.client.ALPN = []string{"coap"}, []string{"other"}
		server, client := s.ours()
		if reasonOf(server.err) != flow.NoApplicationProto || reasonOf(client.err) != flow.ServerAlert || !strings.Contains(client.err.Error(), "alert 120") {
			t.Errorf("server %v, client %v", server.err, client.err)
		}
	})
	t.Run("unset ignores the extension", func(t *testing.T) {
		s := newSite(t)
		s.client.ALPN = []string{"coap"}
		if server, _ := s.oursGood(); server.session(t).ALPN != "" {
			t.Error("something was chosen")
		}
	})
	t.Run("a client without", func(t *testing.T) {
		s := newSite(t)
		s.server.ALPN = []string{"coap"}
		if server, _ := s.oursGood(); server.session(t).ALPN != "" {
			t.Error("something was chosen")
		}
	})
	t.Run("what the client was given must be what the server chooses", func(t *testing.T) {
		s := newSite(t)
		s.client.Offer = OfferChosen
		l := listenDTLS(t, NewDTLSServer(s.server))
		client := dialDTLS(t, l.at(), NewDTLSClient(s.client), flow.Session{ALPN: "coap"})
		if reasonOf(client.err) != flow.ALPNMismatch {
			t.Errorf("got %v", client.err)
		}
		s.server.ALPN = []string{"coap"}
		l = listenDTLS(t, NewDTLSServer(s.server))
		if client = dialDTLS(t, l.at(), NewDTLSClient(s.client), flow.Session{ALPN: "coap"}); client.err != nil || client.f.Outbound[0].ALPN != "coap" {
			t.Errorf("got %v", client.err)
		}
	})
}

// The handshake must be about what the route was decided on.
func TestDTLSHelloMismatch(t *testing.T) {
	s := newSite(t)
	server := NewDTLSServer(s.server)
	l := listenDTLS(t, layerFunc(func(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
		other := *f.Hello
		other.SNI = "other.test"
		f.Hello = &other
		return server.Wrap(ctx, f, c)
	}))
	dialDTLS(t, l.at(), NewDTLSClient(s.client))
	if got := l.next(); reasonOf(got.err) != flow.HelloMismatch || len(got.f.Inbound) != 0 {
		t.Errorf("got %v", got.err)
	}
}

func TestDTLSServerIsVerified(t *testing.T) {
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
		{"self-signed", func(s *site) *ca.Leaf { return s.ca.SelfSigned([]string{"a.test"}) }, flow.CertUnknownCA},
		{"client's", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"a.test"}, ca.ClientAuth()) }, flow.KeyUsage},
		{"weak key", func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"a.test"}, ca.RSA(1024)) }, flow.WeakKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.server.Credential = s.own(c.leaf(s))
			server, client := s.ours()
			if reasonOf(client.err) != c.reason {
				t.Errorf("got %v, want %s", client.err, c.reason)
			}
			if reasonOf(server.err) != flow.ClientRejectedLeaf {
				t.Errorf("the server says %v", server.err)
			}
			if len(client.f.Outbound) != 0 || len(server.f.Inbound) != 0 {
				t.Error("a session is recorded")
			}
			if c.name == "self-signed" && !strings.Contains(client.err.Error(), "self-signed") {
				t.Errorf("it is not said in words: %v", client.err)
			}
		})
	}
}

func TestDTLSPin(t *testing.T) {
	s := newSite(t)
	leaf := s.ca.SelfSigned([]string{"anything.test"})
	s.server.Credential = s.own(leaf)
	spki := leafPin(t, leaf)
	s.client.Verify = verify.With(verify.PinAuthenticator(spki))
	if _, client := s.oursGood(); client.session(t).Peer.SPKI != spki {
		t.Errorf("the server is recorded as %+v", client.session(t).Peer)
	}
	spki[0] ^= 1
	s.client.Verify = verify.With(verify.PinAuthenticator(spki))
	if _, client := s.ours(); reasonOf(client.err) != flow.PinMismatch {
		t.Errorf("got %v", client.err)
	}
}

func leafPin(t testing.TB, l *ca.Leaf) (pin [32]byte) {
	t.Helper()
	certs, err := l.Certs()
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(certs[0].RawSubjectPublicKeyInfo)
}

// Who asks for client certificates gets those it asks for, and says what was wrong
// with others.
func TestDTLSClientCertificates(t *testing.T) {
	other := ca.Test(t)
	for _, c := range []struct {
		name   string
		auth   Auth
		leaf   func(s *site) *ca.Leaf // nil: none
		server flow.Reason
		client flow.Reason
	}{
		{"required and shown", AuthRequire, func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()) }, flow.OK, flow.OK},
		{"required, RSA", AuthRequire, func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"c.test"}, ca.ClientAuth(), ca.SharedRSA()) }, flow.OK, flow.OK},
		{"optional and shown", AuthOptional, func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()) }, flow.OK, flow.OK},
		{"optional, none", AuthOptional, nil, flow.OK, flow.OK},
		{"not asked for", AuthNone, func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()) }, flow.OK, flow.OK},
		{"required, none", AuthRequire, nil, flow.ClientCertMissing, flow.ServerRejectedCert},
		{"unknown CA", AuthRequire, func(*site) *ca.Leaf { return other.Leaf([]string{"c.test"}, ca.ClientAuth()) }, flow.ClientCertUnknownCA, flow.ServerRejectedCert},
		{"optional, unknown CA", AuthOptional, func(*site) *ca.Leaf { return other.Leaf([]string{"c.test"}, ca.ClientAuth()) }, flow.ClientCertUnknownCA, flow.ServerRejectedCert},
		{"expired", AuthRequire, func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"c.test"}, ca.ClientAuth(), ca.Expired()) }, flow.ClientCertExpired, flow.ServerRejectedCert},
		{"a server's", AuthRequire, func(s *site) *ca.Leaf { return s.ca.Leaf([]string{"c.test"}, ca.ServerAuth()) }, flow.ClientCertRejected, flow.ServerRejectedCert},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if c.auth != AuthNone {
				s.asking(c.auth)
			}
			if c.leaf != nil {
				s.client.Credential = s.own(c.leaf(s))
			}
			server, client := s.ours()
			if reasonOf(server.err) != c.server {
				t.Errorf("the server says %v, want %s", server.err, c.server)
			}
			if reasonOf(client.err) != c.client {
				t.Errorf("the client says %v, want %s", client.err, c.client)
			}
			if c.server != flow.OK {
				if len(server.f.Inbound) != 0 {
					t.Error("a session is recorded")
				}
				return
			}
			talkDTLS(t, server, client)
			peer := server.session(t).Peer
			if want := c.leaf != nil && c.auth != AuthNone; (peer != nil) != want || want && peer.Names[0] != "c.test" {
				t.Errorf("the client is recorded as %+v", peer)
			}
		})
	}
}

// An access rule that asks for a certificate takes none as no client.
func TestDTLSNamedClients(t *testing.T) {
	s := newSite(t)
	s.asking(AuthOptional)
	s.server.Named = true
	server, client := s.ours()
	if reasonOf(server.err) != flow.ClientCertMissing || client.err == nil {
		t.Errorf("server %v, client %v", server.err, client.err)
	}
}

// Each suite with a peer that has it; what it records is the one agreed on.
func TestDTLSSuites(t *testing.T) {
	s := newSite(t)
	leaves := map[keyKind]credential.Source{
		keyECDSA: s.own(s.ca.Leaf([]string{"a.test"})), keyRSA: s.own(s.ca.Leaf([]string{"a.test"}, ca.SharedRSA())),
	}
	for _, suite := range dtlsSuites {
		t.Run(dtls.CipherSuiteName(suite.id), func(t *testing.T) {
			s := &site{t: t, ca: s.ca, server: s.server, client: s.client}
			s.server.Suites, s.client.Suites = nil, []uint16{uint16(suite.id)}
			for _, d := range dtlsSuites {
				s.server.Suites = append(s.server.Suites, uint16(d.id))
			}
			if s.server.Credential = leaves[suite.kind]; suite.kind == keyPSK {
				s.server.PSK, s.client.PSK, s.client.Identity = keys{"device": "0123456789abcdef"}, keys{"device": "0123456789abcdef"}, "device"
			}
			server, client := s.oursGood()
			for _, got := range []flow.Session{server.session(t), client.session(t)} {
				if got.Suite != uint16(suite.id) || (got.PSK == "device") != (suite.kind == keyPSK) {
					t.Errorf("recorded %+v", got)
				}
				if ec := strings.Contains(dtls.CipherSuiteName(suite.id), "ECDHE"); (got.Group != 0) != ec {
					t.Errorf("group %d", got.Group)
				}
			}
			for _, d := range [][2]*side{{client, server}, {server, client}} {
				checkSizes(t, d[0], d[1], suite.overhead)
			}
		})
	}
}

// Where the engine has none of the suites that a route names, it must not take others.
func TestDTLSNoSuite(t *testing.T) {
	s := newSite(t)
	all := s.server.Suites
	s.client.Timeout = 300 * time.Millisecond // the server is not even set up
	s.server.Suites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	if server, client := s.ours(); server.err == nil || client.err == nil {
		t.Error("the server takes another suite than its own")
	}
	s.server.Suites, s.client.Suites = all, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	l := listenDTLS(t, NewDTLSServer(s.server))
	if client := dialDTLS(t, l.at(), NewDTLSClient(s.client)); client.err == nil {
		t.Error("the client offers another suite than its own")
	}
}

// checkSizes sends datagrams of all sizes up to what the suite carries, which come
// whole, and one above, which is refused; the association goes on.
func checkSizes(t *testing.T, from, to *side, overhead int) {
	t.Helper()
	most := min(8150, 8192-overhead)
	for _, n := range []int{0, 1, 1200, 5000, most} {
		text := strings.Repeat("x", n)
		from.says(t, text)
		to.hears(t, text)
	}
	for _, n := range []int{most + 1, 65507, 1 << 20} {
		if n, err := from.c.Write(make([]byte, n)); n != 0 || !errors.Is(err, flow.ErrTooLarge) {
			t.Errorf("%d bytes went, %v", n, err)
		}
	}
	from.says(t, "and on")
	to.hears(t, "and on")
}

// The suites that are on by default carry what the documentation promises.
func TestDTLSPromisedSize(t *testing.T) {
	s := newSite(t)
	s.server.PSK = keys{}
	for _, id := range s.server.suites() {
		if suite, ok := suiteOf(id); !ok || engineBuffer-suite.overhead < maxDatagram {
			t.Errorf("%s carries %d bytes", dtls.CipherSuiteName(suite.id), engineBuffer-suite.overhead)
		}
	}
}

// A read into less than a datagram gets its beginning, and only that one is cut.
func TestDTLSShortRead(t *testing.T) {
	s := newSite(t)
	server, client := s.oursGood()
	client.says(t, "datagram")
	client.says(t, "next")
	b := make([]byte, 4)
	if n, err := server.c.Read(b); err != nil || string(b[:n]) != "data" {
		t.Errorf("%q, %v", b[:n], err)
	}
	server.hears(t, "next")
}

// A resumed session has randoms of its own, too.
func TestDTLSKeyLog(t *testing.T) {
	s := newSite(t)
	var server, client lockedBuffer
	s.server.KeyLog, s.client.KeyLog = &server, &client
	l, layer := listenDTLS(t, NewDTLSServer(s.server)), NewDTLSClient(s.client)
	want := ""
	for i := range 2 {
		c := dialDTLS(t, l.at(), layer)
		a := l.next()
		talkDTLS(t, a, c)
		if a.session(t).Resumed != (i > 0) {
			t.Fatalf("handshake %d: resumed is %t", i, a.session(t).Resumed)
		}
		want += fmt.Sprintf("CLIENT_RANDOM %x [0-9a-f]{96}\n", a.f.Hello.Random)
		if log := server.String(); !regexp.MustCompile("^"+want+"$").MatchString(log) || log != client.String() {
			t.Errorf("handshake %d: the server logs\n%s\nthe client\n%s\nwant\n%s", i, &server, &client, want)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
