package build

import (
	"context"
	"net"
	"net/netip"
	"time"

	"sallyport/dane"
	"sallyport/upstream"
)

// addresses says who is asked for addresses: who `resolver` names, else the system.
func (b *builder) addresses(l *Lasting) (upstream.Resolver, error) {
	if len(b.file.Resolver.Addr) == 0 {
		return upstream.System{}, nil
	}
	o, err := b.resolverOptions()
	if err != nil {
		return nil, err
	}
	// An address is not believed for its signatures: who stands there has to show
	// who he is. So it may come from a resolver whose word on DNSSEC does not count.
	o.Anchors = nil
	for i := range o.Servers {
		o.Servers[i].Trusted = true
	}
	o.Before = l.names
	l.names, err = dane.NewResolver(o)
	return asked{l.names}, err
}

// Targets implements [upstream.Resolver].
func (r asked) Targets(ctx context.Context, service string) ([]upstream.Target, time.Duration, error) {
	a, err := r.Lookup(ctx, service, dane.SRVs)
	if err != nil {
		return nil, 0, &net.DNSError{Err: err.Error(), Name: service, IsTemporary: true}
	}
	if len(a.SRV) == 0 {
		return nil, 0, &net.DNSError{Err: "it has no SRV records", Name: service, IsNotFound: true}
	}
	var list []upstream.Target
	for _, s := range a.SRV {
		list = append(list, upstream.Target{Priority: s.Priority, Weight: s.Weight, Port: s.Port, Host: s.Target})
	}
	return list, max(a.TTL, 1), nil
}

// asked is a resolver that tells for how long its answers hold.
type asked struct{ *dane.Resolver }

// Addrs implements [upstream.Resolver]. One family is enough; the other may fail.
func (r asked) Addrs(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	type answer struct {
		*dane.Answer
		err error
	}
	four := make(chan answer, 1)
	go func() {
		a, err := r.Lookup(ctx, host, dane.A)
		four <- answer{a, err}
	}()
	a, err := r.Lookup(ctx, host, dane.AAAA) // first, as RFC 6724 would have it
	var (
		addrs  []netip.Addr
		ttl    time.Duration
		failed error
	)
	for _, a := range []answer{{a, err}, <-four} {
		switch {
		case a.err != nil:
			failed = a.err
		case len(a.Addrs) > 0:
			if addrs == nil || a.TTL < ttl {
				ttl = a.TTL
			}
			addrs = append(addrs, a.Addrs...)
		}
	}
	switch {
	case len(addrs) > 0:
		return addrs, max(ttl, 1), nil // 0 would be one that nobody knows
	case failed != nil:
		return nil, 0, &net.DNSError{Err: failed.Error(), Name: host, IsTemporary: true}
	}
	return nil, 0, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}
