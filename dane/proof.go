package dane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A proof goes from the records up: a signature over them, the key it was made with,
// the DS record of that key's zone, its signature, and so on to a trust anchor (RFC
// 4035, section 5). Of what is not there the proof is the same, over records of its
// neighbours (denial.go). What has no proof is bogus, unless its zone is proved to have
// no signatures (descent.go).

// Bounds on what one look-up can have us do (CVE-2023-50387).
const (
	maxQueries    = 48 // two a zone, and one a label
	maxSignatures = 64 // verified
	maxSigs       = 8  // looked at for one set
	maxKeys       = 24 // of one zone
	maxSameTag    = 4  // of these, tried for one signature
	maxZones      = 512
)

// proof is the work for one look-up.
type proof struct {
	*Resolver
	queries, signatures int
	hashes              int // that may still be made
	cuts                map[string]cutFound
	until               time.Time // for how long what was proved holds
}

// prove says whether an answer that rests on sets is proved, or shown to be in a zone
// without signatures; where they end in nothing, that there is nothing.
func (r *Resolver) prove(ctx context.Context, a *Answer, q question, sets []rrset, m *dns.Msg) (State, time.Time, error) {
	p := &proof{Resolver: r, hashes: maxHashes, cuts: make(map[string]cutFound), until: r.o.Now().Add(keepMost)}
	state := Secure
	for _, s := range sets {
		if err := p.set(ctx, s, m); isUnproven(err) {
			state = Insecure
		} else if err != nil {
			return Failed, p.until, err
		}
	}
	if len(sets) == len(a.Aliases) {
		f, err := p.absent(ctx, a.Name, q.qtype, m)
		switch {
		case isUnproven(err):
			state = Insecure
		case err != nil:
			return Failed, p.until, err
		default:
			a.Exists = f == noData
		}
	}
	return state, p.until, nil
}

// errUnproven is wrapped where there can be no proof, which is itself proved: the zone
// is not signed.
var errUnproven = errors.New("it cannot be proved")

func unproven(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errUnproven)...)
}

func isUnproven(err error) bool { return errors.Is(err, errUnproven) && !isBogus(err) }

// set proves one set of records; m is what it came in.
func (p *proof) set(ctx context.Context, s rrset, m *dns.Msg) error {
	sig, err := p.signed(ctx, s)
	switch {
	case err == nil && int(sig.Labels) < s.labels():
		return p.nothingCloser(ctx, s, sig, m)
	case err == nil || !isBogus(err) && !isUnproven(err):
		return err
	}
	if s.qtype == dns.TypeCNAME {
		if d, ok := synthesized(s, m); ok {
			return p.set(ctx, d, m)
		}
	}
	return p.unlessInsecure(ctx, s.name, s.qtype, err)
}

// signed gives the signature that proves a set, if it is no wildcard's.
func (p *proof) signed(ctx context.Context, s rrset) (*dns.RRSIG, error) {
	err := bogusf("%s has no signature", s)
	for _, sig := range s.sigs[:min(len(s.sigs), maxSigs)] {
		e := p.signature(ctx, s, sig)
		switch {
		case e == nil:
			return sig, nil
		case !isBogus(e) && !isUnproven(e):
			return nil, e
		}
		err = e
	}
	return nil, err
}

func isBogus(err error) bool {
	_, is := errors.AsType[bogus](err)
	return is
}

// labels counts those that a signature over a set counts (RFC 4034, section 3.1.3).
func (s rrset) labels() int {
	return dns.CountLabel(strings.TrimPrefix(s.name, "*."))
}

func (s rrset) String() string {
	return fmt.Sprintf("%q %s", strings.TrimSuffix(s.name, "."), dns.TypeToString[s.qtype])
}

// signature proves a set by one signature and its zone's keys.
func (p *proof) signature(ctx context.Context, s rrset, sig *dns.RRSIG) error {
	signer := dns.CanonicalName(sig.SignerName)
	switch {
	// Ancestor or self: "example." has not signed for "badexample.".
	case !dns.IsSubDomain(signer, s.name):
		return bogusf("%s is signed by %q, which it is not in", s, signer)
	// A zone does not vouch for its own keys.
	case s.qtype == dns.TypeDS && signer == s.name:
		return bogusf("%s is signed by the zone itself", s)
	}
	if err := p.holds(s, sig); err != nil {
		return err
	}
	keys, err := p.zone(ctx, signer)
	if err != nil {
		return err
	}
	return p.verify(s, sig, keys)
}

// holds is what a signature must be before its bytes matter (RFC 4035, section 5.3.1).
func (p *proof) holds(s rrset, sig *dns.RRSIG) error {
	now := uint32(p.o.Now().Unix()) // serial numbers (RFC 1982), good for 68 years either way
	switch labels := s.labels(); {
	case int(sig.Labels) < labels && ofItself(s.qtype):
		return bogusf("%s comes from a wildcard, which it cannot", s)
	case int(sig.Labels) > labels:
		return bogusf("the signature of %s is for a longer name", s)
	case int32(sig.Expiration-now) < 0:
		return bogusf("the signature of %s by %q expired at %s", s, sig.SignerName, dns.TimeToString(sig.Expiration))
	case int32(now-sig.Inception) < 0:
		return bogusf("the signature of %s by %q is not valid before %s; is the clock right?", s, sig.SignerName, dns.TimeToString(sig.Inception))
	case !supported(sig.Algorithm):
		return bogusf("%s is signed by algorithm %d, which is not taken", s, sig.Algorithm)
	}
	return nil
}

// ofItself says of a type that its records speak of one name, never of all that a
// wildcard stands for.
func ofItself(qtype uint16) bool {
	switch qtype {
	case dns.TypeDS, dns.TypeDNSKEY, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeDNAME:
		return true
	}
	return false
}

// supported leaves out SHA-1 and what came before it (RFC 9905), and what nobody uses.
func supported(algorithm uint8) bool {
	switch algorithm {
	case dns.RSASHA256, dns.RSASHA512, dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519:
		return true
	}
	return false
}

func (p *proof) verify(s rrset, sig *dns.RRSIG, keys []*dns.DNSKEY) error {
	tried := 0
	for _, k := range keys {
		if k.Algorithm != sig.Algorithm || k.KeyTag() != sig.KeyTag {
			continue
		}
		if tried++; tried > maxSameTag {
			break
		}
		if p.signatures++; p.signatures > maxSignatures {
			return fmt.Errorf("more than %d signatures would have to be verified", maxSignatures)
		}
		if sig.Verify(k, s.rrs) == nil {
			now := p.o.Now()
			valid := now.Add(time.Duration(int32(sig.Expiration-uint32(now.Unix()))) * time.Second)
			p.holdsUntil(valid)
			p.holdsUntil(now.Add(time.Duration(sig.OrigTtl) * time.Second))
			return nil
		}
	}
	return bogusf("no key of %q verifies the signature of %s", sig.SignerName, s)
}

func (p *proof) holdsUntil(end time.Time) {
	if end.Before(p.until) {
		p.until = end
	}
}

// zone gives the keys of a zone, proved.
func (p *proof) zone(ctx context.Context, name string) ([]*dns.DNSKEY, error) {
	if z, ok := p.keys.get(name, p.o.Now()); ok {
		p.holdsUntil(z.until)
		return z.keys, nil
	}
	ds, known := p.o.Anchors.ds[name], p.o.Anchors.keys[name]
	if len(ds) == 0 && len(known) == 0 {
		c, err := p.delegation(ctx, name)
		switch {
		case err != nil:
			return nil, err
		case len(c.ds) == 0:
			return nil, bogusf("%q has signed, and is no zone", name)
		}
		ds = c.ds
	}
	m, err := p.fetch(ctx, name, dns.TypeDNSKEY)
	if err != nil {
		return nil, err
	}
	s := setOf(m.Answer, name, dns.TypeDNSKEY)
	var all, entry []*dns.DNSKEY
	for _, rr := range s.rrs[:min(len(s.rrs), maxKeys)] {
		k := rr.(*dns.DNSKEY)
		if k.Flags&dns.ZONE == 0 || k.Flags&dns.REVOKE != 0 || k.Protocol != 3 || !supported(k.Algorithm) {
			continue
		}
		all = append(all, k)
		if vouched(k, ds, known) {
			entry = append(entry, k)
		}
	}
	for _, sig := range s.sigs[:min(len(s.sigs), maxSigs)] {
		if dns.CanonicalName(sig.SignerName) != name || p.holds(s, sig) != nil {
			continue
		}
		if err := p.verify(s, sig, entry); err == nil {
			now := p.o.Now()
			p.keys.keep(name, all, holds{now, now.Add(min(max(s.ttl(), keepLeast), p.until.Sub(now)))})
			return all, nil
		} else if !isBogus(err) {
			return nil, err
		}
	}
	return nil, bogusf("the keys of the zone %q are not signed by one that its parent or the trust anchor names", name)
}

// vouched says whether a key is one of those a DS record or a trust anchor names.
func vouched(k *dns.DNSKEY, ds []*dns.DS, known []*dns.DNSKEY) bool {
	for _, d := range ds {
		if d.Algorithm != k.Algorithm || d.KeyTag != k.KeyTag() {
			continue
		}
		if own := k.ToDS(d.DigestType); own != nil && strings.EqualFold(own.Digest, d.Digest) {
			return true
		}
	}
	return slices.ContainsFunc(known, func(o *dns.DNSKEY) bool {
		return o.Algorithm == k.Algorithm && o.PublicKey == k.PublicKey
	})
}

func (p *proof) fetch(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	if p.queries++; p.queries > maxQueries {
		return nil, fmt.Errorf("more than %d questions would have to be asked", maxQueries)
	}
	q := question{name, qtype}
	reply, err := p.ask(ctx, q)
	if err == nil {
		err = bounded(reply.msg)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", q.show(), q.typeName(), err)
	}
	return reply.msg, nil
}
