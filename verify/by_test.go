package verify_test

import (
	"context"
	"errors"
	"testing"

	"sallyport/internal/ca"
	"sallyport/verify"
)

type notHere struct{}

func (notHere) String() string { return "absent" }

func (notHere) Authenticate(context.Context, *verify.Presented) (*verify.Identity, error) {
	return nil, verify.ErrNotApplicable
}

// A refusal says whose word it is, in the words that passing has.
func TestRefusalSaysBy(t *testing.T) {
	p, pkix := presented(t, good)
	stranger, _ := presented(t, good)
	root := ca.TestAt(t, now)
	wrong := verify.Pin([32]byte{})
	for _, c := range []struct {
		what string
		v    verify.Verifier
		p    *verify.Presented
		by   string
	}{
		{"nobody", verify.With(nil), p, ""},
		{"pkix", verify.With(pkix), stranger, "pkix"},
		{"either, by its second", verify.With(verify.Either(notHere{}, pkix)), stranger, "pkix"},
		{"either, by its first", verify.With(verify.Either(verify.PinAuthenticator(), pkix)), p, "pin"},
		{"one check", verify.With(pkix, wrong), p, "pin"},
		{"the first of two checks", verify.With(pkix, wrong, verify.Allow(nil)), p, "pin"},
		{"the second of two checks", verify.With(pkix, verify.Pin(pinOf(p)), verify.Allow(nil)), p, "allow"},
		{"one of another name", verify.With(verify.PinAuthenticator(pinOf(p)), verify.AllowAll()), p, "allow"},
		{"anchors of another", verify.With(verify.PKIX{Anchors: anchorsOf(t, root.Cert), Profile: verify.Private}), p, "pkix"},
	} {
		_, err := c.v.Verify(t.Context(), c.p)
		e, ok := errors.AsType[*verify.Error](err)
		if !ok || e.By != c.by {
			t.Errorf("%s: %+v, want one by %q", c.what, err, c.by)
		}
	}
}
