package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sallyport/flow"
	"sallyport/name"
	"sallyport/wire"
)

func patterns(t testing.TB, list string) (ps []name.Pattern) {
	t.Helper()
	for _, s := range strings.Fields(list) {
		p, err := name.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func prefixes(list string) (ps []netip.Prefix) {
	for _, s := range strings.Fields(list) {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func tls(b bool) *bool { return &b }

// to is a route's Decision; a table must not touch what is in it.
func to(route string) *flow.Decision {
	return &flow.Decision{Route: route, Pattern: "offload", Action: flow.Terminate, Inbound: []flow.Layer{nil}}
}

// from makes a flow: "10.0.0.1 sni alpn,alpn"; "-" for no SNI, "plain" for no hello, "unix" for no address.
func from(s string) *flow.Flow {
	f := new(flow.Flow)
	word := strings.Fields(s)
	if word[0] != "unix" {
		f.Origin.Client = netip.AddrPortFrom(netip.MustParseAddr(word[0]), 1234)
	}
	if word[1] == "plain" {
		return f
	}
	f.Hello = new(wire.Hello)
	if word[1] != "-" {
		f.Hello.SNI = word[1]
	}
	if len(word) > 2 {
		f.Hello.ALPN = strings.Split(word[2], ",")
	}
	return f
}

type flows map[string]string // flow → route's name, or the reason

type decideCase struct {
	name   string
	routes []Route
	flows  flows
}

func decideCases(t *testing.T) []decideCase {
	return []decideCase{
		{"no routes at all", nil, flows{"10.0.0.1 a": "no_route", "10.0.0.1 -": "no_route", "10.0.0.1 plain": "no_route"}},
		{"a route without criteria takes every name and none",
			[]Route{{Decision: to("all")}},
			flows{"10.0.0.1 a": "all", "10.0.0.1 - h2": "all", "10.0.0.1 plain": "all", "unix a": "all"}},
		{"the first match wins",
			[]Route{
				{Match: Match{SNI: patterns(t, "a.example")}, Decision: to("1")},
				{Match: Match{SNI: patterns(t, "*.example")}, Decision: to("2")},
				{Match: Match{SNI: patterns(t, "a.example b.example")}, Decision: nil},
				{Match: Match{SNI: patterns(t, "**.c.example c.example")}, Decision: to("4")},
				{Match: Match{SNI: patterns(t, "**")}, Decision: to("5")},
				{Match: Match{SNI: patterns(t, "x.y.z")}, Decision: nil},
			},
			flows{"10.0.0.1 a.example": "1", "10.0.0.1 b.example": "2", "10.0.0.1 c.example": "2", "10.0.0.1 x.c.example": "4", "10.0.0.1 y.x.c.example": "4", "10.0.0.1 example": "5", "10.0.0.1 x.y.z": "5", "10.0.0.1 -": "unrecognized_name", "10.0.0.1 plain": "no_route"}},
		{"an early route without a name goes before a later one with it",
			[]Route{
				{Match: Match{Client: prefixes("10.0.0.0/8")}, Decision: to("inside")},
				{Match: Match{SNI: patterns(t, "a.example")}, Decision: to("a")},
			},
			flows{"10.1.1.1 a.example": "inside", "192.0.2.1 a.example": "a", "192.0.2.1 b.example": "unrecognized_name"}},
		{"no SNI is a name of its own",
			[]Route{
				{Match: Match{SNI: patterns(t, "a"), NoSNI: true}, Decision: to("a")},
				{Match: Match{SNI: patterns(t, "b")}, Decision: to("b")},
			},
			flows{"10.0.0.1 -": "a", "10.0.0.1 a": "a", "10.0.0.1 b": "b", "10.0.0.1 c": "unrecognized_name", "10.0.0.1 plain": "no_route"}},
		{"alpn",
			[]Route{
				{Match: Match{SNI: patterns(t, "a"), ALPN: []string{"h2", "acme-tls/1"}}, Decision: to("h2")},
				{Match: Match{SNI: patterns(t, "a"), ALPN: []string{"http/1.1"}}, Decision: to("h1")},
				{Match: Match{SNI: patterns(t, "b"), Client: prefixes("10.0.0.0/8"), ALPN: []string{"h2"}}, Decision: to("b")},
			},
			flows{"10.0.0.1 a http/1.1,h2": "h2", "10.0.0.1 a x,http/1.1": "h1", "10.0.0.1 a x": "no_application_protocol", "10.0.0.1 a": "no_application_protocol", "10.0.0.1 c h2": "unrecognized_name", "192.0.2.1 b x": "no_route", "10.0.0.1 b x": "no_application_protocol"}},
		{"alpn of a route for any name",
			[]Route{
				{Match: Match{SNI: patterns(t, "a")}, Decision: to("a")},
				{Match: Match{ALPN: []string{"h2"}}, Decision: to("h2")},
			},
			flows{"10.0.0.1 a": "a", "10.0.0.1 b h2": "h2", "10.0.0.1 b h3": "no_application_protocol", "10.0.0.1 plain": "no_route"}},
		{"whether it is TLS",
			[]Route{
				{Match: Match{TLS: tls(false)}, Decision: to("plain")},
				{Match: Match{TLS: tls(true), SNI: patterns(t, "a")}, Decision: to("a")},
			},
			flows{"10.0.0.1 plain": "plain", "10.0.0.1 a": "a", "10.0.0.1 b": "unrecognized_name", "unix plain": "plain"}},
		{"addresses",
			[]Route{
				{Match: Match{Client: prefixes("10.0.0.0/8 2001:db8::/32 fe80::/10")}, Decision: to("near")},
				{Match: Match{Client: prefixes("::ffff:192.0.2.0/120")}, Decision: to("mapped")},
				{Match: Match{Client: prefixes("::/0")}, Decision: to("six")},
			},
			flows{"10.255.0.1 a": "near", "::ffff:10.0.0.1 a": "near", "2001:db8::1 a": "near", "fe80::1%eth0 a": "near", "192.0.2.7 a": "mapped", "::ffff:192.0.2.7 plain": "mapped", "2001:db9::1 a": "six", "11.0.0.1 a": "no_route", "::ffff:11.0.0.1 a": "no_route", "unix a": "no_route"}},
		{"client.from refuses whom the route takes, and does not pass them on",
			[]Route{
				{Match: Match{SNI: patterns(t, "a")}, From: prefixes("10.0.0.0/8 ::ffff:192.0.2.0/120"), Decision: to("a")},
				{Decision: to("rest")},
			},
			flows{"10.0.0.1 a": "a", "::ffff:10.0.0.1 a": "a", "192.0.2.1 a": "a", "11.0.0.1 a": "a address_refused", "2001:db8::1 a": "a address_refused", "unix a": "a address_refused", "11.0.0.1 b": "rest"}},
	}
}

func TestDecide(t *testing.T) {
	for _, c := range decideCases(t) {
		table := New(c.routes)
		for s, want := range c.flows {
			d := table.Decide(from(s))
			if d == nil {
				t.Errorf("%s: %s comes to a route that it must not reach", c.name, s)
				continue
			}
			got := d.Route
			if d.Action == flow.Reject {
				got = strings.TrimSpace(d.Route + " " + string(d.Reason))
			}
			if got != want {
				t.Errorf("%s: %s goes to %q, want %q", c.name, s, got, want)
			}
			if d.Action == flow.Reject && (d.Timeouts != flow.Timeouts{} || d.Inbound != nil) {
				t.Errorf("%s: %s: a refusal holds more than its reason", c.name, s)
			}
		}
	}
	if d := new(Table).Decide(from("10.0.0.1 a")); d.Action != flow.Reject || d.Reason != flow.NoRoute {
		t.Errorf("the zero Table: %+v", d)
	}
}

func TestCovers(t *testing.T) {
	all := Match{}
	sni := func(list string) Match { return Match{SNI: patterns(t, list)} }
	for _, c := range []struct {
		m, n Match
		want bool
	}{
		{all, all, true},
		{all, sni("a"), true},
		{sni("a"), all, false},
		{sni("*.a"), sni("b.a"), true},
		{sni("*.a b"), sni("b b.a"), true},
		{sni("*.a"), sni("b.a b"), false},
		{sni("**"), Match{NoSNI: true}, false},
		{Match{NoSNI: true}, Match{NoSNI: true}, true},
		{Match{NoSNI: true}, sni("a"), false},
		{Match{TLS: tls(true)}, sni("a"), true},
		{Match{TLS: tls(true)}, Match{ALPN: []string{"h2"}}, true},
		{Match{TLS: tls(true)}, all, false},
		{Match{TLS: tls(true)}, Match{TLS: tls(true)}, true},
		{Match{TLS: tls(false)}, Match{TLS: tls(false)}, true},
		{Match{TLS: tls(false)}, all, false},
		{Match{TLS: tls(false)}, sni("a"), false},
		{all, Match{TLS: tls(false)}, true},
		{sni("a"), Match{TLS: tls(false), NoSNI: true}, true}, // takes nothing
		{Match{ALPN: []string{"h2", "h3"}}, Match{ALPN: []string{"h2"}}, true},
		{Match{ALPN: []string{"h2"}}, Match{ALPN: []string{"h2", "h3"}}, false},
		{Match{ALPN: []string{"h2"}}, all, false},
		{Match{Client: prefixes("10.0.0.0/8 192.0.2.0/24")}, Match{Client: prefixes("10.1.0.0/16 ::ffff:192.0.2.1/128")}, true},
		{Match{Client: prefixes("10.1.0.0/16")}, Match{Client: prefixes("10.0.0.0/8")}, false},
		{Match{Client: prefixes("::/0")}, Match{Client: prefixes("10.0.0.0/8")}, false},
		{Match{Client: prefixes("0.0.0.0/0 ::/0")}, all, false}, // a unix socket
	} {
		if got := c.m.Covers(c.n); got != c.want {
			t.Errorf("%s covers %s: %t", show(c.m), show(c.n), got)
		}
	}
	if all.Empty() || !(Match{TLS: tls(false), ALPN: []string{"h2"}}).Empty() || (Match{TLS: tls(false)}).Empty() {
		t.Error("Empty")
	}
}

func show(m Match) string {
	s := fmt.Sprintf("{%v %t %v %v", m.SNI, m.NoSNI, m.ALPN, m.Client)
	if m.TLS != nil {
		s += fmt.Sprint(" ", *m.TLS)
	}
	return s + "}"
}

// bits picks from a list by a number's bits.
func bits(n *uint64, list ...string) string {
	var picked []string
	for _, s := range list {
		if *n&1 == 1 {
			picked = append(picked, s)
		}
		*n >>= 1
	}
	return strings.Join(picked, " ")
}

func matchOf(t testing.TB, n uint64) Match {
	var m Match
	m.SNI = patterns(t, bits(&n, "a.example", "b.example", "*.example", "**.example", ".example", "**", "a.*", "example"))
	m.NoSNI = bits(&n, "x") != ""
	m.ALPN = strings.Fields(bits(&n, "h2", "http/1.1"))
	m.Client = prefixes(bits(&n, "10.0.0.0/8", "10.1.0.0/16", "::/0", "::ffff:10.1.0.0/112"))
	if bits(&n, "x") != "" {
		m.TLS = tls(n&1 == 1)
	}
	return m
}

// Where m covers n no flow comes to n behind m; and the index decides as a plain
// walk through the routes does.
func FuzzDecide(f *testing.F) {
	f.Add(uint64(0), uint64(0), uint8(0), uint8(0), uint8(0))
	f.Add(uint64(1<<2), uint64(1), uint8(0), uint8(1), uint8(0))
	f.Add(uint64(1<<15|1<<16), uint64(1<<8), uint8(3), uint8(2), uint8(1))
	f.Add(uint64(1<<9), uint64(1<<10|1<<11), uint8(2), uint8(3), uint8(3))
	snis := []string{"a.example", "b.example", "c.b.example", "example", "a.b", "z", "-", "plain"}
	clients := []string{"10.0.0.1", "10.1.0.1", "::ffff:10.1.0.1", "2001:db8::1", "unix"}
	alpns := []string{"", "h2", "http/1.1,h2", "x"}
	f.Fuzz(func(t *testing.T, first, second uint64, sni, client, alpn uint8) {
		m, n := matchOf(t, first), matchOf(t, second)
		fl := from(clients[int(client)%len(clients)] + " " + snis[int(sni)%len(snis)] + " " + alpns[int(alpn)%len(alpns)])
		d := New([]Route{{Match: m, Decision: to("first")}, {Match: n, Decision: to("second")}}).Decide(fl)
		if m.Covers(n) && d.Route == "second" {
			t.Errorf("%s covers %s, but the second is reached by %+v", show(m), show(n), fl.Hello)
		}
		want := ""
		if takes(m, fl) {
			want = "first"
		} else if takes(n, fl) {
			want = "second"
		}
		if d.Route != want || (want == "") != (d.Action == flow.Reject && d.Reason != "") {
			t.Errorf("%s, %s: %+v, want %q", show(m), show(n), d, want)
		}
		if n.Empty() && takes(n, fl) || !m.Covers(m) {
			t.Errorf("%s, %s", show(m), show(n))
		}
	})
}

func takes(m Match, f *flow.Flow) bool {
	m.Client = unmapped(m.Client)
	return m.takesTLS(f) && m.takesSNI(f) && m.takesALPN(f) && m.takesClient(f.Origin.Client.Addr().Unmap())
}

// many is a table of 10,000 names, half of them wildcards.
func many(t testing.TB) *Table {
	var routes []Route
	for i := range 10000 {
		s := fmt.Sprintf("host%d.example", i)
		if i%2 == 1 {
			s = "*." + s
		}
		routes = append(routes, Route{Match: Match{SNI: patterns(t, s)}, From: prefixes("10.0.0.0/8"), Decision: to(s)})
	}
	return New(append(routes, Route{Match: Match{Client: prefixes("10.1.0.0/16")}, Decision: to("rest")}))
}

func TestDecideDoesNotAllocate(t *testing.T) {
	table := many(t)
	for s, want := range map[string]string{"10.0.0.1 host9998.example": "host9998.example", "10.0.0.1 a.host9999.example": "*.host9999.example", "10.1.0.1 z.example h2": "rest", "10.0.0.1 z.example": "", "11.0.0.1 host0.example": "host0.example"} {
		f := from(s)
		if got := table.Decide(f).Route; got != want {
			t.Errorf("%s: %q", s, got)
		}
		if n := testing.AllocsPerRun(100, func() { table.Decide(f) }); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	table, f := many(b), from("10.0.0.1 a.host9999.example h2")
	b.ReportAllocs()
	for b.Loop() {
		table.Decide(f)
	}
}
