package explain

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"sallyport/build"
	"sallyport/config"
	"sallyport/flow"
	"sallyport/rule"
	"sallyport/wire"
)

// strange is a name that nobody has (RFC 6761, section 6.4).
const strange = "no-such-name.invalid"

// client is one that a table of routes may tell from others.
type client struct {
	alpn string
	addr netip.Addr
}

func (c client) String() string {
	var parts []string
	if c.alpn != "" {
		parts = append(parts, "offering "+c.alpn)
	}
	if c.addr.IsValid() {
		parts = append(parts, "from "+c.addr.String())
	}
	return strings.Join(parts, " ")
}

// clients are one of each kind that the routes of c ask for, and one of no kind.
func clients(c *config.Listener) []client {
	addrs, protos := []netip.Addr{{}}, []string{""}
	for i := range c.Routes {
		for _, p := range slices.Concat(c.Routes[i].Match.Client, c.Routes[i].Client.From) {
			if !slices.Contains(addrs, p.Addr()) {
				addrs = append(addrs, p.Addr())
			}
		}
		for _, p := range c.Routes[i].Match.ALPN {
			if !slices.Contains(protos, p) {
				protos = append(protos, p)
			}
		}
	}
	var all []client
	for _, a := range addrs {
		for _, p := range protos {
			all = append(all, client{p, a})
		}
	}
	return all
}

// outcomes tells hear what may become of clients that ask for name, each once.
func (s Subject) outcomes(l *build.Listener, name string, hear func(who string, d *flow.Decision)) {
	c := &s.File.Listeners[slices.Index(s.Program.Listeners, l)]
	open := make([]bool, len(c.Routes)) // whose `if` asks for more than a name
	for i := range c.Routes {
		open[i] = slices.ContainsFunc(asks(&c.Routes[i]), func(word string) bool { return word != "sni" && word != "tls" })
	}
	heard := map[string]bool{}
	for _, who := range clients(c) {
		tell := func(where string, d *flow.Decision) {
			if text := where + outcome(d); !heard[text] {
				heard[text] = true
				hear(strings.TrimSpace(who.String()+" "+where), d)
			}
		}
		f := s.flow(c, who, name)
		suppose := func(holds int) *flow.Decision {
			return l.Table.Suppose(f, func(i int) (bool, bool) { return i == holds, open[i] })
		}
		rest, otherwise := suppose(none), ""
		for i := range c.Routes {
			if d := suppose(i); open[i] && d != rest {
				tell(where(&c.Routes[i])+s.now(&c.Routes[i], f), d)
				otherwise = "otherwise"
			}
		}
		tell(otherwise, rest)
	}
}

const none = -1 // no route

// flow is one of a client that asks for name.
func (s Subject) flow(c *config.Listener, who client, name string) *flow.Flow {
	f := &flow.Flow{Start: s.Now}
	if who.addr.IsValid() {
		f.Origin.Client = netip.AddrPortFrom(who.addr, 1024)
	}
	if c.From.Secure() {
		f.Hello = &wire.Hello{SNI: strings.ToLower(name), DTLS: c.From.Datagram()}
		if who.alpn != "" {
			f.Hello.ALPN = []string{who.alpn}
		}
	}
	return f
}

// asks are the words in the `if` of r.
func asks(r *config.Route) []string {
	if choice, err := rule.ParseChoice(r.Match.If); err == nil {
		return choice.Asks()
	}
	return nil // there is none
}

// where is the `if` of r on one line.
func where(r *config.Route) string {
	return "where " + strings.Join(strings.FieldsFunc(r.Match.If, func(c rune) bool { return c == '\r' || c == '\n' }), " ")
}

// now says what an `if` comes to that asks for nothing beyond f but the time.
func (s Subject) now(r *config.Route, f *flow.Flow) string {
	choice, err := rule.ParseChoice(r.Match.If)
	if err != nil || slices.ContainsFunc(choice.Asks(), func(word string) bool { return word != "sni" && word != "tls" && word != "time" }) {
		return ""
	}
	if holds, err := choice.Holds(&rule.Arrival{SNI: f.Hello.SNI, TLS: true, Time: s.Now.UTC()}); err == nil && holds {
		return " (now it is so)"
	}
	return " (now it is not so)"
}

func (s Subject) misfit(w *writer, l *build.Listener, what, name string) {
	s.outcomes(l, name, func(who string, d *flow.Decision) {
		w.line(2, "%s: %s", strings.TrimSpace(what+" "+who), outcome(d))
	})
}

// versions says what an old client gets.
func (s Subject) versions(w *writer, c *config.Listener) {
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Action == config.Reject || c.From.Datagram() {
			continue
		}
		if r.Action == config.Splice {
			w.line(2, "speaks no more than TLS 1.0, at %s: is passed on as it is, and the server decides", r.Name)
			continue
		}
		p, err := build.TLSParams(r.TLS)
		if err != nil {
			continue
		}
		const old = wire.VersionTLS10
		text := "is taken, although TLS 1.0 is broken"
		if p.Min > old {
			n, _ := flow.VersionUnsupported.Alert()
			text = fmt.Sprintf("is refused as %s (alert %d, %s)", flow.VersionUnsupported, n, wire.Alert(n))
		}
		w.line(2, "speaks no more than TLS 1.0, at %s: %s", r.Name, text)
	}
}

// certificates says what a client without one gets.
func (s Subject) certificates(w *writer, c *config.Listener) {
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Action != config.Terminate {
			continue
		}
		var text string
		switch {
		case len(r.Cert) == 0 && r.PSK != "":
			text = "needs none, and a pre-shared key of " + r.PSK
		case r.Client.Auth == config.AuthRequire, r.Client.Auth == config.AuthOptional && len(r.Allow.Rules) > 0:
			text = fmt.Sprintf("is refused amid its handshake, as %s", flow.ClientCertMissing)
		case r.Client.Auth == config.AuthOptional:
			text = "may pass; one that is shown must be good"
		default:
			text = "may pass: none is asked for"
		}
		w.line(2, "has no certificate, at %s: %s", r.Name, text)
	}
}

// Host writes where name goes at each listener that knows names, and says whether
// any takes it.
func Host(to io.Writer, s Subject, name string) (taken bool, err error) {
	w := &writer{to: to}
	for i, l := range s.Program.Listeners {
		c := &s.File.Listeners[i]
		if !c.From.Secure() {
			continue // who asks for what is not known there
		}
		w.line(0, "%s, at %s, clients connect to %s", name, c.Name, c.From)
		s.outcomes(l, name, func(who string, d *flow.Decision) {
			w.line(1, "%s: %s", strings.TrimSpace("a client "+who), outcome(d))
			taken = taken || d.Action != flow.Reject
			j := slices.IndexFunc(c.Routes, func(r config.Route) bool { return r.Name == d.Route })
			if d.Action != flow.Reject && j >= 0 {
				s.route(w, c, &c.Routes[j], l.Lines[j])
			}
		})
	}
	return taken, w.err
}
