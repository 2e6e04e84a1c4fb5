// Package probe finds out what a TLS or DTLS server is like: which versions and
// key exchange groups it takes, what it shows, what each verifier says of that,
// and what becomes of a connection by a given route.
package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/build"
	"sallyport/flow"
	"sallyport/observe"
	"sallyport/verify"
	"sallyport/wire"
)

const (
	// patience bounds each connection.
	patience = 10 * time.Second
	// atOnce is how many connections the server gets at the same time.
	atOnce = 4
)

// Server asks the server that all of by lead to.
func Server(ctx context.Context, by []*build.Prober) *Report {
	p := by[0]
	r := &Report{To: p.To}
	seen := &witness{}
	f, err := connect(ctx, p, p.Layer(0, nil, seen))
	r.Server = f.Dialled.Addr
	if err != nil {
		r.fail(err)
	} else {
		r.Agreed = agreed(f.Outbound[0])
	}
	if err == nil || f.Dialled.Addr != "" && err.Stage == flow.StageOutbound {
		r.try(ctx, p, seen.p)
	}
	if seen.p != nil {
		for _, c := range seen.p.Chain {
			r.Chain = append(r.Chain, certificate(c, seen.p.Now))
		}
		var paths [][]*x509.Certificate
		r.Verdicts, paths = judged(ctx, p, seen.p)
		r.Extras = append(stapled(seen.p, paths), timestamps(p, seen.p)...)
	}
	if p.TLSA != nil {
		r.Extras = append(r.Extras, records(ctx, p)...)
	}
	if r.Reason == string(flow.DialRefused) || f.Dialled.Addr == "" {
		return r
	}
	for _, p := range by {
		r.Routes = append(r.Routes, route(ctx, p))
	}
	return r
}

func (r *Report) fail(e *flow.Error) { r.Failed, r.Reason = e.Error(), string(e.Reason) }

// connect makes one handshake. What it learned is in the flow.
func connect(ctx context.Context, p *build.Prober, layer flow.Layer) (*flow.Flow, *flow.Error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f := &flow.Flow{Start: time.Now()}
	if p.Datagram() {
		f.Origin.Transport = flow.Datagram
	}
	c, err := p.Dial.Dial(ctx, f)
	if err != nil {
		e := *flow.AsError(err, flow.Internal)
		e.Stage = flow.StageDial
		return f, &e
	}
	defer func() { c.Close() }()
	for _, l := range append(slices.Clone(p.Before), layer) {
		over, err := l.Wrap(ctx, f, c)
		if err != nil {
			e := *flow.AsError(err, flow.Internal)
			e.Stage = flow.StageOutbound
			return f, &e
		}
		c = over
	}
	return f, nil
}

func agreed(s flow.Session) *Agreed {
	a := &Agreed{Version: wire.VersionName(s.Version), Cipher: observe.SuiteName(s.Suite), ALPN: s.ALPN, Millis: float64(s.Took.Microseconds()) / 1000}
	if s.Group != 0 {
		a.Group = groupName(tls.CurveID(s.Group))
	}
	return a
}

// groupName is as in tls.groups.
func groupName(g tls.CurveID) string { return strings.Replace(g.String(), "CurveP", "P-", 1) }

var (
	versions = []uint16{wire.VersionTLS13, wire.VersionTLS12, wire.VersionTLS11, wire.VersionTLS10}
	groups   = []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	classic  = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384} // what DTLS has here
)

// lastCurve is the last of the elliptic curves among groups; TLS 1.2 knows no hybrids
// (RFC 8446, section 4.2.7).
const lastCurve = 0xff

// try finds out what the server takes, each by itself.
func (r *Report) try(ctx context.Context, p *build.Prober, seen *verify.Presented) {
	var all sync.WaitGroup
	room := atOnce
	if p.Datagram() {
		room = 1 // many a DTLS server has but one association at a time
	}
	free := make(chan struct{}, room)
	one := func(t *Try, version uint16, group []uint16) {
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			_, err := connect(ctx, p, p.Layer(version, group, &witness{}))
			if c := curveOf(seen); err != nil && group != nil && c != 0 && c != group[0] {
				// Up to TLS 1.2 the curve of the key must be among the groups (RFC 8422, section 5.1).
				if f, again := connect(ctx, p, p.Layer(version, append(group, c), &witness{})); again == nil {
					if s := f.Outbound[0]; s.Group == group[0] {
						err = nil
					} else if s.Version != wire.VersionTLS13 && group[0] <= lastCurve { // the order in which both are offered is not ours to choose
						t.Unclear, t.Why = true, fmt.Sprintf("the server's key is of %s, which has to be offered as well, and it takes that", groupName(tls.CurveID(c)))
						return
					}
				}
			}
			if err != nil {
				// Who wants a certificate of ours has taken the rest so far.
				t.Unclear, t.Why = err.Reason == flow.ServerRejectedCert, err.Error()
				return
			}
			t.OK = true
		})
	}
	list := groups
	if p.Datagram() {
		list = classic
		r.Versions = []Try{{Name: wire.VersionName(wire.VersionDTLS12)}}
		one(&r.Versions[0], 0, nil)
	} else {
		r.Versions = make([]Try, len(versions))
		for i, v := range versions {
			r.Versions[i].Name = wire.VersionName(v)
			one(&r.Versions[i], v, nil)
		}
	}
	r.Groups = make([]Try, len(list))
	for i, g := range list {
		r.Groups[i].Name = groupName(g)
		one(&r.Groups[i], 0, []uint16{uint16(g)})
	}
	all.Wait()
}

// curveOf is the group that the server's key is of, 0 if none.
func curveOf(seen *verify.Presented) uint16 {
	if seen == nil {
		return 0
	}
	key, ok := seen.Chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return 0
	}
	return uint16(map[elliptic.Curve]tls.CurveID{elliptic.P256(): tls.CurveP256, elliptic.P384(): tls.CurveP384, elliptic.P521(): tls.CurveP521}[key.Curve])
}

// witness takes whoever comes, and keeps what was shown.
type witness struct{ p *verify.Presented }

func (w *witness) Verify(ctx context.Context, p *verify.Presented) (*verify.Identity, error) {
	seen := *p
	w.p = &seen
	return verify.With(verify.Anyone()).Verify(ctx, p)
}

// judged asks each verifier by itself. One that only repeats what the first, PKIX,
// refuses for has nothing of its own to say. The paths are those that PKIX has found.
func judged(ctx context.Context, p *build.Prober, seen *verify.Presented) (list []Verdict, paths [][]*x509.Certificate) {
	list = make([]Verdict, len(p.Judges))
	var all sync.WaitGroup
	for i, j := range p.Judges {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			mine := *seen
			id, err := j.Verify(ctx, &mine)
			list[i] = verdict(j.Name, id, err)
			if i == 0 && err == nil {
				paths = id.Chains()
			}
		})
	}
	all.Wait()
	return slices.DeleteFunc(list, func(v Verdict) bool {
		return v.By != list[0].By && !v.Passes && v.Reason == list[0].Reason && v.Text == list[0].Text
	}), paths
}

func verdict(by string, id *verify.Identity, err error) Verdict {
	v := Verdict{By: by, Passes: err == nil}
	if err != nil {
		v.Text = err.Error()
		if e, ok := err.(*verify.Error); ok {
			v.Reason = string(e.Reason)
		}
		return v
	}
	for _, n := range id.Notes() {
		v.Notes = append(v.Notes, n.String())
	}
	return v
}

// route makes a connection as the route would.
func route(ctx context.Context, p *build.Prober) Verdict {
	v := Verdict{By: p.Name}
	f, err := connect(ctx, p, p.Route)
	if err != nil {
		v.Reason, v.Text = string(err.Reason), err.Error()
		return v
	}
	v.Passes = true
	s := f.Outbound[0]
	a := agreed(s)
	v.Text = a.Version + ", " + a.Cipher
	if s.Peer != nil {
		v.Text += ", verified by " + text(s.Peer.By)
		v.Notes = s.Peer.Notes
	}
	return v
}

// records are what DNS says of the server.
func records(ctx context.Context, p *build.Prober) []Extra {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := p.TLSA(ctx)
	switch {
	case err != nil:
		return []Extra{{"tlsa", err.Error()}}
	case len(s.Records) == 0:
		return []Extra{{"tlsa", fmt.Sprintf("%s: none (DNSSEC: %s)", s.Name, s.State)}}
	}
	var all []Extra
	for _, rec := range s.Records {
		e := Extra{"tlsa", fmt.Sprintf("%s: %s (DNSSEC: %s)", s.Name, rec, s.State)}
		if why := rec.Unusable(); why != nil {
			e.Text += "; not usable: " + why.Error()
		}
		all = append(all, e)
	}
	return all
}

// Chain is what the server shows, whoever it is.
func Chain(ctx context.Context, p *build.Prober) ([]*x509.Certificate, error) {
	seen := &witness{}
	if _, err := connect(ctx, p, p.Layer(0, nil, seen)); seen.p == nil {
		return nil, err
	}
	return seen.p.Chain, nil
}
