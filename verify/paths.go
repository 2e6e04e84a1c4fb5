package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"
)

// paths remembers to which anchors a presented chain leads. What signatures,
// names and usages say of a path does not change with time, and to compute it
// costs most of a resumed handshake; only the validity of its certificates does,
// and that is asked each time. It holds none but what an anchor vouches for.
type paths struct {
	mu    sync.Mutex
	known map[pathKey][][]*x509.Certificate
}

// pathKey is a hash over what was presented, and what for.
type pathKey struct {
	chain [32]byte
	role  Role
}

// maxPaths bounds what clients with many certificates of a trusted CA can have
// us keep; a chain is some 4 KiB.
const maxPaths = 512

func keyOf(p *Presented) pathKey {
	h := sha256.New()
	for _, c := range p.Chain {
		h.Write(c.Raw) // DER says its own length
	}
	k := pathKey{role: p.Role}
	h.Sum(k.chain[:0])
	return k
}

// at gives the paths of k, if all of them are valid at now.
func (s *paths) at(k pathKey, now time.Time) [][]*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range s.known[k] {
		for _, c := range path {
			if now.Before(c.NotBefore) || now.After(c.NotAfter) {
				delete(s.known, k)
				return nil
			}
		}
	}
	return s.known[k]
}

func (s *paths) keep(k pathKey, found [][]*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxPaths {
		s.known = make(map[pathKey][][]*x509.Certificate)
	}
	s.known[k] = found
}
