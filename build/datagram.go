package build

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/flow"
	"sallyport/secure"
	"sallyport/transport"
	"sallyport/wire"
)

// listen binds what l asks for. Flows go by what s holds then.
func (l *Listener) listen(ctx context.Context, s *Socket, rest *transport.Poller, handed []*os.File) (flow.Acceptor, error) {
	w := l.where
	if l.from.Datagram() {
		return transport.ListenPackets(ctx, l.Name, w, transport.PacketOptions{DTLS: l.from.Secure(), Headers: s.headers, Judge: s.judge, Inherited: handed})
	}
	if len(handed) > 0 {
		w.File = handed[0]
	}
	a, err := transport.Listen(ctx, l.Name, w)
	if err != nil {
		return nil, err
	}
	a.RestOn(rest)
	return a, nil
}

// headers is what a reload may have changed.
func (s *Socket) headers() flow.Header { return s.Current.Load().Header }

// judge decides for the demultiplexer, which keeps nothing of a client by then.
func (s *Socket) judge(client, local netip.AddrPort, hello []byte) transport.Verdict {
	l := s.Current.Load()
	f := &flow.Flow{Start: time.Now(), Origin: flow.Origin{Listener: l.Name, Transport: flow.Datagram, Client: client, Local: local}}
	if hello == nil {
		if d := l.Decider.Decide(f); d.Action == flow.Reject && d.Reason == flow.AddressRefused {
			return transport.Refuse
		}
		return transport.Take
	}
	if !l.Splices {
		return transport.Take
	}
	var err error
	if f.Hello, err = wire.ParseDTLSHello(hello); err != nil {
		return transport.Take // what is wrong with it is said once the client is proved
	}
	if l.Decider.Decide(f).Action == flow.Splice {
		return transport.Pass
	}
	return transport.Take
}

// splices says whether some route passes datagrams on undecrypted.
func splices(c *config.Listener) bool {
	for _, r := range c.Routes {
		if c.From.Carrier == "dtls" && r.Action == config.Splice {
			return true
		}
	}
	return false
}

// PacketCounters are those of a listener of datagrams; nil of another, and before Bind.
func (l *Listener) PacketCounters() *transport.PacketCounters {
	if a, ok := l.Acceptor.(*transport.PacketAcceptor); ok {
		return a.Counters()
	}
	return nil
}

// psk reads pre-shared keys once for all who name the file.
func (b *builder) psk(file string, u config.Unsafe) (*credential.PSKs, error) {
	id := fmt.Sprintf("%q %t", file, u.KeyMode)
	if p, ok := b.psks[id]; ok {
		return p, nil
	}
	p, warnings, err := credential.LoadPSK(file, credential.Options{AllowKeyMode: bool(u.KeyMode), Env: b.o.Env})
	for _, w := range warnings {
		b.warn("%s", w)
	}
	if err != nil {
		return nil, err
	}
	b.psks[id] = p
	return p, nil
}

// clientPSK fills who of the clients may pass by a key.
func (b *builder) clientPSK(s *secure.Server, c *config.Route) error {
	if c.PSK == "" {
		return nil
	}
	p, err := b.psk(c.PSK, c.Unsafe)
	if err != nil {
		return err
	}
	hash := p.Hash()
	s.PSK, s.Trust = p, secure.TrustHash(s.Trust[:], hash[:])
	return nil
}

// serverPSK fills which key is ours towards the server.
func (b *builder) serverPSK(o *secure.Client, c *config.Route) error {
	p, err := b.psk(c.To.PSK, c.Unsafe)
	if err != nil {
		return fmt.Errorf("to.%w", err)
	}
	ids := p.Identities()
	switch _, known := p.Key([]byte(c.To.PSKID)); {
	case c.To.PSKID == "" && len(ids) > 1:
		return fileError("%s: to.psk_identity must say which key is ours: %s has %d\nhint: the first is %q", named(c.Pos, c.Name), c.To.PSK, len(ids), ids[0])
	case c.To.PSKID == "":
		o.Identity = ids[0]
	case !known:
		return fileError("%s: %s has no key for to.psk_identity %q\nhint: psktool -u %q -p %s adds one", named(c.Pos, c.Name), c.To.PSK, c.To.PSKID, c.To.PSKID, c.To.PSK)
	default:
		o.Identity = c.To.PSKID
	}
	o.PSK = p
	return nil
}
