package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"sallyport/dane"
)

// TLSA finds the TLSA records of a service, as [dane.Resolver] does.
type TLSA interface {
	Service(ctx context.Context, host string, port uint16, transport string) (*dane.Service, error)
}

// DANE authenticates a server by TLSA records (RFC 6698, 7671). It does not apply
// where DNS says for sure that there are none to go by; where nothing is sure it
// refuses. Alone it is to.dane: require, [Either] with PKIX it is prefer.
type DANE struct {
	Records TLSA
	PKIX    Authenticator // for records of usage 0 and 1
	Profile Profile       // floors for the paths of usage 2

	mu    sync.Mutex
	known map[[32]byte]*Anchors // those out of records, with the paths that were found to them
}

// maxSets is for how many sets of anchors paths are kept: what a roll-over needs.
const maxSets = 4

// String is the name for [Identity.By].
func (*DANE) String() string { return "dane" }

// ServerName is the name to ask the server for (RFC 7671, section 7): the TLSA base
// domain where there are records, else name.
func (d *DANE) ServerName(ctx context.Context, name string, port uint16, transport string) (string, error) {
	s, err := d.service(ctx, name, port, transport)
	switch {
	case errors.Is(err, ErrNotApplicable):
		return name, nil
	case err != nil:
		return "", by(d, err)
	}
	return s.Base, nil
}

// Authenticate holds what was presented against the records. Any one that matches
// is enough (RFC 6698, section 4.1); what it asks for beside itself is its usage.
func (d *DANE) Authenticate(ctx context.Context, p *Presented) (*Identity, error) {
	if err := bounds(p); err != nil {
		return nil, err
	}
	if p.Role != Server {
		return nil, fail(UnknownCA, "TLSA records speak of servers, not of a %s", p.Role)
	}
	s, err := d.service(ctx, p.Name, p.Port, p.Transport)
	if err != nil {
		return nil, err
	}
	records := dane.Usable(s.Records)
	if len(records) == 0 {
		return nil, notApplicable(DANEAbsent, "none of the %d TLSA records of %s can be used, the first (%s) since %w",
			len(s.Records), quote(s.Name), s.Records[0].Params(), s.Records[0].Unusable())
	}
	var why error // of a record that would match
	for _, by := range []func(context.Context, *Presented, *dane.Service, []dane.Record) (*Identity, error){byKey, d.byAnchor, d.byPKIX} {
		id, err := by(ctx, p, s, records)
		if id != nil {
			return id, nil
		}
		if why == nil {
			why = err
		}
	}
	if why != nil {
		return nil, why
	}
	return nil, fail(DANEMismatch, "the %s matches none of the TLSA records of %s (%s); `sallyport tlsa` prints the one it needs",
		describe(p.Chain[0]), quote(s.Name), kinds(records))
}

// notApplicable is a refusal where nobody else has a say.
func notApplicable(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Err: beside{fmt.Errorf(format, args...)}}
}

// beside is an error that is ErrNotApplicable as well, and does not say so.
type beside struct{ error }

func (b beside) Unwrap() []error { return []error{b.error, ErrNotApplicable} }

func (d *DANE) service(ctx context.Context, name string, port uint16, transport string) (*dane.Service, error) {
	host := strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return nil, notApplicable(DANEAbsent, "an IP address has no TLSA records; set to.name to the server's name")
	}
	if !isHost(host) {
		return nil, fail(NameWrong, "%s is no name that TLSA records can have; write an international name in its xn-- form in to.name", quote(name))
	}
	s, err := d.Records.Service(ctx, host, port, transport)
	if e, ok := errors.AsType[*dane.Error](err); ok && e.State == dane.Bogus {
		return nil, fail(DANEBogus, "%w; somebody is in the way, or the zone is signed wrongly (`delv` shows which)", err)
	}
	switch {
	case err != nil:
		return nil, fail(DANELookup, "%w; without an answer there may be records", err)
	case s.State == dane.Insecure:
		return nil, notApplicable(DANEInsecure, "DNSSEC does not protect %s, so it has no TLSA records that count", quote(s.Name))
	case s.State != dane.Secure:
		return nil, fail(DANELookup, "the TLSA records of %s are %s", quote(s.Name), s.State)
	case len(s.Records) == 0:
		return nil, notApplicable(DANEAbsent, "%s has no TLSA records", quote(s.Name))
	}
	return s, nil
}

func kinds(records []dane.Record) string {
	var all []string
	for _, r := range records {
		if k := r.Params(); !slices.Contains(all, k) {
			all = append(all, k)
		}
	}
	return strings.Join(all[:min(len(all), maxList)], ", ")
}

// byKey is usage 3: the leaf is known, and nothing in it matters (RFC 7671, section
// 5.1). Nobody vouches for its names.
func byKey(_ context.Context, p *Presented, _ *dane.Service, records []dane.Record) (*Identity, error) {
	leaf := p.Chain[0]
	for _, r := range records {
		if r.Usage == dane.DANEEE && r.Matches(leaf) {
			if err := keyFloor(leaf); err != nil {
				return nil, err
			}
			return identify("dane", leaf, nil, false), nil
		}
	}
	return nil, nil
}

// byAnchor is usage 2: a path as PKIX has it, with names and dates, to an anchor that
// need be nobody else's (RFC 7671, section 5.2).
func (d *DANE) byAnchor(ctx context.Context, p *Presented, s *dane.Service, records []dane.Record) (*Identity, error) {
	anchors := dane.Anchors(records, p.Chain)
	if len(anchors) == 0 {
		return nil, nil
	}
	profile := Private // no CA/Browser Forum has a word in it
	if d.Profile == Strict {
		profile = Strict
	}
	id, err := named(ctx, PKIX{Anchors: d.anchors(anchors), From: "the TLSA records", Profile: profile}, p, s)
	if err != nil {
		return nil, err
	}
	return identify("dane", id.leaf, id.chains, true), nil
}

// anchors are certs as a set, the same one for the same certificates: paths are found
// once.
func (d *DANE) anchors(certs []*x509.Certificate) *Anchors {
	h := sha256.New()
	for _, c := range certs {
		h.Write(c.Raw)
	}
	var key [32]byte
	h.Sum(key[:0])
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.known[key]; a != nil {
		return a
	}
	a := &Anchors{Pool: x509.NewCertPool(), certs: certs}
	for _, c := range certs {
		a.Pool.AddCert(c)
	}
	if d.known == nil || len(d.known) >= maxSets {
		d.known = make(map[[32]byte]*Anchors)
	}
	d.known[key] = a
	return a
}

// byPKIX is usages 0 and 1: PKIX has its full say, and a record must match as well
// (RFC 7671, sections 5.3 and 5.4).
func (d *DANE) byPKIX(ctx context.Context, p *Presented, s *dane.Service, records []dane.Record) (*Identity, error) {
	leaf, with := p.Chain[0], *p
	var issuers []dane.Record
	matches := false
	for _, r := range records {
		switch r.Usage {
		case dane.PKIXEE:
			matches = matches || r.Matches(leaf)
		case dane.PKIXTA:
			issuers = append(issuers, r)
			if c, err := r.Certificate(); err == nil && len(with.Chain) < maxPresented {
				with.Chain = append(slices.Clip(with.Chain), c) // the server may leave it out
			}
		}
	}
	if !matches && len(issuers) == 0 || d.PKIX == nil {
		return nil, nil
	}
	id, err := named(ctx, d.PKIX, &with, s)
	if err != nil {
		return nil, err
	}
	chains := id.chains
	if !matches {
		chains = slices.DeleteFunc(slices.Clone(chains), func(chain []*x509.Certificate) bool {
			return !slices.ContainsFunc(issuers, func(r dane.Record) bool { return slices.ContainsFunc(chain[1:], r.Matches) })
		})
	}
	if len(chains) == 0 {
		return nil, nil
	}
	also := *id
	also.chains, also.by = chains, append(slices.Clone(id.by), "dane")
	return &also, nil
}

// named authenticates by either name of the service: the one that was configured, and
// the one that it is a secure alias of.
func named(ctx context.Context, a Authenticator, p *Presented, s *dane.Service) (*Identity, error) {
	id, err := a.Authenticate(ctx, p)
	if e, ok := errors.AsType[*Error](err); ok && e.Reason == NameWrong && !strings.EqualFold(s.Base, strings.TrimSuffix(p.Name, ".")) {
		under := *p
		under.Name = s.Base
		if id, err := a.Authenticate(ctx, &under); err == nil {
			return id, nil
		}
	}
	return id, err
}
