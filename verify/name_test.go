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

func TestNames(t *testing.T) {
	label63, label64 := strings.Repeat("a", 63), strings.Repeat("a", 64)
	long := strings.Repeat("abcdefg.", 31) + "abcdef" // 254
	var rows []row
	for _, n := range []struct {
		id, name string
		sans     []string
		want     verify.Reason
	}{
		{"IC-05 wrong host", "bad.test", good, verify.NameWrong},
		{"IC-07 bare wildcard", "good.test", []string{"*"}, verify.NameWrong},
		{"IC-07 partial wildcard", "good.test", []string{"g*.test"}, verify.NameWrong},
		{"IC-07 wildcard over two labels", "a.b.good.test", []string{"*.good.test"}, verify.NameWrong},
		{"IC-07 wildcard in the middle", "a.b.good.test", []string{"a.*.good.test"}, verify.NameWrong},
		{"IC-07 wildcard below itself", "good.test", []string{"*.good.test"}, verify.NameWrong},
		{"IC-07 wildcard", "a.good.test", []string{"*.good.test"}, pass},
		{"IC-08 wildcard over a public suffix", "good.test", []string{"*.test"}, pass},
		{"IC-09 address as dNSName", "192.0.2.1", nil, verify.NameWrong},
		{"IC-09 address", "192.0.2.1", []string{"192.0.2.1"}, pass},
		{"IC-09 address in brackets", "[2001:db8::1]", []string{"2001:db8::1"}, pass},
		{"IC-09 address with a zone", "fe80::1%eth0", []string{"fe80::1"}, pass},
		{"IC-09 another address", "192.0.2.2", []string{"192.0.2.1"}, verify.NameWrong},
		{"IC-09 name for an address", "good.test", []string{"192.0.2.1"}, verify.NameWrong},
		{"IC-53 upper case", "GOOD.test", []string{"good.TEST"}, pass},
		{"IC-53 trailing dot asked for", "good.test.", good, pass},
		{"IC-53 trailing dot presented", "good.test", []string{"good.test."}, verify.NameWrong},
		{"IC-53 trailing dot in both", "good.test.", []string{"good.test."}, verify.NameWrong},
		{"IC-53 A-label", "xn--bcher-kva.test", []string{"xn--bcher-kva.test"}, pass},
		{"IC-53 wildcard for an A-label", "xn--bcher-kva.test", []string{"*.test"}, pass},
		{"IC-53 partial wildcard A-label", "xn--bcher-kva.test", []string{"xn--*.test"}, verify.NameWrong},
		{"IC-53 U-label", "bücher.test", []string{"xn--bcher-kva.test"}, verify.NameWrong},
		{"IC-53 underscore", "a_b.good.test", []string{"a_b.good.test"}, pass},
		{"IC-53 label of 63", label63 + ".test", []string{label63 + ".test"}, pass},
		{"IC-53 label of 64", label64 + ".test", []string{label64 + ".test"}, verify.NameWrong},
		{"IC-53 name of 254", long, []string{long}, verify.NameWrong},
		{"IC-53 empty", "", good, verify.NameWrong},
		{"IC-53 a dot", ".", good, verify.NameWrong},
		{"IC-53 wildcard asked for", "*.good.test", []string{"*.good.test"}, verify.NameWrong},
		{"IC-53 NUL asked for", "good.test\x00.evil.test", []string{"good.test"}, verify.NameWrong},
	} {
		rows = append(rows, row{n.id, named(n.name, leafFor(n.sans)), always(n.want)})
	}
	rows = append(rows,
		row{"IC-06 common name alone", leaf(ca.NoSAN(), ca.CN("good.test")), always(verify.NameWrong)},
		row{"IC-09 address as dNSName", named("192.0.2.1", leaf(tmpl(func(c *x509.Certificate) { c.DNSNames = []string{"192.0.2.1"} }))), always(verify.NameWrong)},
		row{"IC-10 NUL in the common name", leaf(ca.NoSAN(), ca.CN("good.test\x00.evil.test")), always(verify.NameWrong)},
		row{"IC-10 escapes in the subject", leafFor([]string{"evil.test"}, ca.CN("\x1b[2J\nlevel=error\"")), always(verify.NameWrong)},
	)
	run(t, rows)
}

// What x509 refuses to parse cannot be presented; that it does is what IC-10 rests on.
func TestIC10NULInSAN(t *testing.T) {
	root := ca.TestAt(t, now)
	l, err := root.CA.Leaf(nil, tmpl(func(c *x509.Certificate) { c.DNSNames = []string{"good.test\x00.evil.test"} }))
	if err != nil {
		return
	}
	r := &rig{root: root, anchors: []*x509.Certificate{root.Cert}, name: "good.test"}
	if authenticate(t, r, verify.Private, root.Chain(l)) == nil {
		t.Error("passes")
	}
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
