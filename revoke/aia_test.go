package revoke_test

import (
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/ca"
)

func TestIssuers(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "chain.pem")
	if err := os.WriteFile(file, append(s.root.CertPEM(), s.inter.CertPEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	pkcs7 := func(form string) []byte {
		out, err := exec.Command("openssl", "crl2pkcs7", "-nocrl", "-certfile", file, "-outform", form).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"DER", bytesOf(s.inter.Cert.Raw), ""},
		{"PEM", bytesOf(s.inter.CertPEM()), ""},
		{"PEM with others", bytesOf(append(s.root.CertPEM(), s.inter.CertPEM()...)), ""},
		{"PKCS #7", bytesOf(pkcs7("der")), ""},
		{"PKCS #7 in PEM", bytesOf(pkcs7("pem")), ""},
		{"another's", bytesOf(s.root.Cert.Raw), "that of the issuer"},
		{"one of that name", bytesOf(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newSite(t).inter.Cert.Raw})), "that of the issuer"},
		{"nothing", bytesOf(nil), "neither a certificate nor"},
		{"garbage", bytesOf([]byte("<html>")), "neither a certificate nor"},
		{"missing", http.NotFound, "404"},
		{"huge", bytesOf(make([]byte, 1<<20)), "more than 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := newServer(t, c.answer)
			s.at(ca.AIAAt("ldap://x.test/", srv.URL))
			f, _ := newFetcher(t)
			for range 2 {
				list, err := f.Issuers(t.Context(), s.leaf.Cert)
				switch {
				case c.want == "":
					if err != nil || len(list) != 1 || !list[0].Equal(s.inter.Cert) {
						t.Fatal(list, err)
					}
				case err == nil || !strings.Contains(err.Error(), c.want):
					t.Fatalf("%v, %v, want %q", list, err, c.want)
				}
			}
			if n := srv.asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}
