package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Resolver looks a name up. ttl is for how long the answer holds, 0 where nobody
// knows. Its errors are a [*net.DNSError].
type Resolver interface {
	Addrs(ctx context.Context, host string) (addrs []netip.Addr, ttl time.Duration, err error)
	Targets(ctx context.Context, service string) (list []Target, ttl time.Duration, err error)
}

// System is the system's resolver, which reads /etc/hosts too, and does not tell
// for how long its answers hold.
type System struct{}

// Addrs implements [Resolver].
func (System) Addrs(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, 0, err
}

// Targets implements [Resolver].
func (System) Targets(ctx context.Context, service string) ([]Target, time.Duration, error) {
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", service)
	if len(records) > 0 {
		err = nil // it may be about others of them
	}
	var list []Target
	for _, r := range records {
		list = append(list, Target{r.Priority, r.Weight, r.Port, strings.ToLower(r.Target)})
	}
	return list, 0, err
}

const (
	// unknownTTL is how long an answer is taken to hold whose TTL nobody knows.
	unknownTTL = 30 * time.Second
	// Bounds on what a TTL says: 0 must not have us ask without end, and a zone
	// with one of days still means to change.
	leastTTL, mostTTL = 5 * time.Second, time.Hour
	// A name that does not resolve is asked for again, at first so soon, then
	// less and less often.
	leastRetry, mostRetry = time.Second, 30 * time.Second
	lookupTimeout         = 10 * time.Second
)

// Name is a server's name and its addresses, which are looked up again while the
// program runs. Where that fails, the last good ones stay.
type Name struct {
	host     string
	resolver Resolver
	log      *slog.Logger
	stays    bool // it stands in the file, and not in SRV records alone

	asking  together[[]netip.Addr]
	mu      sync.Mutex
	addrs   []netip.Addr // empty until the first good answer
	failing bool
}

// Addrs gives the addresses as they were last seen, and asks where they never were.
func (n *Name) Addrs(ctx context.Context) ([]netip.Addr, error) {
	if addrs := n.known(); addrs != nil {
		return addrs, nil
	}
	return n.asking.ask(ctx, n.host, func(ctx context.Context) ([]netip.Addr, error) {
		addrs, _, err := n.lookup(ctx)
		return addrs, err
	})
}

// together is one look-up for all flows that want its answer at a time: a name that
// does not resolve would else have a resolver asked as often as clients come.
type together[V any] struct{ group singleflight.Group }

func (g *together[V]) ask(ctx context.Context, name string, look func(context.Context) (V, error)) (v V, err error) {
	asked := g.group.DoChan("", func() (_ any, err error) {
		defer func() { // it is no flow's, which would be all that ends
			if r := recover(); r != nil {
				err = fmt.Errorf("a defect of ours: %v", r)
			}
		}()
		// Who came first may be gone before the others are.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		return look(ctx)
	})
	select {
	case got := <-asked:
		v, _ = got.Val.(V)
		return v, got.Err
	case <-ctx.Done():
		return v, asDNS(ctx, name, late(ctx))
	}
}

func (n *Name) known() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addrs
}

// lookup asks, and keeps what is good.
func (n *Name) lookup(ctx context.Context) ([]netip.Addr, time.Duration, error) {
	addrs, ttl, err := n.resolver.Addrs(ctx, n.host)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no address", Name: n.host, IsNotFound: true}
	}
	if ctx.Err() != nil && err != nil {
		return nil, 0, asDNS(ctx, n.host, err) // who has no time left says nothing of the name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		if !n.failing {
			n.failing = true
			n.complain(err)
		}
		return nil, 0, err
	}
	if n.failing {
		n.failing = false
		n.log.Info("a server's name resolves again", "name", n.host, "addrs", addrs)
	} else if len(n.addrs) > 0 && !sameAddrs(n.addrs, addrs) {
		n.log.Debug("a server's name has other addresses", "name", n.host, "addrs", addrs)
	}
	n.addrs = addrs
	return addrs, ttl, nil
}

// complain is called while mu is held.
func (n *Name) complain(err error) {
	if len(n.addrs) == 0 {
		n.log.Warn("a server's name does not resolve", "name", n.host, "err", err.Error())
		return
	}
	n.log.Warn("a server's name does not resolve any more: its last addresses are kept", "name", n.host, "addrs", n.addrs, "err", err.Error())
}

// late is why one whose ctx has ended knows nothing.
func late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return ctx.Err()
}

// asDNS keeps the promise of a [Resolver] for one whose time was over.
func asDNS(ctx context.Context, host string, err error) error {
	if _, ok := errors.AsType[*net.DNSError](err); ok || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	return &net.DNSError{Err: err.Error(), Name: host, IsTimeout: true}
}

func sameAddrs(a, b []netip.Addr) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(a, b)
}

// keep looks the name up again whenever what is known has had its time, until ctx ends.
func (n *Name) keep(ctx context.Context) {
	keepLooking(ctx, func(ctx context.Context) (time.Duration, error) {
		_, ttl, err := n.lookup(ctx)
		return ttl, err
	})
}

// keepLooking calls lookup whenever what it found has had its time, until ctx ends.
func keepLooking(ctx context.Context, lookup func(context.Context) (ttl time.Duration, err error)) {
	retry := leastRetry
	for {
		asking, cancel := context.WithTimeout(ctx, lookupTimeout)
		ttl, err := lookup(asking)
		cancel()
		wait := max(min(ttl, mostTTL), leastTTL)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait, retry = jittered(retry), min(2*retry, mostRetry)
		case ttl == 0:
			wait, retry = jittered(unknownTTL), leastRetry
		default:
			retry = leastRetry
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}
