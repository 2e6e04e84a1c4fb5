package credential_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"sallyport/credential"
	"sallyport/internal/ca"
)

// The credential changes with the staple and with nothing else, and what must be
// stapled and is not goes last, also behind a wildcard.
func TestStaple(t *testing.T) {
	root := ca.Test(t)
	dir := t.TempDir()
	must := root.Leaf([]string{"a.test"}, ca.MustStaple(), ca.OCSPAt("http://ocsp.test/"))
	wild := root.Leaf([]string{"*.test"}, ca.SharedRSA())
	for stem, l := range map[string]*ca.Leaf{"a": must, "b": wild} {
		if _, _, err := l.Write(dir, stem); err != nil {
			t.Fatal(err)
		}
	}
	var staple []byte
	store, _, err := credential.Load(credential.Options{Certs: []string{dir}, Staple: func(leaf, issuer *x509.Certificate) func() []byte {
		if issuer != nil {
			t.Error("the issuer is not in the file")
		}
		if len(leaf.OCSPServer) == 0 {
			return nil
		}
		return func() []byte { return staple }
	}})
	if err != nil {
		t.Fatal(err)
	}
	get := func() *credential.Credential {
		t.Helper()
		c, err := store.Credential(t.Context(), &credential.Request{ServerName: "a.test"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := get(); !c.Chain[0].Equal(wild.Cert) || get() != c {
		t.Errorf("without a staple: %s", c.Chain[0].Subject)
	}
	staple = []byte("one")
	one := get()
	if !one.Chain[0].Equal(must.Cert) || string(one.Staple) != "one" || get() != one {
		t.Errorf("with one: %s, %q", one.Chain[0].Subject, one.Staple)
	}
	staple = []byte("two")
	if two := get(); two == one || string(two.Staple) != "two" || string(one.Staple) != "one" || get() != two {
		t.Errorf("with another: %q, before %q", two.Staple, one.Staple)
	}
	staple = nil
	if c := get(); !c.Chain[0].Equal(wild.Cert) {
		t.Errorf("without a staple again: %s", c.Chain[0].Subject)
	}
}

// SCTs lie beside the certificate, and a damaged file is not passed over.
func TestSCTs(t *testing.T) {
	root := ca.Test(t)
	dir := t.TempDir()
	cert, _, err := root.Leaf([]string{"a.test"}).Write(dir, "site")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		data string
		want int // -1 is an error
	}{
		{string(ca.SCTList([]byte("one"), []byte("two"))), 2},
		{"", -1}, {"\x00", -1}, {"\x00\x00", -1}, {"\x00\x05\x00\x03one ", -1}, {"\x00\x02\x00\x00", -1}, {"\x00\x04\x00\x03on", -1},
	} {
		if err := os.WriteFile(filepath.Join(dir, "site.sct"), []byte(c.data), 0o600); err != nil {
			t.Fatal(err)
		}
		store, _, err := credential.Load(credential.Options{Certs: []string{cert}})
		if err != nil != (c.want < 0) || err == nil && len(store.Credentials()[0].SCTs) != c.want {
			t.Errorf("%q: %v", c.data, err)
		}
	}
}
