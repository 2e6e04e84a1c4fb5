package revoke

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// algorithms are the signatures that are taken, by object identifier.
// CheckSignature would take SHA-1 as well.
var algorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
	"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
	"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
	"1.3.101.112":           x509.PureEd25519,
}

// weak are names of signatures that are not taken.
var weak = map[string]string{
	"1.2.840.113549.1.1.4": "MD5 with RSA",
	"1.2.840.113549.1.1.5": "SHA-1 with RSA",
	"1.2.840.10045.4.1":    "SHA-1 with ECDSA",
}

var (
	oidPSS  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
)

// algorithmOf gives the signature that id names, if it is one that is taken.
func algorithmOf(id pkix.AlgorithmIdentifier) (x509.SignatureAlgorithm, error) {
	oid := id.Algorithm.String()
	if a, ok := algorithms[oid]; ok {
		return a, nil
	}
	if id.Algorithm.Equal(oidPSS) {
		return pss(id.Parameters)
	}
	if name, ok := weak[oid]; ok {
		oid = name
	}
	return 0, fmt.Errorf("signed by an algorithm that is not taken (%s); SHA-256 or better with RSA or ECDSA, and Ed25519 are", oid)
}

// algorithmIn is algorithmOf the signature in der, a certificate or a CRL.
func algorithmIn(der []byte) (x509.SignatureAlgorithm, error) {
	var signed struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if err := unmarshal(der, &signed); err != nil {
		return 0, err
	}
	return algorithmOf(signed.Algorithm)
}

// pssParams is RSASSA-PSS-params (RFC 4055, section 3.1). What is left out there is
// SHA-1 and a salt of 20 bytes, which are not taken, so that only the trailer may be.
type pssParams struct {
	Hash    pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
	MGF     pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
	Salt    int                      `asn1:"explicit,tag:2"`
	Trailer int                      `asn1:"optional,explicit,tag:3,default:1"`
}

var pssHashes = map[string]struct {
	algorithm x509.SignatureAlgorithm
	size      int // bytes
}{
	"2.16.840.1.101.3.4.2.1": {x509.SHA256WithRSAPSS, 32},
	"2.16.840.1.101.3.4.2.2": {x509.SHA384WithRSAPSS, 48},
	"2.16.840.1.101.3.4.2.3": {x509.SHA512WithRSAPSS, 64},
}

// pss takes the three kinds of RSASSA-PSS that crypto/x509 verifies, and TLS 1.3 has.
func pss(params asn1.RawValue) (x509.SignatureAlgorithm, error) {
	refuse := func(format string, args ...any) (x509.SignatureAlgorithm, error) {
		return 0, fmt.Errorf("signed by RSA-PSS with %w; SHA-256, 384 or 512, the same in MGF1, a salt as long as the hash and trailer 1 are taken", fmt.Errorf(format, args...))
	}
	var p pssParams
	if err := unmarshal(params.FullBytes, &p); err != nil {
		return refuse("parameters left out, which makes them SHA-1's, or damaged ones")
	}
	hash, ok := pssHashes[p.Hash.Algorithm.String()]
	if !ok || !noParameters(p.Hash) {
		return refuse("the hash %s", p.Hash.Algorithm)
	}
	var inner pkix.AlgorithmIdentifier
	switch {
	case !p.MGF.Algorithm.Equal(oidMGF1):
		return refuse("the mask function %s, not MGF1", p.MGF.Algorithm)
	case unmarshal(p.MGF.Parameters.FullBytes, &inner) != nil || !inner.Algorithm.Equal(p.Hash.Algorithm) || !noParameters(inner):
		return refuse("another hash in MGF1 than for the message")
	case p.Salt != hash.size:
		return refuse("a salt of %d bytes where the hash has %d", p.Salt, hash.size)
	case p.Trailer != 1:
		return refuse("trailer %d", p.Trailer)
	}
	return hash.algorithm, nil
}

// noParameters holds of hashes, with NULL or nothing (RFC 4055, section 2.1).
func noParameters(id pkix.AlgorithmIdentifier) bool {
	p := id.Parameters.FullBytes
	return len(p) == 0 || bytes.Equal(p, asn1.NullBytes)
}

// keyFloor is that of verify, where the reasons stand: below it signatures are
// forged, above it they cost the verifier alone.
func keyFloor(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 || k.E < 65537 {
			return fmt.Errorf("an RSA key of %d bits with the exponent %d; 2048 to 8192 bits and 65537 or more are taken", n, k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return errors.New("a key on a curve that is not taken; P-256, P-384 and P-521 are")
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("a key of a kind that is not taken; RSA, ECDSA and Ed25519 are")
}
