package verify_test

import (
	"crypto/x509"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/verify"
)

func TestOwnCA(t *testing.T) {
	root := ca.TestAt(t, now)
	mint := root.Intermediate()
	pkix := verify.PKIX{Anchors: anchorsOf(t, root.Cert, mint.Cert), From: "to.ca", Profile: verify.Private}
	own := pkix
	own.Own = [][32]byte{pinOf(&verify.Presented{Chain: []*x509.Certificate{mint.Cert}})}
	for _, c := range []struct {
		name string
		leaf *ca.Leaf
		want verify.Reason
	}{
		{"minted", mint.Leaf(good), verify.OwnCA},
		{"minted further down", mint.Intermediate().Leaf(good), verify.OwnCA},
		{"of the CA above it", root.Leaf(good), pass},
	} {
		p := &verify.Presented{Name: "good.test", Chain: root.Chain(c.leaf), Now: now}
		for range 2 { // the second time the paths are known
			if _, err := own.Authenticate(t.Context(), p); reason(t, err) != c.want {
				t.Errorf("IC-48 %s: %v, want %q", c.name, err, c.want)
			}
		}
		if _, err := pkix.Authenticate(t.Context(), p); err != nil {
			t.Errorf("IC-48 %s, and the CA is not ours: %v", c.name, err)
		}
	}
}

// What public CAs may say changes with the day on which they say it.
func TestLongestValidity(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		begin string
		days  int
		role  verify.Role
	}{
		{"2026-03-14", 398, verify.Server}, {"2026-03-15", 200, verify.Server}, {"2027-03-15", 100, verify.Server},
		{"2029-03-15", 47, verify.Server}, {"2029-03-15", 398, verify.Client},
	} {
		begin, err := time.Parse(time.DateOnly, c.begin)
		if err != nil {
			t.Fatal(err)
		}
		at := begin.Add(day)
		root := ca.TestAt(t, at)
		pkix := verify.PKIX{Anchors: anchorsOf(t, root.Cert), Profile: verify.Strict}
		for extra, want := range map[time.Duration]verify.Reason{0: pass, time.Second: verify.Invalid} {
			l := root.Leaf(good, tmpl(func(t *x509.Certificate) {
				t.NotBefore, t.NotAfter = begin, begin.Add(time.Duration(c.days)*day+extra)
			}))
			_, err := pkix.Authenticate(t.Context(), &verify.Presented{Role: c.role, Name: "good.test", Chain: root.Chain(l), Now: at})
			if reason(t, err) != want {
				t.Errorf("%s, %d days and %v, %s: %v, want %q", c.begin, c.days, extra, c.role, err, want)
			}
		}
	}
}
