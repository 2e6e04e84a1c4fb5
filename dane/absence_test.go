package dane_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dane"
	"sallyport/internal/testdns"
)

// many is what a zone can have and not have.
const many = svc + `alias CNAME svc
toward CNAME nowhere
round.wild CNAME *.wild
*.wild TLSA 3 1 1 ` + digest + `
deep.below.wild A 127.0.0.1
*.turns CNAME svc
dn DNAME tree
leaf.tree A 127.0.0.1
_443._tcp.tree TLSA 3 1 1 ` + digest + `
a.b.c.d.empty A 127.0.0.1
`

// Proofs of what is there and what is not come out as unbound's word does, with
// unbound's help and with that of bind, which validates nothing.
func TestAbsenceAsUnbound(t *testing.T) {
	sub := "x A 127.0.0.1\n_443._tcp.x TLSA 3 1 1 " + digest
	records := testdns.Records{
		"example.test": many + sub, "nsec3.test": many, "optout.test": many, "nsd.test": many, "insecure.test": many,
		"sub.example.test": sub, "sub.nsec3.test": sub, "sub.optout.test": sub, "bogus.test": svc, "expired.test": svc,
	}
	d := testdns.Start(t, records)
	anchors := anchorsOf(t, d)
	unbound := []dane.Server{{Addr: d.Resolver}}
	word := resolver(t, dane.Options{Servers: unbound})
	proof := resolver(t, dane.Options{Servers: unbound, Anchors: anchors})
	alone := resolver(t, dane.Options{Servers: []dane.Server{{Addr: d.Server}}, Anchors: anchors})
	seen := map[string]int{}
	for zone := range records {
		for _, host := range []string{
			"", "svc.", "_tcp.svc.", "_443._tcp.svc.", "none.", "a.b.c.none.", "alias.", "toward.", "x.alias.",
			"x.wild.", "y.x.wild.", "wild.", "*.wild.", "below.wild.", "x.below.wild.", "round.wild.", "_443._tcp.wild.",
			"x.turns.", "leaf.dn.", "none.dn.", "dn.", "_443._tcp.dn.", "empty.", "b.c.d.empty.", "z.c.d.empty.", "zzz.",
			"sub.", "x.sub.", "_443._tcp.x.sub.", "none.sub.", "sub2.", "x.sub2.",
		} {
			for _, typ := range []dane.Type{dane.A, dane.TLSA, dane.CNAME} {
				if strings.Contains(host, ".dn.") && typ == dane.CNAME {
					continue // unbound calls an alias out of a DNAME bogus when asked for just that
				}
				name := host + zone
				want := verdict(t, word, name, typ)
				seen[want]++
				if got := verdict(t, proof, name, typ); got != want {
					t.Errorf("%s %d: by proof %s, unbound says %s", name, typ, got, want)
				}
				if zone == "nsd.test" { // which bind has not
					continue
				}
				if got := verdict(t, alone, name, typ); got != want {
					t.Errorf("%s %d: by proof through bind %s, unbound says %s", name, typ, got, want)
				}
			}
		}
	}
	for _, want := range []string{"secure", "secure, absent", "secure, no name", "insecure", "insecure, absent", "bogus"} {
		if seen[want] == 0 {
			t.Errorf("no row is %s: %v", want, seen)
		}
	}
}

func verdict(t *testing.T, r *dane.Resolver, name string, typ dane.Type) string {
	a, err := r.Lookup(t.Context(), name, typ)
	if e, ok := errors.AsType[*dane.Error](err); ok {
		return e.State.String()
	}
	switch {
	case err != nil:
		return err.Error()
	case len(a.Addrs)+len(a.TLSA) > 0, typ == dane.CNAME && len(a.Aliases) > 0:
		return a.State.String()
	case a.Exists:
		return fmt.Sprintf("%s, absent", a.State)
	}
	return fmt.Sprintf("%s, no name", a.State)
}

// Who sits before the resolver, and has seen all that zones say, can have a look-up
// fail. He cannot have records be gone, nor others be there.
func TestForgedAbsence(t *testing.T) {
	const has = svc + `*.wild TLSA 3 1 1 ` + digest + `
real.wild A 127.0.0.1
other.wild A 127.0.0.1
`
	d := testdns.Start(t, testdns.Records{"example.test": has, "nsec3.test": has, "optout.test": has, "insecure.test": svc, "sub.example.test": svc, "expired.test": svc})
	anchors := anchorsOf(t, d)
	true1 := func(name string, qtype uint16) *dns.Msg {
		q := new(dns.Msg).SetQuestion(name, qtype)
		q.SetEdns0(1232, true)
		c := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
		m, _, err := c.Exchange(q, d.Server)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return new(dns.Msg)
		}
		return m
	}
	instead := func(name string, qtype uint16, with func() *dns.Msg) func(*dns.Msg) *dns.Msg {
		return func(q *dns.Msg) *dns.Msg {
			if dns.CanonicalName(q.Question[0].Name) == name && q.Question[0].Qtype == qtype {
				return with()
			}
			return nil
		}
	}
	replay := func(name string, qtype uint16) func() *dns.Msg {
		return func() *dns.Msg { return true1(name, qtype) }
	}
	nothing := func() *dns.Msg { return new(dns.Msg) }
	for _, zone := range []string{"example.test.", "nsec3.test.", "optout.test."} {
		real, tlsa := "_443._tcp.svc."+zone, dns.TypeTLSA
		absent := "svc." + zone
		for what, c := range map[string]struct {
			name string
			bend func(q *dns.Msg) *dns.Msg
		}{
			"nothing at all":       {real, instead(real, tlsa, nothing)},
			"another range":        {real, instead(real, tlsa, replay("zzz."+zone, tlsa))},
			"what is above it":     {real, instead(real, tlsa, replay("_tcp.svc."+zone, tlsa))},
			"what is beside it":    {real, instead(real, tlsa, replay("svc."+zone, tlsa))},
			"the zone's own":       {real, instead(real, tlsa, replay(zone, tlsa))},
			"another type":         {real, instead(real, tlsa, replay(real, dns.TypeSRV))},
			"a zone that is above": {real, instead(real, tlsa, replay("nowhere.test.", tlsa))},
			"a zone beside it":     {real, instead(real, tlsa, replay("_443._tcp.nowhere.insecure.test.", tlsa))},
			"an expired zone":      {real, instead(real, tlsa, replay("_443._tcp.nowhere.expired.test.", tlsa))},
			"no denial":            {absent, instead(absent, tlsa, nothing)},
			"a denial unsigned": {absent, instead(absent, tlsa, func() *dns.Msg {
				m := true1(absent, tlsa)
				m.Ns = slices.DeleteFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
				return m
			})},
			"a denial expired": {absent, instead(absent, tlsa, func() *dns.Msg {
				m := true1(absent, tlsa)
				for _, rr := range m.Ns {
					if s, ok := rr.(*dns.RRSIG); ok {
						s.Expiration = uint32(time.Now().Add(-time.Minute).Unix())
					}
				}
				return m
			})},
			"a denial stretched": {absent, instead(absent, tlsa, func() *dns.Msg {
				m := true1(real, dns.TypeSRV)
				for _, rr := range m.Ns {
					switch rr := rr.(type) {
					case *dns.NSEC:
						rr.Hdr.Name = "a." + zone
					case *dns.NSEC3:
						rr.NextDomain = strings.Repeat("V", 32)
					}
				}
				return m
			})},
			"records unsigned, and no DS": {real, func(q *dns.Msg) *dns.Msg {
				switch q.Question[0].Qtype {
				case dns.TypeDS, dns.TypeDNSKEY:
					return new(dns.Msg)
				}
				m := true1(q.Question[0].Name, q.Question[0].Qtype)
				m.Answer = slices.DeleteFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
				return m
			}},
			"no DS, as of an unsigned zone": {real, func(q *dns.Msg) *dns.Msg {
				switch {
				case q.Question[0].Qtype == dns.TypeDS && dns.CanonicalName(q.Question[0].Name) == zone:
					return true1("insecure.test.", dns.TypeDS)
				case q.Question[0].Qtype == tlsa:
					return new(dns.Msg)
				}
				return nil
			}},
			"no DS, by the zone itself": {real, func(q *dns.Msg) *dns.Msg {
				switch {
				case q.Question[0].Qtype == dns.TypeDS && dns.CanonicalName(q.Question[0].Name) == zone:
					return true1(zone, dns.TypeSRV)
				case q.Question[0].Qtype == tlsa:
					return new(dns.Msg)
				}
				return nil
			}},
			"a wildcard's for a name that is there": {"real.wild." + zone, instead("real.wild."+zone, tlsa, func() *dns.Msg {
				m := true1("x.wild."+zone, tlsa)
				for _, rr := range m.Answer {
					rr.Header().Name = "real.wild." + zone
				}
				return m
			})},
			"a wildcard's without its proof": {"x.wild." + zone, instead("x.wild."+zone, tlsa, func() *dns.Msg {
				m := true1("x.wild."+zone, tlsa)
				m.Ns = nil
				return m
			})},
		} {
			r := resolver(t, dane.Options{
				Servers: []dane.Server{{Addr: "192.0.2.1:53", TCP: true}}, Anchors: anchors,
				Dial: pipeDial(t, func(q *dns.Msg) *dns.Msg {
					m := c.bend(q)
					if m == nil {
						m = true1(q.Question[0].Name, q.Question[0].Qtype)
					}
					m.Id, m.Question, m.Response, m.RecursionAvailable, m.Truncated = q.Id, q.Question, true, true, false
					return m
				}),
			})
			a, err := r.Lookup(t.Context(), c.name, dane.TLSA)
			if e, ok := errors.AsType[*dane.Error](err); !ok || e.State != dane.Bogus {
				t.Errorf("%s, %s: %+v, %v", zone, what, a, err)
			}
		}
	}
}
