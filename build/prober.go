package build

import (
	"context"
	"fmt"
	"slices"

	"sallyport/config"
	"sallyport/ct"
	"sallyport/dane"
	"sallyport/flow"
	"sallyport/secure"
	"sallyport/verify"
)

// Prober reaches the server of one route: as the route does, and with parts of
// that exchanged, for who wants to know what the server is like.
type Prober struct {
	Name   string
	To     string // as configured
	Dial   flow.Dialer
	Before []flow.Layer // below TLS
	Route  flow.Layer   // what the route has
	Judges []Judge
	Logs   *ct.Logs                                     // nil where no list of them is configured
	TLSA   func(context.Context) (*dane.Service, error) // what DNS says of the server; nil: nobody can be asked

	client   secure.Client
	datagram bool
}

// Judge is one way to verify the server, by itself.
type Judge struct {
	Name string
	verify.Verifier
}

// Probers gives one for each server of each route of f that begins TLS or DTLS with a server that
// shows a certificate, and the program that they are parts of.
func Probers(f *config.File, o Options) ([]*Prober, *Program, error) {
	o.DryRun = true
	b, err := newBuilder(f, o)
	if err != nil {
		return nil, nil, err
	}
	b.fetchLists()
	var all []*Prober
	for i := range f.Listeners {
		l := &f.Listeners[i]
		for j := range l.Routes {
			c := &l.Routes[j]
			for _, s := range c.Pool.Servers {
				one := *c
				one.To = s.To
				if c.Action != config.Terminate || !s.Addr.Secure() || s.PSK != "" {
					continue
				}
				p, err := b.prober(l, &one)
				if err != nil {
					b.program.Close()
					return nil, nil, fmt.Errorf("%s: %w", named(c.Pos, c.Name), err)
				}
				all = append(all, p)
			}
		}
	}
	return all, b.program, nil
}

func (b *builder) prober(l *config.Listener, c *config.Route) (*Prober, error) {
	common, _, err := b.common(c, c.To.TLS)
	if err != nil {
		return nil, err
	}
	route, _, err := b.outbound(l, c)
	if err != nil {
		return nil, err
	}
	p := &Prober{Name: c.Name, To: c.To.Addr.String(), Dial: b.reach(c.To.Addr, c.Timeouts.Dial), Before: announced(l, c), Route: route, datagram: l.From.Datagram()}
	p.client = secure.Client{Common: common, SNI: c.To.SNI, Name: c.To.Name, Port: c.To.Addr.Port, ALPN: c.To.ALPN.Protos}
	p.client.KeyLog = nil
	if b.canAsk(&c.To) {
		p.TLSA = func(ctx context.Context) (*dane.Service, error) {
			return b.tlsa.Service(ctx, c.To.Name, c.To.Addr.Port, transportOf(c.To.Addr))
		}
	}
	if b.lists != nil {
		p.Logs = b.lists.logs
	}
	for _, j := range judges {
		alone := *c
		to := &alone.To
		to.Revocation, to.CRL, to.DANE, to.CT = config.RevocationOff, nil, config.DANEOff, config.CTOff
		if !j.asked(b, c, to) {
			continue
		}
		v, err := b.serverVerifier(&alone)
		if err != nil {
			return nil, err
		}
		p.Judges = append(p.Judges, Judge{j.name, v})
	}
	return p, nil
}

// judges fill to with one check alone; false is for what there is nothing to ask with.
var judges = []struct {
	name  string
	asked func(b *builder, c *config.Route, to *config.To) bool
}{
	{"pkix", func(*builder, *config.Route, *config.To) bool { return true }},
	{"dane", func(b *builder, c *config.Route, to *config.To) bool {
		to.DANE = config.DANERequire
		return b.canAsk(&c.To)
	}},
	{"revocation", func(_ *builder, c *config.Route, to *config.To) bool {
		to.Revocation, to.CRL = config.RevocationHard, c.To.CRL
		return true
	}},
	{"ct", func(b *builder, _ *config.Route, to *config.To) bool {
		to.CT = config.CTRequire
		return b.lists != nil
	}},
}

// Layer makes the handshake with other versions and groups than the route's, and
// has v say who the server is. A nil or zero argument leaves the preset "old".
func (p *Prober) Layer(version uint16, groups []uint16, v verify.Verifier) flow.Layer {
	c := p.client
	old, _ := secure.Preset("old")
	c.Params.Min, c.Params.Max, c.Suites, c.Groups, c.Tickets, c.Record = old.Min, old.Max, old.Suites, old.Groups, false, false
	if version != 0 {
		c.Params.Min, c.Params.Max = version, version
	}
	if groups != nil {
		c.Groups = groups
	}
	c.Verify = v
	if p.datagram {
		c.Params.Min, c.Params.Max = p.client.Min, p.client.Max
		c.Suites, c.Groups = p.client.Suites, p.client.Groups
		if groups != nil {
			c.Groups = groups
		}
		return secure.NewDTLSClient(c)
	}
	if c.ALPN == nil {
		c.ALPN = slices.Clone(usual)
	}
	return secure.NewClient(c)
}

// usual is offered where nothing is configured, to see what the server takes.
var usual = []string{"h2", "http/1.1"}

// Datagram says whether the server speaks DTLS.
func (p *Prober) Datagram() bool { return p.datagram }
