package revoke_test

import (
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/revoke"
)

// What openssl signs with RSA-PSS: responses by the CA and by a delegate, and CRLs.
// The parameters that TLS 1.3 and crypto/x509 have are taken, no others.
func TestOpenSSLSignsWithPSS(t *testing.T) {
	at := time.Now()
	root := ca.TestAt(t, at, ca.SharedRSA())
	delegate := root.Leaf([]string{"responder.test"}, ocspSigning, ca.RSA(2048))
	good, bad := root.Leaf([]string{"good.test"}), root.Leaf([]string{"bad.test"})
	dir := t.TempDir()
	for stem, l := range map[string]*ca.Leaf{
		"ca":       {Cert: root.Cert, Chain: [][]byte{root.Cert.Raw}, Key: root.Key},
		"delegate": delegate, "good": good, "bad": bad,
	} {
		if _, _, err := l.Write(dir, stem); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %q: %v\n%s", args, err, out)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write("ca.cnf", []byte("[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ncertificate=ca.pem\nprivate_key=ca.key\ndefault_md=sha256\ndefault_crl_days=1\n"))
	write("index", []byte("V\t"+good.Cert.NotAfter.Format("060102150405Z")+"\t\t"+hexSerial(good.Cert.SerialNumber)+"\tunknown\t/CN=good\n"))
	write("number", []byte("01\n"))
	run("ca", "-config", "ca.cnf", "-revoke", "bad.pem")

	for _, c := range []struct {
		name, hash string
		options    []string
		want       string // what the refusal says; empty: taken
	}{
		{"SHA-256", "sha256", []string{"rsa_pss_saltlen:digest"}, ""},
		{"SHA-384", "sha384", []string{"rsa_pss_saltlen:digest"}, ""},
		{"SHA-512", "sha512", []string{"rsa_pss_saltlen:64", "rsa_mgf1_md:sha512"}, ""},
		{"the longest salt", "sha256", []string{"rsa_pss_saltlen:max"}, "a salt of 222 bytes where the hash has 32"},
		{"a short salt", "sha256", []string{"rsa_pss_saltlen:20"}, "parameters left out, which makes them SHA-1's"}, // 20 is the default and left out
		{"no salt", "sha384", []string{"rsa_pss_saltlen:0"}, "a salt of 0 bytes where the hash has 48"},
		{"another hash in MGF1", "sha512", []string{"rsa_pss_saltlen:digest", "rsa_mgf1_md:sha256"}, "another hash in MGF1"},
		{"SHA-1 in MGF1", "sha256", []string{"rsa_pss_saltlen:digest", "rsa_mgf1_md:sha1"}, "parameters left out, which makes them SHA-1's"},
		{"SHA-1", "sha1", []string{"rsa_pss_saltlen:digest"}, "parameters left out, which makes them SHA-1's"},
		{"SHA-224", "sha224", []string{"rsa_pss_saltlen:digest"}, "the hash 2.16.840.1.101.3.4.2.4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict := func(what string, a *revoke.Answer, err error, revoked bool) {
				t.Helper()
				switch {
				case c.want == "":
					if err != nil || a.Revoked != revoked {
						t.Errorf("%s: %+v, %v", what, a, err)
					}
				case err == nil || !strings.Contains(err.Error(), "signed by RSA-PSS with "+c.want):
					t.Errorf("%s: %+v, %v, want %q", what, a, err, c.want)
				}
			}
			options := func(flag string) (list []string) {
				for _, o := range append([]string{"rsa_padding_mode:pss"}, c.options...) {
					list = append(list, flag, o)
				}
				return list
			}
			now := time.Now().Add(time.Second)
			for _, signer := range []string{"ca", "delegate"} {
				for leaf, revoked := range map[*ca.Leaf]bool{good: false, bad: true} {
					request, err := revoke.Request(leaf.Cert, root.Cert)
					if err != nil {
						t.Fatal(err)
					}
					write("q.der", request)
					run(append([]string{"ocsp", "-index", "index", "-CA", "ca.pem", "-rsigner", signer + ".pem", "-rkey", signer + ".key", "-rmd", c.hash,
						"-nmin", "5", "-reqin", "q.der", "-respout", "r.der"}, options("-rsigopt")...)...)
					a, err := revoke.JudgeOCSP(read("r.der"), leaf.Cert, root.Cert, now)
					verdict("by "+signer, a, err, revoked)
				}
			}
			run(append([]string{"ca", "-config", "ca.cnf", "-gencrl", "-md", c.hash, "-out", "crl.pem"}, options("-sigopt")...)...)
			l, err := revoke.ParseCRL(read("crl.pem"))
			if err != nil {
				t.Fatal(err)
			}
			for leaf, revoked := range map[*ca.Leaf]bool{good: false, bad: true} {
				a, err := l.Judge(leaf.Cert, root.Cert, now)
				verdict("CRL", a, err, revoked)
			}
		})
	}
}

func hexSerial(n *big.Int) string { return strings.ToUpper(n.Text(16)) }
