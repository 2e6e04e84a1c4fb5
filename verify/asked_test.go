package verify_test

import (
	"net/netip"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/name"
	"sallyport/rule"
	"sallyport/verify"
)

func ifRule(t *testing.T, text string) *rule.Rule {
	t.Helper()
	r, err := rule.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Every word of an expression is what the certificate and the handshake say.
func TestAllowIf(t *testing.T) {
	root := ca.TestAt(t, now, ca.CN("Root"))
	chain := root.Chain(root.Leaf([]string{"a.test", "10.0.0.9", "spiffe://corp/a", "me@a.test"}, ca.CN("App"), ca.OU("ops")))
	pkix := verify.PKIX{Anchors: anchorsOf(t, root.Cert), From: "client.ca", Profile: verify.Private}
	p := &verify.Presented{
		Role: verify.Client, Chain: chain, SNI: "db.test", ALPN: "h2", Remote: netip.MustParseAddrPort("[::ffff:10.1.2.3]:7"),
		Version: 0xfefd, Resumed: true, Now: now,
	}
	for text, want := range map[string]verify.Reason{
		`names == ["a.test", "10.0.0.9", "spiffe://corp/a", "me@a.test"] and dns == ["a.test"] and uri == ["spiffe://corp/a"]`: "",
		`email == ["me@a.test"] and ip_san == ["10.0.0.9"] and cn == "App" and ou == ["ops"]`:                                  "",
		`subject == "CN=App,OU=ops" and issuer == "CN=Root" and len(serial) == 32 and len(spki) == 52`:                         "",
		`sni == "db.test" and alpn == "h2" and address == "10.1.2.3" and version == "DTLS 1.2" and resumed`:                    "",
		`time == date("2026-06-01T12:00:00Z") and not_before < time and time < not_after`:                                      "",
		`cn == "Else"`: verify.NotAllowed,
		`ou[9] == "x"`: verify.NotAllowed,
	} {
		_, err := verify.With(pkix, verify.Allow([]verify.Rule{{If: ifRule(t, text)}})).Verify(t.Context(), p)
		if got := reason(t, err); got != want {
			t.Errorf("%s: %q, want %q: %v", text, got, want, err)
		}
	}
	// The keys beside it must hold too, and another rule is heard where one fails.
	good, bad, fails := ifRule(t, `cn == "App"`), ifRule(t, `cn == "Else"`), ifRule(t, `ou[9] == "x"`)
	ou := verify.Rule{OU: pattern(t, name.ParseText, "ops")}
	for i, c := range []struct {
		rules []verify.Rule
		want  verify.Reason
	}{
		{[]verify.Rule{{OU: pattern(t, name.ParseText, "dev"), If: good}}, verify.NotAllowed},
		{[]verify.Rule{{OU: pattern(t, name.ParseText, "ops"), If: bad}}, verify.NotAllowed},
		{[]verify.Rule{{OU: pattern(t, name.ParseText, "ops"), If: good}}, ""},
		{[]verify.Rule{{If: fails}, ou}, ""},
	} {
		_, err := verify.With(pkix, verify.Allow(c.rules)).Verify(t.Context(), p)
		if got := reason(t, err); got != c.want {
			t.Errorf("%d: %q, want %q: %v", i, got, c.want, err)
		}
	}
	_, err := verify.With(pkix, verify.Allow([]verify.Rule{{If: fails}})).Verify(t.Context(), p)
	if !strings.Contains(err.Error(), "evaluating `if`: index out of range") {
		t.Error(err)
	}
}

// Nobody's word on names is put to an expression.
func TestAllowIfAsksNoNamesOfAKeyAlone(t *testing.T) {
	root := ca.TestAt(t, now)
	p := &verify.Presented{Role: verify.Client, Chain: root.Chain(root.Leaf(good)), Now: now}
	v := verify.With(verify.PinAuthenticator(pinOf(p)), verify.Allow([]verify.Rule{{If: ifRule(t, "true")}}))
	if _, err := v.Verify(t.Context(), p); reason(t, err) != verify.NotAllowed {
		t.Error(err)
	}
}
