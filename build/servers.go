package build

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sallyport/config"
	"sallyport/flow"
	"sallyport/transport"
	"sallyport/upstream"
)

// handOn begins the servers of this program with what is known of those of the one
// before. What that one has is not changed: this one may yet come to nothing.
func (b *builder) handOn() error {
	lasting := *b.lasting
	if lasting.clock != b.file.Unsafe.ClockOffset {
		lasting.clock, lasting.tlsa, lasting.names = b.file.Unsafe.ClockOffset, nil, nil
	}
	r, err := b.addresses(&lasting)
	if err != nil {
		return err
	}
	lasting.servers = upstream.NewSet(b.o.Log, r, b.lasting.servers)
	b.lasting = &lasting
	b.program.Lasting, b.program.servers = b.lasting, lasting.servers
	return nil
}

// Servers are those of the program, for who asks how they are or takes one out.
func (p *Program) Servers() *upstream.Set { return p.servers }

// pool makes ready the servers of a route, each with what it is spoken with.
func (b *builder) pool(l *config.Listener, c *config.Route) (*upstream.Pool, params, error) {
	p := &upstream.Pool{
		Route: c.Name, Balance: balances[c.Pool.Balance], SlowStart: c.Pool.SlowStart, Retry: int(c.Pool.Retry), Timeout: c.Timeouts.Dial,
		Told: c.To.ProxyProtocol != config.ProxyNone, Mirrors: c.ALPN.Mirror,
	}
	var shown params
	for i := range c.Pool.Servers {
		server := &c.Pool.Servers[i]
		m := upstream.Member{Weight: int(server.Weight), Backup: bool(server.Backup), Dial: b.dialer(server.Addr, 0)}
		one := *c
		one.To = server.To
		if c.Action == config.Terminate && server.Addr.Secure() {
			layer, ps, err := b.outbound(l, &one)
			if err != nil {
				return nil, shown, fmt.Errorf("%s: %w", server.Addr, err)
			}
			m.Layer = layer
			if i == 0 {
				shown = ps
			}
		}
		spec, err := b.spec(l, &one)
		if err != nil {
			return nil, shown, fmt.Errorf("%s: %w", server.Addr, err)
		}
		if server.Addr.SRV() {
			b.service(p, server.Addr, m, spec)
			continue
		}
		p.Add(b.program.servers.Server(spec), m)
	}
	b.program.servers.Add(p)
	return p, shown, nil
}

// service gives p the servers that SRV records lead to, each asked as in like.
func (b *builder) service(p *upstream.Pool, a config.Address, m upstream.Member, like upstream.Spec) {
	set := b.program.servers
	p.AddService(set.Service(strings.TrimSuffix(strings.ToLower(a.Host), "."), a.String()), m, func(t upstream.Target, n *upstream.Name) (upstream.Spec, flow.Dialer) {
		to := a
		to.Host, to.Port = t.Host, t.Port
		d := b.dialsTo(to)
		if !d.Overridden() {
			d.Names = n.Addrs
		}
		spec := like
		spec.Addr, spec.ID, spec.Alone = to.String(), to.String()+" "+like.ID, false
		spec.Check, spec.Probe = like.Check.By(d), like.Probe.By(d)
		return spec, d
	})
}

// reach dials one address, or the servers that its SRV records lead to.
func (b *builder) reach(a config.Address, timeout time.Duration) flow.Dialer {
	if !a.SRV() {
		return b.dialer(a, timeout)
	}
	p := &upstream.Pool{Timeout: timeout, Retry: 1}
	b.service(p, a, upstream.Member{Weight: 1}, upstream.Spec{Fall: 1, Rise: 1})
	return p
}

var balances = map[config.Balance]upstream.Balance{
	config.RoundRobin: upstream.RoundRobin, config.Least: upstream.Least, config.ByHash: upstream.Hash,
}

// spec says how the server c.To comes to count as up or down.
func (b *builder) spec(l *config.Listener, c *config.Route) (upstream.Spec, error) {
	addr, check := c.To.Addr, c.Pool.Check
	spec := upstream.Spec{Addr: addr.String(), Rise: int(check.Rise), Fall: int(check.Fall)}
	spec.Alone = check.Kind == config.CheckOff && len(c.Pool.Servers) == 1 && !addr.SRV()
	var with *config.To // what the check speaks with
	switch {
	case check.Kind != config.CheckOff:
		spec.Check = &upstream.Check{
			Dial: b.dialer(addr, 0), Send: []byte(check.Send), Expect: []byte(check.Expect), Every: check.Every, Timeout: check.Timeout,
		}
		secure := check.Kind == config.CheckTLS || check.Kind == config.CheckDTLS
		if secure || check.Send != "" || check.Expect != "" {
			// A server that wants a PROXY header does not speak without one.
			spec.Check.Layers, with = announced(l, c), &c.To
		}
		if secure {
			layer, err := b.checkLayer(l, c)
			if err != nil {
				return spec, err
			}
			spec.Check.Layers = append(spec.Check.Layers, layer)
		}
	case !addr.Datagram():
		spec.Probe = upstream.Probe(b.dialer(addr, 0))
		if c.Action == config.Terminate && addr.Secure() && !spec.Alone {
			layer, err := b.checkLayer(l, c)
			if err != nil {
				return spec, err
			}
			spec.Probe.Layers = append(announced(l, c), layer)
			spec.Probe.Timeout = max(spec.Probe.Timeout, c.Timeouts.Handshake)
		}
	}
	id, err := json.Marshal([]any{addr.String(), check, spec.Alone, with})
	spec.ID = string(id)
	return spec, err
}

// checkLayer makes the handshake that flows make, as far as no client has a say in
// it. The session keys of checks are of no use to who debugs flows.
func (b *builder) checkLayer(l *config.Listener, c *config.Route) (flow.Layer, error) {
	one := *c
	one.ALPN, one.Unsafe.KeyLog = config.ALPN{}, ""
	layer, _, err := b.outbound(l, &one)
	return layer, err
}

// dialer dials one address. A pool bounds its time.
func (b *builder) dialer(a config.Address, timeout time.Duration) *transport.Dialer {
	d := b.dialsTo(a)
	d.Timeout = timeout
	if a.SRV() {
		return d // its place is taken by those of the targets
	}
	if a.Host != "" && !isAddr(a.Host) && !d.Overridden() {
		d.Names = b.program.servers.Name(a.Host).Addrs
	}
	return d
}

func (b *builder) dialsTo(a config.Address) *transport.Dialer {
	return &transport.Dialer{Where: where(a), Poller: b.o.Poller, Packets: a.Datagram(), Resolve: b.resolves()}
}

// destination is where a route leads, for a line of the log.
func destination(c *config.Route) string {
	const most = 4
	var texts []string
	for i, s := range c.Pool.Servers {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(c.Pool.Servers)-most))
			break
		}
		text := s.Addr.String()
		if s.Weight != 1 {
			text += fmt.Sprintf(" (weight %d)", s.Weight)
		}
		if s.Backup {
			text += " (backup)"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
