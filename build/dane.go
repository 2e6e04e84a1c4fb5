package build

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"sallyport/config"
	"sallyport/dane"
	"sallyport/secure"
	"sallyport/verify"
)

// resolver looks TLSA records up; one serves every route, with one cache.
func (b *builder) resolver() (*dane.Resolver, error) {
	if b.tlsa != nil {
		return b.tlsa, nil
	}
	o, err := b.resolverOptions()
	if err != nil {
		return nil, err
	}
	o.Before = b.lasting.tlsa
	if b.tlsa, err = dane.NewResolver(o); err == nil {
		b.lasting.tlsa = b.tlsa
	}
	return b.tlsa, err
}

// resolverOptions are what `resolver` says, else the system's.
func (b *builder) resolverOptions() (dane.Options, error) {
	o := dane.Options{Dial: (&net.Dialer{}).DialContext, Now: b.now}
	c := b.file.Resolver
	for _, a := range c.Addr {
		s := dane.Server{Addr: where(a).String(), TLS: a.Carrier == "tls", TCP: a.Carrier == "tcp", Trusted: bool(c.Trusted)}
		if s.TLS && o.DialTLS == nil {
			anchors, err := b.trust("resolver.addr", []string{verify.System})
			if err != nil {
				return o, err
			}
			o.DialTLS = secure.DialVerified(o.Dial, verify.With(pkix(anchors, "the system's trust anchors", config.ProfileWebPKI, nil)), b.now)
		}
		o.Servers = append(o.Servers, s)
	}
	if len(c.Addr) == 0 {
		data, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return o, fmt.Errorf("finding the system's resolver: %w\nhint: name one in resolver.addr", err)
		}
		o.Servers = dane.ResolvConf(data)
		for i := range o.Servers {
			o.Servers[i].Trusted = bool(c.Trusted)
		}
	}
	if c.Anchor != "" {
		data, err := b.read(c.Anchor)
		if err != nil {
			return o, fmt.Errorf("resolver.anchor: %w", err)
		}
		if o.Anchors, err = dane.ParseAnchors(c.Anchor, data); err != nil {
			return o, fmt.Errorf("resolver.anchor: %w", err)
		}
	}
	return o, nil
}

// byDNS puts to.dane before, or in place of, the anchors of to.ca.
func (b *builder) byDNS(to *config.To, pkix verify.Authenticator) (verify.Authenticator, error) {
	if to.DANE == config.DANEOff {
		return pkix, nil
	}
	d, err := b.dane(to, pkix)
	if err != nil {
		return nil, err
	}
	if to.DANE == config.DANEPrefer {
		return verify.Either(d, pkix), nil
	}
	return d, nil
}

func (b *builder) dane(to *config.To, pkix verify.Authenticator) (*verify.DANE, error) {
	if isAddr(to.Name) {
		return nil, fmt.Errorf("to.dane: the server is known by the address %s alone, and TLSA records belong to a name\nhint: set to.name", to.Name)
	}
	r, err := b.resolver()
	if err != nil {
		return nil, fmt.Errorf("to.dane: %w", err)
	}
	return &verify.DANE{Records: r, PKIX: pkix, Profile: verify.Profile(to.Profile)}, nil
}

func isAddr(name string) bool {
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil
}

// askBy has the server asked for by the name that its records are at (RFC 7671,
// section 7), unless to.sni says another.
func (b *builder) askBy(o *secure.Client, c *config.Route) error {
	to := &c.To
	if to.DANE == config.DANEOff || bool(c.Unsafe.NoVerify) || o.SNI == "" || o.SNI != o.Name {
		return nil
	}
	d, err := b.dane(to, nil)
	if err != nil {
		return err
	}
	name, port, transport := o.Name, o.Port, transportOf(to.Addr)
	o.Ask = func(ctx context.Context) (string, error) { return d.ServerName(ctx, name, port, transport) }
	return nil
}

func transportOf(a config.Address) string {
	if a.Datagram() {
		return "udp"
	}
	return "tcp"
}

// canAsk is for who wants to know without being told to: there is a name, and a
// resolver was chosen.
func (b *builder) canAsk(to *config.To) bool {
	if c := b.file.Resolver; to.DANE == config.DANEOff && len(c.Addr) == 0 && c.Anchor == "" || isAddr(to.Name) || to.Name == "" || to.Addr.SRV() {
		return false
	}
	_, err := b.resolver()
	return err == nil
}
