package verify_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/verify"
)

type x509Certificate = x509.Certificate

func load(files map[string]string, entries ...string) (*verify.Anchors, error) {
	return verify.LoadAnchors(now, entries, func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
		}
		return []byte(text), nil
	})
}

func TestLoadAnchors(t *testing.T) {
	one, two := ca.TestAt(t, now), ca.TestAt(t, now)
	files := map[string]string{
		"one":  string(one.CertPEM()),
		"two":  string(two.CertPEM()),
		"both": "a comment\n" + string(one.CertPEM()) + "\nanother\r\n" + string(two.CertPEM()),
		"odd":  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})) + string(one.CertPEM()),
	}
	a, err := load(files, "one", "two")
	if err != nil || len(a.Warnings) != 0 {
		t.Fatal(a, err)
	}
	b, err := load(files, "both")
	if err != nil || a.Hash != b.Hash || !a.Pool.Equal(b.Pool) {
		t.Error("the same anchors in one file are others:", err)
	}
	c, err := load(files, "one")
	if err != nil || c.Hash == a.Hash || c.Hash == [32]byte{} {
		t.Error("fewer anchors have the same hash:", err)
	}
	if d, err := load(files, "odd"); err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "certificate 1 cannot be read") {
		t.Error(d, err)
	}
}

func TestLoadAnchorsRefuses(t *testing.T) {
	root := ca.TestAt(t, now)
	l := root.Leaf(good)
	text := string(root.CertPEM())
	files := map[string]string{
		"empty": "", "text": "hello", "der": string(root.Cert.Raw), "cut": text[:len(text)-40], "cut second": text + text[:100],
		"with key": text + string(l.KeyPEM()), "key": string(l.KeyPEM()),
		"trusted": strings.ReplaceAll(text, "BEGIN CERTIFICATE", "BEGIN TRUSTED CERTIFICATE"),
		"pkcs7":   string(pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: []byte{1}})),
		"junk":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})),
	}
	files["trusted"] = strings.ReplaceAll(files["trusted"], "END CERTIFICATE", "END TRUSTED CERTIFICATE")
	for name, part := range map[string]string{
		"empty": "no certificate", "text": "no certificate", "der": "openssl x509 -inform der", "cut": "cut off", "cut second": "cut off",
		"with key": "private key", "key": "private key", "trusted": "openssl x509", "pkcs7": "openssl pkcs7", "junk": "no certificate", "absent": "absent",
	} {
		a, err := load(files, name)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
	if _, err := load(files); err == nil {
		t.Error("nothing at all is trusted")
	}
	if _, err := load(files, "absent"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestLoadAnchorsWarns(t *testing.T) {
	for part, c := range map[string]*x509.Certificate{
		"expired 3 days ago": ca.TestAt(t, now, ca.Expired()).Cert,
		"not valid before":   ca.TestAt(t, now, ca.NotYet()).Cert,
		"X.509v1":            ca.TestAt(t, now, ca.V1()).Cert,
		"not that of a CA":   ca.TestAt(t, now).SelfSigned(good).Cert,
		"1024 bits":          ca.TestAt(t, now, ca.RSA(1024)).Cert,
	} {
		a := anchorsOf(t, c)
		if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], part) {
			t.Errorf("%s: %q", part, a.Warnings)
		}
	}
}

// x509 reads the system's anchors once a process, so this runs in one of its own.
func TestSystemAnchors(t *testing.T) {
	if os.Getenv("SALLYPORT_TEST_SYSTEM") != "" {
		testSystemAnchors(t)
		return
	}
	dir := t.TempDir()
	lastMonth := tmpl(func(c *x509.Certificate) { c.NotBefore = now.AddDate(0, 0, -20) })
	root, old := ca.TestAt(t, now), ca.TestAt(t, now, ca.Expired())
	file := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(file, append(root.CertPEM(), old.CertPEM()...), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*ca.Leaf{"leaf.pem": root.Leaf(good), "old.pem": old.Leaf(good, lastMonth)} {
		if err := os.WriteFile(filepath.Join(dir, name), l.CertPEM(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSystemAnchors$")
	cmd.Env = append(os.Environ(), "SALLYPORT_TEST_SYSTEM="+dir, "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+filepath.Join(dir, "none"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, bytes.TrimSpace(out))
	}
}

func testSystemAnchors(t *testing.T) {
	extra := ca.TestAt(t, now)
	a, err := load(map[string]string{"extra": string(extra.CertPEM())}, "extra", "system")
	if err != nil || !a.System {
		t.Fatal(a, err)
	}
	read := func(name string) *x509.Certificate {
		p, err := os.ReadFile(filepath.Join(os.Getenv("SALLYPORT_TEST_SYSTEM"), name))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := pem.Decode(p)
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		leaf *x509.Certificate
		want verify.Reason
	}{
		{read("leaf.pem"), pass}, {extra.Leaf(good).Cert, pass}, {ca.TestAt(t, now).Leaf(good).Cert, verify.UnknownCA},
		{read("old.pem"), verify.Expired},
	} {
		p := &verify.Presented{Name: "good.test", Chain: []*x509.Certificate{c.leaf}, Now: now}
		_, err := verify.With(verify.PKIX{Anchors: a, From: "to.ca", Profile: verify.WebPKI}).Verify(t.Context(), p)
		if reason(t, err) != c.want {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
