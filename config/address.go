package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// String is the address as the start lines show it: tls://[::]:443 for :443.
func (a Address) String() string {
	if a == (Address{}) {
		return ""
	}
	return a.Carrier + "://" + a.where()
}

func (a Address) where() string {
	switch {
	case a.Unix != "":
		return "unix:" + a.Unix
	case a.Systemd != "":
		return "systemd:" + a.Systemd
	case a.Host == "":
		return "[::]:" + strconv.Itoa(int(a.Port))
	case a.SRV():
		return a.Host
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// SRV reports whether SRV records (RFC 2782) say where the servers are: Host is
// _SERVICE._tcp.DOMAIN or _SERVICE._udp.DOMAIN, and there is no port.
func (a Address) SRV() bool { return a.Port == 0 && strings.HasPrefix(a.Host, "_") }

// Domain is the name that servers found here have: Host, of SRV records the domain
// that was asked for the service (RFC 6125, section 6.2.1; RFC 9525, section 2). The
// target's name is only what an answer says, which may be forged.
func (a Address) Domain() string {
	host := strings.TrimSuffix(a.Host, ".")
	if a.SRV() {
		host = host[strings.IndexByte(host, '.')+1:]
		host = host[strings.IndexByte(host, '.')+1:]
	}
	return host
}

// Datagram reports whether datagrams pass here, and not a stream.
func (a Address) Datagram() bool { return a.Carrier == "udp" || a.Carrier == "dtls" }

// Secure reports whether TLS or DTLS is spoken here.
func (a Address) Secure() bool { return a.Carrier == "tls" || a.Carrier == "dtls" }

// secure is the carrier that encrypts what a carries, plain the one that does not.
func (a Address) secure() string {
	if a.Datagram() {
		return "dtls"
	}
	return "tls"
}

func (a Address) plain() string {
	if a.Datagram() {
		return "udp"
	}
	return "tcp"
}

// protocol is how a user knows what a speaks where it is encrypted.
func (a Address) protocol() string { return strings.ToUpper(a.secure()) }

// short is where, as a user writes it in FROM.
func (a Address) short() string { return strings.TrimPrefix(a.where(), "[::]") }

// local reports whether nothing that is spoken here leaves this host.
func (a Address) local() bool {
	if a.Unix != "" || a.Systemd != "" {
		return true
	}
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	host := strings.TrimSuffix(strings.ToLower(a.Host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// parseAddress reads CARRIER://WHERE; end is from, to, server (one of several) or resolver.
func parseAddress(text, end string) (Address, error) {
	a := Address{Text: text}
	if end == "server" {
		end = "to"
	}
	if end == "admin" || end == "metrics" {
		return parseWindow(text, end)
	}
	carrier, where, ok := strings.Cut(text, "://")
	switch {
	case ok:
	case strings.HasPrefix(text, "unix:"), strings.HasPrefix(text, "systemd:"):
		carrier, where = "tcp", text
	case text == "origin" && end == "to":
		return a, complain("", "`origin` "+notBuilt)
	case text == "":
		return a, complain("tcp://127.0.0.1:8080", "an empty address")
	default:
		return a, noScheme(text, end)
	}
	a.Carrier = carrier
	if err := a.checkCarrier(where); err != nil {
		return a, err
	}
	switch end {
	case "resolver":
		return a.resolver(where)
	case "workload":
		return a.workload(where)
	}
	if strings.HasPrefix(where, "unix:") && a.Datagram() {
		return a, complain("a host and a port: "+a.Carrier+"://127.0.0.1:5684", "%s:// is UDP, and a unix socket here carries streams", a.Carrier)
	}
	if path, ok := strings.CutPrefix(where, "unix:"); ok {
		if path == "" {
			return a, complain("tcp://unix:/run/app.sock", "`%s` names no path", printable(text))
		}
		a.Unix = path
		return a, nil
	}
	if name, ok := strings.CutPrefix(where, "systemd:"); ok {
		if end == "to" {
			return a, complain("", "systemd: hands over listening sockets, so it can only be FROM")
		}
		if name == "" {
			return a, complain("the FileDescriptorName= of the socket unit: tls://systemd:https", "`%s` names no socket", printable(text))
		}
		a.Systemd = name
		return a, nil
	}
	return a.hostPort(where, end)
}

// resolver is where names are looked up, so that it has none itself.
func (a Address) resolver(where string) (Address, error) {
	if a.Carrier == "dtls" {
		return a, complain("tls://9.9.9.9:853", "DNS over DTLS (RFC 8094) is spoken by no resolver")
	}
	a, err := a.hostPort(where, "resolver")
	if err != nil {
		return a, err
	}
	if _, err := netip.ParseAddr(a.Host); err != nil {
		return a, complain("udp://127.0.0.1:53, tls://9.9.9.9:853", "a resolver stands at an IP address, and `%s` is a name", printable(a.Host))
	}
	return a, nil
}

// workload is where a SPIFFE agent listens, by the Workload API's own rules.
func (a Address) workload(where string) (Address, error) {
	const hint = "unix:/run/spire/agent.sock, or tcp://127.0.0.1:8081"
	if a.Carrier != "tcp" {
		return a, complain(hint, "a SPIFFE agent speaks gRPC in clear on a socket of this host, not %s://", a.Carrier)
	}
	if path, ok := strings.CutPrefix(where, "unix:"); ok && path != "" {
		a.Unix = path
		return a, nil
	}
	a, err := a.hostPort(where, "workload")
	if err != nil {
		return a, err
	}
	if ip, err := netip.ParseAddr(a.Host); err != nil || !ip.IsLoopback() {
		return a, complain(hint, "a SPIFFE agent is asked on a socket of this host, and `%s` is none", printable(where))
	}
	return a, nil
}

func (a Address) checkCarrier(where string) error {
	switch a.Carrier {
	case "tcp", "tls", "udp", "dtls":
		return nil
	case "coap", "coaps":
		return complain("", "unknown scheme `%s://`; did you mean %s://%s?", a.Carrier, map[string]string{"coap": "udp", "coaps": "dtls"}[a.Carrier], printable(where))
	case "ssl", "https":
		return complain("", "unknown scheme `%s://`; did you mean tls://%s?", a.Carrier, printable(where))
	case "http":
		return complain("", "unknown scheme `http://`; did you mean tcp://%s?", printable(where))
	}
	for _, c := range laterCarriers {
		if a.Carrier == c {
			return complain("", "`%s://` %s", c, notBuilt)
		}
	}
	if near := nearest(a.Carrier, []string{"tcp", "tls", "udp", "dtls"}); near != "" {
		return complain("", "unknown scheme `%s://`; did you mean %s://%s?", printable(a.Carrier), near, printable(where))
	}
	return complain("tcp://, tls://, udp:// or dtls://", "unknown scheme `%s://`", printable(a.Carrier))
}

func noScheme(text, end string) error {
	guess := text
	if _, err := strconv.ParseUint(text, 10, 16); err == nil {
		guess = ":" + text
	}
	scheme := "tcp://"
	switch {
	case end == "from" && (strings.HasSuffix(guess, ":443") || strings.HasSuffix(guess, ":8443")):
		scheme = "tls://"
	case strings.HasSuffix(guess, ":5684"):
		scheme = "dtls://"
	case strings.HasSuffix(guess, ":5683"):
		scheme = "udp://"
	}
	switch {
	case end == "to" && strings.HasPrefix(guess, ":"):
		guess = "127.0.0.1" + guess
	}
	if _, err := (Address{Carrier: "tcp"}).hostPort(guess, end); err != nil {
		return complain("CARRIER://WHERE: tcp://127.0.0.1:8080, tls://:443, tcp://unix:/run/app.sock", "`%s` is no address", printable(text))
	}
	return complain("", "`%s` does not say what is spoken there; did you mean %s%s?", printable(text), scheme, printable(guess))
}

func (a Address) hostPort(where, end string) (Address, error) {
	if rest, ok := strings.CutSuffix(where, "/"); ok {
		return a, complain("", "an address ends with its port; did you mean %s://%s?", a.Carrier, printable(rest))
	}
	host, port, err := net.SplitHostPort(where)
	if err != nil && end == "to" && strings.HasPrefix(where, "_") && !strings.Contains(where, ":") {
		return a.service(where)
	}
	if err != nil {
		hint := "host:port, :port, unix:PATH; an IPv6 address stands in brackets: [::1]:443"
		return a, complain(hint, "`%s` is no address: it must be host:port", printable(where))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return a, complain("a number up to 65535", "`%s` is no port", printable(port))
	}
	a.Port = uint16(n)
	bracketed := strings.HasPrefix(where, "[")
	if a.Host, err = parseHost(host, bracketed, end); err != nil {
		return a, err
	}
	if end == "from" {
		return a, nil
	}
	if host == "" {
		return a, complain("", "the server's address names no host; did you mean %s://127.0.0.1:%d?", a.Carrier, n)
	}
	if n == 0 {
		return a, complain("", "port 0 is none that a server listens on")
	}
	return a, nil
}

// service is where SRV records say.
func (a Address) service(where string) (Address, error) {
	proto := "_tcp"
	if a.Datagram() {
		proto = "_udp"
	}
	labels := strings.SplitN(where, ".", 3)
	if len(labels) < 3 || !strings.EqualFold(labels[1], proto) || len(labels[0]) < 2 {
		return a, complain(a.Carrier+"://_imaps."+proto+".example.org, or a port: "+a.Carrier+"://"+printable(where)+":993",
			"`%s` has no port, and names no service that SRV records would be sought for", printable(where))
	}
	a.Host = where
	return a, checkHost(where)
}

func parseHost(host string, bracketed bool, end string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil && bracketed == ip.Is6() {
		return ip.String(), nil
	}
	switch {
	case bracketed:
		return "", complain("", "`[%s]` is no IPv6 address", printable(host))
	case host == "*" && end == "from":
		return "", complain("", "all addresses of both families are written `:port`")
	case host == "":
		return "", nil
	}
	return host, checkHost(host)
}

// checkHost takes the names that a resolver can be asked for.
func checkHost(host string) error {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	digits := true
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") {
			return complain("", "`%s` is no host name", printable(host))
		}
		for _, c := range []byte(l) {
			switch {
			case c >= 0x80:
				return complain("write it in its xn-- form", "`%s` is no host name", printable(host))
			case '0' <= c && c <= '9':
			case 'a' <= c|0x20 && c|0x20 <= 'z', c == '-', c == '_':
				digits = false
			default:
				return complain("", "`%s` is no host name", printable(host))
			}
		}
	}
	if digits || len(host) > 253 {
		return complain("", "`%s` is neither an IP address nor a host name", printable(host))
	}
	return nil
}
