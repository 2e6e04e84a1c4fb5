package upstream

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
)

// follow has every pool that names v go by what it knows, and forgets the servers and
// their names that no pool has any more. The lock of v is held.
func (s *Set) follow(v *Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range v.uses {
		u.apply(v)
	}
	s.tellRoutes(true)
	had, named := map[*Server]bool{}, map[*Name]bool{}
	for _, p := range s.pools {
		for _, m := range p.all() {
			had[m.server], named[m.name] = true, true
		}
	}
	s.names = slices.DeleteFunc(s.names, func(n *Name) bool { return !n.stays && !named[n] })
	s.servers = slices.DeleteFunc(s.servers, func(server *Server) bool { return !had[server] })
	maps.DeleteFunc(s.asks, func(server *Server, _ Spec) bool { return !had[server] })
	select {
	case s.changed <- struct{}{}:
	default: // it will be seen
	}
}

// asked are the servers and how each is asked, as they are now.
func (s *Set) asked() iter.Seq2[*Server, Spec] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.All(maps.Clone(s.asks))
}

// tend does what there is to do for names, services and servers that have checks,
// while these come and go, until ctx ends.
func (s *Set) tend(ctx context.Context) {
	var tending sync.WaitGroup
	defer tending.Wait()
	under := map[any]context.CancelFunc{}
	for {
		now := s.duties()
		for what, work := range now {
			if under[what] == nil {
				its, cancel := context.WithCancel(ctx)
				under[what] = cancel
				tending.Go(func() { work(its) })
			}
		}
		for what, cancel := range under {
			if now[what] == nil {
				cancel()
				delete(under, what)
			}
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			for _, cancel := range under {
				cancel()
			}
			return
		}
	}
}

// duties are what there is to do now, by what it is done for.
func (s *Set) duties() map[any]func(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := map[any]func(context.Context){}
	for _, v := range s.services {
		list[v] = func(ctx context.Context) { keepLooking(ctx, v.lookup) }
	}
	for _, n := range s.names {
		list[n] = n.keep
	}
	for server, spec := range s.asks {
		if spec.Check != nil {
			list[server] = func(ctx context.Context) { server.watch(ctx, spec.Check) }
		}
	}
	return list
}
