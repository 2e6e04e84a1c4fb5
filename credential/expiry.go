package credential

import "time"

// Expiry is when one certificate is no good any more.
type Expiry struct {
	File     string // where it was read from
	Name     string // the first that it is for; empty if none
	NotAfter time.Time
}

// Expiries are those of all certificates, in the order they were named.
func (s *Store) Expiries() []Expiry {
	var list []Expiry
	for _, e := range s.entries {
		x := Expiry{File: e.file, NotAfter: e.Chain[0].NotAfter}
		if names := NamesOf(e.Chain[0]); len(names) > 0 {
			x.Name = names[0]
		}
		list = append(list, x)
	}
	return list
}
