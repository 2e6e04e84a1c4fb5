package route

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/rule"
	"sallyport/wire"
)

func choice(t testing.TB, text string) *rule.Choice {
	t.Helper()
	c, err := rule.ParseChoice(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// evening is a flow that says all that an expression can ask of.
func evening(sni string, alpn ...string) *flow.Flow {
	return &flow.Flow{
		Start:  time.Date(2026, 6, 1, 22, 30, 0, 0, time.FixedZone("", 3600)),
		Origin: flow.Origin{Client: netip.MustParseAddrPort("[::ffff:10.1.2.3]:5555"), Local: netip.MustParseAddrPort("192.0.2.1:8443")},
		Print:  flow.Print{JA4: "t13d0000"},
		Hello:  &wire.Hello{SNI: sni, ALPN: alpn, Versions: []uint16{wire.VersionTLS13, wire.VersionTLS12}},
	}
}

func decided(d *flow.Decision) string {
	if d.Action == flow.Reject {
		return strings.TrimSpace(d.Route + " " + string(d.Reason))
	}
	return d.Route
}

func TestDecideIf(t *testing.T) {
	proxied := evening("a.example", "h2")
	proxied.Asked.Client, proxied.Asked.Local = netip.MustParseAddrPort("198.51.100.7:1"), netip.MustParseAddrPort("198.51.100.1:443")
	unix := evening("a.example", "h2")
	unix.Origin = flow.Origin{}
	judged := evening("a.example", "h2")
	judged.Print, judged.Hello.DTLS, judged.Hello.Versions = flow.Print{}, true, []uint16{wire.VersionDTLS12}
	for _, c := range []struct {
		text string
		f    *flow.Flow
		want string
	}{
		{`sni == "a.example" and "h2" in alpn and tls`, evening("a.example", "h2"), "if"},
		{`sni == "a.example" and "h2" in alpn and tls`, evening("a.example", "h3"), "rest"},
		{`sni == ""`, evening(""), "if"},
		{`alpn == ["h2", "x"]`, evening("a", "h2", "x"), "if"},
		{`"TLS 1.3" in versions and len(versions) == 2`, evening("a"), "if"},
		{`"DTLS 1.2" in versions`, judged, "if"},
		{`ja4 startsWith "d"`, judged, "if"},
		{`ja4 == "t13d0000"`, evening("a"), "if"},
		{`time.Hour() == 21`, evening("a"), "if"}, // UTC
		{`time < date("2026-06-01")`, evening("a"), "rest"},
		{`within(address, "10.0.0.0/8") and port == 8443`, evening("a"), "if"},
		{`within(address, "198.51.100.0/24") and port == 443`, proxied, "if"},
		{`within(address, "10.0.0.0/8")`, proxied, "rest"},
		{`address == "" and port == 0`, unix, "if"},
		{`not tls and sni == "" and ja4 == "" and len(versions) == 0`, from("10.0.0.1 plain"), "if"},
		{`alpn[0] == "h2"`, evening("a", "h2"), "if"},
		{`alpn[0] == "h2"`, evening("a"), "if match_failed"},
		{`not (alpn[0] == "h2")`, evening("a"), "if match_failed"},
		{`duration(sni) > duration("1h")`, evening("a"), "if match_failed"},
		{`tls`, evening("a", strings.Split(strings.Repeat("x,", 33), ",")...), "if hello_too_large"},
	} {
		table := New([]Route{{Match: Match{If: choice(t, c.text)}, Decision: to("if")}, {Decision: to("rest")}})
		d := table.Decide(c.f)
		if got := decided(d); got != c.want {
			t.Errorf("%s: goes to %q, want %q (%v)", c.text, got, c.want, d.Err)
		}
		if failed := strings.Contains(c.want, " "); failed != (d.Err != nil) {
			t.Errorf("%s: %v", c.text, d.Err)
		}
	}
}

// All that a match names must hold, the If is asked last, and only the first route
// that would take the flow may fail.
func TestDecideIfBesideOthers(t *testing.T) {
	fails, holds, not := choice(t, `alpn[7] == ""`), choice(t, `tls`), choice(t, `not tls`)
	a := patterns(t, "a")
	for _, c := range []struct {
		name   string
		routes []Route
		flow   string
		want   string
	}{
		{"name and if", []Route{{Match: Match{SNI: a, If: holds}, Decision: to("1")}}, "10.0.0.1 a", "1"},
		{"another name", []Route{{Match: Match{SNI: a, If: holds}, Decision: to("1")}}, "10.0.0.1 b", "unrecognized_name"},
		{"the name, but the if", []Route{{Match: Match{SNI: a, If: not}, Decision: to("1")}}, "10.0.0.1 a", "no_route"},
		{"another name is not asked", []Route{{Match: Match{SNI: a, If: fails}, Decision: to("1")}, {Decision: to("2")}}, "10.0.0.1 b", "2"},
		{"another address is not asked", []Route{{Match: Match{Client: prefixes("192.0.2.0/24"), If: fails}, Decision: to("1")}, {Decision: to("2")}}, "10.0.0.1 b", "2"},
		{"other protocols are not asked", []Route{{Match: Match{ALPN: []string{"h2"}, If: fails}, Decision: to("1")}, {Decision: to("2")}}, "10.0.0.1 b x", "2"},
		{"an earlier route", []Route{{Match: Match{SNI: a}, Decision: to("1")}, {Match: Match{If: fails}, Decision: to("2")}}, "10.0.0.1 a", "1"},
		{"a later route", []Route{{Match: Match{If: fails}, Decision: to("1")}, {Match: Match{SNI: a}, Decision: to("2")}}, "10.0.0.1 a", "1 match_failed"},
		{"the first of two", []Route{{Match: Match{SNI: a, If: not}, Decision: to("1")}, {Match: Match{SNI: a, If: holds}, Decision: to("2")}, {Decision: to("3")}}, "10.0.0.1 a", "2"},
		{"only the protocols are wrong", []Route{{Match: Match{ALPN: []string{"h2"}, If: holds}, Decision: to("1")}}, "10.0.0.1 a x", "no_application_protocol"},
		{"not only the protocols", []Route{{Match: Match{ALPN: []string{"h2"}, If: not}, Decision: to("1")}}, "10.0.0.1 a x", "no_route"},
		{"who may come is asked after", []Route{{Match: Match{If: holds}, From: prefixes("192.0.2.0/24"), Decision: to("1")}, {Decision: to("2")}}, "10.0.0.1 a", "1 address_refused"},
		{"a route without a Decision", []Route{{Match: Match{If: fails}}, {Decision: to("2")}}, "10.0.0.1 a", "match_failed"},
	} {
		if got := decided(New(c.routes).Decide(from(c.flow))); got != c.want {
			t.Errorf("%s: goes to %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSuppose(t *testing.T) {
	table := New([]Route{{Match: Match{If: choice(t, `alpn[7] == ""`)}, Decision: to("1")}, {Match: Match{If: choice(t, `tls`)}, Decision: to("2")}, {Decision: to("3")}})
	for _, c := range []struct {
		holds map[int]bool
		want  string
	}{
		{map[int]bool{0: true}, "1"}, {map[int]bool{0: false}, "2"}, {map[int]bool{0: false, 1: false}, "3"}, {map[int]bool{1: false}, "1 match_failed"},
	} {
		d := table.Suppose(from("10.0.0.1 a"), func(i int) (bool, bool) { holds, known := c.holds[i]; return holds, known })
		if got := decided(d); got != c.want {
			t.Errorf("%v: %q, want %q", c.holds, got, c.want)
		}
	}
}

func TestCoversIf(t *testing.T) {
	one, same, other := choice(t, `port == 1`), choice(t, `port == 1`), choice(t, `port == 2`)
	for _, c := range []struct {
		m, n Match
		want bool
	}{
		{Match{}, Match{If: one}, true},
		{Match{If: one}, Match{}, false},
		{Match{If: one}, Match{If: same}, true},
		{Match{If: one}, Match{If: other}, false},
		{Match{If: one}, Match{If: same, SNI: patterns(t, "a")}, true},
		{Match{If: one, SNI: patterns(t, "a")}, Match{If: same}, false},
		{Match{SNI: patterns(t, "*.a")}, Match{If: one, SNI: patterns(t, "b.a")}, true},
	} {
		if got := c.m.Covers(c.n); got != c.want {
			t.Errorf("%v covers %v: %t", c.m, c.n, got)
		}
	}
}

// Whatever strangers send, a flow goes where its expression says, or is refused; it
// never falls to the route behind because the expression failed.
func FuzzDecideIf(f *testing.F) {
	texts := []string{
		`sni matches "^[a-z]+$" and any(alpn, # startsWith "h")`, `alpn[0] == sni`, `any(alpn, any(versions, # contains sni))`, `like(sni, "*.example")`,
		`len(alpn) > 1 ? alpn[1] == "h2" : duration(sni) > duration("1s")`, `within(sni, "10.0.0.0/8") or lower(ja4) == sni`, `time.Format(sni) == sni`,
	}
	choices := make([]*rule.Choice, len(texts))
	for i, text := range texts {
		choices[i] = choice(f, text)
	}
	f.Add("a.example", "h2", uint16(0x0304), uint8(3))
	f.Add("1h", "", uint16(0), uint8(40))
	f.Add("\xff\x00", "\x0a\x0a", uint16(0xfefd), uint8(1))
	f.Fuzz(func(t *testing.T, sni, alpn string, version uint16, many uint8) {
		fl := evening(sni)
		for range many {
			fl.Hello.ALPN, fl.Hello.Versions = append(fl.Hello.ALPN, alpn), append(fl.Hello.Versions, version)
		}
		for _, c := range choices {
			is, err := c.Holds(arrival(fl))
			want := "rest"
			switch {
			case err != nil:
				want = "refused"
			case is:
				want = "if"
			}
			d := New([]Route{{Match: Match{If: c}, Decision: to("if")}, {Decision: to("rest")}}).Decide(fl)
			got := d.Route
			if d.Action == flow.Reject && d.Err != nil {
				got = "refused"
			}
			if got != want {
				t.Errorf("%s: %q, want %q", c, got, want)
			}
		}
	})
}

func BenchmarkDecideIf(b *testing.B) {
	for _, text := range []string{
		`port == 8443`,
		`"h2" in alpn and time.Hour() >= 8`,
		`within(address, "10.0.0.0/8") and any(alpn, # startsWith "h")`,
	} {
		b.Run(text, func(b *testing.B) {
			table, f := New([]Route{{Match: Match{SNI: patterns(b, "a.example"), If: choice(b, text)}, Decision: to("if")}}), evening("a.example", "h2", "http/1.1")
			if d := table.Decide(f); d.Route != "if" {
				b.Fatal(decided(d))
			}
			b.ReportAllocs()
			for b.Loop() {
				table.Decide(f)
			}
		})
	}
}
