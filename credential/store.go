package credential

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Store holds credentials loaded from files and picks among them. It is never
// changed; a reload loads another.
type Store struct {
	entries  []*entry // in the order they were named
	exact    map[string][]*entry
	wild     map[string][]*entry // by what stands behind *.
	byIssuer map[string][]*entry // by DER name of whoever issued a certificate of the chain
	fallback []*entry            // the first, and those of the same name with another kind of key
}

type entry struct {
	Credential
	file    string
	kind    kind
	expired bool // when it was loaded

	stapling stapling
}

func newEntry(c Credential, now time.Time) *entry {
	leaf := c.Chain[0]
	return &entry{Credential: c, kind: kindOf(leaf), expired: now.After(leaf.NotAfter)}
}

// kind of key, in the order of preference: what costs us least, and RSA last.
type kind uint8

const (
	kindP256 kind = iota
	kindP384
	kindP521
	kindEd25519
	kindRSA
)

func kindOf(c *x509.Certificate) kind {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P384():
			return kindP384
		case elliptic.P521():
			return kindP521
		}
		return kindP256
	case ed25519.PublicKey:
		return kindEd25519
	}
	return kindRSA
}

func newStore(entries []*entry) *Store {
	s := &Store{entries, map[string][]*entry{}, map[string][]*entry{}, map[string][]*entry{}, nil}
	for _, e := range entries {
		for _, n := range NamesOf(e.Chain[0]) {
			if rest, ok := strings.CutPrefix(n, "*."); ok {
				s.wild[rest] = appendOnce(s.wild[rest], e)
			} else {
				s.exact[n] = appendOnce(s.exact[n], e)
			}
		}
		for _, c := range e.Chain {
			s.byIssuer[string(c.RawIssuer)] = appendOnce(s.byIssuer[string(c.RawIssuer)], e)
		}
	}
	s.fallback = entries[:1]
	if names := NamesOf(entries[0].Chain[0]); len(names) > 0 {
		if rest, ok := strings.CutPrefix(names[0], "*."); ok {
			s.fallback = s.wild[rest]
		} else {
			s.fallback = s.exact[names[0]]
		}
	}
	for _, m := range []map[string][]*entry{s.exact, s.wild, s.byIssuer} {
		for _, list := range m {
			slices.SortStableFunc(list, prefer)
		}
	}
	return s
}

func appendOnce(list []*entry, e *entry) []*entry {
	if n := len(list); n > 0 && list[n-1] == e {
		return list
	}
	return append(list, e)
}

func prefer(a, b *entry) int {
	if a.expired != b.expired {
		if b.expired {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.kind, b.kind), b.Chain[0].NotAfter.Compare(a.Chain[0].NotAfter))
}

// NamesOf are the DNS names in lower case; a certificate without any goes by its
// common name, so that an old one is still found.
func NamesOf(c *x509.Certificate) []string {
	if len(c.DNSNames) == 0 && c.Subject.CommonName != "" {
		return []string{strings.ToLower(c.Subject.CommonName)}
	}
	names := make([]string, len(c.DNSNames))
	for i, n := range c.DNSNames {
		names[i] = strings.ToLower(n)
	}
	return names
}

// Credential picks by the server name: that name, else the wildcard over it, else
// the first certificate. Among those for the name it takes what the peer can
// verify: ECDSA before Ed25519 before RSA, and later expiry first.
//
// Where a server names the CAs that it takes, a certificate of one of those goes
// first; a certificate is given even if none is, since such lists are often wrong.
func (s *Store) Credential(_ context.Context, r *Request) (*Credential, error) {
	var found *entry
	for _, issuer := range r.Issuers {
		if e := choose(r.Schemes, s.byIssuer[string(issuer)]); e != nil && (found == nil || prefer(e, found) < 0) {
			found = e
		}
	}
	if found != nil {
		return found.current(), nil
	}
	name := canonical(r.ServerName)
	exact := s.exact[name]
	var wild []*entry
	if _, rest, ok := strings.Cut(name, "."); ok {
		wild = s.wild[rest]
	}
	if len(exact)+len(wild) == 0 {
		exact = s.fallback
	}
	if e := choose(r.Schemes, exact, wild); e != nil {
		return e.current(), nil
	}
	return nil, fmt.Errorf("%w: the peer takes signatures of %s, and for %q there is %s",
		ErrNoCredential, describeSchemes(r.Schemes), r.ServerName, describeKinds(append(exact[:len(exact):len(exact)], wild...)))
}

// canonical does not allocate for the names that programs send.
func canonical(name string) string {
	return strings.TrimSuffix(strings.ToLower(name), ".")
}

func pick(list []*entry, schemes []tls.SignatureScheme, bare bool) *entry {
	var loose *entry
	for _, e := range list {
		if e.bare() && !bare {
			continue
		}
		switch e.kind.fits(schemes) {
		case fitsAny:
			return e
		case fitsOld:
			if loose == nil {
				loose = e
			}
		}
	}
	return loose
}

type fit uint8

const (
	fitsNot fit = iota
	fitsOld     // before TLS 1.3, where an ECDSA scheme does not name the curve
	fitsAny
)

// fits is RFC 8446, section 4.2.3, which names the curve in the scheme, and
// RFC 5246, section 7.4.1.4.1, which does not. A request does not say which of
// them holds, so what fits both goes first.
func (k kind) fits(schemes []tls.SignatureScheme) fit {
	if schemes == nil {
		return fitsAny
	}
	best := fitsNot
	for _, s := range schemes {
		switch s {
		case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.ECDSAWithSHA1:
			if k <= kindP521 {
				best = max(best, fitsOld)
			}
			if k == kindP256 && s == tls.ECDSAWithP256AndSHA256 || k == kindP384 && s == tls.ECDSAWithP384AndSHA384 || k == kindP521 && s == tls.ECDSAWithP521AndSHA512 {
				return fitsAny
			}
		case tls.Ed25519:
			if k == kindEd25519 {
				return fitsAny
			}
		case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512:
			if k == kindRSA {
				return fitsAny
			}
		case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.PKCS1WithSHA1:
			if k == kindRSA {
				best = max(best, fitsOld)
			}
		}
	}
	return best
}

func (k kind) String() string {
	return [...]string{"ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "Ed25519", "RSA"}[k]
}

func describeSchemes(schemes []tls.SignatureScheme) string {
	const most = 8 // a stranger's list
	var texts []string
	for _, s := range schemes[:min(most, len(schemes))] {
		texts = append(texts, s.String())
	}
	if len(texts) == 0 {
		return "no kind that we make"
	}
	return strings.Join(texts, ", ")
}

func describeKinds(list []*entry) string {
	var texts []string
	for _, e := range list {
		if t := e.kind.String(); !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	return strings.Join(texts, " and ")
}

// Names are all names that the certificates are for, in the order they were named.
func (s *Store) Names() []string {
	var names []string
	seen := map[string]bool{}
	for _, e := range s.entries {
		for _, n := range NamesOf(e.Chain[0]) {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	return names
}

// NotAfter is when the first of the certificates expires.
func (s *Store) NotAfter() time.Time {
	first := s.entries[0].Chain[0].NotAfter
	for _, e := range s.entries[1:] {
		if t := e.Chain[0].NotAfter; t.Before(first) {
			first = t
		}
	}
	return first
}

// Credentials are all of them, in the order they were named.
func (s *Store) Credentials() []*Credential {
	var list []*Credential
	for _, e := range s.entries {
		list = append(list, &e.Credential)
	}
	return list
}
