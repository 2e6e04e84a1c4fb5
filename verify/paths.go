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
	chain  [32]byte
	role   Role
	chased bool // through intermediates that were not presented
}

// What clients with a certificate of a trusted CA can have us keep. A chain is
// some 4 KiB; a certificate holds on to the whole message that it came in, where
// others that lead nowhere may stand beside it, in ever another order.
const (
	maxPaths     = 512
	maxPathBytes = 32 << 10 // of what was presented
)

// keyOf gives p's key, and whether p may be kept.
func keyOf(p *Presented) (k pathKey, keeps bool) {
	h := sha256.New()
	size := 0
	for _, c := range p.Chain {
		h.Write(c.Raw) // DER says its own length
		size += len(c.Raw)
	}
	k.role = p.Role
	h.Sum(k.chain[:0])
	return k, size <= maxPathBytes
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
