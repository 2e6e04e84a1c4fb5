package main

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/internal/ca"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
)

// stubDNS answers as the test says, by name, over UDP and TCP. A name that it does
// not know does not exist.
type stubDNS struct {
	addr  string
	mu    sync.Mutex
	has   map[string]string // the one address of a name
	odd   map[string]fault  // goes before has
	asked map[string]int
}

// fault fills an answer; false is for none at all.
type fault func(m *dns.Msg) bool

func startDNS(t testing.TB, has map[string]string, odd map[string]fault) *stubDNS {
	t.Helper()
	z := &stubDNS{has: has, odd: odd, addr: freeAddr(t), asked: map[string]int{}}
	for _, network := range []string{"udp", "tcp"} {
		ready := make(chan struct{})
		server := &dns.Server{Addr: z.addr, Net: network, Handler: dns.HandlerFunc(z.answer), NotifyStartedFunc: func() { close(ready) }}
		failed := make(chan error, 1)
		go func() { failed <- server.ListenAndServe() }()
		select {
		case <-ready:
		case err := <-failed:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return z
}

func (z *stubDNS) answer(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	name, qtype := q.Question[0].Name, q.Question[0].Qtype
	z.asked[name]++
	a, ok := z.has[name]
	switch odd := z.odd[name]; {
	case odd != nil:
		if !odd(m) {
			return
		}
	case !ok:
		m.Rcode = dns.RcodeNameError
	case qtype == dns.TypeA:
		m.Answer = []dns.RR{addressOf(name, 1, a)}
	}
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(1232)
	}
	_ = w.WriteMsg(m)
}

// change gives a name another address, or with f something else.
func (z *stubDNS) change(name, addr string, f fault) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.has[name] = addr
	if delete(z.odd, name); f != nil {
		z.odd[name] = f
	}
}

func (z *stubDNS) count(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[name]
}

func addressOf(name string, ttl uint32, a string) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.ParseIP(a)}
}

func servfail(m *dns.Msg) bool { m.Rcode = dns.RcodeServerFailure; return true }
func silence(*dns.Msg) bool    { return false }

// circle is two aliases of each other.
func circle(m *dns.Msg) bool {
	for _, pair := range [][2]string{{m.Question[0].Name, "x.test."}, {"x.test.", m.Question[0].Name}} {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: pair[0], Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 1}, Target: pair[1]})
	}
	return true
}

// many is n addresses where nobody is, but for the one that is number at.
func many(n, at int) fault {
	return func(m *dns.Msg) bool {
		for i := 0; i < n && m.Question[0].Qtype == dns.TypeA; i++ {
			a := fmt.Sprintf("127.3.%d.%d", i/100, i%100+1)
			if i == at {
				a = "127.0.0.1"
			}
			m.Answer = append(m.Answer, addressOf(m.Question[0].Name, 1, a))
		}
		return true
	}
}

// zero is an address with a TTL of 0.
func zero(m *dns.Msg) bool {
	if m.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{addressOf(m.Question[0].Name, 0, "127.0.0.1")}
	}
	return true
}

// namesFile has a listener for each name, named as its first label, all to one port.
func namesFile(resolver, port string, names []string) string {
	text := fmt.Sprintf("resolver: {addr: \"udp://%s\"}\ndefaults: {timeouts: {dial: 2s}}\nlisteners:\n", resolver)
	for _, n := range names {
		label, _, _ := strings.Cut(n, ".")
		text += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s, to: \"tcp://%s:%s\"}\n", label, strings.TrimSuffix(n, "."), port)
	}
	return text
}

// of waits for the first flow of a listener.
func of(p *testnet.Program, listener string) testnet.Record {
	return p.Flow("of "+listener, func(r testnet.Record) bool { return r.Text("listener") == listener })
}

// F-27: what a resolver can do about a server's name that has never resolved. The
// connection ends in the time of a dial, for a reason that says what it was; others
// are not held up.
func TestDNSFaults(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name         string
		odd          fault
		reason, says string
	}{
		{"servfail", servfail, "name_not_resolved", "SERVFAIL"},
		{"silent", silence, "name_not_resolved", "no answer in time"},
		{"circle", circle, "name_not_resolved", "circle"},
		{"nothing", nil, "name_not_resolved", "is it spelled right?"},
		{"hundred", many(100, 12), "ok", ""},
		{"dead", many(100, -1), "dial_refused", "refused"},
		{"flood", many(300, 0), "name_not_resolved", "the answer has 300 records; at most 256"},
		{"zero", zero, "ok", ""},
	}
	port := portOf(t, backend(t, "it"))
	names, odd := []string{"good.test."}, map[string]fault{}
	for _, r := range rows {
		names = append(names, r.name+".test.")
		odd[r.name+".test."] = r.odd
	}
	z := startDNS(t, map[string]string{"good.test.": "127.0.0.1"}, odd)
	p := start(t, "run", "-c", write(t, "sallyport.yaml", namesFile(z.addr, port, names)))
	p.WaitListeners(len(names))
	mustAsk(t, p.Addr("good"), "hello", "it got hello")
	var asking sync.WaitGroup
	for _, r := range rows {
		asking.Go(func() {
			if _, err := ask(p.Addr(r.name), "hello"); (err == nil) != (r.reason == "ok") {
				t.Errorf("%s: %v", r.name, err)
			}
		})
	}
	for range 5 {
		mustAsk(t, p.Addr("good"), "hello", "it got hello")
	}
	asking.Wait()
	for _, r := range rows {
		flow := of(p, r.name)
		wantFields(t, flow, testnet.Record{"reason": r.reason})
		if !strings.Contains(flow.Text("err"), r.says) || flow.Num("dial_ms") > 2500 {
			t.Errorf("%s: %v", r.name, flow)
		}
	}
	for _, flow := range p.Flows(6 + len(rows)) {
		if flow.Text("listener") == "good" && flow.Num("dial_ms") > 1000 {
			t.Errorf("one name holds up another: %v", flow)
		}
	}
	// A TTL of 0 has nobody asked for each connection.
	begun := time.Now()
	for range 30 {
		mustAsk(t, p.Addr("zero"), "hello", "it got hello")
	}
	// Twice, for A and AAAA, at the start, and each five seconds.
	if n := z.count("zero.test."); n > 4+2*int(time.Since(begun)/(5*time.Second)+1) {
		t.Errorf("asked %d times", n)
	}
}

// F-27: and about one that had resolved. Its last addresses are kept, and it is said
// why; once it is back it is followed again.
func TestDNSFaultsKeepAddresses(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		odd  fault
		says string
	}{
		"servfail": {servfail, "SERVFAIL"}, "silent": {silence, "no answer in time"}, "circle": {circle, "circle"}, "flood": {many(300, 0), "300 records"},
	}
	old := backend(t, "old")
	port := portOf(t, old)
	serveAt(t, "127.0.0.2:"+port, "moved")
	var names []string
	has := map[string]string{}
	for n := range rows {
		names = append(names, n+".test.")
		has[n+".test."] = "127.0.0.1"
	}
	z := startDNS(t, has, map[string]fault{})
	p := start(t, "run", "-c", write(t, "sallyport.yaml", namesFile(z.addr, port, names)))
	p.WaitListeners(len(names))
	for n := range rows {
		mustAsk(t, p.Addr(n), "hello", "old")
	}
	for n, r := range rows {
		z.change(n+".test.", "127.0.0.1", r.odd)
	}
	about := func(n, text string) testnet.Record {
		return p.LoggedAs(text+" of "+n, 1, func(r testnet.Record) bool {
			return r.Text("name") == n+".test" && strings.Contains(r.Text("msg"), text)
		})
	}
	for n, r := range rows {
		if said := about(n, "its last addresses are kept"); !strings.Contains(said.Text("err"), r.says) {
			t.Errorf("%s: %v", n, said)
		}
		mustAsk(t, p.Addr(n), "hello", "old")
		z.change(n+".test.", "127.0.0.2", nil)
	}
	for n := range rows {
		about(n, "resolves again")
		mustAsk(t, p.Addr(n), "hello", "moved")
	}
}

// F-27: bind9 serves what is bogus and nothing at all, and unbound says so.
func TestDNSFaultsOfRealServers(t *testing.T) {
	t.Parallel()
	d := testdns.Start(t, testdns.Records{
		"example.test": "svc A 127.0.0.1\none CNAME two\ntwo CNAME one\nzero 0 A 127.0.0.1\n",
		"bogus.test":   "bogus A 127.0.0.1\n", "expired.test": "expired A 127.0.0.1\n", "lame.test": "",
	})
	names := []string{"svc.example.test", "one.example.test", "zero.example.test", "bogus.bogus.test", "expired.expired.test", "lame.lame.test"}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", namesFile(d.Resolver, portOf(t, backend(t, "it")), names)))
	p.WaitListeners(len(names))
	for listener, says := range map[string]string{"svc": "", "zero": "", "one": "SERVFAIL", "bogus": "SERVFAIL", "expired": "SERVFAIL", "lame": "SERVFAIL"} {
		_, err := ask(p.Addr(listener), "hello")
		want := "ok"
		if says != "" {
			want = "name_not_resolved"
		}
		flow := of(p, listener)
		wantFields(t, flow, testnet.Record{"reason": want})
		if (err == nil) != (says == "") || !strings.Contains(flow.Text("err"), says) || flow.Num("dial_ms") > 2500 {
			t.Errorf("%s: %v, %v", listener, err, flow)
		}
	}
}

// F-27: a certificate's name for its responder leads to this host. It is not gone
// to, by the address that is really dialled, unless `reach` has it.
func TestDNSRebinding(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	z := startDNS(t, map[string]string{}, map[string]fault{})
	const name = "rebound.x.test"
	leaf := d.inter.Leaf([]string{name}, ca.OCSPAt(strings.Replace(d.at("ocsp"), "127.0.0.1", "ocsp.test", 1)))
	d.servers[name] = leaf.TLS()
	d.answer("ocsp", func(w http.ResponseWriter, _ *http.Request) { w.Write(respond(t, d.delegate, d.good(leaf.Cert))) })
	// The first address is dead, which nobody may take for the only one that counts.
	z.change("ocsp.test.", "", many(2, 1))
	p := runFile(t, fmt.Sprintf(`
resolver: {addr: "udp://%s"}
state_dir: %s
defaults: {to: {addr: "tls://%s", name: %s, ca: %s, profile: private, crl: %s, revocation: hard}}
listeners:
  - from: tcp://127.0.0.1:0
    name: guarded
  - from: tcp://127.0.0.1:0
    name: reached
    to: {reach: 127.0.0.0/8}
`, z.addr, filepath.Join(t.TempDir(), "state"), d.serve(t), name, d.anchors, write(t, "root.crl", string(d.crl(t, d.Tester, time.Now())))))
	if _, err := ask(p.Addr("guarded"), "hello"); err == nil {
		t.Error("an answer, without one of the responder's")
	}
	flow := of(p, "guarded")
	wantFields(t, flow, testnet.Record{"reason": "revocation_unknown"})
	if !strings.Contains(flow.Text("err"), "is not fetched from: it is a loopback address") || d.times("ocsp") > 0 {
		t.Errorf("the responder was asked %d times: %v", d.times("ocsp"), flow)
	}
	mustAsk(t, p.Addr("reached"), "hello", "hello")
	if n := d.times("ocsp"); n != 1 {
		t.Errorf("the responder was asked %d times", n)
	}
}
