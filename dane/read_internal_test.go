package dane

import (
	"testing"

	"github.com/miekg/dns"
)

// FuzzAnswer gives the bytes of a resolver to all that reads them.
func FuzzAnswer(f *testing.F) {
	for _, lines := range [][]string{
		{"h.test. 60 IN A 192.0.2.1"},
		{"h.test. 60 IN CNAME i.test.", "i.test. 60 IN TLSA 3 1 1 00ff", "i.test. 60 IN RRSIG TLSA 13 2 60 20300101000000 20200101000000 1 test. AAAA"},
		{"h.test. 60 IN SRV 1 2 3 i.test."},
	} {
		m := new(dns.Msg)
		m.SetQuestion("h.test.", dns.TypeTLSA)
		m.Id, m.Response = 0x1234, true
		for _, l := range lines {
			rr, err := dns.NewRR(l)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, dns.TypeTLSA)
	}
	f.Fuzz(func(t *testing.T, wire []byte, qtype uint16) {
		query := new(dns.Msg)
		query.SetQuestion("h.test.", qtype)
		query.Id = 0x1234
		m, err := parse(wire, query)
		if err != nil {
			return
		}
		if m.Rcode != dns.RcodeSuccess {
			_ = refused(m).Error()
		}
		a, sets, keep, err := read(m, question{"h.test.", qtype})
		if err != nil {
			return
		}
		if len(a.Aliases) > maxAliases || len(sets) > maxAliases+1 || keep < keepLeast || keep > keepMost {
			t.Errorf("%+v, %d sets", a, len(sets))
		}
		for _, s := range sets {
			if len(s.rrs) == 0 {
				t.Errorf("an empty set of %s", s)
			}
		}
	})
}
