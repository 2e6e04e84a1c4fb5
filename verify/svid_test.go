package verify_test

import (
	"crypto/x509"
	"testing"

	"sallyport/internal/ca"
	"sallyport/verify"
)

// A server may be asked for by its SPIFFE ID, and is then held to SPIFFE's rules.
func TestServerBySPIFFEID(t *testing.T) {
	const id = "spiffe://corp/db"
	root := ca.TestAt(t, now)
	pkix := verify.PKIX{Anchors: anchorsOf(t, root.Cert), From: "to.ca", Profile: verify.Private}
	for name, c := range map[string]struct {
		names []string
		opts  []ca.Option
		want  verify.Reason
	}{
		"its ID":                   {[]string{id}, nil, pass},
		"its ID beside a DNS name": {[]string{id, "db.test"}, nil, pass},
		"another ID":               {[]string{"spiffe://corp/web"}, nil, verify.NameWrong},
		"an ID below it":           {[]string{id + "/1"}, nil, verify.NameWrong},
		"another trust domain":     {[]string{"spiffe://corp2/db"}, nil, verify.NameWrong},
		"two IDs":                  {[]string{id, "spiffe://corp/web"}, nil, verify.Invalid},
		"no URI":                   {[]string{"db.test"}, nil, verify.Invalid},
		"no ID":                    {[]string{"https://corp/db"}, nil, verify.Invalid},
		"an upper-case domain":     {[]string{"spiffe://CORP/db"}, nil, verify.Invalid},
		"a query":                  {[]string{id + "?x"}, nil, verify.Invalid},
		"one that signs":           {[]string{id}, []ca.Option{ca.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign)}, verify.Invalid},
		"one that signs CRLs":      {[]string{id}, []ca.Option{ca.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign)}, verify.Invalid},
		"a CA":                     {[]string{id}, []ca.Option{ca.IsCA(true)}, verify.Invalid},
	} {
		chain := root.Chain(root.Leaf(c.names, c.opts...))
		_, err := verify.With(pkix).Verify(t.Context(), &verify.Presented{Name: id, Chain: chain, Now: now})
		if got := reason(t, err); got != c.want {
			t.Errorf("%s: %q, want %q: %v", name, got, c.want, err)
		}
	}
}
