package verify

import (
	"crypto/x509"
	"strings"

	"sallyport/name"
)

// SVID is the SPIFFE ID of a leaf that keeps SPIFFE's rules: exactly one URI, which
// is an ID, and none of what a CA has (X509-SVID, sections 2, 4.1, 4.3 and 5.2).
func SVID(c *x509.Certificate) (id string, err error) {
	switch {
	case len(c.URIs) != 1:
		return "", fail(Invalid, "the %s has %d URIs, and an X509-SVID has one", describe(c), len(c.URIs))
	case c.IsCA:
		return "", fail(Invalid, "the %s is a CA's, and no X509-SVID of a workload is", describe(c))
	case c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "", fail(Invalid, "the %s may sign certificates or CRLs, and no X509-SVID of a workload may", describe(c))
	}
	id = c.URIs[0].String()
	p, err := name.ParseURI(id)
	if literal, ok := p.Literal(); err != nil || !ok || literal != id || !strings.HasPrefix(id, spiffeScheme) {
		return "", fail(Invalid, "the %s has the URI %s, which is no SPIFFE ID", describe(c), quote(id))
	}
	return id, nil
}

const spiffeScheme = "spiffe://"

// matchSVID holds a server's SPIFFE ID against the one in to.name.
func matchSVID(leaf *x509.Certificate, want string) error {
	id, err := SVID(leaf)
	if err != nil {
		return err
	}
	if id != want {
		return fail(NameWrong, "the %s is %s, not %s", describe(leaf), quote(id), quote(want))
	}
	return nil
}
