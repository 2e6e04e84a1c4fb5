package dane

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// What has no signature that holds is right only where its zone has none to give: on
// the way down to it from a trust anchor a parent shows, signed, that there is no DS
// record (RFC 4035, section 5.2). All else is bogus.

// maxNeighbours bounds the NSEC and NSEC3 records of one message that are looked at: a
// denial takes three, and so does each alias on the way that is a wildcard's.
const maxNeighbours = 16

// cut is what a parent says of a zone that could begin at a name.
type cut struct {
	ds      []*dns.DS // none: no zone begins there
	nothing bool      // nor is there any name below it
}

type cutFound struct {
	cut
	err error
}

// unlessInsecure gives errUnproven where name's zone is shown to be unsigned, else why,
// as bogus.
func (p *proof) unlessInsecure(ctx context.Context, name string, qtype uint16, why error) error {
	if err := p.descend(ctx, name, qtype); err != nil && !isBogus(err) {
		return err
	}
	return bogus{why}
}

// descend goes down from the closest trust anchor to the zone that records of that
// type at name are in. It fails with errUnproven where that is not signed.
func (p *proof) descend(ctx context.Context, name string, qtype uint16) error {
	top, ok := p.o.Anchors.closest(name, qtype)
	if !ok {
		return unproven("no trust anchor is above %q", name)
	}
	last := dns.CountLabel(name)
	if qtype == dns.TypeDS {
		last-- // which is the parent's
	}
	for n := dns.CountLabel(top) + 1; n <= last; n++ {
		c, err := p.delegation(ctx, suffix(name, n))
		if err != nil || c.nothing {
			return err
		}
	}
	return nil
}

// delegation finds whether a zone begins at name, proved, by its DS records without
// those not to be used.
func (p *proof) delegation(ctx context.Context, name string) (cut, error) {
	if c, ok := p.cuts[name]; ok {
		return c.cut, c.err
	}
	// Until it is known, who would vouch for himself is refused.
	p.cuts[name] = cutFound{err: bogusf("nobody but the zone %q itself vouches for it", name)}
	c, err := p.askDelegation(ctx, name)
	p.cuts[name] = cutFound{c, err}
	return c, err
}

func (p *proof) askDelegation(ctx context.Context, name string) (cut, error) {
	if _, ok := p.o.Anchors.closest(name, dns.TypeDS); !ok {
		return cut{}, unproven("no trust anchor is above %q", name)
	}
	m, err := p.fetch(ctx, name, dns.TypeDS)
	if err != nil {
		return cut{}, err
	}
	if s := setOf(m.Answer, name, dns.TypeDS); len(s.rrs) > 0 {
		if err := p.set(ctx, s, m); err != nil {
			return cut{}, err
		}
		ds, err := usable(s)
		return cut{ds: ds}, err
	}
	if alias := setOf(m.Answer, name, dns.TypeCNAME); len(alias.rrs) > 0 { // which has nothing beside it
		return cut{}, p.set(ctx, alias, m)
	}
	f, err := p.absent(ctx, name, dns.TypeDS, m)
	return cut{nothing: f == noName}, err
}

// usable are the DS records whose digest and algorithm are known and strong. A zone
// without any is as good as unsigned (RFC 4035, section 5.2; RFC 6840, section 5.2).
func usable(s rrset) ([]*dns.DS, error) {
	var ds []*dns.DS
	for _, rr := range s.rrs[:min(len(s.rrs), maxKeys)] {
		if d := rr.(*dns.DS); strongDigest(d.DigestType) && supported(d.Algorithm) {
			ds = append(ds, d)
		}
	}
	if len(ds) == 0 {
		return nil, unproven("the DS records of %q are of kinds that are not taken (SHA-1)", s.name)
	}
	return ds, nil
}

func strongDigest(kind uint8) bool { return kind == dns.SHA256 || kind == dns.SHA384 }

// absent proves that name has no records of a type: noData or noName. It fails with
// errUnproven where that cannot be told, since the zone, or that part of it, is not signed.
func (p *proof) absent(ctx context.Context, name string, qtype uint16, m *dns.Msg) (finding, error) {
	zones, why, err := p.neighbours(ctx, name, qtype, m.Ns)
	if err != nil {
		return unshown, err
	}
	for _, z := range zones {
		switch f, err := z.denies(name, qtype); {
		case err != nil:
			return unshown, err
		case f == unsigned:
			return f, unproven("what is at %q has no DS record", name)
		case f != unshown:
			return f, nil
		}
	}
	if why == nil {
		why = fmt.Errorf("nothing proves that %q has no %s record; does the resolver pass on what DNSSEC has?", strings.TrimSuffix(name, "."), dns.TypeToString[qtype])
	}
	return unshown, p.unlessInsecure(ctx, name, qtype, why)
}

// nothingCloser proves that a wildcard stands for s, by which sig covers it.
func (p *proof) nothingCloser(ctx context.Context, s rrset, sig *dns.RRSIG, m *dns.Msg) error {
	zones, why, err := p.neighbours(ctx, s.name, s.qtype, m.Ns)
	if err != nil {
		return err
	}
	for _, z := range zones {
		if z.zone != dns.CanonicalName(sig.SignerName) {
			continue
		}
		switch f, err := z.nothingCloser(s.name, int(sig.Labels)); {
		case err != nil:
			return err
		case f == unsigned:
			return unproven("there may be an unsigned zone in place of %s, which comes from a wildcard", s)
		case f == noName:
			return nil
		}
	}
	if why == nil {
		why = fmt.Errorf("%s comes from a wildcard, and nothing proves that there is no name closer to it", s)
	}
	return bogus{why}
}

// neighbours picks out of a section what can speak of name, and proves it. What does
// not hold is left out, and why says of one what was wrong.
func (p *proof) neighbours(ctx context.Context, name string, qtype uint16, section []dns.RR) (zones []*neighbours, why, err error) {
	seen := make(map[question]bool)
	for _, rr := range section {
		kind := rr.Header().Rrtype
		q := question{dns.CanonicalName(rr.Header().Name), kind}
		if kind != dns.TypeNSEC && kind != dns.TypeNSEC3 || seen[q] || len(seen) >= maxNeighbours {
			continue
		}
		seen[q] = true
		s := setOf(section, q.name, kind)
		s.sigs = slices.DeleteFunc(s.sigs, func(sig *dns.RRSIG) bool {
			zone := dns.CanonicalName(sig.SignerName)
			return !dns.IsSubDomain(zone, name) || qtype == dns.TypeDS && zone == name ||
				kind == dns.TypeNSEC3 && suffix(q.name, dns.CountLabel(q.name)-1) != zone
		})
		if len(s.sigs) == 0 {
			continue
		}
		sig, e := p.signed(ctx, s)
		switch {
		case e == nil:
			zones = p.add(zones, dns.CanonicalName(sig.SignerName), s)
		case isBogus(e):
			why = e
		case !isUnproven(e):
			return nil, nil, e
		}
	}
	return zones, why, nil
}

func (p *proof) add(zones []*neighbours, zone string, s rrset) []*neighbours {
	i := slices.IndexFunc(zones, func(n *neighbours) bool { return n.zone == zone })
	if i < 0 {
		i = len(zones)
		zones = append(zones, &neighbours{zone: zone, hashes: &p.hashes})
	}
	for _, rr := range s.rrs {
		switch rr := rr.(type) {
		case *dns.NSEC:
			zones[i].nsec = append(zones[i].nsec, rr)
		case *dns.NSEC3:
			zones[i].nsec3 = append(zones[i].nsec3, rr)
		}
	}
	return zones
}

// synthesized is the DNAME that an alias without signatures follows from (RFC 6672,
// section 5.3.1).
func synthesized(alias rrset, m *dns.Msg) (rrset, bool) {
	for _, rr := range m.Answer {
		d, ok := rr.(*dns.DNAME)
		if !ok {
			continue
		}
		from := dns.CanonicalName(d.Hdr.Name)
		if !below(alias.name, from) {
			continue
		}
		target := strings.TrimSuffix(alias.name, from) + strings.TrimPrefix(dns.CanonicalName(d.Target), ".")
		if s := setOf(m.Answer, from, dns.TypeDNAME); len(s.rrs) == 1 && len(alias.rrs) == 1 &&
			dns.CanonicalName(alias.rrs[0].(*dns.CNAME).Target) == target {
			return s, true
		}
	}
	return rrset{}, false
}
