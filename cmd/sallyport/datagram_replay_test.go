package main

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"

	"sallyport/internal/testnet"
)

// records notes what passes a relay towards the server.
type records struct {
	mu   sync.Mutex
	seen [][]byte
}

func (r *records) through(_ int, w testnet.Way, _ int, p []byte) [][]byte {
	if w == testnet.ToServer {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, bytes.Clone(p))
	}
	return [][]byte{p}
}

func (r *records) last() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[len(r.seen)-1]
}

// What was recorded is of no use to whoever sends it again, from the client's own
// address or from another; nor is what was tampered with. The association feels
// nothing of it, its client is not taken to have moved, and the record counts it.
func TestDatagramReplays(t *testing.T) {
	t.Parallel()
	var relay *testnet.LossyRelay
	var there netip.AddrPort
	var passed records
	near, far := tunnelled(t, packetEcho(t), func(far string) string {
		there = netip.MustParseAddrPort(far)
		relay = testnet.Relay(t, there, testnet.Weather{})
		relay.Through(passed.through)
		return relay.Addr().String()
	})
	c := dialUDP(t, near.Addr(""))
	mustEcho(t, c, []byte("first"))
	old := passed.last()
	mustEcho(t, c, []byte("second"))
	elsewhere := dialUDP(t, there.String())

	broken := bytes.Clone(passed.last())
	broken[len(broken)-1] ^= 1
	clear := append([]byte{23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 5}, "clear"...)
	const times = 20 // all of them fit into its queue
	for range times {
		relay.Inject(0, testnet.ToServer, old)
		relay.Inject(0, testnet.ToServer, broken)
		relay.Inject(0, testnet.ToServer, clear)
		elsewhere.Write(old)
		elsewhere.Write(broken)
	}
	for range 5 {
		mustEcho(t, c, []byte("third"))
	}
	endAtOnce(near)
	endAtOnce(far) // whether or not it has heard that the other has ended
	r := far.Flows(1)[0]
	if n := r.Num("in_discarded"); n != 5*times {
		t.Errorf("in_discarded is %v, of %d records that it was to discard", n, 5*times)
	}
	if up, down := r.Num("up"), r.Num("down"); up != 36 || down != 36 {
		t.Errorf("%v bytes up and %v down, and 36 were sent", up, down)
	}
}
