package config

import (
	"strings"
	"time"
)

// The keys that mean something on one side's kind of carrier alone.
var (
	dtlsFrom = []string{"psk", "tls.mtu", "tls.cid"}
	dtlsTo   = []string{"to.psk", "to.psk_identity", "to.tls.mtu", "to.tls.cid"}
	streams  = []string{"timeouts.linger", "unsafe.truncation"}
	notPSK   = []string{"to.name", "to.cert", "to.key", "to.spiffe", "to.ca", "to.profile", "to.pin",
		"to.crl", "to.revocation", "to.dane", "to.ct", "to.aia", "to.reach"}
)

// datagramIdle stands for timeouts.idle where nothing is said: silence is how an
// association ends, and each one costs a socket.
const datagramIdle = 5 * time.Minute

// mixed refuses a stream at one end and datagrams at the other.
func (g *ruling) mixed() bool {
	from, to := g.lis.From, g.route.To.Addr
	if from.Datagram() == to.Datagram() {
		return false
	}
	kinds := map[bool]string{true: "datagrams", false: "a stream"}
	meant := from.plain()
	if to.Secure() {
		meant = from.secure()
	}
	g.add(g.at("to.addr"), "", "%s:// is %s and %s:// %s, and nothing here makes one of the other; did you mean %s://%s?",
		from.Carrier, kinds[from.Datagram()], to.Carrier, kinds[to.Datagram()], meant, to.where())
	return true
}

// datagrams applies what is otherwise without a stream.
func (g *ruling) datagrams() {
	if !g.lis.From.Datagram() {
		return
	}
	if g.all.find("timeouts.idle") == nil {
		g.route.Timeouts.Idle = datagramIdle
	}
	g.refuseSaid(streams, "datagrams have no half-close and no end that could be cut off", "")
	g.spoofed()
}

// spoofed warns of a port at which anybody can ask in another's name.
func (g *ruling) spoofed() {
	switch from := g.lis.From; {
	case from.Carrier != "udp" || from.local():
	case g.lis.ProxyProtocol != ProxyOff:
		g.warn(g.at("from"), "sources of UDP are easily spoofed: any host that writes an address of proxy_trust on its datagrams speaks in anybody's name at %s; a firewall has to keep those out", from)
	case len(g.route.Client.From) == 0:
		g.warn(g.at("from"), "sources of UDP are easily spoofed: any host can have the answers of %s sent to another; client.from says who may ask", from)
	}
}

// kindOf refuses on each side the keys of the other kind of carrier.
func (g *ruling) kindOf(in, out bool) {
	if g.lis.From.Datagram() {
		const why = "DTLS is spoken here, without a record layer of ours"
		if in {
			g.refuseSaid([]string{"tls.record"}, why, "")
			g.refuseSaid([]string{"staple"}, "the DTLS that is spoken here has no status_request", "")
			g.route.Staple = false
		}
		if out {
			g.refuseSaid([]string{"to.tls.record"}, why, "")
		}
		return
	}
	if in {
		g.refuseSaid(dtlsFrom, "TLS is spoken here (`"+g.lis.From.Text+"`)", "from: dtls://"+g.lis.From.short())
	}
	if out {
		g.refuseSaid(dtlsTo, "TLS is spoken with the server (`"+g.route.To.Addr.Text+"`)", "to: dtls://"+g.route.To.Addr.where())
	}
	g.route.PSK, g.route.To.PSK, g.route.To.PSKID = "", "", "" // inherited, for the datagrams of others
}

// pskClients looks at what pre-shared keys mean for who may pass: being listed is
// the decision, for those who come by a key.
func (g *ruling) pskClients() {
	r := g.route
	if r.PSK == "" {
		return
	}
	psk := g.at("psk")
	if pos := g.at("spiffe"); r.SPIFFE != (Address{}) {
		g.add(pos, "take one of the two away", "%s lists who may pass, and beside it %s would take others", psk.word("psk"), pos.word("spiffe"))
		return
	}
	switch ca := len(r.Client.CA) > 0; {
	case len(r.Cert) == 0 && ca:
		pos := g.at("client.ca")
		g.add(pos, "name our certificate with "+pos.word("cert"), "under %s no certificates are exchanged, so %s has no meaning", psk.word("psk"), pos.word("client.ca"))
	case len(r.Cert) > 0 && !ca && g.all.find("client.auth") == nil:
		g.add(psk, "take one of the two away, or say whom a certificate lets in: "+psk.word("client.ca")+", or "+psk.word("client.auth")+" none for anybody",
			"%s lists who may pass, and beside it %s would let everybody in", psk.word("psk"), psk.word("cert"))
	}
}

// pskServer has the key say who the server is.
func (g *ruling) pskServer() {
	to := &g.route.To
	g.refuseSaid(notPSK, "the server shows who it is by the pre-shared key, and no certificates are exchanged", "")
	*to = To{Pos: to.Pos, Addr: to.Addr, ProxyProtocol: to.ProxyProtocol, SNI: to.SNI, PSK: to.PSK, PSKID: to.PSKID, ALPN: to.ALPN, TLS: to.TLS}
	if g.all.find("to.sni") == nil {
		to.SNI = serverName(to.Addr.Domain())
	}
}

// dtlsVersions wants 1.2 among the versions, and a suite and a group that DTLS has.
func (g *ruling) dtlsVersions(path string, t *TLS) {
	t.Record = false
	low := t.Min
	if low == 0 {
		low = presetMin[t.Preset]
	}
	switch pos := g.at(path); {
	case t.Min == 0 && low > version12:
		g.add(pos, "intermediate", "preset %s is TLS 1.3 alone, and DTLS 1.2 is what is spoken here", t.Preset)
	case low > version12:
		pos = g.at(path + ".min")
		g.add(pos, "1.2", "DTLS 1.2 is the highest version that is spoken here, and %s is above it", pos.word(path+".min"))
	case t.Max != 0 && t.Max < version12:
		pos = g.at(path + ".max")
		g.add(pos, "1.2", "DTLS 1.2 is the lowest version that is spoken here, and %s is below it", pos.word(path+".max"))
	}
	t.Min, t.Max = version12, version12
	t.Ciphers = g.spoken(path+".ciphers", "cipher suite", t.Ciphers, dtlsSuite)
	t.Groups = g.spoken(path+".groups", "group", t.Groups, dtlsGroup)
}

// spoken leaves out what DTLS does not have, and complains where nothing is left.
func (g *ruling) spoken(path, what string, names []string, has func(string) bool) []string {
	var left, out []string
	for _, n := range names {
		if has(n) {
			left = append(left, n)
		} else {
			out = append(out, n)
		}
	}
	pos := g.at(path)
	switch {
	case len(out) == 0:
	case len(left) == 0:
		g.add(pos, "ciphers: [ECDHE-ECDSA-AES128-GCM-SHA256], groups: [X25519]; by default those of the preset", "DTLS here has no %s of %s: none is left", what, pos.word(path))
	default:
		g.warn(pos, "DTLS here has no %s %s: left out", what, strings.Join(out, ", "))
	}
	return left
}
