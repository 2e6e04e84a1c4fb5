package route

import (
	"net/netip"
	"slices"
	"strings"

	"sallyport/flow"
	"sallyport/rule"
)

// Route is one line of a table.
type Route struct {
	Match    Match
	From     []netip.Prefix // client.from: whoever the route takes must come from here; empty lets all pass
	Decision *flow.Decision
}

// Table finds the Decision of a flow. The zero value refuses all.
type Table struct {
	routes []entry

	// A route stands in each list in which one of its patterns puts it, and every
	// list keeps the order of routes. So the first match of a flow is the first of
	// those lists that can hold it, which are few however many routes there are.
	bySuffix map[string][]int // the labels behind the last wildcard of a pattern, or the whole name
	byRest   []int            // patterns without such labels
	byNone   []int            // "", a hello without SNI
	any      []int            // routes that do not ask for the SNI

	names bool // some route asks for the SNI
}

type entry struct {
	Route
	refused *flow.Decision // where From does not list the client
}

var _ flow.Decider = (*Table)(nil)

// New builds a table. It takes routes in their order.
func New(routes []Route) *Table {
	t := &Table{bySuffix: make(map[string][]int)}
	for i, r := range routes {
		r.Match.Client, r.From = unmapped(r.Match.Client), unmapped(r.From)
		e := entry{Route: r}
		if len(r.From) > 0 {
			e.refused = &flow.Decision{Reason: flow.AddressRefused}
			if r.Decision != nil {
				e.refused.Route, e.refused.Pattern = r.Decision.Route, r.Decision.Pattern
			}
		}
		t.routes = append(t.routes, e)
		t.index(i, r.Match)
	}
	return t
}

func (t *Table) index(i int, m Match) {
	if m.asksSNI() {
		t.names = true
	} else {
		t.any = append(t.any, i)
	}
	if m.NoSNI {
		t.byNone = append(t.byNone, i)
	}
	for _, p := range m.SNI {
		list := t.byRest
		suffix := p.Suffix()
		if suffix != "" {
			list = t.bySuffix[suffix]
		}
		if len(list) == 0 || list[len(list)-1] != i {
			list = append(list, i)
		}
		if suffix != "" {
			t.bySuffix[suffix] = list
		} else {
			t.byRest = list
		}
	}
}

// Decide gives the Decision of the first route that takes f. Where there is none
// it refuses: for the protocols, if a route would have taken f with others; for
// the server name, or for the lack of one, if that is in no route that asks for
// it; else for want of a route. The hello's SNI is in lower case, as wire gives it.
//
// Where the first route that would take f has an If that fails, f is refused, and
// no later route is asked: nobody knows whether it was meant for that one.
func (t *Table) Decide(f *flow.Flow) *flow.Decision { return t.decide(f, nil) }

// Suppose decides as Decide does, but where known says so the If of the route i is
// taken to hold or not, and is not asked.
func (t *Table) Suppose(f *flow.Flow, suppose func(i int) (holds, known bool)) *flow.Decision {
	return t.decide(f, suppose)
}

func (t *Table) decide(f *flow.Flow, suppose func(int) (holds, known bool)) *flow.Decision {
	s := search{t: t, f: f, found: len(t.routes), client: f.Client().Addr().Unmap().WithZone(""), suppose: suppose}
	s.scan(t.any)
	if f.Hello != nil {
		s.scanSNI(f.Hello.SNI)
	}
	switch {
	case s.found < len(t.routes):
		r := &t.routes[s.found]
		if s.failed != nil {
			return failed(r, s.failed)
		}
		if r.refused != nil && !contains(r.From, s.client) {
			return r.refused
		}
		return r.Decision
	case s.onlyALPN:
		return &noProtocol
	case f.Hello != nil && t.names && !s.tookSNI:
		return &unrecognized
	}
	return &noRoute
}

// The refusals of flows that no route takes; they are shared and never changed.
var (
	unrecognized = flow.Decision{Reason: flow.UnrecognizedName}
	noProtocol   = flow.Decision{Reason: flow.NoApplicationProto}
	noRoute      = flow.Decision{Reason: flow.NoRoute}
)

// search is one look through the lists.
type search struct {
	t      *Table
	f      *flow.Flow
	client netip.Addr // invalid on a unix socket
	found  int        // the least index so far
	failed error      // what the If there came to, if anything

	suppose func(int) (holds, known bool)
	arrival *rule.Arrival // made for the first If

	tookSNI  bool // a route that asks for the SNI has this one
	onlyALPN bool // a route would take f but for its ALPN
}

func (s *search) scanSNI(sni string) {
	if sni == "" {
		s.scan(s.t.byNone)
		return
	}
	s.scan(s.t.byRest)
	for suffix, more := sni, true; more; _, suffix, more = strings.Cut(suffix, ".") {
		s.scan(s.t.bySuffix[suffix])
	}
}

func (s *search) scan(list []int) {
	for _, i := range list {
		if i >= s.found {
			return
		}
		m := &s.t.routes[i].Match
		if !m.takesSNI(s.f) {
			continue
		}
		s.tookSNI = s.tookSNI || m.asksSNI()
		if !m.takesTLS(s.f) || !m.takesClient(s.client) {
			continue
		}
		if !m.takesALPN(s.f) {
			if s.f.Hello != nil && !s.onlyALPN {
				s.onlyALPN, _ = s.holds(i)
			}
			continue
		}
		is, err := s.holds(i)
		if !is && err == nil {
			continue
		}
		s.found, s.failed = i, err
		return
	}
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// unmapped turns ::ffff:10.0.0.0/104 into 10.0.0.0/8: addresses are compared
// without their mapping (RFC 4291, section 2.5.5.2).
func unmapped(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out = append(out, p)
	}
	return out
}
