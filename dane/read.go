package dane

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

const (
	maxAliases = 8   // CNAMEs in a row; resolvers stop at about as many
	maxSet     = 256 // records of one section of an answer
)

// For how long what was found is kept.
const (
	keepLeast   = 5 * time.Second // whatever the zone says: a handshake must not cost a look-up each
	keepMost    = time.Hour
	keepNothing = 15 * time.Minute // that there is none, at most (RFC 2308)
	keepFailure = 3 * time.Second
)

// rrset is a set of records with the signatures that came with it.
type rrset struct {
	name  string
	qtype uint16
	rrs   []dns.RR
	sigs  []*dns.RRSIG
}

// setOf picks a set out of a section. Of the owner's spelling nothing hangs, and
// copies are one record (RFC 2181, section 5).
func setOf(section []dns.RR, name string, qtype uint16) rrset {
	s := rrset{name: name, qtype: qtype}
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != name {
			continue
		}
		h.Name = name
		if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == qtype {
			s.sigs = append(s.sigs, sig)
		}
		if h.Rrtype == qtype && !slices.ContainsFunc(s.rrs, func(o dns.RR) bool { return dns.IsDuplicate(o, rr) }) {
			s.rrs = append(s.rrs, rr)
		}
	}
	return s
}

func (s rrset) ttl() time.Duration {
	least := s.rrs[0].Header().Ttl // they should all have one (RFC 2181, section 5.2)
	for _, rr := range s.rrs {
		least = min(least, rr.Header().Ttl)
	}
	return time.Duration(least) * time.Second
}

// whole is the TTL that the zone has, which signatures are over (RFC 4034, section
// 3.1.4); where several differ it is the longest, for who waits until it is over.
func (s rrset) whole() time.Duration {
	ttl := s.ttl()
	for _, sig := range s.sigs {
		ttl = max(ttl, time.Duration(sig.OrigTtl)*time.Second)
	}
	return ttl
}

// read follows the answer from the name asked for to the records. The sets are
// those it rests on, aliases first; there are none where there is no answer. keep is
// for how long all of it holds, within bounds.
func read(m *dns.Msg, q question) (a *Answer, sets []rrset, keep time.Duration, err error) {
	if err := bounded(m); err != nil {
		return nil, nil, 0, err
	}
	a = &Answer{Name: q.name, Exists: m.Rcode == dns.RcodeSuccess}
	keep = keepMost
	for {
		set := setOf(m.Answer, a.Name, q.qtype)
		if len(set.rrs) > 0 {
			a.TTL, a.Whole = set.ttl(), set.whole()
			a.fill(set.rrs)
			sets = append(sets, set)
			break
		}
		alias := setOf(m.Answer, a.Name, dns.TypeCNAME)
		if len(alias.rrs) == 0 || q.qtype == dns.TypeCNAME {
			a.TTL = absence(m)
			a.Whole = a.TTL
			break
		}
		if len(alias.rrs) > 1 {
			return nil, nil, 0, fmt.Errorf("%q is an alias of %d names at once", a.Name, len(alias.rrs))
		}
		keep = min(keep, alias.ttl())
		sets = append(sets, alias)
		a.Aliases = append(a.Aliases, a.Name)
		a.Name = dns.CanonicalName(alias.rrs[0].(*dns.CNAME).Target)
		if slices.Contains(a.Aliases, a.Name) {
			return nil, nil, 0, fmt.Errorf("the aliases go round in a circle: %q", a.Aliases)
		}
		if len(a.Aliases) > maxAliases {
			return nil, nil, 0, fmt.Errorf("there are more than %d aliases in a row: %q", maxAliases, a.Aliases)
		}
	}
	return a, sets, max(min(keep, a.TTL), keepLeast), nil
}

func bounded(m *dns.Msg) error {
	if n := max(len(m.Answer), len(m.Ns)); n > maxSet {
		return fmt.Errorf("the answer has %d records; at most %d are looked at", n, maxSet)
	}
	return nil
}

// absence is for how long there being nothing holds.
func absence(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second, keepNothing)
		}
	}
	return keepLeast
}

func (a *Answer) fill(rrs []dns.RR) {
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.A:
			if ip, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				a.Addrs = append(a.Addrs, ip)
			}
		case *dns.AAAA:
			if ip, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok {
				a.Addrs = append(a.Addrs, ip)
			}
		case *dns.SRV:
			a.SRV = append(a.SRV, SRV{rr.Priority, rr.Weight, rr.Port, dns.CanonicalName(rr.Target)})
		case *dns.TLSA:
			data, err := hex.DecodeString(rr.Certificate)
			if err != nil { // the library wrote these digits itself
				data = nil
			}
			a.TLSA = append(a.TLSA, Record{Usage(rr.Usage), Selector(rr.Selector), Matching(rr.MatchingType), data})
		}
	}
}
