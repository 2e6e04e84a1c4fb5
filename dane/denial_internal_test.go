package dane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// neighboursOf are those of a zone, out of lines, as if their signatures held.
func neighboursOf(t testing.TB, zone string, lines ...string) *neighbours {
	t.Helper()
	left := maxHashes
	n := &neighbours{zone: zone, hashes: &left}
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		switch rr := rr.(type) {
		case *dns.NSEC:
			n.nsec = append(n.nsec, rr)
		case *dns.NSEC3:
			n.nsec3 = append(n.nsec3, rr)
		}
	}
	return n
}

// The rows that no server can be brought to say; the others are asked of bind and nsd.
func TestDenies(t *testing.T) {
	const (
		apex  = "z. NSEC a.z. NS SOA RRSIG NSEC DNSKEY"
		child = "c.z. NSEC e.z. NS DS RRSIG NSEC"
		other = "c.z. NSEC e.z. DNAME RRSIG NSEC"
		last  = "y.z. NSEC z. A RRSIG NSEC"
	)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  finding
		lines []string
	}{
		{"b.z.", dns.TypeA, noName, []string{"a.z. NSEC c.z. A", apex}},
		{"b.z.", dns.TypeA, unshown, []string{"a.z. NSEC c.z. A"}}, // there may be a wildcard
		{"b.z.", dns.TypeA, unshown, []string{apex}},
		{"zz.z.", dns.TypeA, noName, []string{last, apex}},
		{"b.z.", dns.TypeA, unshown, []string{last}},
		{"b.z.", dns.TypeA, noData, []string{"a.z. NSEC x.b.z. A"}},                      // an empty non-terminal
		{"b.z.", dns.TypeA, noData, []string{"a.z. NSEC c.z. A", "*.z. NSEC a.z. TXT"}},  // a wildcard without
		{"b.z.", dns.TypeA, unshown, []string{"a.z. NSEC c.z. A", "*.z. NSEC a.z. A"}},   // and with
		{"b.z.", dns.TypeDS, unshown, []string{"a.z. NSEC c.z. A", "*.z. NSEC a.z. NS"}}, // and that is a zone
		{"c.z.", dns.TypeA, unshown, []string{child}},                                    // the parent's half
		{"c.z.", dns.TypeDS, unshown, []string{child}},                                   // which is there
		{"c.z.", dns.TypeDS, unsigned, []string{"c.z. NSEC e.z. NS"}},
		{"c.z.", dns.TypeDS, unshown, []string{"c.z. NSEC e.z. NS SOA"}}, // the child's half
		{"c.z.", dns.TypeA, unshown, []string{"c.z. NSEC e.z. CNAME"}},
		{"d.c.z.", dns.TypeA, unshown, []string{child, apex}},
		{"d.c.z.", dns.TypeA, unshown, []string{other, apex}},
		{"c.z.", dns.TypeA, noData, []string{other}},
		{"d.z.", dns.TypeA, noName, []string{child, apex}},
		{`\200.z.`, dns.TypeA, noName, []string{"y.z. NSEC \\255.z. A", apex}}, // by octets, not as text
	} {
		got, err := neighboursOf(t, "z.", c.lines...).denies(c.name, c.qtype)
		if err != nil || got != c.want {
			t.Errorf("%s %d by %q: %d, %v; want %d", c.name, c.qtype, c.lines, got, err, c.want)
		}
	}
}

// nsec3 is a record of what is at a name, up to the hash of next; +1 and -1 are just beside it.
func nsec3(name string, iterations uint16, flags int, next, types string) string {
	from := dns.HashName(name, dns.SHA1, iterations, "")
	to := dns.HashName(next, dns.SHA1, iterations, "")
	return fmt.Sprintf("%s.z. NSEC3 1 %d %d - %s %s", strings.ToLower(from), flags, iterations, to, types)
}

// around is a record that denies a name and few others.
func around(name string, iterations uint16, flags int) string {
	h := []byte(dns.HashName(name, dns.SHA1, iterations, ""))
	step := func(by int) string {
		const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
		b := []byte(string(h))
		for i := len(b) - 1; i >= 0; i-- {
			at := strings.IndexByte(digits, b[i]) + by
			b[i] = digits[(at+32)%32]
			if at >= 0 && at < 32 {
				break
			}
		}
		return string(b)
	}
	return fmt.Sprintf("%s.z. NSEC3 1 %d %d - %s A", strings.ToLower(step(-1)), flags, iterations, step(1))
}

func TestDeniesByHash(t *testing.T) {
	const soa, optOut = "NS SOA RRSIG DNSKEY NSEC3PARAM", 1
	at := func(name, types string) string { return nsec3(name, 0, 0, name, types) }
	for what, c := range map[string]struct {
		qtype uint16
		want  finding
		lines []string
	}{
		"no name":                    {dns.TypeA, noName, []string{at("z.", soa), around("b.z.", 0, 0), around("*.z.", 0, 0)}},
		"no name, one record":        {dns.TypeA, noName, []string{nsec3("z.", 0, 0, "z.", soa)}},
		"no encloser":                {dns.TypeA, unshown, []string{around("b.z.", 0, 0), around("*.z.", 0, 0)}},
		"no wildcard":                {dns.TypeA, unshown, []string{around("z.", 0, 0), nsec3("z.", 0, 0, "b.z.", soa)}},
		"opt-out":                    {dns.TypeA, unsigned, []string{nsec3("z.", 0, optOut, "z.", soa)}},
		"opt-out, DS":                {dns.TypeDS, unsigned, []string{nsec3("z.", 0, optOut, "z.", soa)}},
		"a wildcard without":         {dns.TypeA, noData, []string{at("z.", soa), around("b.z.", 0, 0), at("*.z.", "TXT")}},
		"a wildcard with":            {dns.TypeA, unshown, []string{around("b.z.", 0, 0), at("*.z.", "A"), nsec3("z.", 0, 0, "b.z.", soa)}},
		"without":                    {dns.TypeA, noData, []string{at("b.z.", "TXT")}},
		"an empty one":               {dns.TypeA, noData, []string{at("b.z.", "")}},
		"with":                       {dns.TypeA, unshown, []string{at("b.z.", "A")}},
		"an alias":                   {dns.TypeA, unshown, []string{at("b.z.", "CNAME")}},
		"a zone below":               {dns.TypeA, unshown, []string{at("b.z.", "NS DS RRSIG")}},
		"a zone below, DS":           {dns.TypeDS, unsigned, []string{at("b.z.", "NS")}},
		"its own word, DS":           {dns.TypeDS, unshown, []string{at("b.z.", soa)}},
		"another kind of hash":       {dns.TypeA, unshown, []string{strings.Replace(at("b.z.", "TXT"), "NSEC3 1", "NSEC3 2", 1)}},
		"an unknown flag":            {dns.TypeA, unshown, []string{strings.Replace(at("b.z.", "TXT"), "NSEC3 1 0", "NSEC3 1 2", 1)}},
		"100 iterations":             {dns.TypeA, noData, []string{nsec3("b.z.", 100, 0, "b.z.", "TXT")}},
		"101 iterations":             {dns.TypeA, unsigned, []string{nsec3("b.z.", 101, 0, "b.z.", "A")}},
		"parameters that differ":     {dns.TypeA, unshown, []string{at("x.z.", "A"), nsec3("b.z.", 1, 0, "b.z.", "TXT")}},
		"an encloser that delegates": {dns.TypeA, unshown, []string{at("z.", "NS"), around("b.z.", 0, 0), around("*.z.", 0, 0)}},
		"an encloser elsewhere":      {dns.TypeA, unshown, []string{at("z.", "DNAME NS SOA"), around("b.z.", 0, 0), around("*.z.", 0, 0)}},
	} {
		// The single records of "at" deny everything but their own name.
		got, err := neighboursOf(t, "z.", c.lines...).denies("b.z.", c.qtype)
		if err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", what, got, err, c.want)
		}
	}
	long := strings.Repeat("a.", 120) + "z."
	n := neighboursOf(t, "z.", around("x.z.", 0, 0))
	for range 4 {
		if _, err := n.denies(long, dns.TypeA); err != nil {
			return
		}
	}
	t.Error("there is no bound on hashes")
}

func TestNothingCloser(t *testing.T) {
	for _, c := range []struct {
		name   string
		labels int // of what the wildcard is below
		want   finding
		lines  []string
	}{
		{"x.w.z.", 2, noName, []string{"*.w.z. NSEC y.w.z. A"}},
		{"x.w.z.", 2, unshown, []string{"*.w.z. NSEC a.w.z. A"}},
		{"x.w.z.", 2, unshown, []string{"*.w.z. NSEC a.x.w.z. A"}},   // an empty non-terminal
		{"b.x.w.z.", 2, unshown, []string{"*.w.z. NSEC c.x.w.z. A"}}, // which x.w.z. is
		{"b.x.w.z.", 2, noName, []string{"*.w.z. NSEC y.w.z. A"}},
		{"x.w.z.", 1, unshown, []string{"*.w.z. NSEC y.w.z. A"}},
		{"b.x.w.z.", 2, noName, []string{around("x.w.z.", 0, 0)}},
		{"b.x.w.z.", 2, unshown, []string{around("b.x.w.z.", 0, 0)}},
		{"b.x.w.z.", 2, unsigned, []string{around("x.w.z.", 0, 1)}},
		{"b.x.w.z.", 2, unsigned, []string{around("x.w.z.", 200, 0)}},
	} {
		got, err := neighboursOf(t, "z.", c.lines...).nothingCloser(c.name, c.labels)
		if err != nil || got != c.want {
			t.Errorf("%s, %d by %q: %d, %v; want %d", c.name, c.labels, c.lines, got, err, c.want)
		}
	}
}

// FuzzDenial has the records of a stranger deny names, as if they were signed.
func FuzzDenial(f *testing.F) {
	for _, lines := range [][]string{
		{"a.z. NSEC c.z. A", "z. NSEC a.z. NS SOA"},
		{"b.z. NSEC z. A", `\000\255.z. NSEC \..z. NS`},
		{nsec3("z.", 0, 0, "z.", "NS SOA"), around("b.z.", 0, 1), nsec3("b.z.", 65535, 0, "b.z.", "A")},
	} {
		m := new(dns.Msg)
		for _, l := range lines {
			rr, err := dns.NewRR(l)
			if err != nil {
				f.Fatal(err)
			}
			m.Ns = append(m.Ns, rr)
		}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, "b.z.", dns.TypeA)
		f.Add(wire, "x.y.b.z.", dns.TypeDS)
	}
	f.Fuzz(func(t *testing.T, wire []byte, name string, qtype uint16) {
		m := new(dns.Msg)
		if name = dns.CanonicalName(name); m.Unpack(wire) != nil || !dns.IsSubDomain("z.", name) {
			return
		}
		if _, ok := dns.IsDomainName(name); !ok || octets(name) == nil {
			return
		}
		left := maxHashes
		p := &proof{hashes: left}
		var zones []*neighbours
		for _, rr := range m.Ns {
			if dns.IsSubDomain("z.", dns.CanonicalName(rr.Header().Name)) {
				zones = p.add(zones, "z.", rrset{rrs: []dns.RR{rr}})
			}
		}
		for _, z := range zones {
			got, err := z.denies(name, qtype)
			if err != nil {
				return
			}
			for _, r := range z.nsec {
				if lower(r.Hdr.Name) == name && got == noName {
					t.Errorf("%q is there, and denied by %v", name, z.nsec)
				}
			}
			for labels := range dns.CountLabel(name) {
				z.nothingCloser(name, labels)
			}
		}
		if p.hashes < -dns.CountLabel(name)-1 {
			t.Errorf("%d hashes more than allowed", -p.hashes)
		}
	})
}
