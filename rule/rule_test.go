package rule_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"sallyport/rule"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func subject() *rule.Subject {
	return &rule.Subject{
		Names: []string{"a.ops.example", "spiffe://corp/ops/a", "a@ops.example", "10.0.0.9"},
		DNS:   []string{"a.ops.example"}, URI: []string{"spiffe://corp/ops/a"}, Email: []string{"a@ops.example"}, IPSAN: []string{"10.0.0.9"},
		CN: "Anna", OU: []string{"admin", "db"}, Subject: "CN=Anna,OU=admin+OU=db", Issuer: "CN=Ops CA", Serial: "0a1b", SPKI: "sha256//AAAA",
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour),
		SNI: "db.example", ALPN: "h2", Address: "10.1.2.3", Version: "TLS 1.3", Time: now,
	}
}

func TestHolds(t *testing.T) {
	for text, want := range map[string]bool{
		`true`: true, `false`: false,
		`any(dns, like(#, "*.ops.example"))`:                            true,
		`any(dns, like(#, "*.dev.example"))`:                            false,
		`any(uri, like(#, "spiffe://corp/ops/*"))`:                      true,
		`any(uri, like(#, "spiffe://corp/*"))`:                          false,
		`"admin" in ou and "db" in ou`:                                  true,
		`all(dns, # endsWith ".example")`:                               true,
		`none(names, # startsWith "b")`:                                 true,
		`count(ou, # != "db") == 1`:                                     true,
		`len(email) == 1 && email[0] == "a@ops.example"`:                true,
		`within(address, "10.0.0.0/8")`:                                 true,
		`within(address, "10.1.2.3")`:                                   true,
		`within(address, "192.0.2.0/24")`:                               false,
		`any(ip_san, within(#, "10.0.0.0/24"))`:                         true,
		`cn == "Anna" and issuer == "CN=Ops CA"`:                        true,
		`subject contains "OU=db"`:                                      true,
		`serial == "0a1b" && spki == "sha256//AAAA"`:                    true,
		`not_after - time < duration("72h")`:                            true,
		`not_after - not_before > duration("72h")`:                      false,
		`time < date("2027-01-01")`:                                     true,
		`time.Hour() >= 8 && time.Hour() < 18`:                          true,
		`time.Weekday().String() == "Monday"`:                           true,
		`sni == "db.example" and alpn == "h2" and version == "TLS 1.3"`: true,
		`resumed`:             false,
		`not resumed`:         true,
		`cn matches "^A.*a$"`: true,
		`sni in ["db.example", "web.example"] ? "db" in ou : false`:      true,
		`let mine = any(dns, like(#, ".example")); mine and cn == "Eve"`: false,
		`lower(cn) == "anna"`: true,
		`any(dns, let d = #; any(uri, # contains "ops" and d != ""))`: true,
	} {
		r, err := rule.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if is, err := r.Holds(subject()); is != want || err != nil {
			t.Errorf("%s: %t, %v", text, is, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]struct {
		says string
		at   string // what stands there
	}{
		``:                                      {"an empty expression", ""},
		`dn == "x"`:                             {"unknown name dn", "dn =="},
		`cn == "é" and foo`:                     {"unknown name foo", "foo"},
		`cn`:                                    {"expected bool, but got string", "cn"},
		`dns == 3`:                              {"mismatched types []string and int", "== 3"},
		`cn == `:                                {"unexpected token EOF", " "},
		`cn matches "("`:                        {"error parsing regexp", "matches"},
		`cn matches sni`:                        {"not one that a stranger sends", "sni"},
		`like(cn, sni)`:                         {"like takes a pattern as a text in quotes", "sni"},
		`like(cn, "a*b")`:                       {"* is not for a part of a label", `"a*b"`},
		`within(address, "10.0.0.0/")`:          {"neither an address nor a CIDR", `"10`},
		`time < date("tomorrow")`:               {"is no date: write 2027-01-31", `"tomorrow`},
		`now() > time`:                          {"unknown name now", "now"},
		`timezone("Europe/Rome") == 1`:          {"unknown name timezone", "timezone"},
		`repeat(cn, 1000000) == ""`:             {"unknown name repeat", "repeat"},
		`map(dns, #) == dns`:                    {"no map here", "map"},
		`len(filter(dns, true)) > 0`:            {"no filter here", "filter"},
		`reduce(dns, #acc + #) == ""`:           {"no reduce here", "reduce"},
		`any(1..1000000, true)`:                 {"no ranges", ".."},
		`any(dns, any(dns, any(dns, # == cn)))`: {"more than 2 loops in each other", ""},
		strings.Repeat("true and ", 300) + "true":  {"exceeds maximum allowed nodes", ""},
		strings.Repeat(" ", 4096) + "true":         {"at most 4096 are taken", ""},
		strings.Repeat("(", 2000):                  {"", ""},
		`cn == "x" # a comment that is none`:       {"", ""},
		`any(names, {# == cn} ; true; os.Exit(1))`: {"", ""},
	} {
		_, err := rule.Parse(text)
		e := (*rule.Error)(nil)
		if !errors.As(err, &e) || !strings.Contains(e.Msg, want.says) || strings.Contains(e.Msg, "\n") {
			t.Errorf("%.60s: %v, want %q", text, err, want.says)
			continue
		}
		if e.Offset > len(text) || !strings.HasPrefix(text[e.Offset:], want.at) {
			t.Errorf("%s: at %q, want %q", text, text[min(e.Offset, len(text)):], want.at)
		}
	}
}

// What fails while it is evaluated is not true.
func TestHoldsFails(t *testing.T) {
	long := subject()
	long.CN = strings.Repeat("x", 2049)
	many := subject()
	many.DNS = make([]string, 129)
	much := subject()
	for range 16 {
		much.URI = append(much.URI, "spiffe://"+strings.Repeat("x", 1024))
	}
	for _, c := range []struct {
		text string
		s    *rule.Subject
		says string
	}{
		{`not (dns[7] == "x")`, subject(), "index out of range"},
		{`not (duration(cn) > duration("1h"))`, subject(), "invalid duration"},
		{`true`, long, "too long names"},
		{`true`, many, "too many names for an `if`: 129"},
		{`true`, much, "too long names"},
	} {
		r, err := rule.Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if is, err := r.Holds(c.s); is || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %t, %v, want %q", c.text, is, err, c.says)
		}
	}
}

// A certificate's wildcard is many names, and none of them.
func TestLikeTakesNoWildcard(t *testing.T) {
	r, err := rule.Parse(`any(dns, like(#, "*.ops.example")) or any(dns, like(#, ".example"))`)
	if err != nil {
		t.Fatal(err)
	}
	s := subject()
	s.DNS = []string{"*.ops.example"}
	if is, err := r.Holds(s); is || err != nil {
		t.Error(is, err)
	}
}

// The worst that two loops can be asked over what is let in takes no time.
func TestHoldsIsBounded(t *testing.T) {
	r, err := rule.Parse(`any(dns, let d = #; any(uri, (# + d + cn) == "x" or # matches "^(a*)*b$"))`)
	if err != nil {
		t.Fatal(err)
	}
	s := subject()
	s.DNS, s.URI, s.CN = nil, nil, strings.Repeat("a", 2000)
	for range 128 {
		s.DNS, s.URI = append(s.DNS, strings.Repeat("a", 50)), append(s.URI, strings.Repeat("a", 50))
	}
	start := time.Now()
	if is, err := r.Holds(s); is || err != nil {
		t.Error(is, err)
	}
	if d := time.Since(start); d > 10*time.Second { // a tenth of a second, but for the race detector
		t.Errorf("%s", d)
	}
}

// Each field has its word and its line of the documentation.
func TestFieldsAreNamed(t *testing.T) {
	for f := range reflect.TypeFor[rule.Subject]().Fields() {
		if f.Tag.Get("expr") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s has no word or no line", f.Name)
		}
	}
}

// Whatever somebody writes is an error or an expression that gives an answer.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`any(dns, like(#, "*.ops.example")) and within(address, "10.0.0.0/8")`, `cn matches "^a" or not_after - time < duration("1h")`,
		`let x = ou; count(x, # == sni) > 1 ? time < date("2027-01-01") : dns[0] == uri?.[1]`, `$env["cn"] == "x"`, `{"a": cn}.a in [sni, alpn]`,
	} {
		f.Add(text, "a.example")
	}
	f.Fuzz(func(t *testing.T, text, sent string) {
		r, err := rule.Parse(text)
		if err != nil {
			if e := (*rule.Error)(nil); !errors.As(err, &e) || e.Offset > len(text) {
				t.Fatalf("%v", err)
			}
			return
		}
		s := subject()
		s.CN, s.SNI, s.DNS = sent, sent, []string{sent, sent}
		if is, err := r.Holds(s); is && err != nil {
			t.Errorf("true, and %v", err)
		}
	})
}
