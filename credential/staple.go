package credential

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"

	"sallyport/revoke"
)

// Staple gives who has the OCSP response to be stapled to leaf; issuer is nil where
// it is not in leaf's file. What it gives may give nil for a time; nil never has any.
type Staple func(leaf, issuer *x509.Certificate) func() []byte

// stapling is what a certificate has of staples.
type stapling struct {
	must bool          // no client is to take it without (RFC 7633)
	der  func() []byte // nil: there is none
	last atomic.Pointer[Credential]
}

// staples fills what comes of a Staple.
func (e *entry) staples(by Staple) {
	if by == nil {
		return
	}
	leaf, issuer := e.Chain[0], (*x509.Certificate)(nil)
	if len(e.Chain) > 1 && leaf.CheckSignatureFrom(e.Chain[1]) == nil {
		issuer = e.Chain[1]
	}
	e.stapling.must, e.stapling.der = revoke.MustStaple(leaf), by(leaf, issuer)
}

// bare says that it would go without the staple that it must have.
func (e *entry) bare() bool {
	return e.stapling.must && (e.stapling.der == nil || e.stapling.der() == nil)
}

// current is the credential with the staple of now: the same as long as that is.
func (e *entry) current() *Credential {
	if e.stapling.der == nil {
		return &e.Credential
	}
	der := e.stapling.der()
	if len(der) == 0 {
		return &e.Credential
	}
	if c := e.stapling.last.Load(); c != nil && &c.Staple[0] == &der[0] {
		return c
	}
	c := e.Credential
	c.Staple = der
	e.stapling.last.Store(&c)
	return &c
}

// choose picks from the first list that has one for schemes, and takes what is bare
// only where there is nothing else.
func choose(schemes []tls.SignatureScheme, lists ...[]*entry) *entry {
	for _, bare := range []bool{false, true} {
		for _, list := range lists {
			if e := pick(list, schemes, bare); e != nil {
				return e
			}
		}
	}
	return nil
}
