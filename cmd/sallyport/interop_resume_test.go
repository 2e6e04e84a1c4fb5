package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// session makes a full handshake by openssl and gives the file with the session,
// or "" where the server gave none.
func (s *stock) session(t testing.TB, addr, sni string, more ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "session")
	out, err := s.sClient(t, addr, sni, append(more, "-sess_out", file)...)
	if err != nil || !strings.Contains(out, "\nNew, TLS") {
		t.Fatalf("the first handshake: %v\n%s", err, out)
	}
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// reused offers the session once more and says whether it was taken; the flow
// has to work in either case.
func (s *stock) reused(t testing.TB, addr, sni, session string, more ...string) bool {
	t.Helper()
	out, err := s.sClient(t, addr, sni, append(more, "-sess_in", session)...)
	resumed := strings.Contains(out, "\nReused, TLS")
	if err != nil || !resumed && !strings.Contains(out, "\nNew, TLS") {
		t.Fatalf("with a session: %v\n%s", err, out)
	}
	return resumed
}

var ticketVersions = []string{"-tls1_2", "-tls1_3"}

func TestInteropResumption(t *testing.T) {
	s := newStock(t)
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %s, to: "tcp://%s"}
listeners:
  - from: tls://127.0.0.1:0
    name: main
    routes:
      - match: {sni: a.x.test}
      - match: {sni: b.x.test}
      - match: {sni: off.x.test}
        tls: {tickets: off}
  - from: tls://127.0.0.1:0
    name: other
`, s.dir, backend(t, "web")))
	addr, flows := p.Addr("main"), 0
	for _, version := range ticketVersions {
		session := s.session(t, addr, "a.x.test", version)
		if !s.reused(t, addr, "a.x.test", session, version) {
			t.Errorf("%s: the session was not resumed", version)
		}
		if s.reused(t, addr, "b.x.test", session, version) {
			t.Errorf("%s: another route took the session", version)
		}
		if s.reused(t, p.Addr("other"), "a.x.test", session, version) {
			t.Errorf("%s: another listener took the session", version)
		}
		flows += 5
		if session = s.session(t, addr, "off.x.test", version); session == "" {
			continue // in TLS 1.3 there is none without a ticket
		}
		flows++
		if s.reused(t, addr, "off.x.test", session, version) {
			t.Errorf("%s: a session was resumed with tickets off", version)
		}
	}
	resumed := 0
	for _, r := range p.Flows(flows) {
		if r["in_resumed"] == true {
			resumed++
			wantFields(t, r, testnet.Record{"sni": "a.x.test", "route": "main/1", "reason": "ok"})
		}
	}
	if resumed != len(ticketVersions) {
		t.Errorf("%d records say resumed, %d are", resumed, len(ticketVersions))
	}
}

func TestInteropResumptionByGnuTLS(t *testing.T) {
	s := newStock(t)
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--cert", s.dir)
	for _, v := range protocols[2:] {
		out, err := s.gnutls(t, p.Addr(""), "g.x.test", "NORMAL:-VERS-ALL:+"+v.gnutls, "--resume", "--waitresumption")
		if err != nil || !strings.Contains(out, "This is a resumed session") || !strings.Contains(out, "web got") {
			t.Errorf("%s: %v\n%s", v.name, err, out)
		}
		p.Flow(v.name+", resumed", func(r testnet.Record) bool { return r["in_resumed"] == true && r.Text("in_version") == v.name })
	}
}

// With a state_dir sessions outlive the process, but no change of who may pass.
func TestInteropResumptionAfterRestart(t *testing.T) {
	s, web, state := newStock(t), backend(t, "web"), filepath.Join(t.TempDir(), "state")
	other := ca.Test(t)
	ours := write(t, "ours.pem", string(s.CertPEM()))
	client := s.leaf(t, "client", []string{"app.example"})
	more := []string{"-cert", client, "-key", keyOf(client), "-tls1_3"}
	start := func(args ...string) *testnet.Program {
		return testnet.Start(t, append([]string{"proxy", "tls://127.0.0.1:0", "tcp://" + web, "--cert", s.dir,
			"--client-ca", ours, "--allow", "all"}, args...)...)
	}
	stop := func(p *testnet.Program) {
		p.Signal(syscall.SIGTERM)
		p.Wait()
	}
	p := start("--state-dir", state)
	session := s.session(t, p.Addr(""), "a.x.test", more...)
	stop(p)
	file := filepath.Join(state, "tickets.secret")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, c := range []struct {
		name   string
		reused bool
		args   []string
	}{
		{"the same", true, []string{"--state-dir", state}},
		{"without state_dir", false, nil},
		{"another allow", false, []string{"--state-dir", state, "--client-profile", "strict"}},
		{"the same once more", true, []string{"--state-dir", state}},
	} {
		p := start(c.args...)
		if got := s.reused(t, p.Addr(""), "a.x.test", session, more...); got != c.reused {
			t.Errorf("%s: reused %t, want %t", c.name, got, c.reused)
		}
		wantFields(t, p.Reason("ok"), testnet.Record{"in_resumed": c.reused, "in_peer": "app.example"})
		stop(p)
	}
	// The same file name, with an anchor more in it.
	if err := os.WriteFile(ours, append(s.CertPEM(), other.CertPEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	p = start("--state-dir", state)
	if s.reused(t, p.Addr(""), "a.x.test", session, more...) {
		t.Error("a session outlived a change of client.ca")
	}
}

func TestInteropDamagedTicketSecret(t *testing.T) {
	s, web, state := newStock(t), backend(t, "web"), t.TempDir()
	if err := os.Chmod(state, 0o700); err != nil {
		t.Fatal(err)
	}
	file, junk := filepath.Join(state, "tickets.secret"), []byte("sallyport-tickets 1 20000 0102\n")
	if err := os.WriteFile(file, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+web, "--cert", s.dir, "--state-dir", state)
	p.WaitLog(file + " is damaged")
	if got, err := os.ReadFile(file); err != nil || bytes.Equal(got, junk) || len(got) < 64 {
		t.Errorf("the damaged file stands: %q, %v", got, err)
	}
	if session := s.session(t, p.Addr(""), "a.x.test"); !s.reused(t, p.Addr(""), "a.x.test", session) {
		t.Error("no resumption with the new secret")
	}
}

// A ticket does not carry a client over the end of its certificate, nor of that
// which it was issued by.
func TestInteropResumptionAfterExpiry(t *testing.T) {
	s, clock := newStock(t), write(t, "clock", "0s")
	issued, _, err := s.Intermediate(ca.Validity(time.Hour)).Leaf([]string{"app.example"}).Write(s.dir, "issued")
	if err != nil {
		t.Fatal(err)
	}
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--cert", s.ecdsa, "--client-ca", s.anchors,
		"--allow-dns", "app.example", "--unsafe-clock-offset", "@"+clock)
	p.WaitLog("unsafe.clock_offset")
	type client struct {
		sni, session string
		args         []string
	}
	var clients []*client
	for who, cert := range map[string]string{"leaf": s.leaf(t, "client", []string{"app.example"}, ca.Validity(time.Hour)), "issuer": issued} {
		for i, version := range ticketVersions {
			c := &client{sni: fmt.Sprintf("%s-%d.x.test", who, i), args: []string{version, "-cert", cert, "-key", keyOf(cert), "-cert_chain", cert}}
			c.session = s.session(t, p.Addr(""), "early.x.test", c.args...)
			if !s.reused(t, p.Addr(""), "early.x.test", c.session, c.args...) {
				t.Errorf("%s: the session was not resumed while the certificate is good", c.sni)
			}
			clients = append(clients, c)
		}
	}
	if err := os.WriteFile(clock, []byte("2h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the clock to be read", func() bool {
		_, err := s.sClient(t, p.Addr(""), "early.x.test", clients[0].args...)
		return err != nil
	})
	for _, c := range clients {
		out, err := s.sClient(t, p.Addr(""), c.sni, append(c.args, "-sess_in", c.session)...)
		if err == nil || !strings.Contains(out, "SSL alert number 45") || strings.Contains(out, "\nReused") {
			t.Errorf("%s: %v\n%s", c.sni, err, out)
		}
		wantFields(t, bySNI(t, p, c.sni), testnet.Record{"reason": "client_cert_expired", "fault": "client", "stage": "inbound"})
	}
}

// Towards servers sessions are resumed too, for one route each.
func TestInteropOutboundResumption(t *testing.T) {
	s := newStock(t)
	servers := map[string]string{"12": s.sServer(t, s.ecdsa, "-tls1_2").addr, "13": s.sServer(t, s.ecdsa, "-tls1_3").addr,
		"gnutls": s.gnutlsServ(t, s.ecdsa).addr}
	file := fmt.Sprintf("defaults: {to: {name: inner.x.test, ca: %s}}\nlisteners:\n", s.anchors)
	for name, addr := range servers {
		file += fmt.Sprintf(`
  - {from: "tcp://127.0.0.1:0", name: "%[1]s", to: "tls://%[2]s"}
  - {from: "tcp://127.0.0.1:0", name: "%[1]s-other", to: "tls://%[2]s"}
  - {from: "tcp://127.0.0.1:0", name: "%[1]s-off", to: {addr: "tls://%[2]s", tls: {tickets: off}}}
`, name, addr)
	}
	p := testnet.Start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(3 * len(servers))
	n := 0
	for name := range servers {
		for _, c := range []struct {
			listener string
			resumed  bool
		}{{name, false}, {name, true}, {name + "-other", false}, {name + "-off", false}, {name + "-off", false}} {
			mustAsk(t, p.Addr(c.listener), "level", "level")
			n++
			wantFields(t, p.Flows(n)[n-1], testnet.Record{"listener": c.listener, "out_resumed": c.resumed,
				"out_peer": "*.x.test,localhost,127.0.0.1", "reason": "ok"})
		}
	}
}
