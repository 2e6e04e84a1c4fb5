package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Role of the end that is being verified.
type Role uint8

const (
	Server Role = iota // must have the name in Presented.Name
	Client
)

func (r Role) String() string {
	if r == Client {
		return "client"
	}
	return "server"
}

// Presented is everything that a check may look at.
type Presented struct {
	Role      Role
	Name      string // reference identity (RFC 9525): a DNS name or an IP address
	Port      uint16
	Transport string // "tcp" or "udp"

	Chain  []*x509.Certificate // as sent, leaf first
	Staple []byte
	SCTs   [][]byte

	SNI, ALPN      string
	Remote         netip.AddrPort
	Version, Suite uint16
	Resumed        bool

	Now time.Time // the zero time refuses every certificate
}

// Identity is who somebody was verified to be.
type Identity struct {
	leaf    *x509.Certificate
	chains  [][]*x509.Certificate
	spki    [32]byte
	by      []string
	vouched bool // a trust anchor stands behind the names, not the key alone
	notes   *notes
}

// identify is the only place that makes an Identity.
func identify(by string, leaf *x509.Certificate, chains [][]*x509.Certificate, vouched bool) *Identity {
	return &Identity{leaf, chains, spkiOf(leaf), []string{by}, vouched, new(notes)}
}

func spkiOf(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Leaf is the certificate whose key the peer has.
func (id *Identity) Leaf() *x509.Certificate { return id.leaf }

// Chains are the paths that passed, leaf first and trust anchor last; there are
// none where nobody but the key itself was trusted.
func (id *Identity) Chains() [][]*x509.Certificate { return id.chains }

// SPKI is the SHA-256 of the leaf's SubjectPublicKeyInfo.
func (id *Identity) SPKI() [32]byte { return id.spki }

// By names the authenticator and the checks that passed.
func (id *Identity) By() []string { return id.by }

// Names are the subjectAltNames, or the common name where there are none. It is
// empty where no trust anchor vouches for them.
func (id *Identity) Names() []string {
	if !id.vouched {
		return nil
	}
	names := slices.Clone(id.leaf.DNSNames)
	for _, ip := range id.leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range id.leaf.URIs {
		names = append(names, u.String())
	}
	names = append(names, id.leaf.EmailAddresses...)
	if len(names) == 0 && id.leaf.Subject.CommonName != "" {
		names = append(names, id.leaf.Subject.CommonName)
	}
	return names
}

// Authenticator says who presented what. Its String, if it has one, is for [Identity.By].
type Authenticator interface {
	Authenticate(context.Context, *Presented) (*Identity, error)
}

// Check agrees with an identity or refuses it. Its String, if it has one, is for [Identity.By].
type Check interface {
	Check(context.Context, *Presented, *Identity) error
}

// Verifier is an authenticator with its checks.
type Verifier interface {
	Verify(context.Context, *Presented) (*Identity, error)
}

// ErrNotApplicable is what an [Authenticator] returns that has nothing to say
// about this peer. It is never the answer where there was evidence against it.
var ErrNotApplicable = errors.New("this way to authenticate does not apply")

// Either asks then only where first does not apply; anything else that first
// says is final. Why it does not is noted with the identity.
func Either(first, then Authenticator) Authenticator { return either{first, then} }

type either struct{ first, then Authenticator }

func (e either) Authenticate(ctx context.Context, p *Presented) (*Identity, error) {
	id, err := e.first.Authenticate(ctx, p)
	if !errors.Is(err, ErrNotApplicable) {
		return id, by(e.first, err)
	}
	id, second := e.then.Authenticate(ctx, p)
	if why, ok := errors.AsType[*Error](err); ok && id != nil {
		id.Note(why.Reason, "%s", why)
	}
	return id, by(e.then, second)
}

// With verifies by a, then by all of checks at once. Where several refuse, the
// first of the list is heard.
func With(a Authenticator, checks ...Check) Verifier { return verifier{a, checks} }

type verifier struct {
	authenticator Authenticator
	checks        []Check
}

func (v verifier) Verify(ctx context.Context, p *Presented) (*Identity, error) {
	if len(p.Chain) == 0 {
		return nil, fail(Missing, "the %s sent no certificate", p.Role)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if v.authenticator == nil {
		return nil, fail(UnknownCA, "nothing is configured that could verify this %s", p.Role)
	}
	id, err := v.authenticator.Authenticate(ctx, p)
	if err != nil {
		return nil, by(v.authenticator, err)
	}
	if id == nil { // an authenticator that says neither has not authenticated
		return nil, fail(Invalid, "%T gave no identity", v.authenticator)
	}
	if err := v.check(ctx, p, id); err != nil {
		return nil, err
	}
	passed := *id
	passed.by, passed.chains = slices.Clone(id.by), id.left()
	for _, c := range v.checks {
		if s, ok := c.(fmt.Stringer); ok && !slices.Contains(id.notes.idle, s.String()) {
			passed.by = append(passed.by, s.String())
		}
	}
	return &passed, nil
}

func (v verifier) check(ctx context.Context, p *Presented, id *Identity) error {
	if len(v.checks) == 1 {
		return by(v.checks[0], v.checks[0].Check(ctx, p, id))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg      sync.WaitGroup
		results = make([]result, len(v.checks))
	)
	for i, c := range v.checks {
		results[i].done = make(chan struct{})
		wg.Go(func() { results[i].run(ctx, c, p, id) })
	}
	var first error
	for i := range results {
		r := &results[i]
		if <-r.done; first == nil && (r.err != nil || r.panicked != nil) {
			first = by(v.checks[i], r.err)
			cancel() // what the others say is not needed any more
		}
	}
	wg.Wait()
	for i := range results {
		if results[i].panicked != nil {
			panic(results[i].panicked) // in the flow's own goroutine, which knows what to do with it
		}
	}
	return first
}

type result struct {
	done     chan struct{}
	err      error
	panicked any
}

func (r *result) run(ctx context.Context, c Check, p *Presented, id *Identity) {
	defer close(r.done)
	defer func() { r.panicked = recover() }()
	r.err = c.Check(ctx, p, id)
}

// Anyone takes whoever comes, for unsafe.no_verify.
func Anyone() Authenticator { return anyone{} }

type anyone struct{}

func (anyone) Authenticate(_ context.Context, p *Presented) (*Identity, error) {
	if len(p.Chain) == 0 {
		return nil, fail(Missing, "the %s sent no certificate", p.Role)
	}
	return identify("unsafe.no_verify", p.Chain[0], nil, false), nil
}
