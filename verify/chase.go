package verify

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Issuers finds the certificates that signed cert, say where its authority
// information access points to. Nothing that it gives is trusted for that.
type Issuers func(ctx context.Context, cert *x509.Certificate) ([]*x509.Certificate, error)

// Bounds on what is looked for behind one chain.
const (
	chaseTime  = 3 * time.Second
	chaseDepth = 4 // certificates above what was presented
)

// chase finds paths for p by intermediates that were not presented; unknown is what
// there is against those alone that were.
func (k PKIX) chase(ctx context.Context, p *Presented, unknown error) ([][]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, chaseTime)
	defer cancel()
	more := *p
	more.Chain = slices.Clone(p.Chain)
	last, err := p.Chain[0], unknown
	for range chaseDepth {
		last = top(more.Chain, last)
		found, none := k.Issuers(ctx, last)
		if none != nil {
			return nil, k.chased(&more, err, fmt.Errorf("the issuer of the %s could not be fetched: %w", describe(last), none))
		}
		more.Chain = append(more.Chain, found...)
		if err := bounds(&more); err != nil {
			return nil, err
		}
		var chains [][]*x509.Certificate
		if chains, err = more.Chain[0].Verify(k.options(&more)); err == nil {
			return chains, nil
		}
		if !leadsNowhere(err) {
			return nil, k.explain(&more, err)
		}
		last = found[0]
	}
	return nil, k.chased(&more, err, fmt.Errorf("nor was there any within %d certificates above what was sent", chaseDepth))
}

// chased adds to what is wrong how far it was looked for more.
func (k PKIX) chased(p *Presented, err, how error) error {
	var e *Error
	if why := k.explain(p, err); errors.As(why, &e) {
		return fail(e.Reason, "%w; %w", why, how)
	}
	return how
}

// top is the last certificate on the way up from c through list.
func top(list []*x509.Certificate, c *x509.Certificate) *x509.Certificate {
	for range list {
		above := c
		for _, o := range list {
			if !selfIssued(c) && bytes.Equal(o.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(o) == nil {
				above = o
				break
			}
		}
		if above == c {
			break
		}
		c = above
	}
	return c
}

// leadsNowhere says that more certificates could help.
func leadsNowhere(err error) bool {
	return errors.As(err, new(x509.UnknownAuthorityError))
}
