package verify_test

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/verify"
)

// A verdict from memory is the verdict of a verifier that remembers nothing, for
// every chain, role, name and moment, in whatever order they come.
func TestRememberedPathsAreFoundPaths(t *testing.T) {
	root, other := ca.TestAt(t, now), ca.TestAt(t, now)
	inter := root.Intermediate(ca.Validity(24 * time.Hour))
	below := inter.Leaf(good)
	chains := map[string][]*x509.Certificate{
		"direct":          root.Chain(root.Leaf(good)),
		"intermediate":    inter.Chain(below),
		"no intermediate": inter.Chain(below)[:1],
		"expired":         root.Chain(root.Leaf(good, ca.Expired())),
		"server alone":    root.Chain(root.Leaf(good, ca.ServerAuth())),
		"other":           other.Chain(other.Leaf(good)),
		"bad signature":   root.Chain(root.Leaf(good, ca.BadSignature())),
	}
	warm := verify.PKIX{Anchors: anchorsOf(t, root.Cert), Profile: verify.Private}
	verdict := func(k verify.PKIX, p verify.Presented) string {
		id, err := k.Authenticate(t.Context(), &p)
		if err != nil {
			return "refused: " + err.Error()
		}
		text := fmt.Sprintf("%x", id.SPKI())
		for _, path := range id.Chains() {
			for _, c := range path {
				text += fmt.Sprintf(" %x", c.SerialNumber)
			}
		}
		return text
	}
	passed := 0
	for range 3 {
		for what, chain := range chains { // in a random order
			for _, role := range []verify.Role{verify.Client, verify.Server} {
				for _, name := range []string{good[0], "wrong.test"} {
					for _, at := range []time.Duration{0, 36 * time.Hour, 72 * time.Hour, -100 * 24 * time.Hour, 50 * 365 * 24 * time.Hour} {
						p := verify.Presented{Role: role, Name: name, Chain: chain, Now: now.Add(at)}
						cold := verify.PKIX{Anchors: anchorsOf(t, root.Cert), Profile: verify.Private}
						want := verdict(cold, p)
						if got := verdict(warm, p); got != want {
							t.Errorf("%s, %s, %s, at %s: remembered %q, found %q", what, role, name, at, got, want)
						}
						if want[:8] != "refused:" {
							passed++
						}
					}
				}
			}
		}
	}
	if passed < 20 {
		t.Errorf("only %d passed, the test tells nothing", passed)
	}
}

func BenchmarkAuthenticateAgain(b *testing.B) {
	root := ca.TestAt(b, now)
	p := &verify.Presented{Role: verify.Client, Chain: root.Chain(root.Leaf(good)), Now: now}
	a, err := verify.LoadAnchors(now, []string{"ca.pem"}, func(string) ([]byte, error) { return pemOf(root.Cert), nil })
	if err != nil {
		b.Fatal(err)
	}
	k := verify.PKIX{Anchors: a, Profile: verify.Private}
	for b.Loop() {
		if _, err := k.Authenticate(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}
