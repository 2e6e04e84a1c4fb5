package revoke

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
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

func strong(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
		return true
	}
	for _, known := range algorithms {
		if a == known {
			return true
		}
	}
	return false
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
