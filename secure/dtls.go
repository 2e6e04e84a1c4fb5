package secure

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/credential"
	"sallyport/flow"
	"sallyport/wire"
)

// dtlsServer is the inbound DTLS layer of one route.
type dtlsServer struct {
	Server
	base []dtls.ServerOption
	ours certificates
}

// NewDTLSServer gives the layer that ends DTLS towards clients. It takes over from
// an acceptor that has seen the client's cookie: the first datagram is a ClientHello
// with one, whole in one record.
func NewDTLSServer(p Server) flow.Layer {
	s := &dtlsServer{Server: p}
	for _, o := range p.dtls() {
		s.base = append(s.base, o)
	}
	if p.Auth != AuthNone {
		// Their chains are verified by VerifyConnection, once CertificateVerify and
		// Finished are: the engine itself would only say bad_certificate as well.
		s.base = append(s.base, dtls.WithClientAuth(dtls.RequestClientCert))
		if p.Pool == nil { // else clients are not told which CAs we know
			s.base = append(s.base, dtls.WithClientCAs(p.Anchors.Pool))
		}
		if p.Auth == AuthRequire {
			s.base = append(s.base, dtls.WithClientAuth(dtls.RequireAnyClientCert))
		}
	}
	if p.Params.Tickets && s.Sessions == nil {
		s.Sessions = NewSessions(p.Now)
	}
	return s
}

// Wrap makes the handshake with the client.
func (s *dtlsServer) Wrap(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	start := time.Now()
	protos, err := s.admit(f)
	if err != nil {
		refuse(c, f, err)
		return nil, err
	}
	h := &dtlsHandshake{handshake: handshake{flow: f, role: &inbound}}
	if err := h.afterCookie(c, s.Timeout); err != nil {
		return nil, err
	}
	h.sessions = s.resumable(h)
	options := slices.Concat(s.base, h.options(), []dtls.ServerOption{
		dtls.WithSignatureSchemes(signatures(h.under.hello.Schemes)...),
		dtls.WithVerifyConnection(func(st *dtls.State) error { return s.verify(ctx, h, st) }),
	})
	if len(protos) > 0 {
		options = append(options, dtls.WithSupportedProtocols(protos...))
	}
	// The engine takes no certificate that no suite has a use for.
	if s.Credential != nil && !allPSK(s.suites()) {
		options = append(options, dtls.WithGetCertificate(func(*dtls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate(ctx, h) }))
	}
	if s.PSK != nil {
		options = append(options, dtls.WithPSK(s.key(h)))
	}
	if s.CID {
		options = append(options, dtls.WithConnectionIDGenerator(h.under.connectionID))
	}
	if s.KeyLog != nil {
		options = append(options, dtls.WithKeyLogWriter(&keyLog{s.KeyLog, h.under.hello.Random}))
	}
	t, serr := dtls.ServerWithOptions(h.under, c.RemoteAddr(), options...)
	if serr != nil {
		return nil, flow.Fail(flow.Internal, "setting up DTLS: %w", serr)
	}
	if err := h.run(ctx, t, s.Timeout); err != nil {
		return nil, err
	}
	session, cs, serr := h.session(start)
	if serr != nil {
		return nil, h.end(serr)
	}
	session.SNI = f.Hello.SNI
	if !agrees(f, cs) {
		return nil, h.end(flow.Fail(flow.HelloMismatch, "the handshake ended with server name %q and ALPN %q, which is not what its ClientHello said", cs.ServerName, cs.NegotiatedProtocol))
	}
	f.Inbound = append(f.Inbound, session)
	return h.carryOn(cs, !session.Resumed), nil
}

// admit refuses what no handshake could mend, while a plain alert can still say
// why, and gives the protocols to offer.
func (s *dtlsServer) admit(f *flow.Flow) ([]string, *flow.Error) {
	if f.Hello == nil || !f.Hello.DTLS {
		return nil, flow.Fail(flow.NotTLS, "the client does not speak DTLS")
	}
	if !slices.Contains(f.Hello.Versions, wire.VersionDTLS12) {
		return nil, flow.Fail(flow.VersionUnsupported, "the client speaks %s, this route DTLS 1.2", versions(f.Hello.Versions))
	}
	return s.protocols(f)
}

func (s *dtlsServer) verify(ctx context.Context, h *dtlsHandshake, st *dtls.State) error {
	cs, err := h.state(st)
	if err != nil {
		return flow.Fail(flow.ClientCertRejected, "the client's certificate: %w", err)
	}
	if isPSK(cs.CipherSuite) {
		return nil // the engine knows by now that the client has the key
	}
	return s.Server.verify(ctx, &h.handshake, cs)
}

func (s *dtlsServer) certificate(ctx context.Context, h *dtlsHandshake) (*tls.Certificate, error) {
	r := &credential.Request{ServerName: h.under.hello.SNI, Schemes: dtlsSchemes(&h.under.hello, s.suites())}
	c, err := s.ours.get(ctx, s.Credential, r)
	if errors.Is(err, credential.ErrNoCredential) {
		r.Schemes = nil
		if _, other := s.ours.get(ctx, s.Credential, r); other == nil {
			return nil, flow.Fail(flow.NoSharedCipher, "the client can verify none of our kinds of key, with the cipher suites and signature schemes that it offers")
		}
	}
	return c, err
}

// key gives the key of an identity. One that we do not know gets a key that nobody
// has: a stranger is not told which identities there are (RFC 4279, section 7.1).
func (s *dtlsServer) key(h *dtlsHandshake) dtls.PSKCallback {
	return func(identity []byte) ([]byte, error) {
		key, ok := s.PSK.Key(identity)
		h.psk, h.unknown = string(identity), !ok
		if !ok {
			key = make([]byte, 32)
			rand.Read(key)
		}
		return key, nil
	}
}

// resumable is nil where a session is neither taken up again nor kept. The engine
// would negotiate no connection ID in an abbreviated handshake, and send the client's
// all the same.
func (s *dtlsServer) resumable(h *dtlsHandshake) *resumable {
	if !s.Params.Tickets || s.CID && slices.Contains(h.under.hello.Extensions, extConnectionID) {
		return nil
	}
	return &resumable{store: s.Sessions, scope: scope(s.Route, string(s.Trust[:]), h.under.hello.SNI)}
}

// dtlsClient is the outbound DTLS layer of one route.
type dtlsClient struct {
	Client
	base  []dtls.ClientOption
	ours  certificates
	store *Sessions // one a layer, as of TLS
}

// NewDTLSClient gives the layer that begins DTLS towards servers.
func NewDTLSClient(p Client) flow.Layer {
	c := &dtlsClient{Client: p, store: NewSessions(p.Now)}
	c.store.most = sessions
	for _, o := range p.dtls() {
		c.base = append(c.base, o)
	}
	// The server is verified by VerifyConnection, on resumption as well.
	c.base = append(c.base, dtls.WithInsecureSkipVerify(true))
	if p.CID {
		// The server may give us one, so that it knows us where our address
		// changes. Its own does not change: we need none from it.
		c.base = append(c.base, dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	}
	return c
}

// Wrap makes the handshake with the server.
func (c *dtlsClient) Wrap(ctx context.Context, f *flow.Flow, bare flow.Conn) (flow.Conn, error) {
	start := time.Now()
	ctx, cancel := c.within(ctx)
	defer cancel()
	sni, err := c.ask(ctx)
	if err != nil {
		return nil, err
	}
	h := &dtlsHandshake{handshake: handshake{flow: f, role: &outbound}, under: newDatagrams(bare)}
	h.sessions = c.resumable(ctx, f, sni)
	protos := c.offer(f)
	var options []dtls.ClientOption
	options = append(options, c.base...)
	options = append(options, dtls.WithServerName(sni))
	for _, o := range h.options() {
		options = append(options, o.(dtls.Option))
	}
	options = append(options, dtls.WithVerifyConnection(func(st *dtls.State) error { return c.verify(ctx, h, sni, st) }))
	if len(protos) > 0 {
		options = append(options, dtls.WithSupportedProtocols(protos...))
	}
	if c.PSK != nil {
		options = append(options, dtls.WithPSK(c.key(h)), dtls.WithPSKIdentityHint([]byte(c.Identity)))
	} else {
		options = append(options, dtls.WithGetClientCertificate(func(cri *dtls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate(ctx, h, cri) }))
	}
	t, err := dtls.ClientWithOptions(h.under, bare.RemoteAddr(), options...)
	if err != nil {
		return nil, flow.Fail(flow.Internal, "setting up DTLS: %w", err)
	}
	if err := h.run(ctx, t, c.Timeout); err != nil {
		return nil, err
	}
	session, cs, err := h.session(start)
	if err != nil {
		return nil, h.end(err)
	}
	session.SNI = sni
	if c.Offer == OfferChosen && len(protos) > 0 && cs.NegotiatedProtocol != protos[0] {
		return nil, h.end(flow.Fail(flow.ALPNMismatch, "the client was given ALPN %q, the server chose %q", protos[0], cs.NegotiatedProtocol))
	}
	f.Outbound = append(f.Outbound, session)
	return h.carryOn(cs, session.Resumed), nil
}

func (c *dtlsClient) verify(ctx context.Context, h *dtlsHandshake, sni string, st *dtls.State) error {
	cs, err := h.state(st)
	if err != nil {
		return flow.Fail(flow.CertInvalid, "the server's certificate: %w", err)
	}
	if isPSK(cs.CipherSuite) {
		return nil // its Finished is yet to show that the server has the key
	}
	return c.Client.verify(ctx, &h.handshake, sni, cs)
}

func (c *dtlsClient) certificate(ctx context.Context, h *dtlsHandshake, cri *dtls.CertificateRequestInfo) (*tls.Certificate, error) {
	if c.Credential == nil {
		h.asked = true
		return new(tls.Certificate), nil // none
	}
	r := &credential.Request{ServerName: c.SNI, Schemes: schemesOf(cri.CertificateTypes), Issuers: cri.AcceptableCAs}
	return c.ours.get(ctx, c.Credential, r)
}

func (c *dtlsClient) key(h *dtlsHandshake) dtls.PSKCallback {
	return func([]byte) ([]byte, error) {
		key, ok := c.PSK.Key([]byte(c.Identity))
		if !ok {
			return nil, flow.Fail(flow.NoCredential, "there is no pre-shared key of ours for identity %q", c.Identity)
		}
		h.psk = c.Identity
		return key, nil
	}
}

func (c *dtlsClient) resumable(ctx context.Context, f *flow.Flow, sni string) *resumable {
	if !c.Tickets {
		return nil
	}
	ours, err := c.shown(ctx)
	if err != nil {
		return nil
	}
	return &resumable{store: c.store, whole: true, scope: scope(sni, c.Name, f.Dialled.Addr, c.Identity, ours)}
}
