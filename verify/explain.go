package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"time"
)

// atTime tells a certificate that is over from one that is not valid yet.
func atTime(c *x509.Certificate, now time.Time, anchor bool, from string) error {
	what, mend := describe(c), "it has to be renewed"
	if anchor {
		what, mend = "trust anchor "+subject(c), "a newer one has to be put into "+from
	}
	if now.After(c.NotAfter) {
		return fail(Expired, "the %s expired %s ago, on %s; %s", what, ago(now.Sub(c.NotAfter)), stamp(c.NotAfter), mend)
	}
	if now.Before(c.NotBefore) {
		return fail(NotYetValid, "the %s is not valid for another %s, until %s; is the clock right? here it is %s",
			what, ago(c.NotBefore.Sub(now)), stamp(c.NotBefore), stamp(now))
	}
	return nil
}

// explain puts x509's error into words and a reason. Only what x509 says about
// whole paths is taken from it; of a path that ends early its error has the last
// candidate, and not the one that matters.
func (k PKIX) explain(p *Presented, err error) error {
	leaf := p.Chain[0]
	if len(leaf.UnhandledCriticalExtensions) > 0 {
		return unhandledIn(leaf)
	}
	var e x509.CertificateInvalidError
	if errors.As(err, &e) {
		switch e.Reason {
		case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
			return fail(KeyUsage, "the %s may not authenticate a %s: the extKeyUsage of it or of an issuer says otherwise", describe(leaf), p.Role)
		case x509.CANotAuthorizedForThisName, x509.UnconstrainedName:
			return fail(Invalid, "the %s has a name that its issuers may not certify (name constraints): %s", describe(leaf), quote(e.Detail))
		case x509.TooManyConstraints, x509.NoValidChains:
			return fail(Invalid, "the %s has no valid path: %s", describe(leaf), quote(e.Error()))
		}
	}
	return k.findFault(p, err)
}

func unhandledIn(c *x509.Certificate) error {
	oid := "unknown"
	if len(c.UnhandledCriticalExtensions) > 0 {
		oid = c.UnhandledCriticalExtensions[0].String()
	}
	return fail(Invalid, "the %s has a critical extension that is not understood (%s; RFC 5280, section 4.2)", describe(c), quote(oid))
}

// maxEdges bounds how long findFault looks: some hundred microseconds an edge.
const maxEdges = 48

// fault is one reason why a path ended; a lower rank explains more.
type fault struct {
	rank int
	err  error
}

const (
	rankBroken   = iota // a link that fits, but must not be used
	rankMismatch        // a link by name alone: the signature does not fit
	rankUnknown         // no link
)

// findFault says why there is no path. To x509 every path that ends is an
// unknown authority, whatever ended it; an operator wants the very certificate.
// It walks from the leaf up, through what was sent and through our own anchors.
func (k PKIX) findFault(p *Presented, cause error) error {
	if err := k.overIn(p); err != nil {
		return err
	}
	type step struct {
		cert  *x509.Certificate
		depth int // certificates below cert's issuer, without the leaf
	}
	var (
		leaf  = p.Chain[0]
		queue = []step{{leaf, 0}}
		seen  = map[*x509.Certificate]bool{leaf: true}
		best  = fault{rankUnknown + 1, nil}
		edges int
	)
	note := func(f fault) {
		if f.err != nil && f.rank < best.rank {
			best = f
		}
	}
	for len(queue) > 0 && edges < maxEdges && best.rank > rankBroken {
		s := queue[0]
		queue = queue[1:]
		if !selfIssued(s.cert) {
			note(fault{rankBroken, sigFloor(s.cert)})
		}
		found := false
		for parent, anchor := range k.issuers(p, s.cert) {
			if edges++; edges > maxEdges {
				break
			}
			found = true
			f := k.link(p, s.cert, parent, anchor, s.depth)
			note(f)
			if f.err == nil && !seen[parent] && !anchor {
				seen[parent] = true
				queue = append(queue, step{parent, s.depth + 1})
			}
		}
		if !found {
			note(fault{rankUnknown, k.noIssuer(p, s.cert)})
		}
	}
	if best.err == nil {
		reason := Invalid
		if errors.As(cause, new(x509.UnknownAuthorityError)) {
			reason = UnknownCA
		}
		return fail(reason, "the %s has no valid path to the trust anchors of %s: %s", describe(leaf), k.from(), quote(cause.Error()))
	}
	return best.err
}

// overIn finds an anchor of the system's that is over. Those cannot be listed,
// so x509 is asked whether there was a path while the leaf was new.
func (k PKIX) overIn(p *Presented) error {
	if !k.Anchors.System {
		return nil
	}
	o := k.options(p)
	o.CurrentTime = p.Chain[0].NotBefore
	chains, err := p.Chain[0].Verify(o)
	if err != nil {
		return nil
	}
	for i, c := range chains[0] {
		if err := atTime(c, p.Now, i == len(chains[0])-1, k.from()); err != nil {
			return err
		}
	}
	return nil
}

// issuers yields who has the name of c's issuer, and whether it is an anchor.
func (k PKIX) issuers(p *Presented, c *x509.Certificate) func(func(*x509.Certificate, bool) bool) {
	return func(yield func(*x509.Certificate, bool) bool) {
		for _, a := range k.Anchors.certs {
			if bytes.Equal(a.RawSubject, c.RawIssuer) && !yield(a, true) {
				return
			}
		}
		for _, o := range p.Chain[1:] {
			if !o.Equal(c) && bytes.Equal(o.RawSubject, c.RawIssuer) && !yield(o, false) {
				return
			}
		}
	}
}

// link says what is wrong between child and parent. The order is that of how
// sure the answer is: a key or a claim can be read without a signature.
func (k PKIX) link(p *Presented, child, parent *x509.Certificate, anchor bool, depth int) fault {
	if err := keyFloor(parent); err != nil {
		return fault{rankBroken, err}
	}
	what := describe(parent)
	if anchor {
		what = "trust anchor " + subject(parent)
	}
	if (parent.BasicConstraintsValid && !parent.IsCA) || (parent.Version == 3 || !anchor) && !parent.BasicConstraintsValid {
		return fault{rankBroken, fail(Invalid, "the %s signed the one of %s without being that of a CA", what, subject(child))}
	}
	if hasKeyUsage(parent) && parent.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fault{rankBroken, fail(KeyUsage, "the %s may not sign certificates: its keyUsage lacks keyCertSign", what)}
	}
	if child.CheckSignatureFrom(parent) != nil {
		return k.mismatch(child, parent, anchor)
	}
	if len(parent.UnhandledCriticalExtensions) > 0 {
		return fault{rankBroken, unhandledIn(parent)}
	}
	if err := atTime(parent, p.Now, anchor, k.from()); err != nil {
		return fault{rankBroken, err}
	}
	if parent.BasicConstraintsValid && parent.MaxPathLen >= 0 && depth > parent.MaxPathLen {
		return fault{rankBroken, fail(Invalid, "the %s may have CAs below it %d deep (pathLenConstraint), and there are %d", what, parent.MaxPathLen, depth)}
	}
	return fault{}
}

func (k PKIX) mismatch(child, parent *x509.Certificate, anchor bool) fault {
	if len(child.AuthorityKeyId) > 0 && bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId) {
		return fault{rankMismatch, fail(Invalid, "the signature on the %s is broken", describe(child))}
	}
	if anchor {
		return fault{rankMismatch, fail(UnknownCA, "the %s was not signed by the trust anchor of that name in %s, which has another key; a CA that was renewed has to be put into %s",
			describe(child), k.from(), k.from())}
	}
	return fault{rankMismatch, fail(UnknownCA, "the %s was not signed by the certificate of that name that was sent with it", describe(child))}
}

func (k PKIX) noIssuer(p *Presented, c *x509.Certificate) error {
	leaf := p.Chain[0]
	switch {
	case selfIssued(c) && c == leaf:
		return fail(UnknownCA, "the certificate of %s is self-signed and not among the trust anchors of %s; if it is the right one, add it there", subject(c), k.from())
	case selfIssued(c):
		return fail(UnknownCA, "the chain ends in %s, which is not among the trust anchors of %s; if that CA is right, add its certificate there", subject(c), k.from())
	case c == leaf && len(p.Chain) == 1:
		return fail(UnknownCA, "the certificate of %s is issued by %s, which is not among the trust anchors of %s; if that CA is right, add its certificate there, and if it is an intermediate, have the %s send it",
			subject(c), issuer(c), k.from(), p.Role)
	}
	return fail(UnknownCA, "the certificate of %s is issued by %s, which is not among the trust anchors of %s; if that CA is right, add its certificate there",
		subject(c), issuer(c), k.from())
}
