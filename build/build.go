package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/dane"
	"sallyport/flow"
	"sallyport/proxy"
	"sallyport/revoke"
	"sallyport/route"
	"sallyport/secure"
	"sallyport/spiffe"
	"sallyport/transport"
	"sallyport/upstream"
	"sallyport/verify"
)

// Options are what a file does not say.
type Options struct {
	Env func(string) string

	// Lasting is what a reload hands on of the program that ran before; nil: nothing.
	Lasting *Lasting

	// Log is for what happens while the program runs; nil: nobody hears of it.
	Log *slog.Logger

	// Poller is where connections rest that nothing moves on; nil: nowhere.
	Poller *transport.Poller

	// DryRun leaves no trace: who checks a file is often root, and what root
	// makes the service's own user could not use.
	DryRun bool
}

// Program is a file made ready to run, without sockets until Bind.
type Program struct {
	Listeners []*Listener
	Warnings  []string
	Errors    []string    // which stop nothing here, and will at clients
	Logs      []io.Closer // key logs, to close at the end
	Lasting   *Lasting
	Expiries  []credential.Expiry // of our own certificates, the next one first
	Ages      *Ages
	holds     *waiting

	// Work goes on while the program runs: each ends when its context does.
	Work []func(context.Context)

	servers *upstream.Set
	poller  *transport.Poller
	handed  map[string][]*os.File // sockets that the process before us has bound
	left    []*Listener           // of earlier programs, whose sockets live as long as their flows
}

// Lasting is what outlives a reload: what was learned and is still true. A program
// shares it with the one before it, whose flows still use it.
type Lasting struct {
	Tickets  *secure.Tickets
	Sessions *secure.Sessions                    // of DTLS, which has no tickets
	crls     map[[sha256.Size]byte][]*revoke.CRL // those of the files in use, by what a file holds
	lists    *listMemory
	servers  *upstream.Set
	answers  *revoke.Cache // nil until somebody asks for one
	stapler  *revoke.Stapler
	holds    *holds
	agents   map[string]*spiffe.Workload // by address
	clock    config.ClockOffset          // by which the two below know what is over
	tlsa     *dane.Resolver              // nil until a route asks for one
	names    *dane.Resolver              // nil where the system is asked
}

// Close ends what is being fetched.
func (l *Lasting) Close() {
	if l.answers != nil {
		l.answers.Close()
	}
}

// Listener is one listener made ready.
type Listener struct {
	proxy.Listener
	Lines   []Line
	*Socket // nil before Bind

	Table *route.Table // which its Decider asks

	from  config.Address
	where transport.Where
}

// Line is what is said at start about one route.
type Line struct {
	Text     string // pattern, from and to
	Route    string
	Inbound  string // TLS versions towards clients
	Outbound string // and towards the server
	Clients  string // who may pass
	Note     string // what is not as one might expect
}

// builder keeps what several routes share, so that a thousand routes with one
// folder of certificates read it once.
type builder struct {
	o        Options
	file     *config.File
	now      func() time.Time
	lasting  *Lasting
	stores   map[string]*credential.Store
	anchors  map[string]*verify.Anchors
	tlsa     *dane.Resolver // nil until a route asks for one
	keyLogs  map[string]*os.File
	psks     map[string]*credential.PSKs
	crls     map[string][]*revoke.CRL
	parsed   map[[sha256.Size]byte][]*revoke.CRL
	fetchers map[string]*revoke.Fetcher
	signers  verify.Keys       // of CAs whose private keys are among the credentials; complete once all is built
	own      []*revoke.Stapled // certificates that answers are stapled to
	held     []*hold           // credentials that wait for DNS
	lists    *logLists         // nil where ct_log_list names none
	agents   map[string]bool   // those that this program listens to
	program  *Program
}

// newBuilder makes ready what all listeners share.
func newBuilder(f *config.File, o Options) (*builder, error) {
	now, err := clock(f.Unsafe.ClockOffset)
	if err != nil {
		return nil, err
	}
	b := &builder{
		o: o, file: f, now: now,
		stores:   map[string]*credential.Store{},
		anchors:  map[string]*verify.Anchors{},
		keyLogs:  map[string]*os.File{},
		psks:     map[string]*credential.PSKs{},
		signers:  verify.Keys{},
		crls:     map[string][]*revoke.CRL{},
		parsed:   map[[sha256.Size]byte][]*revoke.CRL{},
		fetchers: map[string]*revoke.Fetcher{},
		program:  &Program{},
		lasting:  o.Lasting,
		agents:   map[string]bool{},
	}
	if b.o.Log == nil {
		b.o.Log = slog.New(slog.DiscardHandler)
	}
	for _, w := range f.Warnings {
		b.warn("%s", at(w.Pos, w.Text))
	}
	if err := b.state(); err != nil {
		return nil, err
	}
	b.program.poller = o.Poller
	if err := b.handOn(); err != nil {
		return nil, err
	}
	if err := b.logLists(); err != nil {
		return nil, err
	}
	return b, nil
}

// New builds everything that f says, and binds nothing.
func New(f *config.File, o Options) (*Program, error) {
	b, err := newBuilder(f, o)
	if err != nil {
		return nil, err
	}
	for i := range f.Listeners {
		if err := overlap(f.Listeners[:i], &f.Listeners[i]); err != nil {
			b.program.Close()
			return nil, err
		}
		l, err := b.listener(&f.Listeners[i])
		if err != nil {
			b.program.Close()
			return nil, err
		}
		b.program.Listeners = append(b.program.Listeners, l)
	}
	b.startLists()
	b.startStapler()
	b.startHolds()
	b.program.Work = append(b.program.Work, b.program.servers.Work()...)
	b.program.Expiries, b.program.Ages = b.expiries(), b.ages()
	b.lasting.crls = b.parsed
	return b.program, nil
}

// overlap refuses a second listener on what a first one for all addresses has:
// bind would blame another process. The very same address twice is refused
// where the file is read.
func overlap(earlier []config.Listener, l *config.Listener) error {
	for _, e := range earlier {
		if e.From.Port == 0 || e.From.Port != l.From.Port || e.From.Datagram() != l.From.Datagram() || !covers(e.From, l.From) && !covers(l.From, e.From) {
			continue
		}
		return fileError("%s: %s is taken already by %s (%s)\nhint: use one listener with `routes`, or name an address for each: neither :port nor 0.0.0.0",
			named(l.Pos, l.Name), l.From, e.Name, e.From)
	}
	return nil
}

// covers says whether who listens on a has b as well.
func covers(a, b config.Address) bool {
	if a.Host == "0.0.0.0" {
		ip, err := netip.ParseAddr(b.Host)
		return err == nil && ip.Is4()
	}
	return a.Host == "" || a.Host == "::"
}

// FileError is one that nothing but a change of the file mends.
type FileError struct{ text string }

func (e *FileError) Error() string { return e.text }

func fileError(format string, args ...any) error {
	return &FileError{fmt.Sprintf(format, args...)}
}

// named says which listener or route an error is about. On the command line
// there is but one.
func named(pos config.Pos, name string) string {
	if pos.Line == 0 {
		return name
	}
	return at(pos, name)
}

// at puts before text where it was said, if anywhere.
func at(pos config.Pos, text string) string {
	if where := pos.String(); where != "" {
		return where + ": " + text
	}
	return text
}

func (b *builder) warn(format string, args ...any) { once(&b.program.Warnings, format, args) }

// cry is of what clients will not take, although we can run.
func (b *builder) cry(format string, args ...any) { once(&b.program.Errors, format, args) }

func once(list *[]string, format string, args []any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(*list, text) {
		*list = append(*list, text)
	}
}

// state makes ready what outlives a reload, or the process.
func (b *builder) state() error {
	if b.lasting != nil {
		return nil
	}
	b.lasting = &Lasting{Sessions: secure.NewSessions(b.now), lists: newListMemory(b.file.StateDir), agents: map[string]*spiffe.Workload{}, holds: new(holds)}
	dir := b.file.StateDir
	if dir == "" {
		if b.makesTickets() {
			b.warn("no state_dir: what would be kept for the next start is kept in memory only, so sessions end with the process")
		}
		b.lasting.Tickets = secure.NewTickets(b.now())
		return nil
	}
	if !b.o.DryRun {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making state_dir: %w", err)
		}
	}
	info, err := os.Stat(dir)
	switch {
	case b.o.DryRun && errors.Is(err, fs.ErrNotExist):
		b.lasting.Tickets = secure.NewTickets(b.now())
		return nil
	case err != nil:
		return fmt.Errorf("state_dir: %w", err)
	case !info.IsDir():
		return fmt.Errorf("state_dir: %s is not a folder", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("state_dir: others can enter %s, which holds secrets (mode %04o)\nhint: chmod 0700 %s", dir, info.Mode().Perm(), dir)
	case b.o.DryRun:
		b.lasting.Tickets = secure.NewTickets(b.now())
		return nil
	}
	tickets, warnings, err := secure.LoadTickets(dir, b.now())
	for _, w := range warnings {
		b.warn("%s", w)
	}
	b.lasting.Tickets = tickets
	return err
}

// makesTickets says whether there is anything to keep for the next start.
func (b *builder) makesTickets() bool {
	for _, l := range b.file.Listeners {
		for _, r := range l.Routes {
			if l.From.Carrier == "tls" && r.Action == config.Terminate && bool(r.TLS.Tickets) {
				return true
			}
		}
	}
	return false
}

func (b *builder) listener(c *config.Listener) (*Listener, error) {
	l := &Listener{from: c.From, where: where(c.From)}
	l.Name = c.Name
	l.PeekTimeout = c.Peek
	l.Splices = splices(c)
	if c.From.Secure() {
		l.Peek = proxy.PeekMust
	}
	l.Limits = proxy.Limits{
		Flows: int(c.Limits.Flows), FlowsPerIP: int(c.Limits.FlowsPerIP), RatePerIP: int(c.Limits.RatePerIP), Handshakes: max(int(c.Limits.Handshakes), 0),
		Prefix4: int(c.Limits.Prefix4), Prefix6: int(c.Limits.Prefix6),
	}
	l.precede(c)
	var ech *secure.ECHKeys
	if len(c.ECH) > 0 {
		keys, err := b.ech(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", named(c.Pos, c.Name), err)
		}
		l.OpenECH = keys.Open
		ech = keys
	}
	for i := range c.Routes {
		if r := &c.Routes[i]; c.From.Unix != "" && c.ProxyProtocol == config.ProxyOff && len(r.Client.From) > 0 {
			return nil, fileError("%s: client.from names addresses, and a client of a unix socket has none: nobody could pass\nhint: who may open the socket is settled by its folder's mode", named(r.Pos, r.Name))
		}
	}
	var routes []route.Route
	for i := range c.Routes {
		r, line, err := b.route(c, ech, &c.Routes[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", named(c.Routes[i].Pos, c.Routes[i].Name), err)
		}
		if r.Match.Empty() {
			return nil, fileError("%s: no client can reach this route: what its match asks for excludes itself", named(c.Routes[i].Pos, c.Routes[i].Name))
		}
		for j, earlier := range routes {
			if earlier.Match.Covers(r.Match) {
				return nil, fileError("%s: no client can reach this route: all that it takes, the earlier route %s takes\nhint: move the narrower route up", named(c.Routes[i].Pos, c.Routes[i].Name), c.Routes[j].Name)
			}
		}
		routes = append(routes, r)
		l.Lines = append(l.Lines, line)
	}
	b.follow(l)
	l.Table = route.New(routes)
	l.Decider = b.decider(l.Table)
	return l, nil
}

func where(a config.Address) transport.Where {
	return transport.Where{Host: a.Host, Port: a.Port, Unix: a.Unix, Systemd: a.Systemd}
}

func (b *builder) route(l *config.Listener, ech *secure.ECHKeys, c *config.Route) (route.Route, Line, error) {
	m, err := match(c.Match)
	if err != nil {
		return route.Route{}, Line{}, err
	}
	r := route.Route{Match: m, From: c.Client.From}
	d := &flow.Decision{Route: c.Name, Pattern: c.Pattern, Timeouts: flow.Timeouts(c.Timeouts)}
	r.Decision = d
	line := Line{Route: c.Name, Clients: clients(c), Note: strings.Join(c.Notes, "; "), Text: fmt.Sprintf("%-8s %s -> %s", c.Pattern, l.From, destination(c))}
	switch c.Action {
	case config.Reject:
		d.Action, d.Reason = flow.Reject, flow.NoRoute
		line.Text = fmt.Sprintf("%-8s %s", c.Pattern, l.From)
		return r, line, nil
	case config.Splice:
		d.Action = flow.Splice
		pool, _, err := b.pool(l, c)
		d.Upstream, d.Outbound = pool, announced(l, c)
		return r, line, err
	}
	d.Action = flow.Terminate
	if l.From.Secure() {
		layer, params, err := b.inbound(l, ech, c)
		if err != nil {
			return r, line, err
		}
		d.Inbound = []flow.Layer{layer}
		line.Inbound = params.String()
	}
	pool, params, err := b.pool(l, c)
	if err != nil {
		return r, line, err
	}
	d.Upstream, d.Outbound = pool, announced(l, c)
	if c.To.Addr.Secure() {
		d.Outbound = append(d.Outbound, pool)
		line.Outbound = params.String()
	}
	d.DialFirst = c.ALPN.Mirror
	return r, line, nil
}

// clients says in words who may pass.
func clients(c *config.Route) string {
	who, anchors := "anyone", "client.ca"
	if len(c.Client.CA) == 0 {
		anchors = "the SPIFFE agent's trust domains"
	}
	keys := "holders of a key in " + c.PSK
	switch {
	case c.PSK != "" && len(c.Cert) == 0:
		who = keys
	case c.Client.Auth == config.AuthNone || c.Client.Auth == "":
	case c.Allow.All:
		who = "any certificate of " + anchors
	default:
		who = "certificates of " + anchors + " with " + ruleTexts(c.Allow.Rules)
	}
	if c.Client.Auth == config.AuthOptional && len(c.Allow.Rules) == 0 {
		who += ", or none"
	}
	if c.PSK != "" && len(c.Cert) > 0 {
		who += ", or " + keys
	}
	if len(c.Client.From) > 0 {
		var from []string
		for _, p := range c.Client.From {
			from = append(from, p.String())
		}
		who += ", from " + strings.Join(from, " or ")
	}
	return who
}

// ruleTexts is short enough for a line of the log.
func ruleTexts(rules []config.Rule) string {
	const most = 3
	var texts []string
	for i, r := range rules {
		if i == most {
			texts = append(texts, fmt.Sprintf("by %d more rules", len(rules)-most))
			break
		}
		var keys []string
		for _, k := range []struct{ key, text string }{
			{"dns", r.DNS}, {"uri", r.URI}, {"cn", r.CN}, {"ou", r.OU}, {"email", r.Email}, {"ip_san", r.IPSAN}, {"spki", r.SPKI}, {"if", brief(r.If)},
		} {
			if k.text != "" {
				keys = append(keys, k.key+" "+k.text)
			}
		}
		texts = append(texts, strings.Join(keys, " and "))
	}
	return strings.Join(texts, ", or ")
}

// brief is an expression on one line, and the beginning of a long one.
func brief(expr string) string {
	const most = 80
	r := []rune(strings.Join(strings.Fields(expr), " "))
	if len(r) > most {
		return string(r[:most]) + "..."
	}
	return string(r)
}

// Close gives back what New opened.
func (p *Program) Close() error {
	var errs []error
	for _, c := range p.Logs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
