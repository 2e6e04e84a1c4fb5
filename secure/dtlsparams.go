package secure

import (
	"crypto/tls"
	"slices"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/clientcertificate"
	"github.com/pion/dtls/v3/pkg/crypto/elliptic"

	"sallyport/wire"
)

const (
	// flightInterval is how long we wait for an answer before a flight is sent
	// again, at first; it doubles. RFC 6347, section 4.2.4.1, says a second where
	// nothing is known, and less where latency matters more.
	flightInterval = 400 * time.Millisecond
	replayWindow   = 128
	defaultMTU     = 1200
	// fragmentHead is what the engine puts around a fragment of its MTU: the headers
	// of a record and of a message.
	fragmentHead = 13 + 12

	extConnectionID = 54
)

// dtlsSuite is a cipher suite that the engine has.
type dtlsSuite struct {
	id       dtls.CipherSuiteID
	kind     keyKind
	overhead int // of a record, in bytes: header, nonce, tag, and for CBC the MAC and the most padding
}

type keyKind uint8

const (
	keyECDSA keyKind = iota
	keyRSA
	keyPSK
)

const (
	overGCM    = 13 + 8 + 16
	overChaCha = 13 + 16
	overCCM8   = 13 + 8 + 8
	overSHA1   = 13 + 16 + 20 + 16
	overSHA256 = 13 + 16 + 32 + 16
)

var dtlsSuites = []dtlsSuite{
	{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, keyECDSA, overGCM},
	{dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, keyRSA, overGCM},
	{dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, keyECDSA, overGCM},
	{dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, keyRSA, overGCM},
	{dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, keyECDSA, overChaCha},
	{dtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, keyRSA, overChaCha},
	{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM, keyECDSA, overGCM},
	{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8, keyECDSA, overCCM8},
	{dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, keyECDSA, overSHA1},
	{dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, keyRSA, overSHA1},
	{dtls.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256, keyPSK, overChaCha},
	{dtls.TLS_PSK_WITH_AES_128_GCM_SHA256, keyPSK, overGCM},
	{dtls.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256, keyPSK, overChaCha},
	{dtls.TLS_PSK_WITH_AES_128_CCM, keyPSK, overGCM},
	{dtls.TLS_PSK_WITH_AES_128_CCM_8, keyPSK, overCCM8},
	{dtls.TLS_PSK_WITH_AES_256_CCM_8, keyPSK, overCCM8},
	{dtls.TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256, keyPSK, overSHA256},
	{dtls.TLS_PSK_WITH_AES_128_CBC_SHA256, keyPSK, overSHA256},
}

// pskSuites are offered where Params.Suites names none with a pre-shared key. The
// first has forward secrecy; CCM_8 is what CoAP demands of devices (RFC 7252,
// section 9.1.3.1).
var pskSuites = []uint16{
	uint16(dtls.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256), uint16(dtls.TLS_PSK_WITH_AES_128_GCM_SHA256),
	uint16(dtls.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256), uint16(dtls.TLS_PSK_WITH_AES_128_CCM), uint16(dtls.TLS_PSK_WITH_AES_128_CCM_8),
}

func suiteOf(id uint16) (dtlsSuite, bool) {
	for _, s := range dtlsSuites {
		if uint16(s.id) == id {
			return s, true
		}
	}
	return dtlsSuite{}, false
}

func isPSK(id uint16) bool {
	s, ok := suiteOf(id)
	return ok && s.kind == keyPSK
}

func allPSK(list []uint16) bool {
	return !slices.ContainsFunc(list, func(id uint16) bool { return !isPSK(id) })
}

// suites are those of the parameters that the engine has.
func (c *Common) suites() []uint16 {
	list := c.Suites
	if list == nil {
		list = aead
	}
	if c.PSK != nil && !slices.ContainsFunc(list, isPSK) {
		list = slices.Concat(pskSuites, list)
	}
	return slices.DeleteFunc(slices.Clone(list), func(id uint16) bool {
		_, known := suiteOf(id)
		return !known
	})
}

// dtls is what every handshake of a layer has in common.
func (c *Common) dtls() []dtls.Option {
	list := []dtls.Option{
		dtls.WithFlightInterval(flightInterval),
		dtls.WithReplayProtectionWindow(replayWindow),
	}
	var ids []dtls.CipherSuiteID
	for _, id := range c.suites() {
		ids = append(ids, dtls.CipherSuiteID(id))
	}
	list = append(list, dtls.WithCipherSuites(ids...))
	var groups []elliptic.Curve
	for _, g := range c.Groups {
		if g := elliptic.Curve(g); slices.Contains([]elliptic.Curve{elliptic.X25519, elliptic.P256, elliptic.P384}, g) {
			groups = append(groups, g)
		}
	}
	if len(groups) > 0 {
		list = append(list, dtls.WithEllipticCurves(groups...))
	}
	mtu := c.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	list = append(list, dtls.WithMTU(max(mtu-fragmentHead, 1)))
	if c.KeyLog != nil {
		list = append(list, dtls.WithKeyLogWriter(c.KeyLog))
	}
	return list
}

// signatures are the engine's schemes, those that the client offers first and in its
// order: the engine signs with the first that fits our key, and does not look at what
// the client can verify.
func signatures(offered []uint16) []tls.SignatureScheme {
	all := []tls.SignatureScheme{
		tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519,
		tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
		tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512,
	}
	var list []tls.SignatureScheme
	for _, s := range offered {
		if s := tls.SignatureScheme(s); slices.Contains(all, s) && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	for _, s := range all {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// dtlsSchemes are the signatures that the client can verify from us, as schemes
// gives them for TLS.
func dtlsSchemes(hello *wire.Hello, ours []uint16) []tls.SignatureScheme {
	offered := hello.Schemes
	if len(offered) == 0 {
		offered = []uint16{uint16(tls.ECDSAWithSHA1), uint16(tls.PKCS1WithSHA1)}
	}
	kinds := map[keyKind]bool{}
	for _, id := range hello.CipherSuites {
		if s, ok := suiteOf(id); ok && slices.Contains(ours, id) {
			kinds[s.kind] = true
		}
	}
	list := []tls.SignatureScheme{} // nil would mean any
	for _, s := range offered {
		if s := tls.SignatureScheme(s); kinds[kindOf(s)] && !isPSS(s) {
			list = append(list, s)
		}
	}
	return list
}

// isPSS says of a scheme that the engine verifies, but does not sign with.
func isPSS(s tls.SignatureScheme) bool {
	return s == tls.PSSWithSHA256 || s == tls.PSSWithSHA384 || s == tls.PSSWithSHA512
}

func kindOf(s tls.SignatureScheme) keyKind {
	switch s {
	case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.ECDSAWithSHA1, tls.Ed25519:
		return keyECDSA
	}
	return keyRSA
}

// schemesOf are the schemes for the kinds of certificate that a server asks for; the
// engine keeps the schemes themselves to itself, and chooses among them.
func schemesOf(types []clientcertificate.Type) []tls.SignatureScheme {
	if len(types) == 0 {
		return nil
	}
	list := []tls.SignatureScheme{}
	for _, s := range signatures(nil) {
		want := clientcertificate.RSASign
		if kindOf(s) == keyECDSA {
			want = clientcertificate.ECDSASign
		}
		if slices.Contains(types, want) {
			list = append(list, s)
		}
	}
	return list
}
