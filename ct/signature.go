package ct

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Algorithms that logs sign with (RFC 6962, section 2.1.4), as TLS 1.2 writes them.
const (
	sha256RSA   = 0x0401
	sha256ECDSA = 0x0403
)

// Kinds of entry (RFC 6962, section 3.1).
const (
	entryX509    = 0
	entryPrecert = 1
)

var errSignature = errors.New("its signature does not verify: the SCT is for another certificate, or was changed")

// verify checks t's signature by the key of its log. Of issuers, which may have
// issued leaf, one must be the one that the log was told of.
func (t *SCT) verify(key crypto.PublicKey, leaf *x509.Certificate, issuers [][32]byte) error {
	if t.Origin != Embedded {
		return t.check(key, entryX509, leaf.Raw, nil)
	}
	tbs, err := preTBS(leaf.RawTBSCertificate)
	if err != nil {
		return err
	}
	if len(issuers) == 0 {
		return errors.New("nobody has shown the issuer's key, which the log has signed as well")
	}
	for i := range issuers {
		if err = t.check(key, entryPrecert, tbs, issuers[i][:]); err == nil {
			return nil
		}
	}
	return err
}

func (t *SCT) check(key crypto.PublicKey, kind uint16, entry, issuer []byte) error {
	var b cryptobyte.Builder
	b.AddUint8(0) // v1
	b.AddUint8(0) // certificate_timestamp
	b.AddUint64(t.millis)
	b.AddUint16(kind)
	b.AddBytes(issuer)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(entry) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(t.extensions) })
	signed, err := b.Bytes()
	if err != nil {
		return err
	}
	switch key.(type) {
	case *ecdsa.PublicKey:
		if t.algorithm != sha256ECDSA {
			return fmt.Errorf("it is signed by the algorithm %#04x, and the log's key is for ECDSA with SHA-256", t.algorithm)
		}
	case *rsa.PublicKey:
		if t.algorithm != sha256RSA {
			return fmt.Errorf("it is signed by the algorithm %#04x, and the log's key is for RSA with SHA-256", t.algorithm)
		}
	}
	if !verifies(key, signed, t.signature) {
		return errSignature
	}
	return nil
}

// verifies checks a signature over the SHA-256 of signed.
func verifies(key crypto.PublicKey, signed, signature []byte) bool {
	sum := sha256.Sum256(signed)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// Keys of logs and of those who sign lists.
const (
	minRSA = 2048 // RFC 6962, section 2.1.4
	maxRSA = 8192
)

// takesKey says whether signatures by key are any of those above.
func takesKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
		return fmt.Errorf("an ECDSA key on %s, not P-256", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= minRSA && n <= maxRSA {
			return nil
		}
		return fmt.Errorf("an RSA key of %d bits, not of %d to %d", k.N.BitLen(), minRSA, maxRSA)
	}
	return fmt.Errorf("a %T, neither ECDSA nor RSA", key)
}
