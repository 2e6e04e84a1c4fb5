package revoke

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	_ "crypto/sha256" // for certificate IDs
	_ "crypto/sha512" // likewise
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Bounds on an OCSP response. Honest ones have 500 bytes to 3 KiB.
const (
	MaxOCSP  = 64 << 10
	maxCerts = 8 // that are looked at for the responder's
)

// skew is how far clocks may be apart; OpenSSL takes the same.
const skew = 5 * time.Minute

// maxAge is how long an OCSP response holds, whatever its nextUpdate says. It has
// no nonce, so who is between us and the responder could show it again that long.
// CAs of the web promise no more than ten days (Baseline Requirements, 4.9.10).
const maxAge = 10 * 24 * time.Hour

// Answer is what a CA says of one certificate.
type Answer struct {
	Revoked bool
	At      time.Time // of the revocation
	Reason  Reason
	This    time.Time // when it was known to be so (thisUpdate)
	Next    time.Time // when there will be newer word at the latest (nextUpdate)

	raw []byte // the OCSP response it stands in
}

// Raw is the OCSP response in DER, as it is stapled; nil of a CRL.
func (a *Answer) Raw() []byte { return a.raw }

// Holds says whether a, once verified, still is at now.
func (a *Answer) Holds(now time.Time) bool { return current("answer", a.This, a.Next, now) == nil }

// half is when it is time to ask again.
func (a *Answer) half() time.Time { return a.This.Add(a.Next.Sub(a.This) / 2) }

// Reason is why a certificate was revoked (RFC 5280, section 5.3.1).
type Reason int

func (r Reason) String() string {
	names := [...]string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
		"cessationOfOperation", "certificateHold", "7", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}
	if r < 0 || int(r) >= len(names) {
		return fmt.Sprint(int(r))
	}
	return names[r]
}

// errStale is in the error for what was in order once, or will be.
var errStale = errors.New("not current")

// current holds thisUpdate and nextUpdate against the clock.
func current(what string, this, next, now time.Time) error {
	switch {
	case now.Add(skew).Before(this):
		return fmt.Errorf("%w: the %s is of %s, which is to come; is the clock right? here it is %s", errStale, what, stamp(this), stamp(now))
	case next.IsZero():
		return fmt.Errorf("the %s does not say until when it holds (nextUpdate), so an old one could not be told from a new one", what)
	case next.Before(this):
		return fmt.Errorf("the %s ends before it begins", what)
	case now.Add(-skew).After(next):
		return fmt.Errorf("%w: the %s was good until %s", errStale, what, stamp(next))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// RFC 6960, section 4.2.1.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	basicResponse struct {
		TBS          responseData
		Algorithm    pkix.AlgorithmIdentifier
		Signature    asn1.BitString
		Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	responseData struct {
		Raw        asn1.RawContent
		Version    int `asn1:"optional,default:0,explicit,tag:0"`
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []singleResponse
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	singleResponse struct {
		ID         certID
		Status     asn1.RawValue
		ThisUpdate time.Time        `asn1:"generalized"`
		NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	certID struct {
		Hash     pkix.AlgorithmIdentifier
		NameHash []byte
		KeyHash  []byte
		Serial   *big.Int
	}
	revokedInfo struct {
		Time   time.Time       `asn1:"generalized"`
		Reason asn1.Enumerated `asn1:"explicit,tag:0,optional"`
	}
)

var (
	oidBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
)

// statuses are the words of RFC 6960, section 4.2.1.
var statuses = map[asn1.Enumerated]string{1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}

// JudgeOCSP reads an OCSP response in DER and gives what it says of cert, which
// issuer issued, at now.
func JudgeOCSP(der []byte, cert, issuer *x509.Certificate, now time.Time) (*Answer, error) {
	basic, err := parseOCSP(der)
	if err != nil {
		return nil, err
	}
	if err := basic.verify(issuer, now); err != nil {
		return nil, err
	}
	var (
		answer *Answer
		first  error
	)
	for i := range basic.TBS.Responses {
		single := &basic.TBS.Responses[i]
		if !single.ID.of(cert, issuer) {
			continue
		}
		a, err := single.answer(now)
		switch {
		case err != nil && first == nil:
			first = err
		case err == nil && (answer == nil || a.Revoked):
			answer = a
		}
	}
	switch {
	case answer != nil:
		answer.raw = der
		return answer, nil
	case first != nil:
		return nil, first
	}
	return nil, fmt.Errorf("the OCSP response is about other certificates than the one of serial %x by that issuer", cert.SerialNumber)
}

// parseOCSP reads a response that claims success.
func parseOCSP(der []byte) (*basicResponse, error) {
	if len(der) > MaxOCSP {
		return nil, fmt.Errorf("an OCSP response of %d bytes; at most %d are read", len(der), MaxOCSP)
	}
	var outer ocspResponse
	if err := unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("no OCSP response: %w", err)
	}
	if outer.Status != 0 {
		word, known := statuses[outer.Status]
		if !known {
			word = fmt.Sprintf("status %d", outer.Status)
		}
		return nil, fmt.Errorf("the OCSP responder says %s", word)
	}
	if !outer.Bytes.Type.Equal(oidBasic) {
		return nil, fmt.Errorf("an OCSP response of the type %s; only id-pkix-ocsp-basic is known", outer.Bytes.Type)
	}
	basic := new(basicResponse)
	if err := unmarshal(outer.Bytes.Response, basic); err != nil {
		return nil, fmt.Errorf("no OCSP response: %w", err)
	}
	if v := basic.TBS.Version; v != 0 {
		return nil, fmt.Errorf("an OCSP response of version %d; only 1 is known", v+1)
	}
	return basic, critical(basic.TBS.Extensions, "OCSP response", oidNonce)
}

var errNotDER = errors.New("its DER is damaged, or of something else")

func unmarshal(der []byte, to any) error {
	rest, err := asn1.Unmarshal(der, to)
	if err != nil {
		return errNotDER // the library's words are about Go's types
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes too many", len(rest))
	}
	return nil
}

// critical refuses extensions that must be understood and are not among known.
func critical(list []pkix.Extension, what string, known ...asn1.ObjectIdentifier) error {
	for _, e := range list {
		if e.Critical && !slices.ContainsFunc(known, e.Id.Equal) {
			return fmt.Errorf("the %s has a critical extension that is not understood (%s)", what, e.Id)
		}
	}
	return nil
}

// nonce says whether the response answers a request that had one. Ours have none.
func (b *basicResponse) nonce() bool {
	return slices.ContainsFunc(b.TBS.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNonce) })
}

func (s *singleResponse) answer(now time.Time) (*Answer, error) {
	const what = "OCSP response"
	if err := critical(s.Extensions, what); err != nil {
		return nil, err
	}
	if err := current(what, s.ThisUpdate, s.NextUpdate, now); err != nil {
		return nil, err
	}
	if age := now.Sub(s.ThisUpdate); age > maxAge+skew {
		return nil, fmt.Errorf("%w: the %s is of %s; more than %d days are not taken", errStale, what, stamp(s.ThisUpdate), maxAge/(24*time.Hour))
	}
	a := &Answer{This: s.ThisUpdate, Next: s.NextUpdate}
	if latest := a.This.Add(maxAge); a.Next.After(latest) {
		a.Next = latest
	}
	if s.Status.Class != asn1.ClassContextSpecific {
		return nil, errors.New("the OCSP response has no status")
	}
	switch s.Status.Tag {
	case 0:
		return a, nil
	case 1:
		var info revokedInfo
		if _, err := asn1.UnmarshalWithParams(s.Status.FullBytes, &info, "tag:1"); err != nil {
			return nil, fmt.Errorf("no OCSP response: %w", err)
		}
		a.Revoked, a.At, a.Reason = true, info.Time, Reason(info.Reason)
		return a, nil
	case 2:
		return nil, errors.New("the OCSP responder does not know the certificate (unknown)")
	}
	return nil, errors.New("the OCSP response has no status")
}

// hashes are those of certificate IDs. SHA-1 is what everybody uses there, and no
// worse: who could find another name and key of that hash still had to have them
// certified.
var hashes = map[string]crypto.Hash{
	"1.3.14.3.2.26":          crypto.SHA1,
	"2.16.840.1.101.3.4.2.1": crypto.SHA256,
	"2.16.840.1.101.3.4.2.2": crypto.SHA384,
	"2.16.840.1.101.3.4.2.3": crypto.SHA512,
}

// of says whether id names cert (RFC 6960, section 4.1.1).
func (id *certID) of(cert, issuer *x509.Certificate) bool {
	hash, ok := hashes[id.Hash.Algorithm.String()]
	if !ok || id.Serial == nil || id.Serial.Cmp(cert.SerialNumber) != 0 {
		return false
	}
	sum := func(b []byte) []byte {
		h := hash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	return bytes.Equal(id.NameHash, sum(cert.RawIssuer)) && bytes.Equal(id.KeyHash, sum(keyBits(issuer)))
}

// keyBits is the subjectPublicKey without tag, length and unused bits.
func keyBits(c *x509.Certificate) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if unmarshal(c.RawSubjectPublicKeyInfo, &info) != nil {
		return nil
	}
	return info.Key.RightAlign()
}

// verify makes sure that the issuer or a responder of its own signed.
func (b *basicResponse) verify(issuer *x509.Certificate, now time.Time) error {
	named, err := responder(b.TBS.Responder)
	if err != nil {
		return err
	}
	if b.TBS.ProducedAt.After(now.Add(skew)) {
		return fmt.Errorf("%w: the OCSP response was made on %s, which is to come; is the clock right? here it is %s", errStale, stamp(b.TBS.ProducedAt), stamp(now))
	}
	why := errors.New("the OCSP response does not have the certificate of who signed it")
	if named(issuer) {
		if why = b.signedBy(issuer); why == nil {
			return nil
		}
	}
	for i, raw := range b.Certificates {
		if i == maxCerts {
			break
		}
		c, err := x509.ParseCertificate(raw.FullBytes)
		if err != nil {
			return fmt.Errorf("the OCSP responder's certificate: %w", err)
		}
		if c.Equal(issuer) || !named(c) {
			continue
		}
		if why = delegated(c, issuer, now); why == nil {
			why = b.signedBy(c)
		}
		if why == nil {
			return nil
		}
	}
	return why
}

// responder reads a ResponderID and gives who it fits.
func responder(id asn1.RawValue) (func(*x509.Certificate) bool, error) {
	if id.Class == asn1.ClassContextSpecific && id.Tag == 1 {
		return func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, id.Bytes) }, nil
	}
	var hash []byte
	if id.Class != asn1.ClassContextSpecific || id.Tag != 2 || unmarshal(id.Bytes, &hash) != nil {
		return nil, errors.New("the OCSP response does not say who made it")
	}
	return func(c *x509.Certificate) bool {
		sum := sha1.Sum(keyBits(c)) // #nosec G401 -- a name for the key (RFC 6960, section 4.2.1), on which nothing rests
		return bytes.Equal(sum[:], hash)
	}, nil
}

func (b *basicResponse) signedBy(c *x509.Certificate) error {
	algorithm, err := algorithmOf(b.Algorithm)
	if err != nil {
		return fmt.Errorf("the OCSP response is %w", err)
	}
	if err := c.CheckSignature(algorithm, b.TBS.Raw, b.Signature.RightAlign()); err != nil {
		return fmt.Errorf("the signature of the OCSP response is not by %q: %w", c.Subject.String(), err)
	}
	return nil
}

// delegated is RFC 6960, section 4.2.2.2: the CA itself has to have said that c
// may answer for it.
func delegated(c, issuer *x509.Certificate, now time.Time) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("the OCSP responder's certificate (%.120q) %w", c.Subject.String(), fmt.Errorf(format, args...))
	}
	switch {
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return wrong("is not of the CA that issued the certificate in question")
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return wrong("is not for that: its extKeyUsage lacks OCSPSigning")
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return wrong("is good from %s to %s only", stamp(c.NotBefore), stamp(c.NotAfter))
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return wrong("may not sign: its keyUsage lacks digitalSignature")
	case len(c.UnhandledCriticalExtensions) > 0:
		return wrong("has a critical extension that is not understood (%s)", c.UnhandledCriticalExtensions[0])
	}
	if _, err := algorithmIn(c.Raw); err != nil {
		return wrong("is %w", err)
	}
	if err := keyFloor(c.PublicKey); err != nil {
		return wrong("has %w", err)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return wrong("was not signed by the CA of that name: %w", err)
	}
	return nil
}
