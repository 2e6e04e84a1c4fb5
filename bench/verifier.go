package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/ca"
)

// verifierRow is of sallyport alone: no other proxy has these checks, so that what
// stands beside one another are its own settings.
var verifierRow = row{
	name: "verifiers, bridge handshake", unit: "µs CPU", pattern: "verifiers", client: groups(tls.X25519),
	measure: verifiedCPU, among: verifierPeers(), split: fullHandshakes / verifierHandshakes,
}

// verifierHandshakes are one round of one set of checks: a few, since the checks differ
// by less than the machine does from one second to the next.
const verifierHandshakes = 50

// The names that the server's certificate has beside benchName, for what DNS says of it.
const (
	pkixName = "pkix." + benchName // PKIX-EE: the usual path, and the key
	eeName   = "ee." + benchName   // DANE-EE: the key alone
)

// verifier is a set of checks towards the server.
type verifier struct {
	name    string
	server  string // by the name of to.name
	stapled bool
	flags   func(v *verified) []string
}

// The first is what the others are beside.
var verifiers = []verifier{
	{"PKIX alone", benchName, false, func(*verified) []string { return nil }},
	{"revocation: hard, by a CRL file", benchName, false, (*verified).byCRL},
	{"revocation: hard, by a staple", benchName, true, func(*verified) []string { return []string{"--to-revocation", "hard"} }},
	{"revocation: hard, by fetched OCSP", benchName, false, func(*verified) []string { return []string{"--to-revocation", "hard", "--to-reach", "127.0.0.0/8"} }},
	{"ct: require, two embedded SCTs", benchName, false, (*verified).byLogs},
	{"dane: require, TLSA 1 1 1 (PKIX and the key)", pkixName, false, (*verified).byDNS},
	{"dane: require, TLSA 3 1 1 (the key in place of PKIX)", eeName, false, (*verified).byDNS},
	{"staple, CRL, ct and dane (1 1 1) together", pkixName, true, func(v *verified) []string {
		return append(append(v.byCRL(), v.byLogs()...), v.byDNS()...)
	}},
}

func (v *verified) byCRL() []string  { return []string{"--to-revocation", "hard", "--to-crl", v.crl} }
func (v *verified) byLogs() []string { return []string{"--to-ct", "require", "--ct-log-list", v.logs} }
func (v *verified) byDNS() []string {
	return []string{"--to-dane", "require", "--resolver-addr", "udp://" + v.desk.dns}
}

// verifierPeers has sallyport once for each set.
func verifierPeers() (all []peer) {
	for _, w := range verifiers {
		all = append(all, peer{w.name, w.config, syscall.SIGHUP})
	}
	return all
}

func (w verifier) config(b *bench, _ string, j job) ([]string, error) {
	v, err := b.verification()
	if err != nil {
		return nil, err
	}
	to := v.bare
	if w.stapled {
		to = v.stapled
	}
	args := []string{
		b.sallyport, "proxy", "tls://" + j.listen, "tls://" + to.addr, "--cert", j.cert,
		"--to-ca", b.caFile, "--to-name", w.server, "--alpn", "x", "--log-level", "error",
	}
	return append(args, w.flags(v)...), nil
}

// verified are two servers with one certificate, and what is known of it: one set of
// bytes, so that nothing but the checks differs.
type verified struct {
	bare, stapled *backend
	crl, logs     string // files
	desk          *desk
	asked         map[string]int64 // look-ups so far, by proxy
}

// verification is made for the first row that asks.
func (b *bench) verification() (*verified, error) {
	if b.verified != nil {
		return b.verified, nil
	}
	now := time.Now()
	v := &verified{crl: filepath.Join(b.dir, "verified.crl"), logs: filepath.Join(b.dir, "logs.json"), asked: map[string]int64{}}
	b.verified = v
	var err error
	if v.desk, err = newDesk(); err != nil {
		return nil, err
	}
	leaf, err := b.promised(v, now)
	if err != nil {
		return nil, err
	}
	v.desk.leaf = leaf.Cert
	answer, err := b.authority.Responder().Respond(now, ca.Status{Cert: leaf.Cert, Issuer: b.authority.Cert, This: now.Add(-time.Hour), Next: now.Add(24 * time.Hour)})
	if err != nil {
		return nil, err
	}
	v.desk.serve(answer)
	crl, err := b.authority.CRL(now, nil, nil)
	if err != nil {
		return nil, err
	}
	staple := filepath.Join(b.dir, "staple.der")
	for file, content := range map[string][]byte{v.crl: crl, staple: answer} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return nil, err
		}
	}
	cert, key, err := leaf.Write(b.dir, "verified")
	if err != nil {
		return nil, err
	}
	if v.bare, err = startBackend(cert, key); err != nil {
		return nil, err
	}
	v.stapled, err = startBackend(cert, key, "stapled", staple)
	return v, err
}

// promised makes the certificate, with SCTs of two operators, and the list of their
// logs.
func (b *bench) promised(v *verified, now time.Time) (*ca.Leaf, error) {
	yesterday := now.Add(-24 * time.Hour)
	var logs []*ca.Log
	var promises []ca.Promise
	for _, operator := range []string{"A", "B"} {
		l, err := ca.NewLog("log of "+operator, operator)
		if err != nil {
			return nil, err
		}
		logs, promises = append(logs, l), append(promises, ca.Promise{Log: l, At: yesterday})
	}
	if err := os.WriteFile(v.logs, ca.LogList(yesterday.UTC().Truncate(time.Second), logs...), 0o600); err != nil {
		return nil, err
	}
	return b.authority.Leaf([]string{benchName, pkixName, eeName}, ca.OCSPAt("http://"+v.desk.http), ca.Embed(b.authority.Cert, promises...))
}

func (v *verified) stop() {
	if v == nil {
		return
	}
	for _, s := range []*backend{v.bare, v.stapled} {
		if s != nil {
			s.stop()
		}
	}
	if v.desk != nil {
		v.desk.stop()
	}
}

func verifiedCPU(b *bench, p *proxy, c *client) ([]figure, error) {
	v := b.verified
	before := v.desk.asked.Load()
	figures, err := perUnit(p, verifierHandshakes, time.Microsecond, "", func() error { return handshakes(c, verifierHandshakes) })
	if err != nil {
		return nil, err
	}
	v.asked[p.addr] += v.desk.asked.Load() - before
	return []figure{figures[0], {"look-ups", float64(v.asked[p.addr])}}, nil
}

// verifierReport is a table with a line for each set of checks. Rounds are compared
// one by one, for the same reason that they are short.
func verifierReport(res result) string {
	var s strings.Builder
	fmt.Fprintf(&s, "| bridge handshake, full on both sides | %s | beside PKIX alone | look-ups in all |\n|---|---|---|---|\n", res.row.unit)
	base := res.all[verifiers[0].name]
	for _, name := range res.peers {
		own := res.all[name]
		ratios := make([]float64, len(own[0]))
		for i := range ratios {
			ratios[i] = own[0][i] / base[0][i]
		}
		low, mid, high := quartiles(own[0])
		least, ratio, most := quartiles(ratios)
		_, _, asked := spread(own[1])
		fmt.Fprintf(&s, "| %s | %.3g (%.3g–%.3g) | %.2f (%.2f–%.2f) | %.0f |\n", name, mid, low, high, ratio, least, most, asked)
	}
	return s.String()
}

func quartiles(v []float64) (low, mid, high float64) {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/4], s[len(s)/2], s[len(s)*3/4]
}

func verifierHeading() string {
	return fmt.Sprintf(`
## What each verifier adds

Sallyport alone, as a bridge: TLS 1.3 and ECDSA P-256 on both sides, the server sends no tickets, so that no handshake is resumed and each
is verified. All lines have one server certificate, with two SCTs and the address of an OCSP responder in it; nothing but the checks
differs. Rounds are short, of %d handshakes, and the sets of checks take turns. The ratio is to PKIX alone in the same round. Each figure
is the median of its rounds, with the quartiles behind it.

This is what the checks add once the server is known: what was looked up (an OCSP response; address and TLSA records, of a resolver on loopback
that sets the AD bit), the path, and which signatures of SCTs and staples are good, are kept. The first handshake costs more, and
is in the round that warms up and is not measured; the last column counts the questions that left the program in all rounds, that one
among them.

`, verifierHandshakes)
}
