package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/md5" // for certificates that must be refused
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // likewise
	_ "crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// TBSCertificate is RFC 5280, section 4.1, as far as the tests change it.
type TBSCertificate struct {
	Version      int `asn1:"optional,explicit,default:0,tag:0"`
	SerialNumber *big.Int
	Signature    pkix.AlgorithmIdentifier
	Issuer       asn1.RawValue
	Validity     asn1.RawValue
	Subject      asn1.RawValue
	PublicKey    asn1.RawValue
	Extensions   []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

type certificate struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// issue signs what s says by parent, or by its own key where parent is nil.
func (s *spec) issue(parent *CA, opts []Option) ([]byte, crypto.Signer, error) {
	for _, o := range opts {
		o(s)
	}
	key, pub, err := s.keys()
	if err != nil {
		return nil, nil, err
	}
	if s.template.SerialNumber == nil {
		s.template.SerialNumber = randomSerial()
	}
	issuer, signer := &s.template, key
	if parent != nil {
		issuer, signer = parent.Cert, parent.Key
	}
	if signer == nil {
		return nil, nil, errors.New("a public key alone signs nothing")
	}
	var der []byte
	if s.byHand(signer) {
		der, err = s.signByHand(issuer, pub, signer)
	} else {
		der, err = x509.CreateCertificate(rand.Reader, &s.template, issuer, pub, signer)
	}
	if err != nil {
		return nil, nil, err
	}
	if s.tamper != nil {
		der = s.tamper(der)
	}
	if s.spki != nil {
		key = nil // it is not that of the certificate
	}
	return der, key, nil
}

func (s *spec) keys() (crypto.Signer, crypto.PublicKey, error) {
	if s.public != nil {
		return nil, s.public, nil
	}
	if s.makeKey == nil {
		ECDSA(elliptic.P256())(s)
	}
	key, err := s.makeKey()
	if err != nil {
		return nil, nil, err
	}
	return key, key.Public(), nil
}

// byHand says whether crypto/x509 would refuse.
func (s *spec) byHand(signer crypto.Signer) bool {
	_, small := signer.(*smallRSA)
	return small || s.hash != 0 || s.tbs != nil || s.spki != nil
}

// signByHand has x509 build the certificate under a key of no meaning, and
// replaces algorithm and signature.
func (s *spec) signByHand(issuer *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	stand, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	keyless := *issuer
	keyless.PublicKey = nil // else x509 compares it with the key that signs
	der, err := x509.CreateCertificate(rand.Reader, &s.template, &keyless, pub, stand)
	if err != nil {
		return nil, err
	}
	var cert certificate
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return nil, err
	}
	var tbs TBSCertificate
	if _, err := asn1.Unmarshal(cert.TBS.FullBytes, &tbs); err != nil {
		return nil, err
	}
	hash := s.hash
	if hash == 0 {
		hash = crypto.SHA256
	}
	if tbs.Signature, err = algorithm(signer.Public(), hash); err != nil {
		return nil, err
	}
	if s.spki != nil {
		tbs.PublicKey = asn1.RawValue{FullBytes: s.spki}
	}
	if s.tbs != nil {
		s.tbs(&tbs)
	}
	raw, err := asn1.Marshal(tbs)
	if err != nil {
		return nil, err
	}
	sig, err := sign(signer, raw, hash)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(certificate{
		TBS:       asn1.RawValue{FullBytes: raw},
		Algorithm: tbs.Signature,
		Signature: asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)},
	})
}

func sign(signer crypto.Signer, raw []byte, hash crypto.Hash) ([]byte, error) {
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		return signer.Sign(rand.Reader, raw, crypto.Hash(0))
	}
	h := hash.New()
	h.Write(raw)
	return signer.Sign(rand.Reader, h.Sum(nil), hash)
}

var algorithms = map[crypto.Hash]struct{ rsa, ecdsa asn1.ObjectIdentifier }{
	crypto.MD5:    {rsa: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}},
	crypto.SHA1:   {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}},
	crypto.SHA256: {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
}

func algorithm(pub crypto.PublicKey, hash crypto.Hash) (pkix.AlgorithmIdentifier, error) {
	var id pkix.AlgorithmIdentifier
	switch pub.(type) {
	case *rsa.PublicKey:
		id = pkix.AlgorithmIdentifier{Algorithm: algorithms[hash].rsa, Parameters: asn1.NullRawValue}
	case *ecdsa.PublicKey:
		id = pkix.AlgorithmIdentifier{Algorithm: algorithms[hash].ecdsa}
	case ed25519.PublicKey:
		id = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}}
	}
	if id.Algorithm == nil {
		return id, fmt.Errorf("a %T signs nothing with %v", pub, hash)
	}
	return id, nil
}

// smallRSA is a key below what crypto/rsa makes and uses, from textbook RSA.
type smallRSA struct {
	pub rsa.PublicKey
	d   *big.Int
}

func newSmallRSA(bits int) (*smallRSA, error) {
	e, one := big.NewInt(65537), big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, bits/2)
		if err != nil {
			return nil, err
		}
		q, err := rand.Prime(rand.Reader, bits-bits/2)
		if err != nil {
			return nil, err
		}
		n := new(big.Int).Mul(p, q)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if n.BitLen() == bits && d != nil {
			return &smallRSA{rsa.PublicKey{N: n, E: 65537}, d}, nil
		}
	}
}

func (k *smallRSA) Public() crypto.PublicKey { return &k.pub }

// Sign is RSASSA-PKCS1-v1_5 of RFC 8017, section 8.2.1, for SHA-256 alone.
func (k *smallRSA) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, errors.New("a small key signs with SHA-256 alone")
	}
	info, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, Parameters: asn1.NullRawValue}, digest})
	if err != nil {
		return nil, err
	}
	size := k.pub.Size()
	if size < len(info)+11 {
		return nil, fmt.Errorf("a key of %d bits cannot sign SHA-256", k.pub.N.BitLen())
	}
	em := make([]byte, size)
	em[1] = 1
	for i := 2; i < size-len(info)-1; i++ {
		em[i] = 0xff
	}
	copy(em[size-len(info):], info)
	return new(big.Int).Exp(new(big.Int).SetBytes(em), k.d, k.pub.N).FillBytes(make([]byte, size)), nil
}
