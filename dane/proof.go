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
// 4035, section 5). It shows that records are there; that there are none, or that a
// zone is not signed, it cannot show: what has no proof is no better than insecure.

// Bounds on what one answer can have us do (CVE-2023-50387).
const (
	maxQueries    = 48 // two a zone
	maxSignatures = 64 // verified
	maxSigs       = 8  // looked at for one set
	maxKeys       = 24 // of one zone
	maxZones      = 512
)

// proof is the work for one answer.
type proof struct {
	*Resolver
	queries, signatures int
	until               time.Time // for how long what was proved holds
}

// prove gives Secure where all of sets are proved. said is the word of a resolver
// whose word counts: what it calls secure and cannot be proved is refused.
func (r *Resolver) prove(ctx context.Context, sets []rrset, said bool) (State, time.Time, error) {
	p := &proof{Resolver: r, until: r.o.Now().Add(keepMost)}
	var unproven error
	for _, s := range sets {
		err := p.set(ctx, s)
		switch {
		case err == nil:
		case errors.Is(err, errUnproven):
			unproven = err
		default:
			return Failed, p.until, err
		}
	}
	switch {
	case unproven == nil:
		return Secure, p.until, nil
	case said:
		return Failed, p.until, fmt.Errorf("the resolver calls the answer secure, but %w", unproven)
	}
	return Insecure, p.until, nil
}

// errUnproven is wrapped where a proof is not complete, but nothing contradicts it.
var errUnproven = errors.New("it cannot be proved")

func unproven(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errUnproven)...)
}

// set proves one set of records.
func (p *proof) set(ctx context.Context, s rrset) error {
	err := unproven("%s has no signature", s)
	for _, sig := range s.sigs[:min(len(s.sigs), maxSigs)] {
		e := p.signature(ctx, s, sig)
		if e == nil {
			return nil
		}
		_, wrong := errors.AsType[bogus](e)
		if !wrong && !errors.Is(e, errUnproven) {
			return e
		}
		if wrong || !isBogus(err) {
			err = e
		}
	}
	return err
}

func isBogus(err error) bool {
	_, is := errors.AsType[bogus](err)
	return is
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
	switch labels := dns.CountLabel(s.name); {
	case int(sig.Labels) < labels:
		// Good only with a proof that the name itself is not there.
		return unproven("%s comes from a wildcard", s)
	case int(sig.Labels) > labels:
		return bogusf("the signature of %s is for a longer name", s)
	case int32(sig.Expiration-now) < 0:
		return bogusf("the signature of %s by %q expired at %s", s, sig.SignerName, dns.TimeToString(sig.Expiration))
	case int32(now-sig.Inception) < 0:
		return bogusf("the signature of %s by %q is not valid before %s; is the clock right?", s, sig.SignerName, dns.TimeToString(sig.Inception))
	case !supported(sig.Algorithm):
		return unproven("%s is signed by algorithm %d, which is not taken", s, sig.Algorithm)
	}
	return nil
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
	for _, k := range keys {
		if k.Algorithm != sig.Algorithm || k.KeyTag() != sig.KeyTag {
			continue
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
		var err error
		if ds, err = p.delegation(ctx, name); err != nil {
			return nil, err
		}
	}
	s, err := p.fetch(ctx, name, dns.TypeDNSKEY)
	if err != nil {
		return nil, err
	}
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
			p.keys.keep(name, all, p.o.Now().Add(min(max(s.ttl(), keepLeast), p.until.Sub(p.o.Now()))))
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

// delegation gives the DS records of a zone, proved, without those not to be used.
func (p *proof) delegation(ctx context.Context, name string) ([]*dns.DS, error) {
	if !p.o.Anchors.enclose(name) {
		return nil, unproven("no trust anchor is above %q", name)
	}
	s, err := p.fetch(ctx, name, dns.TypeDS)
	if err != nil {
		return nil, err
	}
	if len(s.rrs) == 0 {
		return nil, unproven("the zone %q has no DS record", name)
	}
	if err := p.set(ctx, s); err != nil {
		return nil, err
	}
	var ds []*dns.DS
	for _, rr := range s.rrs[:min(len(s.rrs), maxKeys)] {
		if d := rr.(*dns.DS); strongDigest(d.DigestType) && supported(d.Algorithm) {
			ds = append(ds, d)
		}
	}
	if len(ds) == 0 {
		return nil, unproven("the DS records of %q are of kinds that are not taken (SHA-1)", name)
	}
	return ds, nil
}

func strongDigest(kind uint8) bool { return kind == dns.SHA256 || kind == dns.SHA384 }

func (p *proof) fetch(ctx context.Context, name string, qtype uint16) (rrset, error) {
	if p.queries++; p.queries > maxQueries {
		return rrset{}, fmt.Errorf("more than %d questions would have to be asked", maxQueries)
	}
	q := question{name, qtype}
	reply, err := p.ask(ctx, q)
	if err != nil {
		return rrset{}, fmt.Errorf("%s %s: %w", q.show(), q.typeName(), err)
	}
	if len(reply.msg.Answer) > maxSet {
		return rrset{}, fmt.Errorf("%s %s: the answer has %d records; at most %d are looked at", q.show(), q.typeName(), len(reply.msg.Answer), maxSet)
	}
	return setOf(reply.msg.Answer, name, qtype), nil
}
