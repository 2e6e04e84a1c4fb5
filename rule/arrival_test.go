package rule_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sallyport/rule"
)

func arrival() *rule.Arrival {
	return &rule.Arrival{
		SNI: "db.example", ALPN: []string{"h2", "http/1.1"}, TLS: true, Versions: []string{"TLS 1.3", "TLS 1.2"},
		JA4: "t13d1516h2_8daaf6152771_e5627efa2ab1", Address: "10.1.2.3", Port: 8443, Time: now,
	}
}

func TestChoiceHolds(t *testing.T) {
	for text, want := range map[string]bool{
		`like(sni, "*.example") and "h2" in alpn`:                             true,
		`sni in ["a.example", "b.example"]`:                                   false,
		`any(alpn, # startsWith "h")`:                                         true,
		`"TLS 1.3" in versions and not ("TLS 1.1" in versions)`:               true,
		`all(versions, # >= "TLS 1.3")`:                                       false,
		`tls and port == 8443`:                                                true,
		`port > 8443 or not tls`:                                              false,
		`within(address, "10.0.0.0/8")`:                                       true,
		`time.Hour() >= 8 and time.Hour() < 18 and time < date("2027-01-01")`: true,
		`time.Weekday().String() in ["Saturday", "Sunday"]`:                   false,
		`ja4 startsWith "t13"`:                                                true,
		`let cn = sni; cn == "db.example"`:                                    true, // a name of its own
	} {
		c, err := rule.ParseChoice(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if is, err := c.Holds(arrival()); is != want || err != nil {
			t.Errorf("%s: %t, %v", text, is, err)
		}
		if c.String() != text {
			t.Errorf("%s became %s", text, c)
		}
	}
}

// What is known of a certificate or of a finished handshake is not known yet.
func TestParseChoiceRefuses(t *testing.T) {
	known := map[string]bool{}
	for f := range reflect.TypeFor[rule.Arrival]().Fields() {
		known[f.Tag.Get("expr")] = true
	}
	for f := range reflect.TypeFor[rule.Subject]().Fields() {
		word := f.Tag.Get("expr")
		if known[word] {
			continue
		}
		_, err := rule.ParseChoice("tls and " + word + " == " + word)
		e := (*rule.Error)(nil)
		if !errors.As(err, &e) || !strings.Contains(e.Msg, word+" is not known yet: a route is chosen before the handshake, and before anybody is verified") ||
			!strings.Contains(e.Hint, "`allow`") || e.Offset != len("tls and ") {
			t.Errorf("%s: %#v", word, err)
		}
	}
	for text, want := range map[string]string{
		`true`:         "it asks of nothing",
		`1 + 1 == 3`:   "it asks of nothing",
		`alpn == "h2"`: "mismatched types",
		`dn == "x"`:    "unknown name dn",
		`any(alpn, any(alpn, any(alpn, # == sni)))`: "more than 2 loops in each other",
		`sni matches ja4`: "not one that a stranger sends",
		`let a = sni + sni; let b = a + a; let c = b + b; let d = c + c; let e = d + d; e == ""`: "more than 4 times +",
		`map(alpn, #) == alpn`: "no map here",
		`port`:                 "expected bool, but got int",
		` `:                    "an empty expression",
	} {
		_, err := rule.ParseChoice(text)
		if e := (*rule.Error)(nil); !errors.As(err, &e) || !strings.Contains(e.Msg, want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestChoiceAsks(t *testing.T) {
	for text, want := range map[string]string{
		`port == 1 and port == 2 or time < date("2027-01-01")`: "port time", `any(alpn, # == sni)`: "alpn sni", `within(address, "10.0.0.0/8")`: "address",
		`$env["sni"] == "x"`: "sni alpn tls versions ja4 address port time",
	} {
		c, err := rule.ParseChoice(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.Asks(), " "); got != want {
			t.Errorf("%s asks of %s, not %s", text, got, want)
		}
		first := slices.IndexFunc(c.Asks(), func(w string) bool { return slices.Contains(rule.Hello, w) })
		if (c.AsksHello() == "") != (first < 0) {
			t.Errorf("%s: of the hello it asks %q", text, c.AsksHello())
		}
	}
}

// More than an expression looks at fails, whatever it asks, so that nobody's work
// grows with what a stranger sends.
func TestChoiceIsBounded(t *testing.T) {
	most, all, long, versions := arrival(), arrival(), arrival(), arrival()
	most.ALPN = slices.Repeat([]string{"h2"}, 32)
	all.ALPN = slices.Repeat([]string{"h2"}, 33)
	long.ALPN = slices.Repeat([]string{strings.Repeat("x", 255)}, 9)
	versions.Versions = slices.Repeat([]string{"TLS 1.3"}, 33)
	c, err := rule.ParseChoice("port == 8443")
	if err != nil {
		t.Fatal(err)
	}
	if is, err := c.Holds(most); !is || err != nil {
		t.Errorf("%t, %v", is, err)
	}
	for _, a := range []*rule.Arrival{all, long, versions} {
		if is, err := c.Holds(a); is || !errors.Is(err, rule.ErrTooMuch) {
			t.Errorf("%t, %v", is, err)
		}
	}
}

// Each word of an Arrival has its line of the documentation and of explain.
func TestArrivalIsNamed(t *testing.T) {
	for f := range reflect.TypeFor[rule.Arrival]().Fields() {
		if word := f.Tag.Get("expr"); word == "" || rule.Meaning(word) == "" {
			t.Errorf("%s has no word or no line", f.Name)
		}
	}
	if rule.Meaning("cn") != "" {
		t.Error("cn is none of its words")
	}
}

// Whatever somebody writes and whatever a stranger sends is an error or an answer.
func FuzzChoice(f *testing.F) {
	for _, text := range []string{
		`any(alpn, like(#, "h*")) and within(address, "10.0.0.0/8")`, `sni matches "^a" or time.Hour() > port`, `alpn[1] == versions[0]`,
		`let x = alpn; count(x, # == sni) > 1 ? time < date("2027-01-01") : tls`, `$env["sni"] == "x"`, `$env[sni] == ja4`,
	} {
		f.Add(text, "a.example", "h2")
	}
	f.Fuzz(func(t *testing.T, text, sni, alpn string) {
		c, err := rule.ParseChoice(text)
		if err != nil {
			if e := (*rule.Error)(nil); !errors.As(err, &e) || e.Offset > len(text) {
				t.Fatalf("%v", err)
			}
			return
		}
		if len(c.Asks()) == 0 {
			t.Errorf("%s asks of nothing", text)
		}
		a := arrival()
		a.SNI, a.ALPN, a.JA4 = sni, []string{alpn, sni, alpn}, alpn
		is, err := c.Holds(a)
		if is && err != nil {
			t.Errorf("true, and %v", err)
		}
	})
}
