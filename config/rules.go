package config

import (
	"net/netip"
	"slices"
	"strings"

	"sallyport/rule"
)

// ruling is one route, or with no route a listener, before the rules that
// need more than one key: what it says itself, what it is after inheritance,
// and what the tree will hold.
type ruling struct {
	*loader
	lis   *Listener
	route *Route
	all   *node
	said  *node
}

// The keys that mean something only where TLS ends here, on each side.
var (
	tlsFrom = []string{"cert", "key", "spiffe", "psk", "alpn", "tls", "staple", "tlsa", "client.auth", "client.ca", "client.profile", "client.pin",
		"client.crl", "client.revocation", "client.ct", "client.aia", "allow"}
	tlsTo = []string{"to.name", "to.sni", "to.cert", "to.key", "to.spiffe", "to.psk", "to.psk_identity", "to.alpn", "to.tls", "to.ca", "to.profile", "to.pin",
		"to.crl", "to.revocation", "to.dane", "to.ct", "to.aia", "to.reach"}
)

func (g *ruling) apply() {
	r := g.route
	g.warnUnsafe()
	g.match()
	if r.Action == Reject {
		r.Pattern = "reject"
		g.dropFrom()
		r.To = To{}
		return
	}
	if r.To.Addr == (Address{}) {
		g.add(g.all.pos, "to: tcp://127.0.0.1:8080, or `action: reject`", "a route without `to`")
		return
	}
	if g.mixed() {
		return
	}
	g.datagrams()
	if r.Action == Splice {
		g.splice()
		g.announced()
		g.plainTo()
		return
	}
	in, out := g.lis.From.Secure(), r.To.Addr.Secure()
	r.Pattern = map[[2]bool]string{{true, false}: "offload", {false, true}: "encrypt", {true, true}: "bridge", {false, false}: "plain"}[[2]bool{in, out}]
	g.kindOf(in, out)
	g.announced()
	if in {
		g.credential()
		g.tlsa()
		g.pskClients()
		g.clients()
	} else {
		g.plainFrom()
	}
	if out {
		g.server()
	} else {
		g.refuseSaid(tlsTo, "the server's side is clear text (`"+r.To.Addr.Text+"`)", "to: "+r.To.Addr.secure()+"://"+r.To.Addr.where())
		r.To = To{Pos: r.To.Pos, Addr: r.To.Addr, ProxyProtocol: r.To.ProxyProtocol}
	}
	g.alpn()
	g.versions("tls", &r.TLS, in)
	g.versions("to.tls", &r.To.TLS, out)
	g.openFrom()
	g.plainTo()
}

// applyListener looks at what stands at the listener alone.
func (g *ruling) applyListener() {
	g.proxyHeaders()
	switch g.lis.From.Carrier {
	case "tls":
		return
	case "dtls":
		g.refuseSaid([]string{"ech"}, "DTLS 1.2 is spoken here, which has no encrypted ClientHello", "")
		g.lis.ECH = nil
		return
	}
	g.refuseFrom(append([]string{"ech"}, tlsFrom...))
	g.lis.ECH = nil
}

// proxyHeaders looks at who may say for whom it speaks.
func (g *ruling) proxyHeaders() {
	l := g.lis
	said, trust := g.at("proxy_protocol"), g.at("proxy_trust")
	switch asked := l.ProxyProtocol != ProxyOff; {
	case asked && len(l.ProxyTrust) == 0 && l.From.Unix == "":
		g.add(said, "name the proxies before us, "+said.word("proxy_trust")+" 10.0.0.0/8: anybody else could claim any address", "%s without %s", said.word("proxy_protocol"), said.word("proxy_trust"))
	case !asked && g.said.find("proxy_trust") != nil:
		g.add(trust, "add "+trust.word("proxy_protocol")+" require, or optional", "%s without %s: no PROXY header is read", trust.word("proxy_trust"), trust.word("proxy_protocol"))
	case l.ProxyProtocol == ProxyEach && l.From.Carrier != "udp":
		g.add(said, "require", "%s each has a header ahead of every datagram of udp://, and on %s:// one stands where the client begins", said.word("proxy_protocol"), l.From.Carrier)
	case l.ProxyProtocol == ProxyOptional && l.From.Carrier == "udp":
		g.add(said, "require", "%s optional has to tell who the client is from what comes first, and of datagrams any may", said.word("proxy_protocol"))
	case l.ProxyProtocol == ProxyOptional && !l.From.Secure():
		g.add(said, "require", "%s optional has to wait for what the client says, and on %s:// the server may be the one who speaks first", said.word("proxy_protocol"), l.From.Carrier)
	}
}

// at is where path was said, or the route itself.
func (g *ruling) at(path string) Pos {
	if e := g.all.find(path); e != nil {
		return e.pos
	}
	return g.all.pos
}

// refuseSaid refuses keys that do nothing where the user wrote them; what
// came by inheritance is for others and is ignored.
func (g *ruling) refuseSaid(keys []string, why, instead string) {
	for _, key := range keys {
		e := g.said.find(key)
		if e == nil || key == "client.auth" && e.val.text == "none" || e.val.kind == list && len(e.val.list) == 0 {
			continue
		}
		hint := "take it away"
		if instead != "" {
			hint += ", or write " + instead
		}
		if e.pos.Flag != "" {
			hint = strings.NewReplacer("write from: ", "make FROM ", "write to: ", "make TO ").Replace(hint)
		}
		g.add(e.pos, hint, "%s, so %s has no meaning", why, e.pos.word(key))
	}
}

func (g *ruling) refuseFrom(keys []string) {
	g.refuseSaid(keys, "clients speak clear text here (`"+g.lis.From.Text+"`)", "from: "+g.lis.From.secure()+"://"+g.lis.From.short())
}

func (g *ruling) match() {
	m := &g.route.Match
	if g.lis.From.Secure() {
		if m.TLS != nil && !*m.TLS {
			g.add(g.at("match.tls"), "", "a route that no client can reach: %s:// must see a ClientHello", g.lis.From.Carrier)
		}
		return
	}
	for _, key := range []string{"match.sni", "match.alpn", "match.tls"} {
		if e := g.all.find(key); e != nil {
			g.add(e.pos, "from: "+g.lis.From.secure()+"://"+g.lis.From.short(),
				"%s:// never peeks, so %s cannot be known", g.lis.From.Carrier, e.pos.word(key))
		}
	}
	if choice, err := rule.ParseChoice(m.If); err == nil && choice.AsksHello() != "" {
		pos := g.at("match.if")
		g.add(pos, "from: "+g.lis.From.secure()+"://"+g.lis.From.short(),
			"%s:// never peeks, so %s cannot ask of %s", g.lis.From.Carrier, pos.word("match.if"), choice.AsksHello())
	}
}

func (g *ruling) splice() {
	r := g.route
	r.Pattern = "pass-through"
	if e := g.said.find("to.addr"); e != nil && r.To.Addr.Secure() {
		line := "write `to: " + r.To.Addr.plain() + "://" + r.To.Addr.where() + "`"
		if e.pos.Flag != "" {
			line = "write " + r.To.Addr.plain() + "://" + r.To.Addr.where() + " for TO"
		}
		g.add(e.pos, line, "splice passes the client's own %s through, so nothing here speaks %s:// to the server", r.To.Addr.protocol(), r.To.Addr.Carrier)
	}
	for _, keys := range [][]string{tlsFrom, tlsTo} {
		for _, key := range keys {
			if e := g.said.find(key); e != nil {
				hint := "take it away, or write `action: terminate`"
				if e.pos.Flag != "" {
					hint = "take it away, or --action splice"
				}
				g.add(e.pos, hint, "splice passes %s through undecrypted, so %s has no meaning", r.To.Addr.protocol(), e.pos.word(key))
			}
		}
	}
	g.dropFrom()
	addr := r.To.Addr
	addr.Carrier = addr.plain()
	r.To = To{Pos: r.To.Pos, Addr: addr, ProxyProtocol: r.To.ProxyProtocol}
}

// announced looks at which header the server can be told by.
func (g *ruling) announced() {
	pos, hellos := g.at("to.proxy_protocol"), g.route.To.Addr.Secure() || g.route.Action == Splice && g.lis.From.Secure()
	switch said, datagram := g.route.To.ProxyProtocol, g.lis.From.Datagram(); {
	case datagram && said == ProxyV1:
		g.add(pos, "v2", "%s v1 is a line of text ahead of a stream, and these are datagrams", pos.word("to.proxy_protocol"))
	case !datagram && said == ProxyV2Each:
		g.add(pos, "v2", "%s v2_each is for datagrams, and this is a stream, which has one header", pos.word("to.proxy_protocol"))
	case datagram && hellos && said == ProxyV2Each:
		g.add(pos, "v2", "%s v2_each is for servers that know no associations, and with DTLS one begins with a ClientHello", pos.word("to.proxy_protocol"))
	}
}

// dropFrom forgets what was inherited about TLS with clients.
func (g *ruling) dropFrom() {
	r := g.route
	r.Cert, r.Key, r.PSK, r.ALPN, r.TLS, r.Allow, r.Staple, r.TLSA = nil, nil, "", ALPN{}, TLS{}, Allow{}, false, TLSAOff
	r.SPIFFE, r.Client = Address{}, Client{Auth: AuthNone, From: r.Client.From}
}

func (g *ruling) plainFrom() {
	r := g.route
	g.refuseFrom(tlsFrom)
	if len(r.Client.CA) > 0 || r.Allow.Set {
		g.warn(g.at("from"), "clients of %s speak clear text: the client certificates that `defaults` ask for are not asked for here", g.lis.From)
	}
	g.dropFrom()
}

func (g *ruling) credential() {
	switch {
	case len(g.route.Cert) > 0 && g.route.SPIFFE != (Address{}):
		g.add(g.at("spiffe"), "take one of the two away", "%s gives our certificate, and %s does as well", g.at("spiffe").word("spiffe"), g.at("cert").word("cert"))
		return
	case len(g.route.Cert) > 0 || g.route.PSK != "" || g.route.SPIFFE != (Address{}):
		return
	case g.lis.From.Datagram():
		g.add(g.at("from"), "", "%s needs --cert or --psk; to pass DTLS through undecrypted add --action splice", g.route.Pattern)
		return
	}
	g.add(g.at("from"), "acme and mint are "+strings.TrimPrefix(notBuilt, "is "),
		"%s needs --cert, --acme-email or --mint-cert; to pass TLS through undecrypted add --action splice", g.route.Pattern)
}

// tlsa wants certificates that change by their files, and a port that records are at.
func (g *ruling) tlsa() {
	r := g.route
	if r.TLSA != TLSAHold {
		return
	}
	if len(r.Cert) > 0 && g.lis.From.Unix == "" {
		return
	}
	r.TLSA = TLSAOff // as an inherited one is, which is not about this route
	switch pos := g.at("tlsa"); {
	case g.said.find("tlsa") == nil:
	case len(r.Cert) == 0:
		g.add(pos, "take it away, or name our certificate with "+pos.word("cert"), "%s hold is about the certificates of %s, and none is named", pos.word("tlsa"), pos.word("cert"))
	default:
		g.add(pos, "take it away", "%s hold looks up the records of a port, and a unix socket has none", pos.word("tlsa"))
	}
}

func (g *ruling) clients() {
	r := g.route
	c := &r.Client
	named, system := len(c.CA) > 0, slices.Contains(c.CA, "system")
	ca := named || r.SPIFFE != (Address{})
	if c.Auth == "" {
		c.Auth = AuthNone
		if ca {
			c.Auth = AuthRequire
		}
	}
	auth, cas, allow := g.at("client.auth"), g.at("client.ca"), g.at("allow")
	if !named && ca {
		cas = g.at("spiffe")
	}
	switch {
	case c.Auth == AuthNone && named:
		g.add(auth, "to undo what is inherited: client: {auth: none, ca: []}, allow: []", "%s is none, yet %s names anchors", auth.word("client.auth"), auth.word("client.ca"))
	case c.Auth != AuthNone && !ca:
		g.add(auth, "name the anchors of client certificates with "+auth.word("client.ca"), "%s is %s, but there is no %s", auth.word("client.auth"), c.Auth, auth.word("client.ca"))
	case (!ca || c.Auth == AuthNone) && r.Allow.Set:
		g.add(allow, "name the anchors of client certificates with "+allow.word("client.ca"), "%s without %s: no client is asked for a certificate", allow.word("allow"), allow.word("client.ca"))
	case (!ca || c.Auth == AuthNone) && g.checks() != "":
		check := g.at(g.checks())
		g.add(check, "name the anchors of client certificates with "+check.word("client.ca"), "%s without %s: no client is asked for a certificate", check.word(g.checks()), check.word("client.ca"))
	case c.Auth != AuthNone && !r.Allow.Set:
		hint := "`allow: all`, or rules like `allow: [{dns: client.example}]`"
		if cas.Flag != "" {
			hint = "--allow all, --allow-dns NAME, --allow-uri URI, --allow-cn, --allow-ou, --allow-email, --allow-ip-san or --allow-spki"
		}
		g.add(cas, hint, "client certificates are asked for, but nothing says who may pass: %s is missing", cas.word("allow"))
	case r.Allow.All && system:
		g.add(allow, "name who may pass, or anchors of your own", "%s all with the system's anchors would let everybody with a public certificate pass", allow.word("allow"))
	}
	if c.Auth == AuthNone {
		c.Profile, c.CRL, c.Revocation, c.CT, c.AIA = "", nil, RevocationOff, CTOff, false
	}
}

// checks is a key that only a client certificate gives something to do.
func (g *ruling) checks() string {
	c := &g.route.Client
	switch {
	case len(c.Pin) > 0:
		return "client.pin"
	case len(c.CRL) > 0:
		return "client.crl"
	case c.Revocation != RevocationOff:
		return "client.revocation"
	case c.CT != CTOff:
		return "client.ct"
	case bool(c.AIA):
		return "client.aia"
	}
	return ""
}

// unverified refuses to check what unsafe.no_verify takes whatever it is.
func (g *ruling) unverified() {
	to := &g.route.To
	for key, asked := range map[string]bool{
		"to.revocation": to.Revocation != RevocationOff, "to.dane": to.DANE != DANEOff, "to.ct": to.CT != CTOff, "to.crl": len(to.CRL) > 0,
	} {
		if pos := g.at(key); asked && bool(g.route.Unsafe.NoVerify) {
			g.add(pos, "take one of the two away", "unsafe.no_verify takes any certificate, so %s has no meaning", pos.word(key))
		}
	}
}

// server fills in whom the server has to be.
func (g *ruling) server() {
	to := &g.route.To
	if to.PSK != "" {
		g.pskServer()
		return
	}
	if to.PSKID != "" {
		pos := g.at("to.psk_identity")
		g.add(pos, "name the file of keys with "+pos.word("to.psk"), "%s without %s", pos.word("to.psk_identity"), pos.word("to.psk"))
	}
	g.unverified()
	g.workload()
	bundles := to.CA == nil && to.SPIFFE != (Address{})
	if to.CA == nil && !bundles {
		to.CA = []string{"system"}
	}
	if len(to.CA) == 0 && !bundles && !bool(g.route.Unsafe.NoVerify) {
		g.add(g.at("to.ca"), "", "%s is empty: no server could be verified", g.at("to.ca").word("to.ca"))
	}
	if to.Profile == "" {
		to.Profile = ProfilePrivate
		if slices.Contains(to.CA, "system") {
			to.Profile = ProfileWebPKI
		}
	}
	if to.Name == "" {
		to.Name = to.Addr.Domain()
	}
	if to.DANE != DANEOff && to.Addr.SRV() {
		pos := g.at("to.dane")
		g.add(pos, "name the servers with their ports, or take "+pos.word("to.dane")+" away",
			"TLSA records of servers that SRV records lead to (RFC 7673) are not looked for, and %s goes by SRV records", to.Addr)
	}
	if to.Name == "" && !bool(g.route.Unsafe.NoVerify) {
		pos := g.at("to.addr")
		g.add(pos, "say which name its certificate has: "+pos.word("to.name"), "a socket has no host name that the server's certificate could be compared with")
	}
	if g.all.find("to.sni") == nil {
		to.SNI = serverName(to.Name)
		if strings.HasPrefix(to.Name, spiffeScheme) {
			to.SNI = serverName(to.Addr.Domain())
		}
	}
}

// workload has the route's agent speak for us towards the server too, where nothing
// else does.
func (g *ruling) workload() {
	to := &g.route.To
	cert, spiffe := len(to.Cert) > 0, to.SPIFFE != (Address{})
	if cert && spiffe {
		pos := g.at("to.spiffe")
		g.add(pos, "take one of the two away", "%s gives our certificate, and %s does as well", pos.word("to.spiffe"), pos.word("to.cert"))
	}
	if !cert && !spiffe {
		to.SPIFFE = g.route.SPIFFE
	}
}

const spiffeScheme = "spiffe://"

// serverName is host where it may be sent as SNI, which an address may not.
func serverName(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	return host
}

// alpn decides what is offered where nothing was said.
func (g *ruling) alpn() {
	r := g.route
	said := g.all.find("alpn") != nil && r.Pattern != "encrypt" && r.Pattern != "plain"
	if to := &r.To; to.ALPN.Mirror {
		pos := g.at("to.alpn")
		g.add(pos, "", "mirror stands in %s: what the server chooses of the client's offer", pos.word("alpn"))
	}
	if r.Pattern != "bridge" {
		if pos := g.at("alpn"); said && r.ALPN.Mirror {
			if g.said.find("alpn") == nil {
				r.ALPN = ALPN{} // meant for the bridges beside this route
				return
			}
			g.add(pos, "name the protocols: h2, http/1.1", "%s mirror asks the server, and there is no TLS with the server here", pos.word("alpn"))
		}
		return
	}
	switch auth := r.Client.Auth != AuthNone || r.PSK != ""; {
	case said && r.ALPN.Mirror && r.To.ProxyProtocol == ProxyV2:
		pos := g.at("alpn")
		g.add(pos, "name the protocols, or write v1", "%s mirror dials the server before there is a handshake with the client that %s v2 could tell of", pos.word("alpn"), pos.word("to.proxy_protocol"))
	case !said && !auth && r.To.ProxyProtocol == ProxyV2:
		r.Notes = append(r.Notes, "no ALPN: the server is dialled only once there is a handshake to tell it of")
	case said && r.ALPN.Mirror && auth:
		pos := g.at("alpn")
		g.add(pos, "name the protocols: h2, http/1.1", "%s mirror dials the server before the client has shown who it is", pos.word("alpn"))
	case said && r.ALPN.Mirror && r.To.ALPN.Protos != nil:
		pos := g.at("to.alpn")
		g.add(pos, "", "with mirror the server is offered what the client offers, so %s has no meaning", pos.word("to.alpn"))
	case !said && auth:
		r.Notes = append(r.Notes, "no ALPN: the server is dialled only after the client is known")
	case !said && r.To.ALPN.Protos == nil:
		r.ALPN.Mirror = true
	}
}

var presetMin = map[Preset]Version{PresetModern: 0x0304, PresetIntermediate: version12, PresetOld: 0x0301}

const version12 Version = 0x0303

func (g *ruling) versions(path string, t *TLS, used bool) {
	if !used {
		return
	}
	if g.lis.From.Datagram() {
		g.dtlsVersions(path, t)
		return
	}
	t.MTU, t.CID = 0, false
	for _, c := range t.Ciphers {
		if !tlsSuite(c) {
			g.add(g.at(path+".ciphers"), "", "`%s` is a suite of DTLS alone here", c)
		}
	}
	low := t.Min
	if low == 0 {
		low = presetMin[t.Preset]
	}
	if t.Max != 0 && low > t.Max {
		pos := g.at(path + ".max")
		why := pos.word(path + ".min")
		if t.Min == 0 {
			why = "preset " + string(t.Preset)
		}
		g.add(pos, "", "%s is below %s: no version is left", pos.word(path+".max"), why)
	}
	if t.Preset == PresetOld {
		g.warn(g.at(path), "preset old takes TLS 1.0, RSA key exchange, CBC and 3DES")
	} else if low < version12 {
		g.warn(g.at(path+".min"), "TLS 1.0 and 1.1 are broken and withdrawn (RFC 8996)")
	}
}

func (g *ruling) openFrom() {
	r := g.route
	if g.lis.From.Secure() || g.lis.From.local() || len(r.To.Cert) == 0 && r.To.PSK == "" && r.To.SPIFFE == (Address{}) || bool(r.Unsafe.OpenFrom) {
		return
	}
	pos, ours := g.at("to.cert"), "client certificate"
	if r.To.PSK != "" {
		pos, ours = g.at("to.psk"), "pre-shared key"
	}
	hint := "listen on 127.0.0.1 or unix:, or write unsafe: {open_from: on}"
	if pos.Flag != "" {
		hint = "listen on 127.0.0.1 or unix:, or add --unsafe-open-from"
	}
	g.add(pos, hint, "any host that reaches %s could use our %s", g.lis.From, ours)
}

func (g *ruling) plainTo() {
	a := g.route.To.Addr
	through := g.route.Action == Splice && g.lis.From.Secure()
	if !a.Secure() && !a.local() && !through {
		g.warn(g.at("to.addr"), "clear text leaves this host: %s (did you mean %s://?)", a, a.secure())
	}
}
