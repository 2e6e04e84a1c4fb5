package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CA signs certificates: a root, or an intermediate of one.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	now   time.Time
	chain [][]byte // what its leaves send after themselves: no root
}

// Leaf is a certificate with its key.
type Leaf struct {
	Cert  *x509.Certificate // nil where [Tamper] left nothing that parses
	Chain [][]byte          // leaf first, then intermediates, no root
	Key   crypto.Signer     // nil where only a public key was given
}

// New makes a root, on P-256 and valid for ten years unless opts say otherwise.
func New(now time.Time, opts ...Option) (*CA, error) {
	s := newSpec(now, 10*365*24*time.Hour)
	s.authority("throw-away root")
	der, key, err := s.issue(nil, opts)
	if err != nil {
		return nil, fmt.Errorf("making a root: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making a root: %w", err)
	}
	return &CA{Cert: cert, Key: key, now: now}, nil
}

// Intermediate makes a CA below c.
func (c *CA) Intermediate(opts ...Option) (*CA, error) {
	s := newSpec(c.now, 5*365*24*time.Hour)
	s.authority("throw-away intermediate")
	der, key, err := s.issue(c, opts)
	if err != nil {
		return nil, fmt.Errorf("making an intermediate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making an intermediate: %w", err)
	}
	return &CA{Cert: cert, Key: key, now: c.now, chain: append([][]byte{der}, c.chain...)}, nil
}

// Leaf makes a certificate for names; addresses, URIs and mailboxes among them
// are told from DNS names by their looks. It is good for servers and clients
// unless opts say otherwise.
func (c *CA) Leaf(names []string, opts ...Option) (*Leaf, error) {
	return newLeaf(c.now, c, names, opts)
}

// SelfSigned makes a leaf that no CA signed.
func SelfSigned(now time.Time, names []string, opts ...Option) (*Leaf, error) {
	return newLeaf(now, nil, names, opts)
}

func newLeaf(now time.Time, parent *CA, names []string, opts []Option) (*Leaf, error) {
	s := newSpec(now, 90*24*time.Hour)
	s.template.KeyUsage = x509.KeyUsageDigitalSignature
	s.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	s.template.BasicConstraintsValid = true
	if len(names) > 0 && len(names[0]) <= 64 { // ub-common-name, RFC 5280 appendix A.1
		s.template.Subject.CommonName = names[0]
	}
	if err := s.addNames(names); err != nil {
		return nil, err
	}
	der, key, err := s.issue(parent, opts)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %q: %w", names, err)
	}
	l := &Leaf{Chain: [][]byte{der}, Key: key}
	if parent != nil {
		l.Chain = append(l.Chain, parent.chain...)
	}
	if l.Cert, err = x509.ParseCertificate(der); err != nil && s.tamper == nil {
		return nil, fmt.Errorf("making a certificate for %q: %w", names, err)
	}
	return l, nil
}

// Pool holds c's own certificate.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.Cert)
	return p
}

// CertPEM is c's own certificate, as a file of trust anchors has it.
func (c *CA) CertPEM() []byte { return encode("CERTIFICATE", c.Cert.Raw) }

// Write puts c's own certificate into dir/stem.pem.
func (c *CA) Write(dir, stem string) (file string, err error) {
	file = filepath.Join(dir, stem+".pem")
	return file, os.WriteFile(file, c.CertPEM(), 0o644)
}

// TLS is l in the form of crypto/tls; secure builds its own.
func (l *Leaf) TLS() tls.Certificate {
	return tls.Certificate{Certificate: l.Chain, PrivateKey: l.Key, Leaf: l.Cert}
}

// Certs is l's chain, parsed.
func (l *Leaf) Certs() ([]*x509.Certificate, error) {
	return x509.ParseCertificates(concat(l.Chain))
}

// CertPEM is l's chain, leaf first.
func (l *Leaf) CertPEM() []byte {
	var out []byte
	for _, der := range l.Chain {
		out = append(out, encode("CERTIFICATE", der)...)
	}
	return out
}

// KeyPEM is l's key in PKCS #8, nil where l has none that can be written.
func (l *Leaf) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(l.Key)
	if err != nil {
		return nil
	}
	return encode("PRIVATE KEY", der)
}

// Write puts the chain into dir/stem.pem and the key into dir/stem.key.
func (l *Leaf) Write(dir, stem string) (cert, key string, err error) {
	cert, key = filepath.Join(dir, stem+".pem"), filepath.Join(dir, stem+".key")
	p := l.KeyPEM()
	if p == nil {
		return "", "", errors.New("this leaf has no key that could be written")
	}
	if err := os.WriteFile(cert, l.CertPEM(), 0o644); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(key, p, 0o600)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func concat(list [][]byte) []byte {
	var out []byte
	for _, b := range list {
		out = append(out, b...)
	}
	return out
}

func newSpec(now time.Time, valid time.Duration) *spec {
	// An hour back, since clocks differ.
	return &spec{now: now, template: x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(valid)}}
}

func (s *spec) authority(cn string) {
	// Two CAs must not share a name by accident: the issuer is looked up by it.
	s.template.Subject = pkix.Name{CommonName: cn + " " + randomHex(4)}
	s.template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	s.template.IsCA, s.template.BasicConstraintsValid = true, true
}

func (s *spec) addNames(names []string) error {
	t := &s.template
	for _, n := range names {
		addr, err := netip.ParseAddr(n)
		switch {
		case err == nil:
			t.IPAddresses = append(t.IPAddresses, net.IP(addr.AsSlice()))
		case strings.Contains(n, "://"):
			u, err := url.Parse(n)
			if err != nil {
				return err
			}
			t.URIs = append(t.URIs, u)
		case strings.Contains(n, "@"):
			t.EmailAddresses = append(t.EmailAddresses, n)
		default:
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return nil
}

func randomSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive and of one length
	return new(big.Int).SetBytes(b)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
