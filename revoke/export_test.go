package revoke

import (
	"math/big"
	"slices"
	"time"
)

// Has says whether c has just that entry.
func (c *CRL) Has(serial *big.Int, at time.Time, reason int) bool {
	return slices.Contains(c.entries, revoked{serialOf(serial), int8(min(max(reason, -1), 127)), at.Unix()})
}

// Wake has Run look at once.
func (s *Stapler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
