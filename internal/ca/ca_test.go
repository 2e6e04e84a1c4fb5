package ca_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"testing"
	"time"

	"sallyport/internal/ca"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func TestChainVerifies(t *testing.T) {
	root := ca.TestAt(t, now)
	for name, opt := range map[string]ca.Option{
		"P-256": ca.ECDSA(elliptic.P256()), "P-384": ca.ECDSA(elliptic.P384()), "Ed25519": ca.Ed25519(), "RSA": ca.SharedRSA(),
	} {
		inter := root.Intermediate(opt)
		leaf := inter.Leaf([]string{"a.test", "127.0.0.1", "spiffe://corp/x", "me@a.test"}, opt)
		chain := inter.Chain(leaf)
		pool := x509.NewCertPool()
		pool.AddCert(chain[1])
		for _, host := range []string{"a.test", "127.0.0.1"} {
			_, err := chain[0].Verify(x509.VerifyOptions{Roots: root.Pool(), Intermediates: pool, DNSName: host, CurrentTime: now})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(chain[0].URIs) != 1 || len(chain[0].EmailAddresses) != 1 {
			t.Errorf("%s: URIs %v, mailboxes %v", name, chain[0].URIs, chain[0].EmailAddresses)
		}
	}
}

func TestFaults(t *testing.T) {
	rsaRoot := ca.TestAt(t, now, ca.SharedRSA())
	root := ca.TestAt(t, now)
	if a := rsaRoot.Leaf(nil, ca.SHA1()).Cert.SignatureAlgorithm; a != x509.SHA1WithRSA {
		t.Error(a)
	}
	if a := rsaRoot.Leaf(nil, ca.MD5()).Cert.SignatureAlgorithm; a != x509.MD5WithRSA {
		t.Error(a)
	}
	if a := root.Leaf(nil, ca.SHA1()).Cert.SignatureAlgorithm; a != x509.ECDSAWithSHA1 {
		t.Error(a)
	}
	if v := root.Leaf(nil, ca.V1()).Cert.Version; v != 1 {
		t.Error("version", v)
	}
	if !root.Leaf(nil, ca.Expired()).Cert.NotAfter.Before(now) || !root.Leaf(nil, ca.NotYet()).Cert.NotBefore.After(now) {
		t.Error("validity")
	}
	if l := root.Leaf([]string{"a.test"}, ca.NoSAN(), ca.CN("b.test")); len(l.Cert.DNSNames) != 0 || l.Cert.Subject.CommonName != "b.test" {
		t.Error(l.Cert.Subject, l.Cert.DNSNames)
	}
	if l := root.Leaf(nil, ca.Public(&rsa.PublicKey{N: big.NewInt(3 * 5), E: 3})); l.Key != nil {
		t.Error("a public key came with a private one")
	}
	if l := root.Leaf(nil, ca.Tamper(func([]byte) []byte { return []byte("junk") })); l.Cert != nil {
		t.Error("junk parsed")
	}
	if err := root.Leaf(nil, ca.BadSignature()).Cert.CheckSignatureFrom(root.Cert); err == nil {
		t.Error("a broken signature verifies")
	}
}

func TestSmallRSASigns(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	for _, bits := range []int{512, 768, 1016} {
		root := ca.TestAt(t, now, ca.RSA(bits))
		if err := root.Leaf(nil).Cert.CheckSignatureFrom(root.Cert); err != nil {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

func TestFiles(t *testing.T) {
	root := ca.TestAt(t, now)
	leaf := root.Intermediate().Leaf([]string{"a.test"})
	cert, key := root.Files(leaf)
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(key); fi.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", fi.Mode())
	}
	p, err := os.ReadFile(root.File())
	if b, _ := pem.Decode(p); err != nil || !bytes.Equal(b.Bytes, root.Cert.Raw) {
		t.Errorf("the CA's file: %v", err)
	}
	var _ crypto.Signer = leaf.TLS().PrivateKey.(crypto.Signer)
}
