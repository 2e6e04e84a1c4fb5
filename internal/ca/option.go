package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
	"time"
)

// Option makes one certificate different.
type Option func(*spec)

type spec struct {
	now      time.Time
	template x509.Certificate
	makeKey  func() (crypto.Signer, error)
	public   crypto.PublicKey // in place of a key pair
	spki     []byte           // in place of any key
	hash     crypto.Hash      // of the signature; 0 is what x509 chooses
	tbs      func(*TBSCertificate)
	tamper   func(der []byte) []byte
}

// ECDSA takes a new key on curve.
func ECDSA(curve elliptic.Curve) Option {
	return func(s *spec) {
		s.makeKey = func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
	}
}

// Ed25519 takes a new Ed25519 key.
func Ed25519() Option {
	return func(s *spec) {
		s.makeKey = func() (crypto.Signer, error) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			return key, err
		}
	}
}

// RSA takes a new RSA key; with fewer than 1024 bits one that crypto/rsa would not make.
func RSA(bits int) Option {
	return func(s *spec) {
		s.makeKey = func() (crypto.Signer, error) {
			if bits < 1024 {
				return newSmallRSA(bits)
			}
			return rsa.GenerateKey(rand.Reader, bits)
		}
	}
}

// SharedRSA takes the one RSA-2048 key of this process, since they are slow to make.
func SharedRSA() Option { return func(s *spec) { s.makeKey = sharedRSA } }

var sharedRSA = sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// Key takes key, say that of another certificate.
func Key(key crypto.Signer) Option {
	return func(s *spec) { s.makeKey = func() (crypto.Signer, error) { return key, nil } }
}

// Public certifies pub, whose private key nobody has.
func Public(pub crypto.PublicKey) Option { return func(s *spec) { s.public = pub } }

// SPKI certifies a SubjectPublicKeyInfo in DER, of whatever kind.
func SPKI(der []byte) Option { return func(s *spec) { s.spki = der } }

// Expired is over for three days.
func Expired() Option {
	return func(s *spec) {
		s.template.NotBefore, s.template.NotAfter = s.now.Add(-30*24*time.Hour), s.now.Add(-3*24*time.Hour)
	}
}

// NotYet begins in three days.
func NotYet() Option {
	return func(s *spec) {
		s.template.NotBefore, s.template.NotAfter = s.now.Add(3*24*time.Hour), s.now.Add(30*24*time.Hour)
	}
}

// Validity ends d from now.
func Validity(d time.Duration) Option {
	return func(s *spec) { s.template.NotAfter = s.now.Add(d) }
}

// CN sets the subject's common name.
func CN(cn string) Option { return func(s *spec) { s.template.Subject.CommonName = cn } }

// OU sets the subject's organizational units.
func OU(ou ...string) Option {
	return func(s *spec) { s.template.Subject.OrganizationalUnit = ou }
}

// NoSAN leaves the names in the subject alone.
func NoSAN() Option {
	return func(s *spec) {
		t := &s.template
		t.DNSNames, t.IPAddresses, t.URIs, t.EmailAddresses = nil, nil, nil, nil
	}
}

// EKU replaces the extended key usages; none leaves the extension out.
func EKU(usages ...x509.ExtKeyUsage) Option {
	return func(s *spec) { s.template.ExtKeyUsage = usages }
}

// ServerAuth is EKU with serverAuth alone.
func ServerAuth() Option { return EKU(x509.ExtKeyUsageServerAuth) }

// ClientAuth is EKU with clientAuth alone.
func ClientAuth() Option { return EKU(x509.ExtKeyUsageClientAuth) }

// KeyUsage replaces the key usage; 0 leaves the extension out.
func KeyUsage(u x509.KeyUsage) Option { return func(s *spec) { s.template.KeyUsage = u } }

// IsCA says whether the certificate claims to be a CA's.
func IsCA(is bool) Option {
	return func(s *spec) { s.template.IsCA, s.template.BasicConstraintsValid = is, true }
}

// SHA1 has the certificate signed with SHA-1.
func SHA1() Option { return func(s *spec) { s.hash = crypto.SHA1 } }

// MD5 has the certificate signed with MD5; the issuer's key must be RSA.
func MD5() Option { return func(s *spec) { s.hash = crypto.MD5 } }

// Template changes the template that x509 gets.
func Template(f func(*x509.Certificate)) Option { return func(s *spec) { f(&s.template) } }

// TBS changes what is signed.
func TBS(f func(*TBSCertificate)) Option { return func(s *spec) { s.tbs = f } }

// V1 makes an X.509v1 certificate: no extensions.
func V1() Option {
	return TBS(func(t *TBSCertificate) { t.Version, t.Extensions = 0, nil })
}

// Tamper changes the signed certificate, which need not parse any more.
func Tamper(f func(der []byte) []byte) Option { return func(s *spec) { s.tamper = f } }

// BadSignature flips a bit of the signature.
func BadSignature() Option {
	return Tamper(func(der []byte) []byte { der[len(der)-1] ^= 1; return der })
}
