package verify_test

import (
	"crypto/x509"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/verify"
)

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
