package build

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/flow"
	"sallyport/name"
	"sallyport/rule"
	"sallyport/secure"
	"sallyport/verify"
	"sallyport/wire"
)

// params are one side's TLS parameters, resolved.
type params struct {
	secure.Params
	dtls bool
}

func (p params) String() string {
	if p.dtls {
		return wire.VersionName(wire.VersionDTLS12) + " only"
	}
	if p.Min == p.Max {
		return wire.VersionName(p.Min) + " only"
	}
	return wire.VersionName(p.Min) + " to " + wire.VersionName(p.Max)
}

func tlsParams(c config.TLS) (params, error) {
	p, err := secure.Preset(string(c.Preset))
	if err != nil {
		return params{}, err
	}
	p.Min, p.Max = cmp.Or(uint16(c.Min), p.Min), cmp.Or(uint16(c.Max), p.Max)
	if p.Min > p.Max {
		return params{}, fmt.Errorf("tls: the lowest version, %s, is above the highest, %s", wire.VersionName(p.Min), wire.VersionName(p.Max))
	}
	p.Tickets, p.Record = bool(c.Tickets), bool(c.Record)
	p.MTU, p.CID = int(c.MTU), bool(c.CID)
	if p.Suites, err = ids("tls.ciphers: no cipher suite", c.Ciphers, config.CipherID, p.Suites); err != nil {
		return params{}, err
	}
	if p.Groups, err = ids("tls.groups: no group", c.Groups, config.GroupID, p.Groups); err != nil {
		return params{}, err
	}
	return params{Params: p}, nil
}

// ids are the numbers of names, or the preset's where nothing is named.
func ids(missing string, names []string, find func(string) (uint16, bool), preset []uint16) ([]uint16, error) {
	if len(names) == 0 {
		return preset, nil
	}
	var list []uint16
	for _, n := range names {
		id, ok := find(n)
		if !ok {
			return nil, fmt.Errorf("%s %q", missing, n)
		}
		list = append(list, id)
	}
	return list, nil
}

func (b *builder) common(c *config.Route, t config.TLS) (secure.Common, params, error) {
	p, err := tlsParams(t)
	if err != nil {
		return secure.Common{}, p, err
	}
	// A route is what it matches, not where it stands: a ticket must not follow
	// the number to another one.
	matched, err := json.Marshal(c.Match)
	if err != nil {
		return secure.Common{}, p, err
	}
	keyLog, err := b.keyLog(c.Unsafe.KeyLog)
	return secure.Common{
		Params: p.Params, Route: c.Name + string(matched), Timeout: c.Timeouts.Handshake,
		KeyLog: keyLog, Truncation: bool(c.Unsafe.Truncation), Now: b.now,
	}, p, err
}

func (b *builder) inbound(l *config.Listener, ech *secure.ECHKeys, c *config.Route) (flow.Layer, params, error) {
	common, p, err := b.common(c, c.TLS)
	if err != nil {
		return nil, p, err
	}
	if len(c.Cert) > 0 {
		store, err := b.credential(c.Cert, c.Key, c.Unsafe, staplingOf(l, c))
		if err != nil {
			return nil, p, err
		}
		if common.Credential = store; c.TLSA == config.TLSAHold {
			if common.Credential, err = b.holding(l, c, store); err != nil {
				return nil, p, err
			}
		}
	}
	if c.SPIFFE != (config.Address{}) {
		if common.Credential, err = b.workload(c.SPIFFE); err != nil {
			return nil, p, err
		}
	}
	s := secure.Server{Common: common, ALPN: c.ALPN.Protos, Mirror: c.ALPN.Mirror, ECH: ech, Tickets: b.lasting.Tickets}
	if err := b.clientAuth(&s, c); err != nil {
		return nil, p, err
	}
	if l.From.Datagram() {
		p.dtls, s.Sessions = true, b.lasting.Sessions
		if err := b.clientPSK(&s, c); err != nil {
			return nil, p, err
		}
		return secure.NewDTLSServer(s), p, nil
	}
	return secure.NewServer(s), p, nil
}

// clientAuth fills who may pass.
func (b *builder) clientAuth(s *secure.Server, c *config.Route) error {
	switch c.Client.Auth {
	case config.AuthRequire:
		s.Auth = secure.AuthRequire
	case config.AuthOptional:
		s.Auth = secure.AuthOptional
	default:
		return nil
	}
	asks := ofClient(c)
	issuers, err := b.issuers(asks)
	if err != nil {
		return err
	}
	voucher, trust, err := b.clientVoucher(s, c, issuers)
	if err != nil {
		return err
	}
	keys, err := pins(c.Client.Pin)
	if err != nil {
		return fmt.Errorf("client.pin: %w", err)
	}
	checks := pinned(keys)
	if c.Allow.All {
		checks = append(checks, verify.AllowAll())
	} else {
		rules, err := rules(c.Allow.Rules)
		if err != nil {
			return err
		}
		checks = append(checks, verify.Allow(rules))
		s.Named = true
	}
	if checks, err = b.transparent(checks, "client", c.Client.CT); err != nil {
		return err
	}
	revocation, err := b.revocation(asks, voucher.private)
	if err != nil {
		return err
	}
	s.Chases = issuers != nil
	s.Verify = verify.With(voucher.by, append(checks, revocation)...)
	allow := c.Allow
	allow.Rules = slices.Clone(allow.Rules)
	for i := range allow.Rules {
		allow.Rules[i].Pos = config.Pos{} // a line further down is no change of trust
	}
	said, err := json.Marshal([]any{c.Client, allow})
	if err != nil {
		return err
	}
	s.Trust = secure.TrustHash(trust, said)
	return nil
}

func (b *builder) outbound(l *config.Listener, c *config.Route) (flow.Layer, params, error) {
	common, p, err := b.common(c, c.To.TLS)
	if err != nil {
		return nil, p, err
	}
	if len(c.To.Cert) > 0 {
		if common.Credential, err = b.credential(c.To.Cert, c.To.Key, c.Unsafe, stapleNever); err != nil {
			return nil, p, err
		}
	}
	if c.To.SPIFFE != (config.Address{}) {
		if common.Credential, err = b.workload(c.To.SPIFFE); err != nil {
			return nil, p, err
		}
	}
	o := secure.Client{Common: common, SNI: c.To.SNI, Name: c.To.Name, Port: c.To.Addr.Port, ALPN: c.To.ALPN.Protos}
	switch {
	case c.ALPN.Mirror:
		o.Offer = secure.OfferMirror
	case len(c.To.ALPN.Protos) == 0 && l.From.Secure():
		o.Offer = secure.OfferChosen
	}
	if c.To.PSK != "" {
		p.dtls = true
		if err := b.serverPSK(&o, c); err != nil {
			return nil, p, err
		}
		return secure.NewDTLSClient(o), p, nil
	}
	if o.Verify, err = b.serverVerifier(c); err != nil {
		return nil, p, err
	}
	if err := b.askBy(&o, c); err != nil {
		return nil, p, err
	}
	if l.From.Datagram() {
		p.dtls = true
		return secure.NewDTLSClient(o), p, nil
	}
	return secure.NewClient(o), p, nil
}

// serverVerifier says how the server shows who it is.
func (b *builder) serverVerifier(c *config.Route) (verify.Verifier, error) {
	keys, err := pins(c.To.Pin)
	switch {
	case err != nil:
		return nil, fmt.Errorf("to.pin: %w", err)
	case bool(c.Unsafe.NoVerify) && keys != nil:
		return verify.With(verify.PinAuthenticator(keys...)), nil
	case bool(c.Unsafe.NoVerify):
		return verify.With(verify.Anyone()), nil
	}
	asks := ofServer(c)
	issuers, err := b.issuers(asks)
	if err != nil {
		return nil, err
	}
	voucher, err := b.serverVoucher(c, issuers)
	if err != nil {
		return nil, err
	}
	checks, err := b.transparent(pinned(keys), "to", c.To.CT)
	if err != nil {
		return nil, err
	}
	revocation, err := b.revocation(asks, voucher.private)
	if err != nil {
		return nil, err
	}
	who, err := b.byDNS(&c.To, voucher.by)
	if err != nil {
		return nil, err
	}
	return verify.With(who, append(checks, revocation)...), nil
}

func pkix(a *verify.Anchors, label string, p config.Profile, issuers verify.Issuers) verify.PKIX {
	return verify.PKIX{Anchors: a, From: label, Profile: verify.Profile(p), Issuers: issuers}
}

func pins(texts []string) (keys [][32]byte, err error) {
	for _, t := range texts {
		key, err := verify.ParsePin(t)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func pinned(keys [][32]byte) []verify.Check {
	if keys == nil {
		return nil
	}
	return []verify.Check{verify.Pin(keys...)}
}

// rules are the patterns of allow, parsed.
func rules(list []config.Rule) ([]verify.Rule, error) {
	var out []verify.Rule
	for _, c := range list {
		var r verify.Rule
		for _, p := range []struct {
			key, text string
			parse     func(string) (name.Pattern, error)
			to        *name.Pattern
		}{
			{"dns", c.DNS, name.Parse, &r.DNS},
			{"uri", c.URI, name.ParseURI, &r.URI},
			{"cn", c.CN, name.ParseText, &r.CN},
			{"ou", c.OU, name.ParseText, &r.OU},
			{"email", c.Email, name.ParseText, &r.Email},
		} {
			if p.text == "" {
				continue
			}
			var err error
			if *p.to, err = p.parse(p.text); err != nil {
				return nil, fmt.Errorf("allow.%s: %w", p.key, err)
			}
		}
		if c.IPSAN != "" {
			prefix, err := parsePrefix(c.IPSAN)
			if err != nil {
				return nil, fmt.Errorf("allow.ip_san: %w", err)
			}
			r.IPSAN = prefix
		}
		if c.SPKI != "" {
			key, err := verify.ParsePin(c.SPKI)
			if err != nil {
				return nil, fmt.Errorf("allow.spki: %w", err)
			}
			r.SPKI = key
		}
		if c.If != "" {
			expr, err := rule.Parse(c.If)
			if err != nil {
				return nil, fmt.Errorf("allow.if: %w", err)
			}
			r.If = expr
		}
		out = append(out, r)
	}
	return out, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}

func (b *builder) credential(certs, keys []string, u config.Unsafe, staple stapling) (*credential.Store, error) {
	id := fmt.Sprintf("%q %q %t %d", certs, keys, u.KeyMode, staple)
	if s, ok := b.stores[id]; ok {
		return s, nil
	}
	s, warnings, err := credential.Load(credential.Options{
		Certs: certs, Keys: keys, AllowKeyMode: bool(u.KeyMode), Now: b.now(), Env: b.o.Env, Staple: b.staples(staple),
	})
	for _, w := range warnings {
		b.warn("%s", w)
	}
	if err != nil {
		return nil, err
	}
	b.stores[id] = s
	for _, c := range s.Credentials() {
		if leaf := c.Chain[0]; leaf.BasicConstraintsValid && leaf.IsCA {
			b.signers.Add(leaf)
		}
	}
	return s, nil
}

func (b *builder) trust(label string, entries []string) (*verify.Anchors, error) {
	id := fmt.Sprintf("%q", entries)
	if a, ok := b.anchors[id]; ok {
		return a, nil
	}
	a, err := verify.LoadAnchors(b.now(), entries, b.read)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", label, err)
	}
	for _, w := range a.Warnings {
		b.warn("%s: %s", label, w)
	}
	b.anchors[id] = a
	return a, nil
}

func (b *builder) read(location string) ([]byte, error) {
	data, _, err := credential.Read(location, b.o.Env)
	return data, err
}

func (b *builder) ech(l *config.Listener) (*secure.ECHKeys, error) {
	var pems [][]byte
	for _, file := range l.ECH {
		pem, err := b.read(file)
		if err != nil {
			return nil, fmt.Errorf("ech: %w", err)
		}
		pems = append(pems, pem)
	}
	keys, err := secure.LoadECH(pems)
	if err != nil {
		return nil, fmt.Errorf("ech: %w", err)
	}
	return keys, nil
}

// keyLog opens a file of session keys. One that exists is added to, as other
// programs do; its mode stays what its owner made it.
func (b *builder) keyLog(file string) (io.Writer, error) {
	if file == "" {
		return nil, nil
	}
	if f, ok := b.keyLogs[file]; ok {
		return f, nil
	}
	if b.o.DryRun {
		if _, err := os.Stat(filepath.Dir(file)); err != nil {
			return nil, fmt.Errorf("unsafe.keylog: %w", err)
		}
		return io.Discard, nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening unsafe.keylog: %w", err)
	}
	b.keyLogs[file] = f
	b.program.Logs = append(b.program.Logs, f)
	return f, nil
}
