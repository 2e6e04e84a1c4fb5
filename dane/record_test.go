package dane_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sallyport/dane"
	"sallyport/internal/ca"
)

var (
	usages    = []dane.Usage{dane.PKIXTA, dane.PKIXEE, dane.DANETA, dane.DANEEE}
	selectors = []dane.Selector{dane.Cert, dane.SPKI}
	matchings = []dane.Matching{dane.Full, dane.SHA256, dane.SHA512}
)

func record(t *testing.T, c *x509.Certificate, u dane.Usage, s dane.Selector, m dane.Matching) dane.Record {
	t.Helper()
	r, err := dane.New(c, u, s, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecords(t *testing.T) {
	root := ca.Test(t)
	one, other := root.Leaf([]string{"a.test"}), root.Leaf([]string{"a.test"})
	c, o := root.Chain(one)[0], root.Chain(other)[0]
	for _, u := range usages {
		for _, s := range selectors {
			for _, m := range matchings {
				r := record(t, c, u, s, m)
				if !r.Matches(c) || r.Matches(o) {
					t.Errorf("%s: matches its own %t, another %t", r.Params(), r.Matches(c), r.Matches(o))
				}
				if err := r.Unusable(); err != nil {
					t.Errorf("%s: %v", r.Params(), err)
				}
				back, err := dane.ParseRecord(r.String())
				if err != nil || !back.Equal(r) {
					t.Errorf("%s: reads back as %v, %v", r, back, err)
				}
				// Another implementation reads both forms alike.
				var texts []string
				for _, text := range []string{"TLSA " + r.String(), r.Generic()} {
					rr, err := dns.NewRR("_1._tcp.a.test. 60 IN " + text)
					if err != nil {
						t.Fatalf("%s: %v", text, err)
					}
					if g, ok := rr.(*dns.RFC3597); ok {
						tlsa := &dns.TLSA{Hdr: dns.RR_Header{Name: "_1._tcp.a.test.", Rrtype: dns.TypeTLSA, Class: dns.ClassINET, Ttl: 60}}
						wire := make([]byte, 65535)
						n, err := dns.PackRR(g, wire, 0, nil, false)
						if err != nil {
							t.Fatal(err)
						}
						known, _, err := dns.UnpackRR(wire[:n], 0)
						if err != nil {
							t.Fatal(err)
						}
						*tlsa = *known.(*dns.TLSA)
						tlsa.Hdr.Rdlength = 0
						rr = tlsa
					}
					texts = append(texts, rr.String())
				}
				if texts[0] != texts[1] {
					t.Errorf("%s\n%s", texts[0], texts[1])
				}
			}
		}
	}
	for _, p := range [][3]uint8{{4, 0, 0}, {0, 2, 0}, {0, 0, 3}, {255, 255, 255}} {
		if r, err := dane.New(c, dane.Usage(p[0]), dane.Selector(p[1]), dane.Matching(p[2])); err == nil || r.Matches(c) {
			t.Errorf("%v: %v", p, r)
		}
	}
}

func TestUsable(t *testing.T) {
	d256, d512 := digest, digest+digest
	for _, c := range []struct{ records, usable string }{
		{"3 1 1 " + d256, "3 1 1"},
		{"3 1 1 " + d256 + "|3 1 1 " + strings.Repeat("00", 32), "3 1 1|3 1 1"},
		{"3 1 1 " + d256 + "|3 1 2 " + d512, "3 1 2"},                         // the stronger digest alone
		{"3 1 1 " + d256 + "|3 0 2 " + d512, "3 1 1|3 0 2"},                   // of another selector
		{"3 1 1 " + d256 + "|2 1 2 " + d512, "3 1 1|2 1 2"},                   // of another usage
		{"3 1 1 " + d256 + "|3 1 2 " + d256, "3 1 1"},                         // the stronger one is malformed
		{"4 1 1 " + d256 + "|3 2 1 " + d256 + "|3 1 3 " + d256, ""},           // nobody knows these
		{"3 1 1 00|3 1 2 00|3 0 0 00|2 1 0 00|255 255 255 00", ""},            // nor can these be read
		{"3 1 1 " + d256 + "00|3 1 1 " + d256[2:] + "|3 1 2 " + d512[2:], ""}, // a byte too many, a byte too few
		{"4 1 1 " + d256 + "|3 1 1 " + d256, "3 1 1"},
	} {
		var list []dane.Record
		for text := range strings.SplitSeq(c.records, "|") {
			r, err := dane.ParseRecord(text)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		var got []string
		usable := dane.Usable(list)
		for _, r := range usable {
			got = append(got, r.Params())
		}
		if s := strings.Join(got, "|"); s != c.usable {
			t.Errorf("%s: %s, want %s", c.records, s, c.usable)
		}
		if again := dane.Usable(usable); !slices.EqualFunc(again, usable, dane.Record.Equal) {
			t.Errorf("%s: of the usable ones %v are usable", c.records, again)
		}
	}
	// A giant key is not worth its signatures.
	big := ca.Test(t).Leaf([]string{"a.test"}, ca.SharedRSA())
	if r := record(t, ca.Test(t).Chain(big)[0], dane.DANETA, dane.SPKI, dane.Full); r.Unusable() != nil {
		t.Errorf("RSA: %v", r.Unusable())
	}
}

func TestParseRecord(t *testing.T) {
	for _, good := range []string{"3 1 1 00", "  3\t1 1 ( 0A\n 0b )", "255 255 255 ff"} {
		if _, err := dane.ParseRecord(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "3 1 1", "3 1 1 0", "3 1 1 zz", "256 1 1 00", "-1 1 1 00", "3 1 x 00"} {
		if r, err := dane.ParseRecord(bad); err == nil {
			t.Errorf("%q: %v", bad, r)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("3 1 1 " + digest)
	f.Add("2 0 0 (30 82)")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := dane.ParseRecord(s)
		if err != nil {
			return
		}
		if back, err := dane.ParseRecord(r.String()); err != nil || !back.Equal(r) {
			t.Errorf("%q: %v, then %v, %v", s, r, back, err)
		}
		r.Unusable()
		if n := len(dane.Usable([]dane.Record{r, r})); n != 0 && n != 2 {
			t.Errorf("%q: of two alike %d are usable", s, n)
		}
	})
}

func FuzzParseAnchors(f *testing.F) {
	f.Add([]byte(". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(strings.ToUpper(string(data)), "$GENERATE") {
			return // the owner of the file may have us count
		}
		a, err := dane.ParseAnchors("f", data)
		if (a == nil) == (err == nil) {
			t.Errorf("%v, %v", a, err)
		}
	})
}

func TestAnchors(t *testing.T) {
	root := ca.Test(t)
	inter := root.Intermediate()
	leaf := inter.Leaf([]string{"a.test"})
	chain := []*x509.Certificate{root.Chain(leaf)[0], inter.Cert, root.Cert}
	for _, c := range []struct {
		of    *x509.Certificate
		u     dane.Usage
		chain []*x509.Certificate
		found bool
	}{
		{root.Cert, dane.DANETA, chain, true},
		{inter.Cert, dane.DANETA, chain, true},
		{inter.Cert, dane.DANETA, chain[:2], true},
		{chain[0], dane.DANETA, chain, false}, // the leaf issues nothing
		{root.Cert, dane.PKIXTA, chain, false},
		{root.Cert, dane.DANEEE, chain, false},
	} {
		for _, s := range selectors {
			for _, m := range matchings {
				r := record(t, c.of, c.u, s, m)
				if got := dane.Anchors([]dane.Record{r}, c.chain); (len(got) > 0) != c.found {
					t.Errorf("%s of %s: %d anchors", r.Params(), c.of.Subject, len(got))
				}
			}
		}
	}
	// Not in the chain: only what the record brings along.
	for s, want := range map[dane.Selector][3]int{dane.Cert: {1, 0, 0}, dane.SPKI: {1, 0, 0}} {
		for m := range 3 {
			r := record(t, root.Cert, dane.DANETA, s, dane.Matching(m))
			if got := dane.Anchors([]dane.Record{r}, chain[:2]); len(got) != want[m] {
				t.Errorf("%s: %d anchors, want %d", r.Params(), len(got), want[m])
			}
		}
	}
	if got := dane.Anchors([]dane.Record{record(t, root.Cert, dane.DANETA, dane.SPKI, dane.Full)}, nil); got != nil {
		t.Errorf("of no chain: %v", got)
	}
	// A self-signed leaf vouches for nobody.
	self := root.Chain(root.SelfSigned([]string{"a.test"}))
	for _, s := range selectors {
		r := record(t, self[0], dane.DANETA, s, dane.Full)
		if got := dane.Anchors([]dane.Record{r}, append(self, self...)); len(got) > 0 {
			t.Errorf("%s: %v", r.Params(), got)
		}
	}
}

func TestRecordName(t *testing.T) {
	for host, want := range map[string]string{"a.test": "_5684._udp.a.test", "a.test.": "_5684._udp.a.test"} {
		if got := dane.RecordName(host, 5684, "udp"); got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}

func ExampleRecord_Generic() {
	r, _ := dane.ParseRecord("3 1 1 " + digest)
	fmt.Println(r.Generic())
	// Output: TYPE52 \# 35 0301010123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
}
