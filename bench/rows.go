package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"sallyport/internal/ca"
)

// bench holds what all rows share.
type bench struct {
	dir, sallyport string
	rounds         int

	caFile    string
	ecdsa     string // files with certificate and key
	rsa       string
	pool      *x509.CertPool
	authority *ca.CA
	plain     *backend
	secure    *backend  // speaks TLS itself, and resumes nothing
	resuming  *backend  // and this one does
	datagrams *backend  // UDP, and echoes
	verified  *verified // made when a row first asks
	costs     costs
}

// row is one line of the table.
type row struct {
	name    string
	unit    string
	rsa     bool
	pattern string
	goal    float64
	client  func(cfg *tls.Config)
	// measure does one round and gives figures; the first is the row's.
	measure func(b *bench, p *proxy, c *client) ([]figure, error)
	certs   int  // for rows about start-up: how many, and measure is not used
	resumes bool // the server keeps sessions
	reloads bool
	single  bool   // one round, which warms up by itself
	split   int    // of each round, into so many shorter ones; 0 is 1
	bound   bound  // empty where cryptography is not what the row is about
	among   []peer // what is measured in place of the proxies: sallyport in several ways
}

type figure struct {
	name  string
	value float64
}

const (
	fullHandshakes = 400
	rsaHandshakes  = 150
	bulkBytes      = 256 << 20
	echoConns      = 32
	echoRounds     = 300
	idleConns      = 4000
)

// idleWait is how long idle connections are left alone before memory is read:
// collectors and pools settle, and what a proxy does with a connection only after
// some seconds of silence is done.
const idleWait = 12 * time.Second

// Each bound is of the proxy's own sides: the server's of a handshake towards
// clients, the client's towards servers, and one pass over the bytes for each.
var rows = []row{
	{name: "handshake TLS 1.3 ECDSA X25519", unit: "µs CPU", pattern: "offload", goal: 0.5, client: groups(tls.X25519), measure: handshakeCPU(fullHandshakes), bound: once(sign, keygen, agree)},
	{name: "handshake TLS 1.3 ECDSA X25519MLKEM768", unit: "µs CPU", pattern: "offload", client: groups(tls.X25519MLKEM768, tls.X25519), measure: handshakeCPU(fullHandshakes), bound: once(sign, keygen, agree, encapsulate)},
	{name: "handshake TLS 1.2 ECDSA", unit: "µs CPU", pattern: "offload", goal: 0.5, client: version12, measure: handshakeCPU(fullHandshakes), bound: once(sign, keygen, agree)},
	{name: "handshake TLS 1.3 RSA-2048", unit: "µs CPU", pattern: "offload", goal: 1, rsa: true, client: groups(tls.X25519), measure: handshakeCPU(rsaHandshakes), bound: once(signRSA, keygen, agree)},
	{name: "handshake TLS 1.3 resumed", unit: "µs CPU", pattern: "offload", goal: 0.65, client: resuming, measure: handshakeCPU(fullHandshakes), bound: once(keygen, agree)},
	{name: "bulk download", unit: "CPU s/GiB", pattern: "offload", goal: 0.65, client: groups(tls.X25519), measure: bulkCPU(download), bound: perGiB(sealRecord)},
	{name: "bulk upload", unit: "CPU s/GiB", pattern: "offload", goal: 0.65, client: groups(tls.X25519), measure: bulkCPU(upload), bound: perGiB(openRecord)},
	{name: "echo 1 KiB on 32 connections", unit: "µs CPU", pattern: "offload", goal: 0.9, client: groups(tls.X25519), measure: echoCPU, bound: once(openEcho, sealEcho)},
	{name: fmt.Sprintf("idle for %v after 1 KiB", idleWait), unit: "KiB each", pattern: "offload", goal: 0.5, client: groups(tls.X25519), measure: idleMemory(1 << 10)},
	{name: fmt.Sprintf("idle for %v after 1 MiB", idleWait), unit: "KiB each", pattern: "offload", goal: 0.5, client: groups(tls.X25519), measure: idleMemory(1 << 20)},
	{name: "encrypt handshake", unit: "µs CPU", pattern: "encrypt", measure: handshakeCPU(fullHandshakes), bound: once(keygen, agree, verify, verify)},
	{name: "encrypt handshake, sessions kept", unit: "µs CPU", pattern: "encrypt", resumes: true, measure: handshakeCPU(fullHandshakes), bound: once(keygen, agree)},
	{name: "encrypt download", unit: "CPU s/GiB", pattern: "encrypt", measure: bulkCPU(download), bound: perGiB(openRecord)},
	{name: "bridge handshake", unit: "µs CPU", pattern: "bridge", goal: 0.5, client: groups(tls.X25519), measure: handshakeCPU(fullHandshakes), bound: once(sign, keygen, agree, keygen, agree, verify, verify)},
	{name: "bridge download", unit: "CPU s/GiB", pattern: "bridge", goal: 0.65, client: groups(tls.X25519), measure: bulkCPU(download), bound: perGiB(openRecord, sealRecord)},
	{name: "pass-through connection", unit: "µs CPU", pattern: "splice", client: groups(tls.X25519), measure: handshakeCPU(fullHandshakes)},
	{name: "pass-through download", unit: "CPU s/GiB", pattern: "splice", client: groups(tls.X25519), measure: bulkCPU(download)},
	{name: fmt.Sprintf("connections under %d reloads", reloads), unit: "µs CPU", pattern: "offload", reloads: true, client: groups(tls.X25519), measure: reloading, bound: once(sign, keygen, agree)},
	{name: "start with 1 certificate", unit: "ms", certs: 1},
	{name: "start with 1,000 certificates", unit: "ms", certs: 1000},
	{name: "start with 10,000 certificates", unit: "ms", goal: 0.5, certs: 10000},
}

func groups(ids ...tls.CurveID) func(*tls.Config) {
	return func(c *tls.Config) { c.CurvePreferences = ids }
}

// version12 offers P-256 beside X25519, which all then choose: OpenSSL wants the leaf's curve among the
// client's groups.
func version12(c *tls.Config) {
	c.MaxVersion = tls.VersionTLS12
	c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
}

func resuming(c *tls.Config) {
	c.CurvePreferences = []tls.CurveID{tls.X25519}
	c.ClientSessionCache = tls.NewLRUClientSessionCache(64)
}

func (b *bench) prepare() error {
	authority, err := ca.New(time.Now())
	if err != nil {
		return err
	}
	b.authority, b.pool = authority, authority.Pool()
	if b.caFile, err = authority.Write(b.dir, "ca"); err != nil {
		return err
	}
	var key string
	if b.ecdsa, key, err = b.leaf("ecdsa"); err != nil {
		return err
	}
	if b.rsa, _, err = b.leaf("rsa", ca.RSA(2048)); err != nil {
		return err
	}
	if b.plain, err = startBackend(); err != nil {
		return err
	}
	if b.secure, err = startBackend(b.ecdsa, key); err != nil {
		return err
	}
	if b.resuming, err = startBackend(b.ecdsa, key, "resuming"); err != nil {
		return err
	}
	b.datagrams, err = startBackend("udp")
	return err
}

// leaf writes a file with certificate and key, as most of the peers want it.
func (b *bench) leaf(stem string, opts ...ca.Option) (both, key string, err error) {
	l, err := b.authority.Leaf([]string{benchName}, opts...)
	if err != nil {
		return "", "", err
	}
	both, key = filepath.Join(b.dir, stem+".both.pem"), filepath.Join(b.dir, stem+".only.key")
	if err := os.WriteFile(both, append(l.CertPEM(), l.KeyPEM()...), 0o600); err != nil {
		return "", "", err
	}
	return both, key, os.WriteFile(key, l.KeyPEM(), 0o600)
}

func (b *bench) stopBackends() {
	for _, s := range []*backend{b.plain, b.secure, b.resuming, b.datagrams} {
		if s != nil {
			s.stop()
		}
	}
	b.verified.stop()
}

// result is a row's figures by peer: [figure][round].
type result struct {
	row   row
	peers []string
	names []string
	all   map[string][][]float64
	bound float64 // in the row's unit; 0 is none
}

// row runs all peers up, then round after round through each of them in turn.
func (b *bench) row(r row, match *regexp.Regexp) (result, error) {
	if r.certs > 0 {
		return b.startRow(r, match)
	}
	res := result{row: r, all: map[string][][]float64{}}
	j := b.jobFor(r)
	var err error
	if res.bound, err = b.costs.of(r.bound); err != nil {
		return res, err
	}
	var running []*proxy
	defer func() {
		for _, p := range running {
			p.stop()
		}
	}()
	for _, p := range r.peers(match) {
		up, err := b.start(p, j)
		if err != nil {
			return res, err
		}
		if up != nil {
			running = append(running, up)
		}
	}
	rounds := b.rounds * max(r.split, 1)
	if r.unit == "KiB each" || r.single {
		rounds = 1 // memory does not waver, and does not all come back
	}
	for i := range rounds + 1 {
		for _, p := range running {
			figures, err := r.measure(b, p, b.clientFor(r, p))
			if errors.Is(err, errSkip) {
				continue
			}
			if err != nil {
				return res, fmt.Errorf("through %s: %w\n%s", p.peer.name, err, p.log)
			}
			if i > 0 || rounds == 1 { // the first round warms up
				res.add(p.peer.name, figures)
			}
		}
		if rounds == 1 {
			break
		}
	}
	return res, nil
}

// peers are those that match; all the ways of sallyport, where it does.
func (r *row) peers(match *regexp.Regexp) (list []peer) {
	if r.among != nil && match.MatchString(peers[0].name) {
		return r.among
	}
	for _, p := range peers {
		if r.among == nil && match.MatchString(p.name) {
			list = append(list, p)
		}
	}
	return list
}

func (b *bench) jobFor(r row) job {
	j := job{pattern: r.pattern, cert: b.ecdsa, to: b.plain.addr, reloads: r.reloads}
	if r.rsa {
		j.cert = b.rsa
	}
	switch {
	case j.datagrams():
		j.to = b.datagrams.addr
	case r.resumes:
		j.to = b.resuming.addr
	case r.pattern != "offload":
		j.to = b.secure.addr
	}
	return j
}

func (r *result) add(peer string, figures []figure) {
	if r.all[peer] == nil {
		r.peers = append(r.peers, peer)
		r.all[peer] = make([][]float64, len(figures))
	}
	r.names = r.names[:0]
	for i, f := range figures {
		r.names = append(r.names, f.name)
		r.all[peer][i] = append(r.all[peer][i], f.value)
	}
}

func (b *bench) clientFor(r row, p *proxy) *client {
	c := &client{addr: p.addr}
	if r.client != nil {
		c.tls = &tls.Config{RootCAs: b.pool, ServerName: benchName}
		r.client(c.tls)
	}
	return c
}

func handshakeCPU(n int) func(*bench, *proxy, *client) ([]figure, error) {
	return func(_ *bench, p *proxy, c *client) ([]figure, error) {
		return perUnit(p, float64(n), time.Microsecond, "per second", func() error { return handshakes(c, n) })
	}
}

func bulkCPU(move func(*client, int64) error) func(*bench, *proxy, *client) ([]figure, error) {
	return func(_ *bench, p *proxy, c *client) ([]figure, error) {
		return perUnit(p, float64(bulkBytes)/(1<<30), time.Second, "GiB/s", func() error { return move(c, bulkBytes) })
	}
}

// perUnit is the CPU that work costs p per unit of it, and how many there were a
// second.
func perUnit(p *proxy, units float64, in time.Duration, speed string, work func() error) ([]figure, error) {
	before, err := cpu(p.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := work(); err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := cpu(p.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	return []figure{
		{"CPU", float64(after-before) / float64(in) / units},
		{speed, units / took.Seconds()},
	}, nil
}

func echoCPU(_ *bench, p *proxy, c *client) ([]figure, error) {
	var took []time.Duration
	figures, err := perUnit(p, echoConns*echoRounds, time.Microsecond, "per second", func() (err error) {
		took, err = echo(c, echoConns, echoRounds)
		return err
	})
	if err != nil {
		return nil, err
	}
	return append(figures, quantiles(took, 50, 99, 99.9)...), nil
}

func idleMemory(bytes int64) func(*bench, *proxy, *client) ([]figure, error) {
	return func(_ *bench, p *proxy, c *client) ([]figure, error) {
		// A first connection, so that what is made once is not counted.
		if err := handshakes(c, 8); err != nil {
			return nil, err
		}
		before, err := pss(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		conns, err := idle(c, idleConns, bytes)
		defer func() {
			for _, conn := range conns {
				if conn != nil {
					closing(conn)
				}
			}
		}()
		if err != nil {
			return nil, err
		}
		time.Sleep(idleWait)
		after, err := pss(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		for i, conn := range conns {
			if err := ask(conn, 64, 64); err != nil {
				return nil, fmt.Errorf("connection %d after it was idle: %w", i, err)
			}
		}
		return []figure{{"PSS", float64(after-before) / idleConns / 1024}}, nil
	}
}

// startRow measures the time until a proxy accepts, and its memory then.
func (b *bench) startRow(r row, match *regexp.Regexp) (result, error) {
	res := result{row: r, all: map[string][][]float64{}}
	certs := filepath.Join(b.dir, fmt.Sprintf("certs-%d", r.certs))
	if err := b.manyCerts(certs, r.certs); err != nil {
		return res, err
	}
	for range min(b.rounds, 3) {
		for _, p := range peers {
			if !match.MatchString(p.name) {
				continue
			}
			start := time.Now()
			up, err := b.start(p, job{pattern: "offload", certs: certs, to: b.plain.addr})
			if err != nil {
				return res, err
			}
			if up == nil {
				continue
			}
			took := time.Since(start)
			size, err := pss(up.cmd.Process.Pid)
			up.stop()
			if err != nil {
				return res, err
			}
			res.add(p.name, []figure{{"ms", float64(took) / float64(time.Millisecond)}, {"MiB", float64(size) / (1 << 20)}})
		}
	}
	return res, nil
}

func (b *bench) manyCerts(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range n {
		l, err := b.authority.Leaf([]string{fmt.Sprintf("n%d.%s", i, benchName)})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.pem", i)), append(l.CertPEM(), l.KeyPEM()...), 0o600); err != nil {
			return err
		}
	}
	return nil
}
