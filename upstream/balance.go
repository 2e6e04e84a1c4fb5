package upstream

import (
	"hash/fnv"
	"math"
	"net/netip"
	"time"

	"sallyport/flow"
)

// Balance says which of several servers a flow goes to.
type Balance uint8

const (
	RoundRobin Balance = iota // one after the other, by weight
	Least                     // the one with the fewest flows for its weight
	Hash                      // by the client's address
)

func (b Balance) String() string {
	return [...]string{"round_robin", "least", "hash"}[b]
}

// choose takes one of list, which is not empty. The pool's mu is held.
func (p *Pool) choose(f *flow.Flow, list []candidate) *member {
	switch p.Balance {
	case Least:
		list = leastLoaded(list)
	case Hash:
		return highest(list, f.Client().Addr())
	case RoundRobin:
	}
	return next(list)
}

// candidate is a member that may be chosen, with its weight at this moment.
type candidate struct {
	*member
	weight int64
	flows  int64
}

// next is the smooth weighted round robin that nginx is known for: each gains its
// weight, the richest is taken and pays what all have gained. A server of weight 3
// beside one of weight 1 is not taken three times in a row.
func next(list []candidate) *member {
	var best *member
	total := int64(0)
	for _, c := range list {
		c.credit += c.weight
		total += c.weight
		if best == nil || c.credit > best.credit {
			best = c.member
		}
	}
	best.credit -= total
	return best
}

// leastLoaded are those that would have the fewest flows for their weight with one more.
func leastLoaded(list []candidate) []candidate {
	var least []candidate
	for _, c := range list {
		switch {
		case len(least) == 0 || (c.flows+1)*least[0].weight < (least[0].flows+1)*c.weight:
			least = append(least[:0], c)
		case (c.flows+1)*least[0].weight == (least[0].flows+1)*c.weight:
			least = append(least, c)
		}
	}
	return least
}

// highest is weighted rendezvous hashing: each server draws lots for each client,
// and where one leaves, only its own clients move. The lots depend on nothing but
// the two addresses, so that several proxies agree on them.
func highest(list []candidate, client netip.Addr) *member {
	var best *member
	most := -1.0
	for _, c := range list {
		if score := -float64(c.weight) / math.Log(lot(client, c.server.spec.Addr)); score > most {
			best, most = c.member, score
		}
	}
	return best
}

// lot is between 0 and 1, neither of them included.
func lot(client netip.Addr, server string) float64 {
	h := fnv.New64a()
	a := client.Unmap().As16()
	h.Write(a[:])
	h.Write([]byte(server))
	// FNV leaves what came last in the low bits; a finalizer spreads it.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return (float64(x>>12) + 0.5) / (1 << 52)
}

// share is a weight in parts of which 1,024 are one, less while a server that has
// come back starts slowly.
func (p *Pool) share(m *member, c condition, now time.Time) int64 {
	full := m.full
	if p.SlowStart <= 0 || c.back.IsZero() {
		return full
	}
	up := now.Sub(c.back)
	if up >= p.SlowStart {
		return full
	}
	return max(int64(float64(full)*float64(up)/float64(p.SlowStart)), full>>4, 1)
}
