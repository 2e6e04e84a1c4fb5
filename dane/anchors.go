package dane

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"slices"
	"time"
)

// maxBare bounds how many bare keys the chain's signatures are tried with.
const maxBare = 8

// Anchors are the trust anchors that usable records make of usage DANE-TA: the
// issuers in chain (leaf first) that one matches, whole certificates out of records,
// and keys out of records where one has signed a certificate of chain (RFC 7671,
// section 5.2). The leaf itself is none: an anchor issues.
func Anchors(records []Record, chain []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	bare := 0
	for _, r := range records {
		if r.Usage != DANETA || len(chain) == 0 {
			continue
		}
		for _, c := range chain[1:] {
			if r.Matches(c) && !c.Equal(chain[0]) {
				found = append(found, c)
			}
		}
		switch {
		case r.Matching != Full:
		case r.Selector == Cert:
			if c, err := r.Certificate(); err == nil && !c.Equal(chain[0]) {
				found = append(found, c)
			}
		case bare < maxBare:
			bare++
			found = append(found, bareAnchors(r.Data, chain)...)
		}
	}
	return found
}

// bareAnchors makes an anchor of a key for each issuer's name under which it has
// signed: such an anchor has a name and a key and nothing else to judge (RFC 5280,
// section 6.1.1). What a self-signed certificate says of itself makes nobody its issuer.
func bareAnchors(spki []byte, chain []*x509.Certificate) []*x509.Certificate {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil
	}
	var found []*x509.Certificate
	for _, c := range chain {
		if bytes.Equal(c.RawSubjectPublicKeyInfo, spki) {
			continue
		}
		id := sha256.Sum256(slices.Concat(c.RawIssuer, spki))
		anchor := &x509.Certificate{
			Raw: id[:], RawSubject: c.RawIssuer, RawIssuer: c.RawIssuer, Subject: c.Issuer, Issuer: c.Issuer,
			RawSubjectPublicKeyInfo: spki, PublicKey: key, PublicKeyAlgorithm: algorithm(key),
			Version: 3, SerialNumber: new(big.Int), BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1,
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<37, 0),
		}
		if c.CheckSignatureFrom(anchor) == nil {
			found = append(found, anchor)
		}
	}
	return found
}

func algorithm(key any) x509.PublicKeyAlgorithm {
	switch key.(type) {
	case *rsa.PublicKey:
		return x509.RSA
	case *ecdsa.PublicKey:
		return x509.ECDSA
	case ed25519.PublicKey:
		return x509.Ed25519
	}
	return x509.UnknownPublicKeyAlgorithm
}
