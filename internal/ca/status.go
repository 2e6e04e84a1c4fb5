package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// Status is what an OCSP response says of one certificate (RFC 6960, section
// 4.2.1). Each field is one way for it to be different or wrong.
type Status struct {
	Cert       *x509.Certificate
	Issuer     *x509.Certificate // of the certificate ID
	Serial     *big.Int          // in place of Cert's
	Hash       crypto.Hash       // of the certificate ID; SHA-1 if 0
	Revoked    time.Time         // zero is good
	Reason     int
	Unknown    bool
	This, Next time.Time // no Next if zero
	Extensions []pkix.Extension
}

// Responder signs OCSP responses, as the CA itself or delegated by it.
type Responder struct {
	Cert       *x509.Certificate
	Key        crypto.Signer
	Attach     []*x509.Certificate // sent with the response
	ByKey      bool                // the responder ID is a hash of the key
	As         *x509.Certificate   // whom the responder ID names; Cert if nil
	Hash       crypto.Hash         // of the signature; SHA-256 if 0
	Extensions []pkix.Extension    // of the response
	Tamper     func([]byte) []byte
}

// Responder is the CA, answering for itself.
func (c *CA) Responder() *Responder { return &Responder{Cert: c.Cert, Key: c.Key} }

// Delegate is l, answering for whoever issued it.
func (l *Leaf) Delegate() *Responder {
	return &Responder{Cert: l.Cert, Key: l.Key, Attach: []*x509.Certificate{l.Cert}}
}

type (
	certID struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
	single struct {
		ID     certID
		Status asn1.RawValue
		This   time.Time        `asn1:"generalized"`
		Next   time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Exts   []pkix.Extension `asn1:"explicit,tag:1,optional,omitempty"`
	}
	responseData struct {
		Responder asn1.RawValue
		Produced  time.Time `asn1:"generalized"`
		Responses []single
		Exts      []pkix.Extension `asn1:"explicit,tag:1,optional,omitempty"`
	}
	basicResponse struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional,omitempty"`
	}
	responseBytes struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  responseBytes `asn1:"explicit,tag:0"`
	}
	revokedInfo struct {
		Time   time.Time       `asn1:"generalized"`
		Reason asn1.Enumerated `asn1:"explicit,tag:0,optional"`
	}
)

var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA1:   {1, 3, 14, 3, 2, 26},
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
}

// Respond makes an OCSP response in DER, produced at.
func (r *Responder) Respond(at time.Time, list ...Status) ([]byte, error) {
	data := responseData{Produced: at.UTC().Truncate(time.Second), Exts: r.Extensions}
	var err error
	if data.Responder, err = r.id(); err != nil {
		return nil, err
	}
	for i := range list {
		one, err := list[i].single()
		if err != nil {
			return nil, err
		}
		data.Responses = append(data.Responses, one)
	}
	raw, err := asn1.Marshal(data)
	if err != nil {
		return nil, err
	}
	hash := r.Hash
	if hash == 0 {
		hash = crypto.SHA256
	}
	basic := basicResponse{TBS: asn1.RawValue{FullBytes: raw}}
	if basic.Algorithm, err = algorithm(r.Key.Public(), hash); err != nil {
		return nil, err
	}
	sig, err := sign(r.Key, raw, hash)
	if err != nil {
		return nil, err
	}
	basic.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	for _, c := range r.Attach {
		basic.Certs = append(basic.Certs, asn1.RawValue{FullBytes: c.Raw})
	}
	der, err := asn1.Marshal(basic)
	if err != nil {
		return nil, err
	}
	der, err = asn1.Marshal(ocspResponse{Bytes: responseBytes{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, der}})
	if err == nil && r.Tamper != nil {
		der = r.Tamper(der)
	}
	return der, err
}

// id is the ResponderID.
func (r *Responder) id() (asn1.RawValue, error) {
	c := r.As
	if c == nil {
		c = r.Cert
	}
	if !r.ByKey {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: c.RawSubject}, nil
	}
	bits, err := keyBits(c)
	if err != nil {
		return asn1.RawValue{}, err
	}
	sum := sha1.Sum(bits)
	der, err := asn1.Marshal(sum[:])
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, IsCompound: true, Bytes: der}, err
}

func keyBits(c *x509.Certificate) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	_, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info)
	return info.Key.Bytes, err
}

func (s *Status) single() (single, error) {
	hash := s.Hash
	if hash == 0 {
		hash = crypto.SHA1
	}
	bits, err := keyBits(s.Issuer)
	if err != nil {
		return single{}, err
	}
	sum := func(b []byte) []byte {
		h := hash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	one := single{
		ID: certID{
			Hash:     pkix.AlgorithmIdentifier{Algorithm: hashOIDs[hash], Parameters: asn1.NullRawValue},
			NameHash: sum(s.Issuer.RawSubject), KeyHash: sum(bits), Serial: s.Serial,
		},
		Status: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0},
		This:   s.This.UTC().Truncate(time.Second), Exts: s.Extensions,
	}
	if one.ID.Serial == nil {
		one.ID.Serial = s.Cert.SerialNumber
	}
	if !s.Next.IsZero() {
		one.Next = s.Next.UTC().Truncate(time.Second)
	}
	switch {
	case s.Unknown:
		one.Status.Tag = 2
	case !s.Revoked.IsZero():
		der, err := asn1.MarshalWithParams(revokedInfo{s.Revoked.UTC().Truncate(time.Second), asn1.Enumerated(s.Reason)}, "tag:1")
		if err != nil {
			return one, err
		}
		one.Status = asn1.RawValue{FullBytes: der}
	}
	return one, nil
}

// CRL makes a list of c's own in DER, of serials revoked an hour before now; edit
// changes the template, if not nil.
func (c *CA) CRL(now time.Time, serials []*big.Int, edit func(*x509.RevocationList)) ([]byte, error) {
	l := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: now.Add(-time.Hour), ReasonCode: 1})
	}
	if edit != nil {
		edit(l)
	}
	return x509.CreateRevocationList(rand.Reader, l, c.Cert, c.Key)
}

// OCSPAt names OCSP responders.
func OCSPAt(urls ...string) Option {
	return func(s *spec) { s.template.OCSPServer = urls }
}

// CRLAt names distribution points.
func CRLAt(urls ...string) Option {
	return func(s *spec) { s.template.CRLDistributionPoints = urls }
}

// AIAAt names where the issuer's certificate is.
func AIAAt(urls ...string) Option {
	return func(s *spec) { s.template.IssuingCertificateURL = urls }
}

// MustStaple adds the TLS feature status_request (RFC 7633).
func MustStaple() Option {
	return func(s *spec) {
		s.template.ExtraExtensions = append(s.template.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5},
		})
	}
}
