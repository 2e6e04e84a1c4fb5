package explain

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"sallyport/build"
	"sallyport/config"
	"sallyport/credential"
	"sallyport/flow"
	"sallyport/observe"
	"sallyport/rule"
	"sallyport/secure"
	"sallyport/wire"
)

// Subject is what is explained.
type Subject struct {
	File    *config.File
	Program *build.Program // made of File
	Now     time.Time
}

// writer keeps the first error, and how far lines stand in.
type writer struct {
	to  io.Writer
	err error
}

func (w *writer) line(depth int, format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.to, "%s%s\n", strings.Repeat("  ", depth), fmt.Sprintf(format, args...))
	}
}

// All writes what every listener does.
func All(to io.Writer, s Subject) error {
	w := &writer{to: to}
	for i := range s.File.Listeners {
		s.listener(w, &s.File.Listeners[i], s.Program.Listeners[i])
	}
	s.unsafe(w)
	s.expiries(w)
	return w.err
}

func (s Subject) listener(w *writer, c *config.Listener, l *build.Listener) {
	w.line(0, "%s: clients connect to %s", c.Name, c.From)
	w.line(1, "%s", accepted(c))
	for i := range c.Routes {
		s.route(w, c, &c.Routes[i], l.Lines[i])
	}
	w.line(1, "a client that")
	if c.From.Secure() {
		s.misfit(w, l, "sends no server name", "")
		s.misfit(w, l, "asks for a name that is nowhere here, as "+strange, strange)
		s.versions(w, c)
		s.certificates(w, c)
	} else {
		protocol := "TLS"
		if c.From.Datagram() {
			protocol = "DTLS"
		}
		w.line(2, "begins with %s: is passed on as it is, since nobody looks", protocol)
	}
	w.line(0, "")
}

func accepted(c *config.Listener) string {
	within := ""
	if c.Peek > 0 {
		within = " within " + c.Peek.String()
	}
	var text string
	switch c.From.Carrier {
	case "tls":
		text = "it must begin with a TLS ClientHello" + within + "; plain HTTP is answered with status 400, anything else with an alert"
	case "dtls":
		text = "it must begin with a DTLS ClientHello; anything else is dropped without an answer"
	case "udp":
		text = "datagrams of any kind, in clear, are taken"
	default:
		text = "anything is taken, in clear, and the server is dialled at once"
	}
	if len(c.ECH) > 0 {
		text += "; encrypted ClientHellos (ECH) are opened"
	}
	switch c.ProxyProtocol {
	case config.ProxyOff:
	case config.ProxyEach:
		text += "; a PROXY header from a trusted address goes before each of them"
	default:
		text += fmt.Sprintf("; a PROXY header from a trusted address goes before it (%s)", c.ProxyProtocol)
	}
	return text
}

func (s Subject) route(w *writer, c *config.Listener, r *config.Route, line build.Line) {
	w.line(1, "%s: %s", r.Name, goes(r))
	w.line(2, "takes %s", takes(c, r))
	for _, word := range asks(r) {
		w.line(3, "%s is %s", word, rule.Meaning(word))
	}
	if r.Action == config.Reject {
		return
	}
	if r.Action == config.Splice {
		w.line(2, "is not decrypted: versions, certificates and who may pass are the server's affair")
	}
	if r.Action == config.Terminate && c.From.Secure() {
		parameters(w, "with clients", c.From.Datagram(), r.TLS)
		s.shown(w, "to clients it shows", r.Cert, r.SPIFFE)
	}
	w.line(2, "may pass: %s", line.Clients)
	for i := range r.Pool.Servers {
		to := &r.Pool.Servers[i].To
		s.server(w, r, to)
		if to.ProxyProtocol != config.ProxyNone {
			w.line(2, "server %s: a PROXY header says who the client is (%s)", to.Addr, to.ProxyProtocol)
		}
		if i == 0 || !reflect.DeepEqual(to.TLS, r.Pool.Servers[i-1].TLS) {
			s.towards(w, r, to)
		}
	}
	if line.Note != "" {
		w.line(2, "note: %s", line.Note)
	}
}

func goes(r *config.Route) string {
	if r.Action == config.Reject {
		return "refuses"
	}
	var addrs []string
	for _, one := range r.Pool.Servers {
		addrs = append(addrs, one.Addr.String())
	}
	return fmt.Sprintf("%s to %s", r.Pattern, strings.Join(addrs, ", "))
}

// takes says what a route's match asks for.
func takes(c *config.Listener, r *config.Route) string {
	var parts []string
	if m := r.Match; len(m.SNI) > 0 {
		var names []string
		for _, n := range m.SNI {
			names = append(names, cmp.Or(n.Text, "no server name"))
		}
		parts = append(parts, strings.Join(names, " or "))
	} else if c.From.Secure() {
		parts = append(parts, "any server name, or none")
	} else {
		parts = append(parts, "every connection")
	}
	if m := r.Match; len(m.ALPN) > 0 {
		parts = append(parts, "offering "+strings.Join(m.ALPN, " or "))
	}
	if m := r.Match; len(m.Client) > 0 {
		var from []string
		for _, p := range m.Client {
			from = append(from, p.String())
		}
		parts = append(parts, "from "+strings.Join(from, " or "))
	}
	if r.Match.If != "" {
		parts = append(parts, where(r))
	}
	text := strings.Join(parts, ", ")
	if r.Name != c.Routes[0].Name {
		text += ", if no route above does"
	}
	return text
}

func parameters(w *writer, with string, datagrams bool, t config.TLS) {
	p, err := build.TLSParams(t)
	if err != nil {
		w.line(2, "%s: %v", with, err)
		return
	}
	if datagrams {
		w.line(2, "%s: DTLS 1.2 only", with)
		return
	}
	w.line(2, "%s: %s", with, versionRange(p))
	if p.Min < tls.VersionTLS13 {
		w.line(3, "ciphers up to TLS 1.2: %s", strings.Join(names(p.Suites, suiteName), ", "))
	}
	if p.Max >= tls.VersionTLS13 {
		w.line(3, "ciphers of TLS 1.3: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305")
	}
	w.line(3, "key exchange: %s", strings.Join(names(p.Groups, func(id uint16) string { return tls.CurveID(id).String() }), ", "))
}

func versionRange(p secure.Params) string {
	if p.Min == p.Max {
		return wire.VersionName(p.Min) + " only"
	}
	return wire.VersionName(p.Min) + " to " + wire.VersionName(p.Max)
}

func suiteName(id uint16) string { return strings.TrimPrefix(observe.SuiteName(id), "TLS_") }

func names(ids []uint16, name func(uint16) string) []string {
	var list []string
	for _, id := range ids {
		list = append(list, name(id))
	}
	return list
}

// shown says which certificates of ours are at those places, or who gives them.
func (s Subject) shown(w *writer, what string, places []string, agent config.Address) {
	if len(places) == 0 && agent != (config.Address{}) {
		w.line(2, "%s what the SPIFFE agent at %s gives", what, agent)
	}
	for _, x := range s.Program.Expiries {
		if !slices.ContainsFunc(places, func(p string) bool { return x.File == p || strings.HasPrefix(x.File, strings.TrimSuffix(p, "/")+"/") }) {
			continue
		}
		w.line(2, "%s a certificate for %s (%s), %s", what, cmp.Or(x.Name, "no name"), x.File, s.left(x))
	}
}

func (s Subject) left(x credential.Expiry) string {
	day := x.NotAfter.UTC().Format(time.DateOnly)
	if days := int(x.NotAfter.Sub(s.Now) / (24 * time.Hour)); x.NotAfter.After(s.Now) {
		return fmt.Sprintf("until %s, %d days", day, days)
	}
	return "EXPIRED on " + day
}

func (s Subject) server(w *writer, r *config.Route, to *config.To) {
	if to.Addr.SRV() {
		w.line(2, "server %s: where the SRV records say", to.Addr)
	}
	if !to.Addr.Secure() || r.Action != config.Terminate {
		w.line(2, "server %s: in clear, as far as we are concerned", to.Addr)
		return
	}
	switch {
	case to.PSK != "":
		w.line(2, "server %s: must have the pre-shared key of %s", to.Addr, to.PSK)
	case bool(r.Unsafe.NoVerify) && len(to.Pin) == 0:
		w.line(2, "server %s: is NOT verified (unsafe.no_verify)", to.Addr)
	default:
		w.line(2, "server %s: %s", to.Addr, verified(to))
	}
}

// towards says what is spoken with a server, and shown to it.
func (s Subject) towards(w *writer, r *config.Route, to *config.To) {
	if !to.Addr.Secure() || r.Action != config.Terminate {
		return
	}
	parameters(w, "with the server", to.Addr.Datagram(), to.TLS)
	s.shown(w, "to the server it shows", to.Cert, to.SPIFFE)
}

func verified(to *config.To) string {
	anchors := strings.Join(to.CA, ", ")
	if len(to.CA) == 0 && to.SPIFFE != (config.Address{}) {
		anchors = fmt.Sprintf("the trust domains of the SPIFFE agent at %s", to.SPIFFE)
	}
	text := fmt.Sprintf("its certificate must be for %s, from a CA of %s, by the profile %s", to.Name, anchors, to.Profile)
	if len(to.Pin) > 0 {
		text += ", with a pinned key"
	}
	for _, check := range []struct{ key, value string }{
		{"revocation", string(to.Revocation)}, {"DANE", string(to.DANE)}, {"Certificate Transparency", string(to.CT)},
	} {
		if check.value != "" {
			text += fmt.Sprintf("; %s: %s", check.key, check.value)
		}
	}
	return text
}

func (s Subject) unsafe(w *writer) {
	list := slices.Concat(s.Program.Errors, s.Program.Warnings)
	if len(list) == 0 {
		return
	}
	w.line(0, "unsafe, or to be known:")
	for _, text := range list {
		w.line(1, "%s", text)
	}
	w.line(0, "")
}

func (s Subject) expiries(w *writer) {
	if len(s.Program.Expiries) == 0 {
		return
	}
	w.line(0, "expires, the first one first:")
	for _, x := range s.Program.Expiries {
		w.line(1, "%s  %s (%s)", s.left(x), cmp.Or(x.Name, "no name"), x.File)
	}
}

// outcome says what becomes of a client by d.
func outcome(d *flow.Decision) string {
	if d.Action != flow.Reject {
		return "is taken by " + d.Route
	}
	text := fmt.Sprintf("is refused as %s: %s", d.Reason, d.Reason.Meaning())
	if n, ok := d.Reason.Alert(); ok {
		text += fmt.Sprintf(" (alert %d, %s)", n, wire.Alert(n))
	}
	return text
}
