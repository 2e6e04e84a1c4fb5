package secure

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"time"

	"sallyport/credential"
	"sallyport/verify"
)

// Params are what a route says of one side's TLS.
type Params struct {
	Min, Max uint16   // versions as on the wire
	Suites   []uint16 // of TLS 1.0 to 1.2; those of 1.3 are fixed in crypto/tls
	Groups   []uint16 // key exchange; crypto/tls has its own order
	Tickets  bool     // sessions are resumed
	Record   bool     // TLS 1.3 is carried on by package record after the handshake
	MTU      int      // DTLS: the largest datagram of a handshake, in bytes; 0 is 1200
	CID      bool     // DTLS: connection IDs (RFC 9146) for a client that knows of them
}

// Preset gives the parameters of Mozilla's Server Side TLS guidelines, version
// 5.7, as far as crypto/tls reaches: it has no finite-field Diffie-Hellman.
// The post-quantum hybrids are added to each.
func Preset(name string) (Params, error) {
	groups := []uint16{uint16(tls.X25519MLKEM768), uint16(tls.SecP256r1MLKEM768), uint16(tls.SecP384r1MLKEM1024),
		uint16(tls.X25519), uint16(tls.CurveP256), uint16(tls.CurveP384)}
	p := Params{Max: tls.VersionTLS13, Groups: groups, Tickets: true, Record: true}
	switch name {
	case "modern":
		p.Min = tls.VersionTLS13
	case "intermediate":
		p.Min, p.Suites = tls.VersionTLS12, aead
	case "old":
		p.Min, p.Suites = tls.VersionTLS10, append(append([]uint16{}, aead...), legacy...)
	default:
		return Params{}, fmt.Errorf("no preset %q: there are modern, intermediate and old", name)
	}
	return p, nil
}

var aead = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// legacy is what the guidelines' "old" adds: CBC, RSA key exchange, 3DES.
var legacy = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
}

// Common is what both roles take.
type Common struct {
	Params
	Route      string
	Credential credential.Source // nil: none of ours
	Timeout    time.Duration     // of the handshake; 0 is none
	KeyLog     io.Writer         // unsafe.keylog; nil is none
	Truncation bool              // unsafe.truncation
	PSK        PSK               // DTLS: pre-shared keys; nil is none
	Now        func() time.Time
}

// PSK knows the pre-shared keys of identities (RFC 4279). To have a key is itself
// the decision that its owner may pass.
type PSK interface {
	Key(identity []byte) (key []byte, ok bool)
}

// Auth says whether clients show a certificate.
type Auth uint8

const (
	AuthNone Auth = iota
	AuthOptional
	AuthRequire
)

// Server are the parameters of the inbound role.
type Server struct {
	Common
	ALPN    []string        // nil: the extension is ignored
	Mirror  bool            // offer what the server has chosen; it is dialled first
	Auth    Auth            // and, unless none, what follows
	Anchors *verify.Anchors // verified against natively first, for the right alerts
	// Pool is where the anchors are that change while we run; nil: those of Anchors.
	// It gives no nil itself.
	Pool    func() *x509.CertPool
	Chases  bool            // Verify finds what clients leave out, so that it alone can tell
	Verify  verify.Verifier // then the whole of it
	Named   bool            // an access rule asks for a certificate, so that none is no client
	Trust   [32]byte        // a hash of all that decides who may pass; session tickets do not outlive its change
	ECH     *ECHKeys        // nil is none
	Tickets *Tickets
	// Sessions are those of DTLS, which has no tickets. Under nil they end with the layer.
	Sessions *Sessions
}

// Offer says which ALPN protocols the outbound role offers.
type Offer uint8

const (
	OfferList   Offer = iota // Client.ALPN, maybe none
	OfferMirror              // what the client offers: we are dialled first
	OfferChosen              // what the client was given; another choice ends the flow
)

// Client are the parameters of the outbound role.
type Client struct {
	Common
	SNI    string                                // "" sends none
	Ask    func(context.Context) (string, error) // says what to send in place of SNI; nil: nobody does
	Name   string                                // reference identity (RFC 9525)
	Port   uint16
	Offer  Offer
	ALPN   []string
	Verify verify.Verifier
	// Identity says whose key of PSK is ours. With a PSK no certificates are exchanged.
	Identity string
}

func (c *Common) config() *tls.Config {
	cfg := &tls.Config{
		MinVersion:             c.Min,
		MaxVersion:             c.Max,
		CipherSuites:           c.Suites,
		SessionTicketsDisabled: !c.Tickets,
		KeyLogWriter:           c.KeyLog,
		Time:                   c.Now,
	}
	if cfg.CipherSuites == nil {
		cfg.CipherSuites = aead // nil would mean crypto/tls's own list
	}
	for _, g := range c.Groups {
		cfg.CurvePreferences = append(cfg.CurvePreferences, tls.CurveID(g))
	}
	return cfg
}

// TrustHash mixes what decides who may pass into a [Server.Trust].
func TrustHash(parts ...[]byte) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
