package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/revoke"
)

// RevocationMode says how far it is looked for whether certificates were revoked.
type RevocationMode uint8

const (
	RevocationOff  RevocationMode = iota // by what is at hand alone: staple and CRL files
	RevocationSoft                       // fetches, and goes on where no answer is to be had
	RevocationHard                       // fetches, and refuses then
)

// Revocation is a check that no certificate of a path, but for its anchor, was
// revoked: by the staple, CRL files, fetched CRLs, fetched OCSP responses, in this
// order. A path with a revoked certificate is none; what is left has to be one.
//
// A leaf with the TLS feature status_request (must-staple, RFC 7633) has to come
// with a good staple. DTLS has none, so that there OCSP is asked instead.
type Revocation struct {
	Mode   RevocationMode
	CRLs   []*revoke.CRL
	Fetch  *revoke.Fetcher // nil: nothing is fetched
	Budget time.Duration   // for all that is fetched for one peer
}

// Revoked gives the check of r.
func Revoked(r Revocation) Check {
	c := &revocation{Revocation: r}
	if r.Fetch == nil {
		c.Mode = RevocationOff
	}
	if r.Mode == RevocationHard {
		return revocationHard{c}
	}
	return c
}

// revocation has no String: what passes it may not have been known.
type revocation struct {
	Revocation
	staples staples
}

type revocationHard struct{ *revocation }

func (revocationHard) String() string { return "revocation" }

// Check looks at nothing where a key alone was asked for, by DANE-EE or a pin.
func (r revocationHard) Check(ctx context.Context, p *Presented, id *Identity) error {
	if len(id.chains) == 0 {
		id.idled(r.String())
	}
	return r.revocation.Check(ctx, p, id)
}

// maxPairs bounds for how many certificates of one peer's paths it is looked.
const maxPairs = 16

// pair is a certificate with who issued it.
type pair struct{ cert, issuer *x509.Certificate }

// verdict is what is known of a pair: an answer, or why there is none.
type verdict struct {
	answer *revoke.Answer
	from   string // where the answer is from
	none   error
}

// Check looks at all paths, since one without a revoked certificate is enough.
func (r *revocation) Check(ctx context.Context, p *Presented, id *Identity) error {
	verdicts := r.all(ctx, p, id)
	if err := r.mustStaple(p, id, verdicts); err != nil {
		return err
	}
	var bad, unknown error
	var notes []error
	left := 0
	for i, path := range id.chains {
		if age, ok := stapleAge(p, path, verdicts); ok {
			id.stapled(age)
		}
		revoked, none := onPath(p, path, verdicts)
		switch {
		case revoked != nil:
			id.drop(i)
			bad = revoked
		case none != nil && r.Mode == RevocationHard:
			id.drop(i)
			unknown = none
		default:
			left++
			notes = append(notes, none)
		}
	}
	switch {
	case left == 0 && bad != nil:
		return bad
	case left == 0 && unknown != nil:
		return unknown
	}
	for _, n := range notes {
		if n == nil {
			return nil // one path of which all is known
		}
	}
	for _, n := range notes {
		var e *notKnown
		if errors.As(n, &e) {
			id.Note(RevocationUnknown, "%s: %s", subject(e.cert), e.why)
		} else {
			id.Note(RevocationUnknown, "%s", n)
		}
	}
	return nil
}

// notKnown is why it is not known of cert. A note about it has to be short.
type notKnown struct {
	cert *x509.Certificate
	why  error
}

func (e *notKnown) Error() string {
	return fmt.Sprintf("it is not known whether the %s was revoked: %s", describe(e.cert), e.why)
}

func (e *notKnown) Unwrap() error { return e.why }

// all looks for each certificate of each path at one time.
func (r *revocation) all(ctx context.Context, p *Presented, id *Identity) map[pair]*verdict {
	verdicts := map[pair]*verdict{}
	for _, path := range id.chains {
		for i := range len(path) - 1 {
			if len(verdicts) < maxPairs {
				verdicts[pair{path[i], path[i+1]}] = nil
			}
		}
	}
	if r.Mode == RevocationOff {
		for k := range verdicts {
			verdicts[k] = r.atHand(p, k)
		}
		return verdicts
	}
	ctx, cancel := context.WithTimeout(ctx, r.Budget)
	defer cancel()
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	keys := make([]pair, 0, len(verdicts))
	for k := range verdicts {
		keys = append(keys, k)
	}
	for _, k := range keys {
		v := r.atHand(p, k)
		if v != nil && v.answer != nil {
			mu.Lock()
			verdicts[k] = v
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			found := r.fetch(ctx, k, v)
			mu.Lock()
			defer mu.Unlock()
			verdicts[k] = found
		})
	}
	wg.Wait()
	return verdicts
}

// stapled is where an answer is from that came with the handshake.
const stapled = "staple"

func stapleAge(p *Presented, path []*x509.Certificate, verdicts map[pair]*verdict) (time.Duration, bool) {
	if len(path) < 2 {
		return 0, false
	}
	v := verdicts[pair{path[0], path[1]}]
	if v == nil || v.answer == nil || v.from != stapled || v.answer.Revoked {
		return 0, false
	}
	return max(0, p.Now.Sub(v.answer.This)), true // clocks differ
}

// onPath gives why a path is none, or what is not known of it.
func onPath(p *Presented, path []*x509.Certificate, verdicts map[pair]*verdict) (revoked, none error) {
	for i := range len(path) - 1 {
		v, looked := verdicts[pair{path[i], path[i+1]}]
		switch {
		case !looked:
			none = fail(RevocationUnknown, "the %s has too many paths to look at all certificates of them", p.Role)
		case v == nil:
		case v.answer == nil:
			none = &Error{Reason: RevocationUnknown, Err: &notKnown{path[i], v.none}}
		case v.answer.Revoked:
			return fail(RevokedCert, "the %s was revoked on %s (%s), says the %s; it has to be replaced",
				describe(path[i]), stamp(v.answer.At), v.answer.Reason, v.from), nil
		}
	}
	return nil, none
}

// atHand goes by the staple and the CRL files; it gives nil where there is nothing
// to go by. Whichever of them says revoked is heard.
func (r *revocation) atHand(p *Presented, k pair) *verdict {
	var found *verdict
	var failed error
	take := func(from string, a *revoke.Answer, err error) {
		switch {
		case err != nil:
			failed = and(failed, fmt.Errorf("%s: %w", from, err))
		case found == nil || a.Revoked:
			found = &verdict{answer: a, from: from}
		}
	}
	if len(p.Staple) > 0 && k.cert == p.Chain[0] {
		a, err := r.staples.judge(p.Staple, k, p.Now)
		take(stapled, a, err)
	}
	for _, l := range r.CRLs {
		if l.By(k.cert) {
			a, err := l.Judge(k.cert, k.issuer, p.Now)
			take("CRL of "+quote(l.Issuer().String()), a, err)
		}
	}
	if found == nil && failed != nil {
		return &verdict{none: failed}
	}
	return found
}

// fetch asks for CRLs, then by OCSP; what was at hand did not help.
func (r *revocation) fetch(ctx context.Context, k pair, atHand *verdict) *verdict {
	var failed error
	if atHand != nil {
		failed = atHand.none
	}
	// A slow place for CRLs must not take the time of the responder.
	first, cancel := context.WithTimeout(ctx, r.Budget/2)
	defer cancel()
	if len(k.cert.OCSPServer) == 0 {
		first = ctx
	}
	a, err := r.Fetch.CRL(first, k.cert, k.issuer)
	if err == nil {
		return &verdict{answer: a, from: "CRL of its issuer"}
	}
	if !errors.Is(err, revoke.ErrNoSource) {
		failed = and(failed, err)
	}
	a, err = r.Fetch.OCSP(ctx, k.cert, k.issuer)
	if err == nil {
		return &verdict{answer: a, from: "OCSP responder of its issuer"}
	}
	if !errors.Is(err, revoke.ErrNoSource) {
		failed = and(failed, err)
	}
	switch {
	case failed != nil:
		return &verdict{none: failed}
	case shortLived(k.cert):
		return nil
	}
	return &verdict{none: errNowhere}
}

// and is both errors, in one line.
func and(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}

var errNowhere = errors.New("it names neither CRLs nor an OCSP responder, and `crl` has none of its issuer")

// shortLived is a certificate that ends before it would be on a list: the Baseline
// Requirements ask for no revocation of those (1.6.1, 4.9.13).
func shortLived(c *x509.Certificate) bool {
	return c.NotAfter.Sub(c.NotBefore) <= 7*24*time.Hour
}

// mustStaple holds a leaf to its TLS feature. A session that is taken up again has
// the staple of its first handshake, and no other can come: then that is one answer
// among others.
func (r *revocation) mustStaple(p *Presented, id *Identity, verdicts map[pair]*verdict) error {
	if p.Role != Server || len(id.chains) == 0 || len(id.chains[0]) < 2 || !revoke.MustStaple(id.leaf) {
		return nil
	}
	k := pair{id.chains[0][0], id.chains[0][1]}
	if p.Transport == "udp" {
		if v := verdicts[k]; v != nil && v.answer != nil {
			return nil
		}
		if r.Mode == RevocationOff {
			id.Note(MustStaple, "the %s asks for a stapled OCSP response, which DTLS does not have here, and revocation: off fetches none", describe(id.leaf))
			return nil
		}
		return fail(MustStaple, "the %s asks for a stapled OCSP response, which DTLS does not have here, and none could be fetched: %w", describe(id.leaf), verdicts[k].why())
	}
	if p.Resumed {
		return nil
	}
	if len(p.Staple) == 0 {
		return fail(MustStaple, "the %s asks for a stapled OCSP response (must-staple), and the server sent none", describe(id.leaf))
	}
	if _, err := r.staples.judge(p.Staple, k, p.Now); err != nil {
		return fail(MustStaple, "the %s asks for a stapled OCSP response (must-staple), and the one that the server sent does not count: %w", describe(id.leaf), err)
	}
	return nil
}

func (v *verdict) why() error {
	if v == nil || v.none == nil {
		return errNowhere
	}
	return v.none
}

// staples remembers what verified, since a signature costs 100 microseconds a
// handshake.
type staples struct {
	mu    sync.Mutex
	known map[[32]byte]*revoke.Answer
}

// maxStaples bounds what servers can have us keep: a few KiB each.
const maxStaples = 512

func (s *staples) judge(der []byte, k pair, now time.Time) (*revoke.Answer, error) {
	h := sha256.New()
	h.Write(k.issuer.Raw) // DER says its own length
	h.Write(k.cert.Raw)
	h.Write(der)
	key := [32]byte(h.Sum(nil))
	s.mu.Lock()
	a := s.known[key]
	s.mu.Unlock()
	if a != nil && a.Holds(now) {
		return a, nil
	}
	a, err := revoke.JudgeOCSP(der, k.cert, k.issuer, now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxStaples {
		s.known = map[[32]byte]*revoke.Answer{}
	}
	s.known[key] = a
	return a, nil
}
