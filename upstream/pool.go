package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"sallyport/flow"
)

// Pool is the servers of one route. Its exported fields are set before the first
// flow and never changed.
type Pool struct {
	Route     string
	Balance   Balance
	SlowStart time.Duration // until a server that has come back gets its full share
	Retry     int           // how many more servers a flow tries
	Timeout   time.Duration // for the dials until one succeeds, anew after a handshake that fails; 0 means none but the context's
	Told      bool          // servers get a PROXY header ahead of the handshake
	Mirrors   bool          // the handshake offers what the client does

	mu       sync.Mutex // held while one is chosen
	members  []*member
	services []*Service // whose servers are among the members once they are known
}

// Member is what a pool has of a server.
type Member struct {
	Weight int
	Backup bool
	Dial   flow.Dialer // of this server alone; its errors are a [*flow.Error]
	Layer  flow.Layer  // over its connections; nil is none. All members have one or none has
}

type member struct {
	Member
	server *Server
	full   int64    // its weight, in parts of which 1,024 are one
	of     *Service // nil: it stands in the file
	name   *Name    // of its address; nil where it stands in the file
	rank   int      // of its priority there; lower ones go first
	credit int64    // of the round robin
}

var (
	_ flow.Dialer = (*Pool)(nil)
	_ flow.Layer  = (*Pool)(nil)
)

// Add gives the pool a server.
func (p *Pool) Add(s *Server, m Member) {
	p.members = append(p.members, &member{Member: m, server: s, full: int64(m.Weight) << 10})
}

// Wrap implements [flow.Layer] by the layer of the server that was dialled: a
// Decision is shared by all flows of its route, while each server may have a name,
// a certificate and trust anchors of its own.
func (p *Pool) Wrap(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	if f.Dialled.Layer == nil {
		return nil, flow.Fail(flow.Internal, "%q was not dialled by who makes its handshake", f.Dialled.Server)
	}
	return f.Dialled.Layer.Wrap(ctx, f, c)
}

// Wrap makes the handshake with the server, which shows by it that it is up.
func (m *member) Wrap(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	over, err := m.Layer.Wrap(ctx, f, c)
	if err == nil {
		m.server.pass(time.Now())
	}
	return over, err
}

// Dial implements [flow.Dialer]: it tries one server after the other, as nothing
// has been sent yet.
func (p *Pool) Dial(ctx context.Context, f *flow.Flow) (flow.Conn, error) {
	return p.dial(ctx, f, attempts{})
}

// dial tries those that are not among tried.
func (p *Pool) dial(ctx context.Context, f *flow.Flow, tried attempts) (flow.Conn, error) {
	start, before := time.Now(), f.Dialled.Took
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Timeout)
		defer cancel()
	}
	for {
		m, left := p.pick(f, tried)
		if m == nil && len(tried.members) == 0 && p.learn(ctx) {
			m, left = p.pick(f, tried)
		}
		if m == nil {
			return nil, p.nobody(tried)
		}
		c, err := m.dial(ctx, f, min(p.Retry-len(tried.members), left))
		f.Dialled.Took = before + time.Since(start)
		if err == nil {
			return p.hold(c, m, tried)
		}
		m.server.leave()
		if !serverFailed(err) {
			return nil, err
		}
		m.server.fail(time.Now(), err)
		tried.add(m, err)
		if len(tried.members) > p.Retry || ctx.Err() != nil {
			return nil, p.gaveUp(tried, left)
		}
	}
}

// serverFailed says whether err is of the server, so that another one may do better.
func serverFailed(err error) bool {
	e, ok := errors.AsType[*flow.Error](err)
	return ok && e.Fault == flow.FaultServer
}

// dial dials m in its part of the time: one server that does not answer must not
// take the time of the others.
func (m *member) dial(ctx context.Context, f *flow.Flow, others int) (flow.Conn, error) {
	if end, ok := ctx.Deadline(); ok && others > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(others+1))
		defer cancel()
	}
	c, err := m.Dial.Dial(ctx, f)
	f.Dialled.Server = m.server.spec.Addr
	if m.Layer != nil {
		f.Dialled.Layer = m
	} else if err == nil && c.Transport() == flow.Stream {
		m.server.pass(time.Now())
	}
	return c, err
}

// pick chooses a server that is not among tried and has the flow join it, and says
// how many more there would be. It gives nil where there is none.
func (p *Pool) pick(f *flow.Flow, tried attempts) (m *member, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list, left := p.candidates(time.Now(), tried)
	if len(list) == 0 {
		return nil, 0
	}
	m = p.choose(f, list)
	m.server.join()
	return m, left - 1
}

// candidates are those of the best kind that there is, and how many there are of
// all kinds: servers that are up, else backups that are. Where none is, those are
// tried that only connections have found to be down: a check that fails says that a
// server is down, while a flow that has none left has nothing to lose.
func (p *Pool) candidates(now time.Time, tried attempts) (best []candidate, all int) {
	var kinds [4][]candidate
	anyUp := false
	for _, m := range p.members {
		c := m.server.condition()
		if c.drained || tried.has(m) {
			continue
		}
		kind := 0
		switch {
		case !c.up && m.server.checked:
			continue
		case !c.up:
			kind = 2
		default:
			anyUp = true
		}
		if m.Backup {
			kind++
		}
		kinds[kind] = append(kinds[kind], candidate{m, p.share(m, c, now), int64(c.flows)})
	}
	for kind, list := range kinds {
		if kind >= 2 && anyUp {
			break
		}
		if best == nil {
			best = preferred(list)
		}
		all += len(list)
	}
	return best, all
}
