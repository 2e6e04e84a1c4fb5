package secure

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/credential"
	"sallyport/flow"
	"sallyport/verify"
	"sallyport/wire"
)

// server is the inbound TLS layer of one route.
type server struct {
	Server
	base  *tls.Config
	epoch atomic.Int64 // of the ticket keys that base has
	keys  sync.Mutex   // one renewal at a time
	ours  certificates
}

// NewServer gives the layer that ends TLS towards clients.
func NewServer(p Server) flow.Layer {
	s := &server{Server: p, base: p.config()}
	s.base.GetCertificate = s.certificate
	s.base.NextProtos = p.ALPN
	if p.Auth != AuthNone {
		if p.Pool == nil {
			s.base.ClientCAs = p.Anchors.Pool
		}
		s.base.ClientAuth = clientAuth(p.Auth == AuthRequire, !p.Chases)
	}
	if p.ECH != nil {
		s.base.EncryptedClientHelloKeys = p.ECH.TLS()
	}
	s.epoch.Store(-1)
	return s
}

func clientAuth(require, natively bool) tls.ClientAuthType {
	switch {
	case require && natively:
		return tls.RequireAndVerifyClientCert
	case require:
		return tls.RequireAnyClientCert
	case natively:
		return tls.VerifyClientCertIfGiven
	}
	return tls.RequestClientCert
}

// Wrap makes the handshake with the client.
func (s *server) Wrap(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	start := time.Now()
	protos, err := s.admit(f)
	if err != nil {
		refuse(c, f, err)
		return nil, err
	}
	s.renewTicketKeys()
	h := &handshake{flow: f, role: &inbound}
	cfg := s.base.Clone() // it keeps the ticket keys, since they were set
	cfg.NextProtos = protos
	if s.Auth != AuthNone {
		if s.Pool != nil {
			cfg.ClientCAs = s.Pool()
		}
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return s.verify(ctx, h, cs) }
		cfg.WrapSession, cfg.UnwrapSession = s.resumption(ctx, h, cfg)
	}
	u := h.under(c, cfg, &s.Common)
	t := tls.Server(u, cfg)
	if err := h.run(t, u, s.Timeout); err != nil {
		return nil, err
	}
	session, cs := h.session(t, start)
	session.SNI = f.Hello.SNI
	if !agrees(f, cs) {
		return nil, flow.Fail(flow.HelloMismatch, "the handshake ended with server name %q, ALPN %q and ECH %t, which is not what its ClientHello said", cs.ServerName, cs.NegotiatedProtocol, cs.ECHAccepted)
	}
	f.Inbound = append(f.Inbound, session)
	return h.carryOn(t, u, cs, s.Truncation)
}

// admit refuses what no handshake could mend, while a plain alert can still say
// why, and gives the protocols to offer.
func (s *server) admit(f *flow.Flow) ([]string, *flow.Error) {
	if f.Hello == nil {
		return nil, flow.Fail(flow.NotTLS, "the client does not speak TLS")
	}
	if !overlaps(f.Hello.Versions, s.Min, s.Max) {
		return nil, flow.Fail(flow.VersionUnsupported, "the client speaks %s, this route %s to %s",
			versions(f.Hello.Versions), wire.VersionName(s.Min), wire.VersionName(s.Max))
	}
	return s.protocols(f)
}

// protocols gives those to offer, unless the client shares none of them.
func (s *Server) protocols(f *flow.Flow) ([]string, *flow.Error) {
	protos := s.ALPN
	if s.Mirror {
		protos = nil
		if n := len(f.Outbound); n > 0 && f.Outbound[n-1].ALPN != "" {
			protos = []string{f.Outbound[n-1].ALPN}
		}
	}
	if len(protos) > 0 && len(f.Hello.ALPN) > 0 && !meet(protos, f.Hello.ALPN) {
		return nil, flow.Fail(flow.NoApplicationProto, "the client offers ALPN %q, this route %q", f.Hello.ALPN, protos)
	}
	return protos, nil
}

// agrees says whether the handshake was about what the route was decided on. A
// second ClientHello, after a HelloRetryRequest, could differ.
func agrees(f *flow.Flow, cs tls.ConnectionState) bool {
	name := strings.ToLower(strings.TrimSuffix(cs.ServerName, "."))
	if name != f.Hello.SNI || cs.ECHAccepted != (f.Outer != nil) {
		return false
	}
	return cs.NegotiatedProtocol == "" || slices.Contains(f.Hello.ALPN, cs.NegotiatedProtocol)
}

func (s *Server) verify(ctx context.Context, h *handshake, cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		if s.Named {
			return flow.Fail(flow.ClientCertMissing, "the client sent no certificate, and the access rules ask for one")
		}
		return nil
	}
	start := time.Now()
	id, err := s.Verify.Verify(ctx, presented(verify.Client, h.flow, cs, s.Now()))
	h.verified += time.Since(start)
	if err != nil {
		return clientRefused(err, h.verified)
	}
	h.id = id
	return nil
}

func (s *server) certificate(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
	r := &credential.Request{ServerName: chi.ServerName, Schemes: schemes(chi, s.Params)}
	c, err := s.ours.get(chi.Context(), s.Credential, r)
	if errors.Is(err, credential.ErrNoCredential) && r.Schemes != nil {
		// With any of ours crypto/tls finds for itself that nothing is shared: the
		// client then gets handshake_failure, and the fault is not ours.
		r.Schemes = nil
		c, err = s.ours.get(chi.Context(), s.Credential, r)
	}
	return c, err
}

// client is the outbound TLS layer of one route.
type client struct {
	Client
	base *tls.Config
	ours certificates
}

// NewClient gives the layer that begins TLS towards servers.
func NewClient(p Client) flow.Layer {
	c := &client{Client: p, base: p.config()}
	c.base.ServerName = p.SNI
	c.base.NextProtos = p.ALPN
	// The server is verified by VerifyConnection, on resumption as well.
	c.base.InsecureSkipVerify = true // #nosec G402 -- see above
	if p.Tickets {
		// One cache a layer: sessions are never shared across routes, nor
		// across a change of trust, which builds the layer anew. A certificate
		// of ours may change under it, so that it is keyed by that.
		c.base.ClientSessionCache = tls.NewLRUClientSessionCache(sessions)
	}
	if p.Credential != nil {
		c.base.GetClientCertificate = c.certificate
	}
	return c
}

// sessions is how many a layer keeps: one server, whose tickets are used once.
const sessions = 64

// Wrap makes the handshake with the server.
func (c *client) Wrap(ctx context.Context, f *flow.Flow, bare flow.Conn) (flow.Conn, error) {
	start := time.Now()
	ctx, cancel := c.within(ctx)
	defer cancel()
	sni, err := c.ask(ctx)
	if err != nil {
		return nil, err
	}
	h := &handshake{flow: f, role: &outbound, resumes: c.Tickets}
	cfg := c.base.Clone()
	cfg.ServerName, cfg.NextProtos = sni, c.offer(f)
	cfg.ClientSessionCache = c.cache(ctx)
	cfg.VerifyConnection = func(cs tls.ConnectionState) error { return c.verify(ctx, h, sni, cs) }
	if c.Credential == nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			h.asked = true
			return new(tls.Certificate), nil // none, as crypto/tls does without this
		}
	}
	u := h.under(bare, cfg, &c.Common)
	t := tls.Client(u, cfg)
	if err := h.run(t, u, c.Timeout); err != nil {
		return nil, err
	}
	session, cs := h.session(t, start)
	session.SNI = sni
	forgetUnbound(t, cfg, cs)
	if c.Offer == OfferChosen && len(cfg.NextProtos) > 0 && cs.NegotiatedProtocol != cfg.NextProtos[0] {
		return nil, flow.Fail(flow.ALPNMismatch, "the client was given ALPN %q, the server chose %q", cfg.NextProtos[0], cs.NegotiatedProtocol)
	}
	f.Outbound = append(f.Outbound, session)
	return h.carryOn(t, u, cs, c.Truncation)
}

// cache gives what is resumed in the name that we have now, and nil where we have none.
func (c *client) cache(ctx context.Context) tls.ClientSessionCache {
	if c.base.ClientSessionCache == nil {
		return nil
	}
	ours, err := c.shown(ctx)
	if err != nil {
		return nil
	}
	return keyed{c.base.ClientSessionCache, ours}
}

// keyed is what a cache has of sessions in which we showed one certificate.
type keyed struct {
	all  tls.ClientSessionCache
	ours string
}

func (k keyed) Get(server string) (*tls.ClientSessionState, bool) { return k.all.Get(k.ours + server) }
func (k keyed) Put(server string, s *tls.ClientSessionState)      { k.all.Put(k.ours+server, s) }

// shown is the hash of the certificate that a server would be shown now, and "" where
// we have none to show. Who is resumed keeps the name of the first handshake, so that
// a session goes no further than its certificate.
func (c *Client) shown(ctx context.Context) (string, error) {
	if c.Credential == nil {
		return "", nil
	}
	ours, err := c.Credential.Credential(ctx, &credential.Request{ServerName: c.SNI})
	if err != nil {
		return "", err // said where the server asks for it
	}
	sum := sha256.Sum256(ours.Chain[0].Raw)
	return string(sum[:]), nil
}

// forgetUnbound drops a session of TLS 1.2 whose keys do not name the handshake that
// they are from (RFC 7627): who sits between can resume it with both ends. Without
// that, crypto/tls exports no keys.
func forgetUnbound(t *tls.Conn, cfg *tls.Config, cs tls.ConnectionState) {
	if cfg.ClientSessionCache == nil || cs.Version >= tls.VersionTLS13 {
		return
	}
	if _, err := cs.ExportKeyingMaterial("EXPORTER-sallyport", nil, 1); err == nil {
		return
	}
	key := cfg.ServerName // as crypto/tls has it
	if key == "" {
		key = t.RemoteAddr().String()
	}
	cfg.ClientSessionCache.Put(key, nil)
}

func (c *Client) offer(f *flow.Flow) []string {
	switch c.Offer {
	case OfferMirror:
		if f.Hello != nil {
			return f.Hello.ALPN
		}
	case OfferChosen:
		if n := len(f.Inbound); n > 0 && f.Inbound[n-1].ALPN != "" {
			return []string{f.Inbound[n-1].ALPN}
		}
	case OfferList:
		return c.ALPN
	}
	return nil
}

// within is the handshake's time, for what is looked up in it as well.
func (c *Client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.Timeout)
}

// ask is the name to send.
func (c *Client) ask(ctx context.Context) (string, error) {
	if c.Ask == nil {
		return c.SNI, nil
	}
	start := time.Now()
	sni, err := c.Ask(ctx)
	if err != nil {
		return "", serverRefused(err, time.Since(start))
	}
	return sni, nil
}

func (c *Client) verify(ctx context.Context, h *handshake, sni string, cs tls.ConnectionState) error {
	p := presented(verify.Server, h.flow, cs, c.Now())
	p.Name, p.Port, p.SNI = c.Name, c.Port, sni
	start := time.Now()
	id, err := c.Verify.Verify(ctx, p)
	h.verified = time.Since(start)
	if err != nil {
		return serverRefused(err, h.verified)
	}
	h.id = id
	return nil
}

func (c *client) certificate(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	r := &credential.Request{ServerName: c.SNI, Schemes: cri.SignatureSchemes, Issuers: cri.AcceptableCAs}
	return c.ours.get(cri.Context(), c.Credential, r)
}
