package build

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/name"
)

// holds is what a reload hands on of certificates that wait for DNS.
type holds struct {
	running sync.Mutex // one look at a time

	mu sync.Mutex // held while what a leaf knows is read or changed
	at map[address][]*hold
}

// hold is the credential of a route with `tlsa: hold`: what its files have, and in place
// of what is held of that, what was shown before. Keys stay in memory with their
// certificates.
type hold struct {
	match    string // by which a route is known again
	staple   stapling
	listener *Listener
	disk     *credential.Store
	certs    []ownCert // of disk
	shown    atomic.Pointer[credential.Store]
}

// ownCert is a certificate of a route's files.
type ownCert struct {
	*credential.Credential
	*leaf
	names  []string          // that it is shown for
	hosts  []string          // those of them that records can be at
	olds   []ownCert         // in whose place it comes
	before *credential.Store // of those; nil where it need not wait
}

// waits says that those before it are shown.
func (c *ownCert) waits() bool { return c.held && c.before != nil }

// Credential implements [credential.Source].
func (h *hold) Credential(ctx context.Context, r *credential.Request) (*credential.Credential, error) {
	return h.shown.Load().Credential(ctx, r)
}

// compose has shown what is not held. The lock is held.
func (h *hold) compose() {
	others := map[*credential.Credential]*credential.Store{}
	for _, c := range h.certs {
		if c.waits() {
			others[c.Credential] = c.before
		}
	}
	if len(others) == 0 {
		h.shown.Store(h.disk)
		return
	}
	h.shown.Store(h.disk.Instead(others))
}

// mostHosts bounds the look-ups for one certificate.
const mostHosts = 64

// holding makes a route's credential wait for DNS; follow makes it ready.
func (b *builder) holding(l *config.Listener, c *config.Route, disk *credential.Store) (credential.Source, error) {
	if _, err := b.resolver(); err != nil {
		return nil, fmt.Errorf("tlsa: %w", err)
	}
	matched, err := json.Marshal(c.Match)
	if err != nil {
		return nil, err
	}
	h := &hold{match: string(matched), staple: staplingOf(l, c), disk: disk}
	h.shown.Store(disk)
	all := disk.Credentials()
	for _, own := range all {
		names := credential.NamesOf(own.Chain[0])
		for _, asked := range c.Match.SNI {
			if n, ok := asked.Pattern.Literal(); ok && fits(own, all, n) && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		hosts := hostsOf(names)
		switch {
		case len(hosts) == 0:
			b.warn("tlsa hold: %s has no name of its own that records could be at, so it never waits; name one in match.sni", label(own))
		case len(hosts) > mostHosts:
			b.warn("tlsa hold: %s has %d names; the records of the first %d are looked up", label(own), len(hosts), mostHosts)
			hosts = hosts[:mostHosts]
		}
		h.certs = append(h.certs, ownCert{Credential: own, names: names, hosts: hosts})
	}
	b.held = append(b.held, h)
	return h, nil
}

func label(c *credential.Credential) string {
	return fmt.Sprintf("our certificate of %.120q (serial %x)", c.Chain[0].Subject.String(), c.Chain[0].SerialNumber)
}

// fits says whether who asks for n may get c: it is for n, or none of all is.
func fits(c *credential.Credential, all []*credential.Credential, n string) bool {
	is := func(c *credential.Credential) bool { return c.Chain[0].VerifyHostname(n) == nil }
	return is(c) || !slices.ContainsFunc(all, is)
}

func hostsOf(names []string) []string {
	var hosts []string
	for _, n := range names {
		p, err := name.Parse(n)
		if err != nil {
			continue
		}
		if host, ok := p.Literal(); ok && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// follow has those of l hold what would replace what is shown there now.
func (b *builder) follow(l *Listener) {
	k := b.lasting.holds
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.at[l.address()]
	leaves := map[string]*leaf{} // routes with the same certificate look it up once
	for _, h := range b.held {
		if h.listener == nil {
			h.listener = l
			h.follow(before, leaves, b.now(), b.staples)
		}
	}
}

// follow is where a certificate of the files is first told from one that is shown.
// What the program that runs shows is not changed: this one may come to nothing.
func (h *hold) follow(all []*hold, leaves map[string]*leaf, now time.Time, staples func(stapling) credential.Staple) {
	same := slices.DeleteFunc(slices.Clone(all), func(o *hold) bool { return o.match != h.match })
	if len(same) == 0 {
		same = all
	}
	everywhere, shown := shownBy(all), shownBy(same)
	for i := range h.certs {
		c := &h.certs[i]
		raw := string(c.Chain[0].Raw)
		if leaves[raw] == nil {
			leaves[raw] = knownTo(all, raw)
		}
		c.leaf = leaves[raw]
		if slices.ContainsFunc(everywhere, func(o ownCert) bool { return o.Chain[0].Equal(c.Chain[0]) }) {
			continue
		}
		if c.olds = c.replaces(shown, now); len(c.olds) == 0 {
			continue
		}
		var creds []*credential.Credential
		for _, o := range c.olds {
			creds = append(creds, o.Credential)
			if end := deadline(o.Chain[0]); !c.held || end.Before(c.until) {
				c.until = end
			}
			if !c.held {
				c.held, c.since = true, now
			}
		}
		c.before = credential.Keep(creds, now, staples(h.staple))
	}
	h.compose()
}

// knownTo is what is known already of a certificate.
func knownTo(all []*hold, raw string) *leaf {
	for _, h := range all {
		for _, c := range h.certs {
			if string(c.Chain[0].Raw) == raw {
				return c.leaf
			}
		}
	}
	return &leaf{records: map[string]*records{}}
}

// shownBy gives what holds show.
func shownBy(all []*hold) []ownCert {
	var list []ownCert
	for _, h := range all {
		for i := range h.certs {
			if c := &h.certs[i]; c.waits() {
				list = append(list, c.olds...)
			} else {
				// Without what was before it: that would never be forgotten.
				list = append(list, ownCert{Credential: c.Credential, leaf: c.leaf, names: c.names})
			}
		}
	}
	return list
}

// replaces gives those of shown in whose place c comes: for some name, with its kind of
// key where there is such, and not about to expire, for those wait for nobody.
func (c *ownCert) replaces(shown []ownCert, now time.Time) []ownCert {
	var same, other []ownCert
	for _, o := range shown {
		switch leaf := o.Chain[0]; {
		case !now.Before(deadline(leaf)) || !overlapping(c.names, o.names):
		case credential.SameKind(leaf, c.Chain[0]):
			same = append(same, o)
		default:
			other = append(other, o)
		}
	}
	if len(same) > 0 {
		return same
	}
	return other
}

// overlapping says whether two certificates are for one name, be it by a wildcard.
func overlapping(a, b []string) bool {
	over := func(wild, n string) bool {
		_, rest, ok := strings.Cut(n, ".")
		return ok && wild == "*."+rest
	}
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return x == y || over(x, y) || over(y, x) })
	})
}
