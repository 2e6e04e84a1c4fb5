package transport

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// nextAfter is how long one address has before the next is tried beside it
	// (RFC 8305, section 8: Connection Attempt Delay).
	nextAfter = 250 * time.Millisecond
	// mostAddrs of a name are tried: it may have hundreds, and then these are not
	// what is wrong.
	mostAddrs = 16
)

// race dials the addresses of one name side by side, each a little later than the
// one before it, or as soon as that has failed, and gives the first connection
// (RFC 8305, section 5). Its error is the first address's.
func race(ctx context.Context, nd *net.Dialer, addrs []netip.Addr, port uint16) (net.Conn, error) {
	addrs = inTurn(addrs)
	addrs = addrs[:min(len(addrs), mostAddrs)]
	dial := func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		return nd.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
	}
	if len(addrs) == 1 {
		return dial(ctx, addrs[0])
	}
	type result struct {
		i   int
		c   net.Conn
		err error
	}
	all, cancel := context.WithCancel(ctx)
	results := make(chan result, len(addrs))
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
		close(results)
		for r := range results { // those that came in together with the first
			if r.c != nil {
				r.c.Close()
			}
		}
	}()
	started, failed := 0, 0
	next := time.NewTimer(0)
	defer next.Stop()
	errs := make([]error, len(addrs))
	for failed < len(addrs) {
		select {
		case <-next.C:
		case r := <-results:
			if r.err == nil {
				return r.c, nil
			}
			errs[r.i] = r.err
			failed++
		}
		if started < len(addrs) {
			i := started
			running.Go(func() {
				c, err := dial(all, addrs[i])
				results <- result{i, c, err}
			})
			started++
			next.Reset(nextAfter)
		}
	}
	return nil, errs[0]
}

// inTurn has the two families take turns, the first one's first, and leaves each
// in its own order (RFC 8305, section 4).
func inTurn(addrs []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr
	for _, a := range addrs {
		other := 0
		if a.Unmap().Is4() != addrs[0].Unmap().Is4() {
			other = 1
		}
		families[other] = append(families[other], a)
	}
	list := make([]netip.Addr, 0, len(addrs))
	for i := range addrs {
		for _, f := range families {
			if i < len(f) {
				list = append(list, f[i])
			}
		}
	}
	return list
}

// first makes a socket towards the first address that this host has a way to:
// nothing is sent, so that nobody could be faster.
func first(ctx context.Context, nd *net.Dialer, addrs []netip.Addr, port uint16) (c net.Conn, err error) {
	for _, a := range addrs[:min(len(addrs), mostAddrs)] {
		var failed error
		if c, failed = nd.DialContext(ctx, "udp", netip.AddrPortFrom(a, port).String()); failed == nil {
			return c, nil
		}
		if err == nil {
			err = failed
		}
	}
	return nil, err
}
