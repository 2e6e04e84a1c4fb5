package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
)

// Profile is a set of floors under what crypto/x509 takes. These hold in each:
// RSA from 2048 to 8192 bits with an exponent from 65537, P-256, P-384, P-521 and
// Ed25519 alone, SHA-256 or better below the anchor, keyUsage where it is there.
// In the rest they differ, see [policy].
type Profile string

const (
	Private Profile = "private"
	WebPKI  Profile = "webpki"
	Strict  Profile = "strict"
)

const (
	minRSA = 2048
	maxRSA = 8192 // as crypto/tls; larger ones cost the verifier alone
	minE   = 65537
)

// floors holds one path against what every profile asks for.
func floors(p *Presented, chain []*x509.Certificate) error {
	for i, c := range chain {
		if err := keyFloor(c); err != nil {
			return err
		}
		if i == len(chain)-1 {
			break // nobody relies on the anchor's own signature
		}
		if err := sigFloor(c); err != nil {
			return err
		}
	}
	for _, c := range chain[1:] {
		if hasKeyUsage(c) && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return fail(KeyUsage, "the %s may not sign certificates: its keyUsage lacks keyCertSign", describe(c))
		}
	}
	if err := constrain(chain); err != nil {
		return err
	}
	return leafUsage(p, chain[0])
}

// leafUsage is RFC 5280, section 4.2.1.3: TLS has the leaf's key sign, except
// that a server with RSA key transport decrypts instead.
func leafUsage(p *Presented, leaf *x509.Certificate) error {
	if !hasKeyUsage(leaf) || leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
		return nil
	}
	if p.Role == Server && rsaTransport(p.Suite) && leaf.KeyUsage&x509.KeyUsageKeyEncipherment != 0 {
		return nil
	}
	return fail(KeyUsage, "the %s may not authenticate a %s: its keyUsage lacks digitalSignature", describe(leaf), p.Role)
}

func rsaTransport(suite uint16) bool {
	switch suite {
	case tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384:
		return true
	}
	return false
}

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// hasKeyUsage tells an extension without a bit, which allows nothing, from none.
func hasKeyUsage(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidKeyUsage) {
			return true
		}
	}
	return false
}

func keyFloor(c *x509.Certificate) error {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		n := k.N.BitLen()
		switch {
		case n < minRSA:
			return fail(WeakKey, "the %s has an RSA key of %d bits; at least %d are needed", describe(c), n, minRSA)
		case n > maxRSA:
			return tooLarge(c)
		case n%8 != 0 || k.N.Bit(0) == 0:
			return fail(WeakKey, "the %s has an RSA key with a malformed modulus (%d bits)", describe(c), n)
		case k.E < minE || k.E%2 == 0:
			return fail(WeakKey, "the %s has an RSA key with the exponent %d; an odd one from %d up is needed", describe(c), k.E, minE)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fail(WeakKey, "the %s has a key on the curve %s; P-256, P-384 and P-521 are taken", describe(c), k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	kind := "unknown here"
	if c.PublicKeyAlgorithm != x509.UnknownPublicKeyAlgorithm {
		kind = c.PublicKeyAlgorithm.String()
	}
	return fail(WeakKey, "the %s has a key of a kind that is not taken (%s); RSA, ECDSA and Ed25519 are", describe(c), kind)
}

func tooLarge(c *x509.Certificate) error {
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSA {
		return fail(WeakKey, "the %s has an RSA key of %d bits; at most %d are taken", describe(c), k.N.BitLen(), maxRSA)
	}
	return nil
}

func sigFloor(c *x509.Certificate) error {
	switch c.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return nil
	case x509.UnknownSignatureAlgorithm: // MD4, SHA-224, Ed448, and what nobody has heard of
		return fail(WeakSig, "the %s is signed by an algorithm that is not taken; SHA-256 or better is needed", describe(c))
	}
	return fail(WeakSig, "the %s is signed with %s, which can be forged; SHA-256 or better is needed", describe(c), c.SignatureAlgorithm)
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }
