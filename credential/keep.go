package credential

import (
	"crypto/x509"
	"slices"
	"time"
)

// Keep gives a store of credentials that an earlier one had, whose files may have
// others by now. Their staples come from by, as Options.Staple.
func Keep(list []*Credential, now time.Time, by Staple) *Store {
	entries := make([]*entry, len(list))
	for i, c := range list {
		entries[i] = newEntry(Credential{Chain: c.Chain, Key: c.Key, SCTs: c.SCTs}, now)
		entries[i].staples(by)
	}
	return newStore(entries)
}

// Instead is s with others in the place of some of its credentials, each leaf once.
func (s *Store) Instead(others map[*Credential]*Store) *Store {
	var entries []*entry
	add := func(e *entry) {
		if !slices.ContainsFunc(entries, func(o *entry) bool { return o.Chain[0].Equal(e.Chain[0]) }) {
			entries = append(entries, e)
		}
	}
	for _, e := range s.entries {
		if o := others[&e.Credential]; o == nil {
			add(e)
		} else {
			for _, e := range o.entries {
				add(e)
			}
		}
	}
	return newStore(entries)
}

// SameKind says whether two leaves have keys of one kind: who can verify the one can
// verify the other.
func SameKind(a, b *x509.Certificate) bool { return kindOf(a) == kindOf(b) }
