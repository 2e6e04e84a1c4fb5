package revoke

import (
	"encoding/pem"
	"testing"

	"sallyport/internal/ca"
)

// What stands at the address that a stranger's certificate names is a stranger's too:
// whatever it is, it is certificates or an error, and of these no more than are looked
// at.
func FuzzParseIssuers(f *testing.F) {
	leaf := ca.Test(f).Leaf([]string{"a.test"})
	block, _ := pem.Decode(leaf.CertPEM())
	f.Add(block.Bytes)
	f.Add(leaf.CertPEM())
	f.Add([]byte("0\x80\x06\x09*\x86H\x86\xf7\x0d\x01\x07\x02\xa0\x80"))
	f.Add([]byte("-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseIssuers(data)
		if len(certs) > maxPerAnswer || err != nil && len(certs) > 0 {
			t.Errorf("%d certificates and %v", len(certs), err)
		}
		for _, c := range certs {
			if c == nil || len(c.Raw) > len(data) {
				t.Errorf("a certificate of nothing that was sent: %v", c)
			}
		}
	})
}
