package secure

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"sallyport/flow"
	"sallyport/internal/ca"
)

// Whose client is refused wants to know which CA is not known.
func TestUnknownClientCA(t *testing.T) {
	leaf := ca.Test(t).Leaf([]string{"c.test"}, ca.ClientAuth()).Cert
	_, err := leaf.Verify(x509.VerifyOptions{Roots: x509.NewCertPool()})
	got := inbound.handshakeError(&tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{leaf}, Err: err}, new(under))
	want := fmt.Sprintf("the client's certificate %q (issued by %q): ", leaf.Subject, leaf.Issuer)
	if reasonOf(got) != flow.ClientCertUnknownCA || !strings.HasPrefix(got.Error(), want) {
		t.Errorf("%v, want %s", got, want)
	}
}
