package name

import (
	"strings"
	"testing"
)

var parsers = []func(string) (Pattern, error){Parse, ParseURI, ParseText}

// What parses is canonical: its String parses to the same Pattern.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"a.example", "*.b", "**.B.", ".c.d", "xn--bcher-kva.x", "bücher.x", "a.*.b", "a。b", "spiffe://Corp/a/**", "urn:a:b", "HTTPS://h:1/", "*@X.y", "*", "ß.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i, parse := range parsers {
			p, err := parse(s)
			if err != nil {
				if !p.IsZero() {
					t.Fatalf("parser %d, %q: an error and a pattern", i, s)
				}
				continue
			}
			if q, err := parse(p.String()); err != nil || q != p {
				t.Fatalf("parser %d, %q: %q parses to %q, %v", i, s, p, q, err)
			}
			if !p.Covers(p) {
				t.Fatalf("parser %d: %q does not cover itself", i, p)
			}
			if lit, ok := p.Literal(); ok && !p.Match(lit) {
				t.Fatalf("parser %d: %q does not take its literal", i, p)
			}
		}
	})
}

// Where p covers q, p takes what q takes; where it does not, there is a name
// that shows it.
func FuzzCovers(f *testing.F) {
	for _, s := range [][3]string{
		{"**.a", "*.a", "b.a"}, {".a", "a", "a"}, {".a", "**.b.a", "c.b.a"}, {"*.*", "a.*", "a.b"}, {"*", "**", "a.b"}, {"a.a", "a.a", "A.a."},
		{"spiffe://a/*", "spiffe://a/b", "spiffe://a/b"}, {"https://a/**", "https://a//*", "https://a//b"}, {"https://a/*/**", "https://a/**", "https://a/b/c"},
		{"*@a", "b@a", "b@a"}, {"*", "*@a", "x@a"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, ps, qs, s string) {
		for i, parse := range parsers {
			p, err := parse(ps)
			if err != nil {
				continue
			}
			if suffix := p.Suffix(); suffix != "" && p.Match(s) {
				if n := lower(strings.TrimSuffix(s, ".")); n != suffix && !strings.HasSuffix(n, "."+suffix) {
					t.Fatalf("%q takes %q, which does not end in %q", p, s, suffix)
				}
			}
			q, err := parse(qs)
			if err != nil {
				continue
			}
			covers := p.Covers(q)
			if covers && q.Match(s) && !p.Match(s) {
				t.Fatalf("parser %d: %q covers %q, but does not take %q", i, p, q, s)
			}
			if len(ps)+len(qs) > 100 { // see Covers about the length limit
				continue
			}
			shown := false
			for _, w := range witnesses(q) {
				if !q.Match(w) {
					t.Fatalf("parser %d: %q does not take its witness %q", i, q, w)
				}
				shown = shown || !p.Match(w)
			}
			if shown == covers {
				t.Fatalf("parser %d: %q covers %q: %t, but a witness against it: %t", i, p, q, covers, shown)
			}
		}
	})
}

// witnesses gives names that q takes so that a pattern which takes them all, and
// holds no label "zz0", takes all that q takes.
func witnesses(q Pattern) []string {
	fill := func(s, one string) string {
		return strings.Replace(strings.ReplaceAll(s, "**", one), "*", "zz0", -1)
	}
	text := q.String()
	switch q.kind {
	case dnsBelow:
		return []string{text[1:], "zz0" + text, "zz0.zz0" + text, strings.Repeat("z.", 60) + text[1:]}
	case dnsWild:
		return []string{fill(text, "zz0"), fill(text, "zz0.zz0"), fill(text, strings.Repeat("z.", 60)+"z")}
	case uriWild:
		return []string{fill(text, "zz0"), fill(text, "zz0/zz0"), fill(text, strings.Repeat("z/", 100)+"z")}
	case textAny:
		return []string{"zz0", "zz0@zz0", "zz1"}
	case mailAt:
		return []string{"zz0" + text[1:], "zz1" + text[1:]}
	}
	return []string{text}
}
