package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Set is the servers and pools of one program.
type Set struct {
	log     *slog.Logger
	fell    chan struct{}
	changed chan struct{} // told when servers come and go by SRV records, without waiting

	mu      sync.Mutex         // over what follows: servers and names may change while the program runs
	before  map[string]*Server // of the program before this one, by ID
	servers []*Server          // in the order of the file
	asks    map[*Server]Spec   // how this program asks each, which a reload may renew
	pools   []*Pool
	out     map[string]bool // addresses taken out in another process, where SRV records may lead yet

	resolver Resolver
	last     map[string][]netip.Addr // addresses of names, of the program before
	names    []*Name
	targets  map[string][]Target // of services, likewise
	services []*Service
}

// NewSet gives an empty one, which hands on what before knows; before may be nil,
// and nothing of it changes. Names are looked up by r.
func NewSet(log *slog.Logger, r Resolver, before *Set) *Set {
	s := &Set{
		log: log, resolver: r, fell: make(chan struct{}, 1), changed: make(chan struct{}, 1), targets: map[string][]Target{},
		before: map[string]*Server{}, last: map[string][]netip.Addr{}, asks: map[*Server]Spec{}, out: map[string]bool{},
	}
	if before != nil {
		s.fell = before.fell
		before.mu.Lock()
		servers, names := slices.Clone(before.servers), slices.Clone(before.names)
		maps.Copy(s.out, before.out)
		before.mu.Unlock()
		for _, b := range servers {
			s.before[b.spec.ID] = b
		}
		for _, n := range names {
			s.last[n.host] = n.known()
		}
		for _, v := range before.services {
			s.targets[v.name] = v.known()
		}
	}
	return s
}

// Server gives the server of that ID, the one of the program before where it had
// it. It is called while the program is built.
func (s *Set) Server(spec Spec) *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server(spec)
}

func (s *Set) server(spec Spec) *Server {
	for _, have := range s.servers {
		if have.spec.ID == spec.ID {
			return have
		}
	}
	server := s.before[spec.ID]
	if server == nil {
		// It outlives what this program asks it with.
		server = &Server{spec: spec, checked: spec.Check != nil, log: s.log, fell: s.fell}
		server.spec.Check, server.spec.Probe = nil, nil
		for _, b := range s.before {
			if b.spec.Addr == spec.Addr {
				server.follow(b)
				break
			}
		}
	}
	s.servers = append(s.servers, server)
	s.asks[server] = spec
	return server
}

// Name gives the name of a server, whose addresses are kept current while the
// program runs. It is called while the program is built.
func (s *Set) Name(host string) *Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nameOf(host)
	n.stays = true
	return n
}

func (s *Set) nameOf(host string) *Name {
	for _, n := range s.names {
		if n.host == host {
			return n
		}
	}
	n := &Name{host: host, resolver: s.resolver, log: s.log, addrs: s.last[host]}
	s.names = append(s.names, n)
	return n
}

// Add notes a pool, for who asks how they are.
func (s *Set) Add(p *Pool) { s.pools = append(s.pools, p) }

// Work is what goes on while the program runs; each ends with its context. After
// it servers come and go by SRV records alone.
func (s *Set) Work() []func(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.last, s.targets = nil, nil, nil
	s.tellRoutes(false)
	work := []func(context.Context){s.renewRoutes}
	if len(s.services) > 0 {
		return append(work, s.tend, s.rescue)
	}
	for _, n := range s.names {
		work = append(work, n.keep)
	}
	rescues := false
	for _, server := range s.servers {
		switch spec := s.asks[server]; {
		case spec.Check != nil:
			work = append(work, func(ctx context.Context) { server.watch(ctx, spec.Check) })
		case !spec.Alone:
			rescues = true
		}
	}
	if rescues {
		work = append(work, s.rescue)
	}
	return work
}

func (s *Set) renewRoutes(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellRoutes(true)
}

// tellRoutes has servers know the routes that have them, for what they log: two of one
// address may be asked in different ways. Those of the program before know its routes,
// which stay theirs until this one runs: renew says that it does. s.mu is held.
func (s *Set) tellRoutes(renew bool) {
	routes := map[*Server][]string{}
	for _, p := range s.pools {
		for _, m := range p.all() {
			if list := routes[m.server]; len(list) == 0 || list[len(list)-1] != p.Route {
				routes[m.server] = append(list, p.Route)
			}
		}
	}
	for server, list := range routes {
		server.mu.Lock()
		if renew || server.routes == nil {
			server.routes = few(list)
		}
		server.mu.Unlock()
	}
}

// few shortens a long list.
func few(list []string) []string {
	const most = 8
	if len(list) > most {
		return append(slices.Clip(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
	}
	return list
}

// Drain takes every server of that address out: it gets no new flows, and keeps
// those that it has. Undrain puts it back.
func (s *Set) Drain(addr string) error { return s.drain(addr, true) }

// Undrain is the opposite of Drain.
func (s *Set) Undrain(addr string) error { return s.drain(addr, false) }

func (s *Set) drain(addr string, out bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := !out && s.out[addr]
	if found {
		delete(s.out, addr)
	}
	for _, server := range s.servers {
		if server.spec.Addr == addr {
			found = true
			server.drain(out)
		}
	}
	if !found {
		return fmt.Errorf("no server is at %q\nhint: %s", addr, s.known())
	}
	return nil
}

// Drained are the addresses that are taken out, each once.
func (s *Set) Drained() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.out)
	for _, server := range s.servers {
		if server.condition().drained {
			all[server.spec.Addr] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// KeepOut takes out the servers of those addresses, which have been in the process
// before this one, and gives the addresses that there are. The others are nobody's,
// unless SRV records lead there once they are looked up.
func (s *Set) KeepOut(addrs []string) (known []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, addr := range addrs {
		if len(s.services) > 0 {
			s.out[addr] = true
		}
		for _, server := range s.servers {
			if server.spec.Addr == addr {
				server.mu.Lock()
				server.drained = true
				server.mu.Unlock()
				known = append(known, addr)
			}
		}
	}
	slices.Sort(known)
	return slices.Compact(known)
}

func (s *Server) drain(out bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained == out {
		return
	}
	s.drained = out
	if out {
		s.log.Info("server taken out: it gets no new flows", "server", s.spec.Addr, "routes", s.routes, "flows", s.flows)
		return
	}
	s.back = time.Now() // a slow start, as after being down
	s.log.Info("server put back", "server", s.spec.Addr, "routes", s.routes)
}

// known are some addresses that there are.
func (s *Set) known() string {
	var list []string
	for _, server := range s.servers {
		if !slices.Contains(list, server.spec.Addr) {
			list = append(list, server.spec.Addr)
		}
	}
	return "there are " + strings.Join(few(list), ", ")
}
