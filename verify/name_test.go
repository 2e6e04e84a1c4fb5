package verify_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/verify"
)

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Names that no file can ask for; testca has the others.
func TestNames(t *testing.T) {
	label64, long := strings.Repeat("a", 64), strings.Repeat("abcdefg.", 31)+"abcdef" // 254
	var rows []row
	for _, n := range []struct {
		title, name string
		sans        []string
		want        verify.Reason
	}{
		{"address with a zone", "fe80::1%eth0", []string{"fe80::1"}, pass},
		{"address in brackets", "[2001:db8::1]", []string{"2001:db8::1"}, pass},
		{"U-label", "bücher.test", []string{"xn--bcher-kva.test"}, verify.NameWrong},
		{"label of 64", label64 + ".test", []string{label64 + ".test"}, verify.NameWrong},
		{"name of 254", long, []string{long}, verify.NameWrong},
		{"empty", "", good, verify.NameWrong},
		{"a dot", ".", good, verify.NameWrong},
		{"wildcard asked for", "*.good.test", []string{"*.good.test"}, verify.NameWrong},
		{"NUL asked for", "good.test\x00.evil.test", []string{"good.test"}, verify.NameWrong},
	} {
		rows = append(rows, row{n.title, named(n.name, leafFor(n.sans)), always(n.want)})
	}
	run(t, rows)
}

func FuzzName(f *testing.F) {
	root := ca.TestAt(f, now)
	a, err := verify.LoadAnchors(now, []string{"x"}, func(string) ([]byte, error) { return root.CertPEM(), nil })
	if err != nil {
		f.Fatal(err)
	}
	pkix := verify.PKIX{Anchors: a, Profile: verify.Private}
	chain := root.Chain(root.Leaf([]string{"good.test", "*.wild.test", "192.0.2.1"}))
	for _, s := range []string{"good.test", "a.wild.test", "192.0.2.1", "::ffff:192.0.2.1", "GOOD.TEST.", "[192.0.2.1]", "a.b.wild.test", "*.wild.test", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := pkix.Authenticate(t.Context(), &verify.Presented{Name: s, Chain: chain, Now: now})
		if (id == nil) == (err == nil) {
			t.Fatalf("identity %v with error %v", id, err)
		}
		if err != nil {
			return
		}
		n := strings.TrimSuffix(strings.ToLower(s), ".")
		label, wild := strings.CutSuffix(n, ".wild.test")
		switch strings.Trim(n, "[]") {
		case "good.test", "192.0.2.1", "::ffff:192.0.2.1":
			return
		}
		if strings.HasPrefix(strings.Trim(n, "[]"), "::") || strings.Contains(n, ":") { // spellings of that address
			return
		}
		if !wild || strings.Contains(strings.TrimLeft(label, "["), ".") {
			t.Errorf("%q passes", s)
		}
	})
}
