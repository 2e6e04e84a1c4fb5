package verify_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/name"
	"sallyport/verify"
)

func pattern(t *testing.T, parse func(string) (name.Pattern, error), s string) name.Pattern {
	t.Helper()
	p, err := parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAllow(t *testing.T) {
	dns := func(s string) verify.Rule { return verify.Rule{DNS: pattern(t, name.Parse, s)} }
	uri := func(s string) verify.Rule { return verify.Rule{URI: pattern(t, name.ParseURI, s)} }
	cn := func(s string) verify.Rule { return verify.Rule{CN: pattern(t, name.ParseText, s)} }
	ou := func(s string) verify.Rule { return verify.Rule{OU: pattern(t, name.ParseText, s)} }
	email := func(s string) verify.Rule { return verify.Rule{Email: pattern(t, name.ParseText, s)} }
	ip := func(s string) verify.Rule { return verify.Rule{IPSAN: netip.MustParsePrefix(s)} }
	both := func(a, b verify.Rule) verify.Rule { a.OU = b.OU; return a }

	names := []string{"a.ops.example", "10.1.2.3", "spiffe://corp/ops/a", "me@ops.example"}
	twoCN := ca.Template(func(c *x509Certificate) {
		oid := asn1.ObjectIdentifier{2, 5, 4, 3}
		c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oid, Value: "first"}, {Type: oid, Value: "second"}}
	})
	for _, c := range []struct {
		what  string
		names []string
		opts  []ca.Option
		rules []verify.Rule
		want  bool
	}{
		{"dns", names, nil, []verify.Rule{dns("a.ops.example")}, true},
		{"dns pattern", names, nil, []verify.Rule{dns("*.ops.example")}, true},
		{"dns of another", names, nil, []verify.Rule{dns("*.dev.example")}, false},
		{"the second rule", names, nil, []verify.Rule{dns("*.dev.example"), ip("10.0.0.0/8")}, true},
		{"a wildcard in the certificate is no name", []string{"*.ops.example"}, nil, []verify.Rule{dns("*.ops.example")}, false},
		{"uri", names, nil, []verify.Rule{uri("spiffe://corp/ops/*")}, true},
		{"uri of another", names, nil, []verify.Rule{uri("spiffe://corp/dev/*")}, false},
		{"two SPIFFE IDs are none", append([]string{"spiffe://corp/x"}, names...), nil, []verify.Rule{uri("spiffe://corp/ops/*")}, false},
		{"cn", names, []ca.Option{ca.CN("me")}, []verify.Rule{cn("me")}, true},
		{"cn is not dns", names, []ca.Option{ca.CN("b.example")}, []verify.Rule{dns("b.example")}, false},
		{"two common names are none", names, []ca.Option{twoCN}, []verify.Rule{cn("first"), cn("second")}, false},
		{"ou", names, []ca.Option{ca.OU("dev", "admin")}, []verify.Rule{ou("admin")}, true},
		{"ou of another", names, []ca.Option{ca.OU("dev")}, []verify.Rule{ou("admin")}, false},
		{"email", names, nil, []verify.Rule{email("me@ops.example")}, true},
		{"ip_san", names, nil, []verify.Rule{ip("10.1.2.3/32")}, true},
		{"ip_san of another", names, nil, []verify.Rule{ip("10.2.0.0/16")}, false},
		{"all of one rule", names, []ca.Option{ca.OU("admin")}, []verify.Rule{both(dns("*.ops.example"), ou("admin"))}, true},
		{"one of one rule", names, []ca.Option{ca.OU("dev")}, []verify.Rule{both(dns("*.ops.example"), ou("admin"))}, false},
		{"no rule", names, nil, nil, false},
		{"a rule that asks nothing", names, nil, []verify.Rule{{}}, false},
		{"no names at all", nil, []ca.Option{ca.CN("")}, []verify.Rule{dns("**")}, false},
	} {
		p, pkix := presented(t, c.names, c.opts...)
		id, err := verify.With(pkix, verify.Allow(c.rules)).Verify(t.Context(), p)
		if (err == nil) != c.want {
			t.Errorf("%s: %v, %v", c.what, id, err)
		}
		if err != nil && reason(t, err) != verify.NotAllowed {
			t.Errorf("%s: %v", c.what, err)
		}
	}

	p, pkix := presented(t, names, ca.OU("admin"))
	rules := []verify.Rule{{SPKI: pinOf(p)}}
	if _, err := verify.With(pkix, verify.Allow(rules)).Verify(t.Context(), p); err != nil {
		t.Error(err)
	}
	rules[0].SPKI[0]++
	_, err := verify.With(pkix, verify.Allow(rules)).Verify(t.Context(), p)
	if err == nil {
		t.Fatal("another key passes")
	}
	for _, part := range []string{`dns "a.ops.example"`, `uri "spiffe://corp/ops/a"`, `email "me@ops.example"`, `ip_san "10.1.2.3"`, `ou "admin"`, "none of the 1 rules"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %s", err, part)
		}
	}
}

// Whoever has a pinned key may write any name beside it into the certificate.
func TestAllowTakesNoUnvouchedName(t *testing.T) {
	p, _ := presented(t, []string{"a.ops.example"})
	auth := verify.PinAuthenticator(pinOf(p))
	rule := verify.Rule{DNS: pattern(t, name.Parse, "a.ops.example")}
	if _, err := verify.With(auth, verify.Allow([]verify.Rule{rule})).Verify(t.Context(), p); err == nil {
		t.Error("the name passes")
	}
	rule.SPKI = pinOf(p)
	if _, err := verify.With(auth, verify.Allow([]verify.Rule{rule})).Verify(t.Context(), p); err == nil {
		t.Error("the name passes beside the key")
	}
	if _, err := verify.With(auth, verify.Allow([]verify.Rule{{SPKI: pinOf(p)}})).Verify(t.Context(), p); err != nil {
		t.Error(err)
	}
}
