package upstream

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/flow"
)

// Target is where an SRV record leads (RFC 2782).
type Target struct {
	Priority, Weight, Port uint16
	Host                   string // in lower case; "." is nowhere
}

// mostTargets of a service are used, the ones that go first. Its zone may have
// hundreds, each of which would be looked up and asked.
const mostTargets = 32

// Service is a name whose SRV records say where its servers are. They are looked up
// again while the program runs. Where that fails, the last good ones stay.
type Service struct {
	name string // _SERVICE._PROTO.DOMAIN
	addr string // as configured
	set  *Set
	log  *slog.Logger
	uses []use // set before the first look-up

	asking together[time.Duration]

	mu      sync.Mutex
	targets []Target // nil until the first good answer
	closed  bool     // decidedly not available at this domain
	err     error    // why it is not known where its servers are now
}

// use is one place in the file that names a service.
type use struct {
	pool *Pool
	as   Member
	each func(Target, *Name) (Spec, flow.Dialer)
}

// Service gives that name. It is called while the program is built.
func (s *Set) Service(name, addr string) *Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.services {
		if v.name == name {
			return v
		}
	}
	v := &Service{name: name, addr: addr, set: s, log: s.log, targets: s.targets[name]}
	s.services = append(s.services, v)
	return v
}

// AddService gives the pool the servers of v, now and as they change. All of them are
// as m but for Dial; each says what one of them is, and how it is dialled.
func (p *Pool) AddService(v *Service, m Member, each func(Target, *Name) (Spec, flow.Dialer)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	u := use{p, m, each}
	v.uses = append(v.uses, u)
	p.services = append(p.services, v)
	v.set.mu.Lock()
	defer v.set.mu.Unlock()
	u.apply(v)
}

func (v *Service) known() []Target {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.targets
}

// missing is why there are no servers; nil where there are.
func (v *Service) missing() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case len(v.targets) > 0:
		return nil
	case v.closed:
		return flow.Fail(flow.NoServerUp, `the service is decidedly not available at this domain: the SRV record of %s names the target "."`, v.name)
	case v.err != nil:
		return flow.Fail(flow.NameNotResolved, "connecting to %s: where its servers are cannot be looked up: %w", v.addr, v.err)
	}
	return flow.Fail(flow.NameNotResolved, "connecting to %s: its SRV records have not been looked up yet", v.addr)
}

// lookup asks, and has the pools follow what is good.
func (v *Service) lookup(ctx context.Context) (time.Duration, error) {
	list, ttl, err := v.set.resolver.Targets(ctx, v.name)
	var none bool
	if err == nil {
		list, none, err = usable(v.name, list)
	}
	if ctx.Err() != nil && err != nil {
		err = asDNS(ctx, v.name, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch was := v.err; {
	case err != nil && context.Cause(ctx) == context.Canceled:
		return 0, err
	case err != nil:
		if v.err = err; was == nil {
			v.complain(err)
		}
		return 0, err
	case was != nil:
		v.log.Info("a service's SRV records can be looked up again", "name", v.name)
	}
	v.err = nil
	if none && !v.closed {
		v.log.Warn(`a service is decidedly not available: the target of its SRV record is "."`, "name", v.name)
	}
	if v.closed == none && slices.Equal(v.targets, list) {
		return ttl, nil
	}
	v.closed, v.targets = none, list
	v.log.Debug("a service has other servers", "name", v.name, "targets", len(list))
	v.set.follow(v)
	return ttl, nil
}

// complain is called while mu is held.
func (v *Service) complain(err error) {
	if len(v.targets) == 0 {
		v.log.Warn("a service's SRV records cannot be looked up", "name", v.name, "err", err.Error())
		return
	}
	v.log.Warn("a service's SRV records cannot be looked up any more: its last servers are kept", "name", v.name, "err", err.Error())
}

// usable are the targets that can be dialled, those that go first first, each once,
// and whether the one record says that there are none.
func usable(name string, list []Target) (good []Target, none bool, err error) {
	if len(list) == 1 && list[0].Host == "." {
		return nil, true, nil
	}
	slices.SortFunc(list, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Weight, a.Weight), strings.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	for _, t := range list {
		t.Host = strings.TrimSuffix(t.Host, ".")
		again := slices.ContainsFunc(good, func(o Target) bool { return o.Host == t.Host && o.Port == t.Port })
		if len(good) < mostTargets && t.Port != 0 && isHost(t.Host) && !again {
			good = append(good, t)
		}
	}
	if len(good) == 0 {
		return nil, false, &net.DNSError{Err: fmt.Sprintf("none of its %d SRV records names a host and a port", len(list)), Name: name, IsNotFound: true}
	}
	return good, false, nil
}

// isHost says whether s is a name of letters, digits, hyphens and underscores, and no
// address, which no target is (RFC 2782).
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil || s == "" {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) < 0
}

// apply gives the pool the servers of v. The locks of v and of its set are held.
func (u use) apply(v *Service) {
	var members []*member
	sum, count, ranks := map[uint16]int64{}, map[uint16]int64{}, map[uint16]int{}
	for _, t := range v.targets {
		sum[t.Priority] += int64(t.Weight)
		count[t.Priority]++
		if _, ok := ranks[t.Priority]; !ok {
			ranks[t.Priority] = len(ranks)
		}
	}
	for _, t := range v.targets {
		name := v.set.nameOf(t.Host)
		spec, dial := u.each(t, name)
		server := v.set.server(spec)
		if v.set.out[spec.Addr] {
			server.drain(true)
		}
		m := &member{Member: u.as, server: server, of: v, name: name, rank: ranks[t.Priority], full: int64(u.as.Weight) << 10}
		m.Dial = dial
		weight, total := int64(t.Weight), sum[t.Priority]
		if total == 0 {
			weight, total = 1, count[t.Priority]
		}
		// One of weight 0 beside others is seldom taken, and not never (RFC 2782).
		m.full = max(m.full*weight/total, 1)
		members = append(members, m)
	}
	u.pool.mu.Lock()
	defer u.pool.mu.Unlock()
	u.pool.members = append(slices.DeleteFunc(slices.Clone(u.pool.members), func(m *member) bool { return m.of == v }), members...)
}

// preferred leaves of each service's servers those that go first of what there is.
func preferred(list []candidate) []candidate {
	first := map[*Service]int{}
	for _, c := range list {
		if rank, ok := first[c.of]; c.of != nil && (!ok || c.rank < rank) {
			first[c.of] = c.rank
		}
	}
	if len(first) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(c candidate) bool { return c.of != nil && c.rank > first[c.of] })
}

// learn asks for the services that nothing is known of yet, and says whether that has
// given the pool servers.
func (p *Pool) learn(ctx context.Context) bool {
	if len(p.services) == 0 || len(p.all()) > 0 {
		return false
	}
	var asking sync.WaitGroup
	for _, v := range p.services {
		if err := v.missing(); err != nil && flow.AsError(err, flow.Internal).Reason == flow.NameNotResolved {
			asking.Go(func() { _, _ = v.asking.ask(ctx, v.name, v.lookup) })
		}
	}
	asking.Wait()
	return len(p.all()) > 0
}

// unknown is why there are no servers where only SRV records could say.
func (p *Pool) unknown() error {
	for _, v := range p.services {
		if err := v.missing(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pool) all() []*member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.members)
}

// only says that there is one server, and never another.
func (p *Pool) only() bool { return len(p.all()) == 1 && len(p.services) == 0 }
