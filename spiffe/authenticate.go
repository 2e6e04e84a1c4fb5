package spiffe

import (
	"context"
	"fmt"
	"strings"

	"sallyport/verify"
)

// Authenticator takes whom an anchor of his own trust domain vouches for
// (X509-SVID, section 5).
func (w *Workload) Authenticator(from string, profile verify.Profile, issuers verify.Issuers) verify.Authenticator {
	return authenticator{w, verify.PKIX{From: from, Profile: profile, Issuers: issuers}}
}

type authenticator struct {
	w    *Workload
	pkix verify.PKIX // without anchors
}

// String names it where it refuses.
func (authenticator) String() string { return "spiffe" }

func (a authenticator) Authenticate(ctx context.Context, p *verify.Presented) (*verify.Identity, error) {
	pkix := a.pkix
	if len(p.Chain) == 0 {
		return pkix.Authenticate(ctx, p)
	}
	id, err := verify.SVID(p.Chain[0])
	if err != nil {
		return nil, err
	}
	t := a.w.told.Load()
	if t == nil {
		return nil, &verify.Error{Reason: verify.UnknownCA, Err: fmt.Errorf("the SPIFFE agent at %s has not said whom to trust", a.w.addr)}
	}
	domain, _, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	if pkix.Anchors = t.anchors[domain]; pkix.Anchors == nil {
		return nil, &verify.Error{Reason: verify.UnknownCA, Err: fmt.Errorf("%q is of a trust domain that the SPIFFE agent does not name; federate with it", id)}
	}
	return pkix.Authenticate(ctx, p)
}
