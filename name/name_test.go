package name

import (
	"strings"
	"testing"
)

func must(t testing.TB, parse func(string) (Pattern, error), s string) Pattern {
	t.Helper()
	p, err := parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMatchDNS(t *testing.T) {
	long := strings.Repeat("a.", 126) + "b" // 253 octets
	for _, c := range []struct {
		pattern  string
		yes, not string // separated by spaces
	}{
		{"a.example", "a.example A.Example a.example.", "b.example aa.example xa.example a.example.. .a.example x.a.example example a-example"},
		{"A.EXAMPLE.", "a.example", "A"},
		{"*", "localhost x x.", "a.b . *"},
		{"**", "x a.b a.b.c " + long, ". a..b a.b.. .a *.b " + long + "b"},
		{"*.b.example", "a.b.example A.B.EXAMPLE. _sip.b.example 1.b.example", "b.example .b.example x.a.b.example *.b.example xb.example a.b.example.. ab.example"},
		{"**.b.example", "a.b.example y.x.b.example", "b.example .b.example x..b.example *.b.example x.*.b.example ab.example"},
		{".b.example", "b.example a.b.example y.x.b.example B.Example.", ".b.example ab.example example a..b.example *.b.example"},
		{"a.*.example", "a.b.example", "a.example a.b.c.example b.b.example a..example"},
		{"*.*.example", "a.b.example", "a.example a.b.c.example"},
		{"**.*.example", "a.b.example c.a.b.example", "b.example example"},
		{"_sip._tcp.example", "_sip._TCP.example", "sip.tcp.example"},
		{"xn--bcher-kva.example", "XN--bcher-kva.example", "bücher.example"},
		{"k.example", "K.example", "\u212a.example"}, // KELVIN SIGN folds to k in Unicode alone
	} {
		p := must(t, Parse, c.pattern)
		for _, s := range strings.Fields(c.yes) {
			if !p.Match(s) {
				t.Errorf("%s does not take %q", c.pattern, s)
			}
		}
		for _, s := range append(strings.Fields(c.not), "", "a\x00.b.example", "a b.b.example") {
			if p.Match(s) {
				t.Errorf("%s takes %q", c.pattern, s)
			}
		}
	}
	if (Pattern{}).Match("") || (Pattern{}).Match("a") || !(Pattern{}).IsZero() {
		t.Error("the zero Pattern takes something")
	}
}

func TestMatchURI(t *testing.T) {
	for _, c := range []struct{ pattern, yes, not string }{
		{"spiffe://corp/ops/*", "spiffe://corp/ops/a SPIFFE://Corp/ops/a spiffe://corp/ops/A.b-c_d",
			"spiffe://corp/ops spiffe://corp/ops/ spiffe://corp/ops/a/b spiffe://corp/OPS/a spiffe://corp2/ops/a spiffe://corp/ops/a?b spiffe://corp/ops/a#b spiffe://corp/ops/.. spiffe://corp/ops/%61 spiffe://corp/ops/a@b spiffe:/corp/ops/a spiffe://corp:1/ops/a spiffe://u@corp/ops/a spiffe://corp/ops//a"},
		{"spiffe://corp/**", "spiffe://corp/a spiffe://corp/a/b/c", "spiffe://corp spiffe://corp/ spiffe://corp/a/ spiffe://corp//a spiffe://corp/a/../b spiffe://corp/a/b?c=d/e"},
		{"spiffe://corp/*/db", "spiffe://corp/eu/db", "spiffe://corp/db spiffe://corp/eu/db/x spiffe://corp/a/b/db"},
		{"spiffe://corp", "spiffe://corp spiffe://CORP", "spiffe://corp/ spiffe://corp/a spiffe:// spiffe:"},
		{"https://Corp.example:8443/a/*", "https://corp.example:8443/a/b@c", "https://corp.example/a/b http://corp.example:8443/a/b https://corp.example:8443/A/b"},
		{"https://b.example/a//b", "https://b.example/a//b", "https://b.example/a/b"},
		{"urn:x:Y", "urn:x:Y URN:x:Y", "urn:x:y urn:x:Y: urn://x:Y urn"},
	} {
		p := must(t, ParseURI, c.pattern)
		for _, s := range strings.Fields(c.yes) {
			if !p.Match(s) {
				t.Errorf("%s does not take %q", c.pattern, s)
			}
		}
		for _, s := range append(strings.Fields(c.not), "", ":", "/", "://") {
			if p.Match(s) {
				t.Errorf("%s takes %q", c.pattern, s)
			}
		}
	}
}

func TestMatchText(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{"Ops Team", []string{"Ops Team"}, []string{"", "ops team", "Ops Team "}},
		{"*", []string{"x", "a b", "*"}, []string{""}},
		{"*@B.example", []string{"a@b.example", "A.b+c@B.EXAMPLE"}, []string{"", "@b.example", "a@x.b.example", "b.example", "a@c@b.example", "a@b.example."}},
		{"a@B.example", []string{"a@B.example"}, []string{"a@b.example"}},
	} {
		p := must(t, ParseText, c.pattern)
		for _, s := range c.yes {
			if !p.Match(s) {
				t.Errorf("%s does not take %q", c.pattern, s)
			}
		}
		for _, s := range c.not {
			if p.Match(s) {
				t.Errorf("%s takes %q", c.pattern, s)
			}
		}
	}
}

// Errors say what to write instead.
func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (Pattern, error)
		in    string
		hint  string
	}{
		{Parse, "", "write a name"},
		{Parse, ".", "write a name"},
		{Parse, "a*.b", "write * in place"},
		{Parse, "*a", "write * in place"},
		{Parse, "***.b", "write * in place"},
		{Parse, "a.**", "write * for each"},
		{Parse, "**.**.b", "write * for each"},
		{Parse, ".*.b", "write *.b"},
		{Parse, "..b", "write a single dot"},
		{Parse, "a..b", "write a single dot"},
		{Parse, "a..", "write a single dot"},
		{Parse, "a b", "write 1 to 63"},
		{Parse, "10.0.0.0/8", "write 1 to 63"},
		{Parse, "[::1]", "write 1 to 63"},
		{Parse, "a:443", "write 1 to 63"},
		{Parse, "a\x00b", "write 1 to 63"},
		{Parse, strings.Repeat("a", 64), "write 1 to 63"},
		{Parse, strings.Repeat("a.", 127) + "b", "at most 253"},
		{Parse, "a。b", "write"},
		{Parse, "＊.b", "write"},
		{Parse, "\xff.b", "write"},
		{ParseURI, "", "write one such as"},
		{ParseURI, "corp/ops", "write one such as"},
		{ParseURI, "1a://b", "write one such as"},
		{ParseURI, "spiffe:///a", "write spiffe://"},
		{ParseURI, "spiffe:corp", "write spiffe://"},
		{ParseURI, "spiffe://*/a", "one item for each host"},
		{ParseURI, "spiffe://corp/a*", "write * in place"},
		{ParseURI, "spiffe://corp/**/a", "write * for each segment"},
		{ParseURI, "spiffe://corp/***", "write * in place"},
		{ParseURI, "spiffe://corp/", "write spiffe://trust.domain"},
		{ParseURI, "spiffe://corp:8080/a", "write spiffe://trust.domain"},
		{ParseURI, "spiffe://corp/a/../b", "write spiffe://trust.domain"},
		{ParseURI, "spiffe://corp/a%20b", "write spiffe://trust.domain"},
		{ParseURI, "https://u@corp/a", "write the host alone"},
		{ParseURI, "https://corp/a?b", "write it up to the path"},
		{ParseURI, "https://corp?b", "write it up to the path"},
		{ParseURI, "urn:a:*", "write this one in full"},
		{ParseURI, "https://corp/a b", "percent-encoded"},
		{ParseText, "", "write *"},
		{ParseText, "a*", "write the whole text"},
		{ParseText, "*.ops.example", "write the whole text"},
		{ParseText, "*@*.b.example", "one item for each host"},
		{ParseText, "*@", "behind *@ stands a host"},
	} {
		p, err := c.parse(c.in)
		if err == nil {
			t.Errorf("%q is taken as %q", c.in, p)
		} else if !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%q: %v; want %q in it", c.in, err, c.hint)
		} else if !p.IsZero() {
			t.Errorf("%q: an error and a pattern", c.in)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (Pattern, error)
		p     string
		yes   string
		not   string
	}{
		{Parse, "a.example", "a.example A.example.", "b.example *.example .a.example ** *"},
		{Parse, "*.example", "a.example *.example", "example **.example .example a.b.example * a.*.example"},
		{Parse, "**.example", "a.example *.example **.example a.b.example *.b.example **.b.example .b.example a.*.example **.*.example", "example .example ** *"},
		{Parse, ".example", "example .example *.example **.example a.b.example .b.example", "* ** b **.b"},
		{Parse, "*", "* a", "** a.b *.b .b"},
		{Parse, "**", "* ** a a.b *.b .b **.b", ""},
		{Parse, "**.*.example", "a.b.example *.b.example **.b.example", "b.example .b.example *.example **.example"},
		{Parse, "a.*.example", "a.b.example a.*.example", "*.*.example *.b.example"},
		{ParseURI, "spiffe://corp/**", "spiffe://corp/a spiffe://corp/* spiffe://corp/** spiffe://corp/a/** SPIFFE://CORP/a/*/b", "spiffe://corp spiffe://corp2/* https://corp/* urn:a"},
		{ParseURI, "spiffe://corp/*", "spiffe://corp/a spiffe://corp/*", "spiffe://corp/** spiffe://corp/a/* spiffe://corp"},
		{ParseURI, "https://corp/*/b", "https://corp/*/b https://corp/a/b", "https://corp//b https://corp/%61/b https://corp/*/*"},
		{ParseURI, "https://corp/**", "https://corp/a/*", "https://corp//* https://corp/../**"},
		{ParseURI, "urn:a", "urn:a", "urn:b https://corp/*"},
		{ParseText, "*", "* a *@b.example", ""},
		{ParseText, "*@b.example", "*@b.example *@B.example a@B.example", "* *@c.example b.example"},
		{ParseText, "a", "a", "* A"},
	} {
		p := must(t, c.parse, c.p)
		for _, s := range strings.Fields(c.yes) {
			if !p.Covers(must(t, c.parse, s)) {
				t.Errorf("%s does not cover %s", c.p, s)
			}
		}
		for _, s := range strings.Fields(c.not) {
			if p.Covers(must(t, c.parse, s)) {
				t.Errorf("%s covers %s", c.p, s)
			}
		}
		if !p.Covers(Pattern{}) || (Pattern{}).Covers(p) {
			t.Errorf("%s and the zero Pattern", c.p)
		}
	}
	if must(t, ParseText, "*").Covers(must(t, Parse, "a")) || must(t, Parse, "**").Covers(must(t, ParseText, "a")) {
		t.Error("patterns of different sorts cover each other")
	}
}

func TestLiteralAndSuffix(t *testing.T) {
	for _, c := range []struct{ pattern, literal, suffix string }{
		{"A.example.", "a.example", "a.example"},
		{"*.b.example", "", "b.example"},
		{"**.b.example", "", "b.example"},
		{".b.example", "", "b.example"},
		{"a.*.example", "", "example"},
		{"*", "", ""},
		{"**", "", ""},
		{"a.*", "", ""},
	} {
		p := must(t, Parse, c.pattern)
		if got, ok := p.Literal(); got != c.literal || ok != (c.literal != "") {
			t.Errorf("%s: literal %q, %t", c.pattern, got, ok)
		}
		if got := p.Suffix(); got != c.suffix {
			t.Errorf("%s: suffix %q, want %q", c.pattern, got, c.suffix)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	dns, uri := must(t, Parse, "**.*.b.example"), must(t, ParseURI, "spiffe://corp/a/*")
	if n := testing.AllocsPerRun(100, func() {
		if !dns.Match("W.X.Y.b.example.") || !uri.Match("spiffe://CORP/a/b") {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
