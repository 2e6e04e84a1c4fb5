package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Pool is how a server is chosen for each connection. But for the servers
// themselves, its words stand in `to`.
type Pool struct {
	Servers   []Server      // every one, in the order of to.addr
	Balance   Balance       `key:"balance" doc:"which of several servers is taken: round_robin, least (the one with the fewest connections) or hash (by the client)" default:"round_robin"`
	Hash      Hash          `key:"hash" doc:"under balance hash, what it is of: client, the client's address" default:"client"`
	SlowStart time.Duration `key:"slow_start" doc:"how long a server that has come back takes to get its full share" default:"0s"`
	Retry     Number        `key:"retry" doc:"how many more servers are tried where one cannot be reached" as:"0..16" default:"1"`
	Check     Check         `key:"check" doc:"ask each server whether it is up, at intervals; alone, how"`
}

// Check is how a server is asked whether it is up. Rise and Fall also say how many
// connections have to fail before a server counts as down.
type Check struct {
	Kind    CheckKind     `key:"kind" main:"true" doc:"tcp, tls (a handshake, the certificate verified), udp, dtls or off (default: tcp once anything of check is there; the server's carrier for datagrams, and where something is sent or expected)"`
	Send    string        `key:"send" doc:"then send this text" as:"bytes"`
	Expect  string        `key:"expect" doc:"then wait for an answer that has this text within its first 16 KiB" as:"bytes"`
	Every   time.Duration `key:"every" doc:"from one check to the next" default:"5s"`
	Timeout time.Duration `key:"timeout" doc:"for one check" default:"2s"`
	Rise    Number        `key:"rise" doc:"checks that must pass in a row before a server is up again" as:"1..100" default:"2"`
	Fall    Number        `key:"fall" doc:"checks or connections that must fail in a row before it is down" as:"1..100" default:"3"`
}

// Server is one address of to.addr: what `to` says, and over it what stands with
// the address.
type Server struct {
	To
	Share
}

// Share is what of a server stands with its address alone.
type Share struct {
	Weight Number `key:"weight" doc:"its share, beside those of the others" as:"1..256" default:"1"`
	Backup Switch `key:"backup" doc:"taken only while no other server is up" default:"off"`
}

// Balance says which of several servers is taken.
type Balance string

// Hash says what a hash is of.
type Hash string

// CheckKind says how a server is asked.
type CheckKind string

// Number is a whole number within the bounds of its tag.
type Number uint16

const (
	RoundRobin Balance = "round_robin"
	Least      Balance = "least"
	ByHash     Balance = "hash"

	HashClient Hash = "client"

	CheckOff  CheckKind = ""
	CheckTCP  CheckKind = "tcp"
	CheckTLS  CheckKind = "tls"
	CheckUDP  CheckKind = "udp"
	CheckDTLS CheckKind = "dtls"
)

// toSchema is what stands in `to`, and serverSchema what stands with one of its
// addresses: the keys of `to` that say how a server is spoken with, and its share.
var (
	toSchema = func() *schema {
		s := structSchema(reflect.TypeFor[To]())
		s.fields = append(s.fields, structSchema(reflect.TypeFor[Pool]()).fields...)
		return s
	}()
	serverSchema = func() *schema {
		s := &schema{word: "server", fields: structSchema(reflect.TypeFor[Share]()).fields}
		for _, f := range structSchema(reflect.TypeFor[To]()).fields {
			if f.key == "addr" {
				f.as = "server" // of which there is one, and no list in a list
			}
			if f.key != "reach" && f.key != "proxy_protocol" {
				s.fields = append(s.fields, f)
			}
		}
		return s
	}()
	checkKinds = map[bool][]CheckKind{false: {CheckTCP, CheckTLS}, true: {CheckUDP, CheckDTLS}} // by whether datagrams pass
)

func parseNumber(text, bounds string) (Number, error) {
	low, high, _ := strings.Cut(bounds, "..")
	n, err := strconv.ParseUint(text, 10, 16)
	least, _ := strconv.ParseUint(low, 10, 16)
	most, _ := strconv.ParseUint(high, 10, 16)
	if err != nil || n < least || n > most {
		return 0, complain("", "`%s` is no whole number from %s to %s", printable(text), low, high)
	}
	return Number(n), nil
}

// checkServers brings to.addr into one of two forms: one address, or a list whose
// items are addresses or maps.
func (d *decoder) checkServers(e *entry, f *field) *node {
	n := e.val
	if n.kind == list && len(n.list) == 1 && n.list[0].kind == scalar {
		n = n.list[0]
	}
	if n.kind == scalar {
		d.value(n, f, reflect.New(f.typ).Elem())
		return n
	}
	out := &node{pos: n.pos, kind: list, list: []*node{n}}
	if n.kind == list {
		out.list = slices.Clone(n.list)
	}
	if len(out.list) == 0 {
		d.add(n.pos, "", "no address")
	}
	for i, item := range out.list {
		if item.kind == list {
			d.add(item.pos, "", "a list in a list of servers")
			continue
		}
		if item.kind != mapping {
			d.value(item, f, reflect.New(f.typ).Elem())
			continue
		}
		out.list[i] = d.check(item, serverSchema)
		if out.list[i].entry("addr") == nil {
			d.add(item.pos, `{addr: "tcp://10.0.0.1:8080", weight: 2}`, "a server without `addr`")
		}
	}
	return out
}

// servers applies the rules to a route once for each of its servers, as if that
// were the only one. The first one's outcome is the route.
func (l *loader) servers(lis *Listener, route, said *node) Route {
	var whole Route
	for i, s := range serverNodes(route.find("to.addr")) {
		r := Route{}
		all := withServer(route, s)
		l.fill(all, routeSchema, reflect.ValueOf(&r).Elem())
		l.fill(all.get("to"), toSchema, reflect.ValueOf(&r.Pool).Elem())
		g := &ruling{loader: l, lis: lis, route: &r, all: all, said: withServer(said, s)}
		if i > 0 && r.Action == Terminate && r.To.Addr.Carrier != whole.To.Addr.Carrier {
			g.add(g.at("to.addr"), "", "the servers of one route speak the same, and the first one is %s", whole.To.Addr)
			break
		}
		g.apply()
		server := Server{To: r.To}
		l.fill(s, serverSchema, reflect.ValueOf(&server.Share).Elem())
		if i == 0 {
			whole = r
		}
		whole.Pool.Servers = append(whole.Pool.Servers, server)
		// What clients are offered cannot be one server's choice and not another's.
		whole.ALPN.Mirror = whole.ALPN.Mirror && r.ALPN.Mirror
	}
	(&ruling{loader: l, lis: lis, route: &whole, all: route, said: said}).pool()
	return whole
}

// serverNodes are the items of to.addr as maps; of none, one that says nothing.
func serverNodes(addr *entry) []*node {
	if addr == nil {
		return []*node{{kind: mapping}}
	}
	items := []*node{addr.val}
	if addr.val.kind == list {
		items = addr.val.list
	}
	var out []*node
	for _, item := range items {
		if item.kind != mapping {
			pos := addr.pos
			if addr.val.kind == list {
				pos = item.pos
			}
			item = &node{pos: item.pos, kind: mapping, entries: []*entry{{"addr", pos, item}}}
		}
		out = append(out, item)
	}
	return out
}

// withServer is a route whose `to` has one server alone.
func withServer(route, server *node) *node {
	own := server.without("weight", "backup")
	to := route.entry("to")
	if to == nil || to.val.kind != mapping {
		return route
	}
	out := route.without("to")
	if to.val.entry("addr") == nil {
		own = own.without("addr")
	}
	one := merge(to.val.without("addr"), own)
	one.pos = to.val.pos
	out.entries = append(out.entries, &entry{"to", to.pos, one})
	return out
}

// pool looks at what concerns all servers of a route together.
func (g *ruling) pool() {
	r, p := g.route, &g.route.Pool
	if r.Action == Reject || r.To.Addr == (Address{}) {
		*p = Pool{}
		return
	}
	seen, backups := map[string]bool{}, 0
	for _, s := range p.Servers {
		if text := s.Addr.String(); seen[text] {
			g.add(g.at("to.addr"), "a larger share of the connections is `weight`: {addr: \""+text+"\", weight: 2}", "%s stands here twice", text)
		} else {
			seen[text] = true
		}
		if s.Backup {
			backups++
		}
	}
	if backups > 0 && backups == len(p.Servers) {
		g.add(g.at("to.addr"), "take `backup` away from one", "every server is a backup, and nothing is what they would stand in for")
	}
	g.check()
}

// check decides how servers are asked, where anything is said of that.
func (g *ruling) check() {
	c, to := &g.route.Pool.Check, g.route.To.Addr
	kind := g.all.find("to.check.kind")
	if g.all.find("to.check") != nil && kind == nil {
		c.Kind = CheckTCP
		if to.Datagram() || c.Send+c.Expect != "" {
			c.Kind = CheckKind(to.Carrier)
		}
	}
	if c.Kind == CheckOff {
		*c = Check{Rise: c.Rise, Fall: c.Fall}
		return
	}
	pos := g.at("to.check")
	if kind != nil {
		pos = kind.pos
	}
	secure := c.Kind == CheckTLS || c.Kind == CheckDTLS
	switch {
	case !slices.Contains(checkKinds[to.Datagram()], c.Kind):
		g.add(pos, "", "a check by %s, and the server is reached by %s", c.Kind, to.plain())
	case secure && !to.Secure():
		g.add(pos, "", "a check by %s needs a server that is spoken %s with, and this one is %s", c.Kind, to.protocol(), to)
	case to.Secure() && !secure && c.Send+c.Expect != "", to.Carrier == "dtls" && c.Kind == CheckUDP:
		g.add(pos, "kind: "+to.secure(), "a check by %s would speak in clear with %s", c.Kind, to)
	case c.Kind == CheckUDP && c.Send == "":
		g.add(pos, "say what is sent: "+pos.word("to.check.send"), "a UDP server shows by its answer alone that it is up, and there is nothing to answer")
	}
	g.least("to.check.every", c.Every)
	g.least("to.check.timeout", c.Timeout)
}

func (g *ruling) least(path string, d time.Duration) {
	if pos := g.at(path); d < leastEvery {
		g.add(pos, "", "%s is %s, and the least is %s", pos.word(path), d, leastEvery)
	}
}

// leastEvery keeps checks from being all that a server does.
const leastEvery = 50 * time.Millisecond
