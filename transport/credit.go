package transport

import (
	"net/netip"
	"sync"
)

// creditFactor is how many times the bytes that came from an address that has not
// proved itself it may be sent (as RFC 9000, section 8.1, which RFC 9146, section 6,
// leaves to us).
const creditFactor = 3

// credit bounds what a client with a connection ID has us send to addresses that it
// has moved to. That one has come from where the handshake was made is proved by our
// cookie. Of another address nothing is ever proved: a newer record that comes from
// it may have been held back by someone on the path, who writes the address of a
// third on it, and can do so with all that follow. DTLS 1.2 has no message that
// only who is there could answer (RFC 9853 adds one).
type credit struct {
	home netip.AddrPort // of the handshake

	mu        sync.Mutex
	now, next account // where the client is, and where else a datagram came from last
}

type account struct {
	at    netip.AddrPort
	bytes int
}

// came counts a datagram of n bytes.
func (c *credit) came(from netip.AddrPort, n int) {
	if from == c.home {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch from {
	case c.now.at:
		c.now.bytes += creditFactor * n
		return
	case c.next.at:
	default: // who sends from many addresses takes nothing from where the client is
		c.next = account{at: from}
	}
	c.next.bytes += creditFactor * n
}

// moved says that the client is there now.
func (c *credit) moved(to netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch to {
	case c.now.at:
	case c.next.at:
		c.now, c.next = c.next, account{}
	default:
		c.now = account{at: to}
	}
}

// spend says whether n bytes may be sent.
func (c *credit) spend(to netip.AddrPort, n int) bool {
	if to == c.home {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range [...]*account{&c.now, &c.next} { // the engine may answer before it says that the client has moved
		if a.at == to && a.bytes >= n {
			a.bytes -= n
			return true
		}
	}
	return false
}
