package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// ifRoutes is a file whose routes are chosen by expressions; each server says which
// one it is.
func ifRoutes(t *testing.T, s *stock, clock, earlier string) string {
	t.Helper()
	theirs := s.sServer(t, s.ecdsa)
	return fmt.Sprintf(`
log: {format: json}
unsafe: {clock_offset: "@%[1]s"}
listeners:
  - from: tls://127.0.0.1:0
    name: tls
    cert: %[2]s
    routes:
      - {match: {sni: clock.x.test, if: 'time < date("%[3]s")'}, to: "tcp://%[4]s"}
      - {match: {sni: clock.x.test}, to: "tcp://%[5]s"}
      - {match: {if: 'any(alpn, # startsWith "x-") and sni != "fails.x.test"'}, to: "tcp://%[6]s"}
      - {match: {if: 'within(address, "127.0.0.64/26")'}, to: "tcp://%[7]s"}
      - {match: {sni: fails.x.test, if: 'alpn[0] == "strict"'}, to: "tcp://%[4]s"}
      - {match: {if: 'sni startsWith "theirs" and "TLS 1.3" in versions and port > 0'}, action: splice, to: "tcp://%[8]s"}
      - {match: {if: 'not ("TLS 1.3" in versions) and ja4 startsWith "t12"'}, to: {addr: "tls://%[8]s", name: localhost, ca: %[9]s}}
      - {match: {sni: "*.x.test"}, to: "tcp://%[10]s"}
  - from: tcp://127.0.0.1:0
    name: tcp
    routes:
      - {match: {if: 'within(address, "127.0.0.64/26") and time > date("2026-01-01")'}, to: "tcp://%[7]s"}
      - {to: "tcp://%[10]s"}
`, clock, s.ecdsa, earlier, backend(t, "early"), backend(t, "late"), backend(t, "protocols"), backend(t, "address"), theirs.addr, s.anchors, backend(t, "rest"))
}

// An expression chooses among routes by all that it can ask of, and one that fails
// refuses the client: the laxer route behind is not taken.
func TestMatchIf(t *testing.T) {
	t.Parallel()
	s, clock := newStock(t), write(t, "clock", "0s")
	p := runFile(t, ifRoutes(t, s, clock, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
	at := p.Addr("tls")
	for _, c := range []struct {
		sni, want, pattern string
		flags              []string
	}{
		{"clock.x.test", "early got", "offload", nil},
		{"alpn.x.test", "protocols got", "offload", []string{"-alpn", "h2,x-ours"}},
		{"alpns.x.test", "rest got", "offload", []string{"-alpn", "h2,ours"}},
		{"address.x.test", "address got", "offload", []string{"-bind", "127.0.0.77"}},
		{"elsewhere.x.test", "rest got", "offload", []string{"-bind", "127.0.0.13"}},
		{"fails.x.test", "early got", "offload", []string{"-alpn", "strict"}},
		{"theirs.x.test", "olleh", "pass-through", nil},
		{"old.x.test", "olleh", "bridge", []string{"-tls1_2"}},
	} {
		said := "hello\n"
		if c.pattern != "offload" {
			said += "CLOSE\n" // to openssl's -rev
		}
		out, err := execute(t, said, "openssl", append([]string{"s_client", "-connect", at, "-servername", c.sni, "-CAfile", s.anchors, "-verify_return_error", "-ign_eof"}, c.flags...)...)
		if !strings.Contains(out, c.want) {
			t.Errorf("%s: it does not say %q: %v\n%s", c.sni, c.want, err, out)
		}
		wantFields(t, bySNI(t, p, c.sni), testnet.Record{"pattern": c.pattern})
	}
	if out, err := s.curl(t, at, "curl.x.test", "--interface", "127.0.0.80"); err != nil || !strings.Contains(out, "address got") {
		t.Errorf("curl: %v\n%s", err, out)
	}
	mustAsk(t, p.Addr("tcp"), "hello", "rest got hello\n")
	c := from(t, "127.0.0.100", p.Addr("tcp"))
	fmt.Fprintln(c, "hello")
	if got, err := io.ReadAll(c); err != nil || string(got) != "address got hello\n" {
		t.Errorf("%q, %v", got, err)
	}

	out, err := s.sClient(t, at, "fails.x.test")
	if err == nil || !strings.Contains(out, "alert number 80") {
		t.Errorf("an expression that fails: %v\n%s", err, out)
	}
	r := p.Reason("match_failed")
	wantFields(t, r, testnet.Record{"sni": "fails.x.test", "fault": "ours", "route": "tls/5"})
	if !strings.Contains(r.Text("err"), "choosing a route: evaluating `if`: index out of range") {
		t.Errorf("%v", r)
	}

	if err := os.WriteFile(clock, []byte("2h"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the clock to be read", func() bool {
		out, _ := s.sClient(t, at, "clock.x.test")
		return strings.Contains(out, "late got")
	})
}

// More protocols than an expression looks at are refused, and not passed on.
func TestMatchIfIsBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := testnet.Start(t, "run", "-c", write(t, "s.yaml", fmt.Sprintf(`
log: {format: json}
listeners:
  - from: tls://127.0.0.1:0
    cert: %q
    routes:
      - {match: {if: '"h2" in alpn'}, to: "tcp://%[2]s"}
      - {to: "tcp://%[2]s"}
`, s.cert, serveEach(t, echo))))
	for n, passes := range map[int]bool{1: true, 32: true, 33: false} {
		cfg := s.clientConfig(tls.VersionTLS13)
		for i := range n {
			cfg.NextProtos = append(cfg.NextProtos, fmt.Sprintf("p%d", i))
		}
		if _, err := s.knock(p.Addr(""), cfg); (err == nil) != passes {
			t.Errorf("%d protocols: %v", n, err)
		}
	}
	if r := p.Reason("hello_too_large"); !strings.Contains(r.Text("err"), "offers 33 protocols") {
		t.Errorf("%v", r)
	}
}

// The same of DTLS, whose routes the demultiplexer asks for too, ahead of the flow.
func TestMatchIfOfDatagrams(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	plain, there := c.server(t, "openssl", "-c", c.site, "-j", keyOf(c.site), "-n")
	p := runFile(t, fmt.Sprintf(`
log: {format: json}
listeners:
  - from: dtls://127.0.0.1:0
    name: dtls
    routes:
      - {match: {if: 'sni == "localhost" and ja4 startsWith "d" and time > date("2026-01-01")'}, action: splice, to: "udp://%s"}
      - {match: {if: 'alpn[0] == "x-ours" and "DTLS 1.2" in versions'}, cert: %q, to: "udp://%s"}
      - {cert: %q, to: "udp://%s"}
  - from: udp://127.0.0.1:0
    name: udp
    routes:
      - {match: {if: 'address == "127.0.0.1" and port > 0'}, to: "udp://%s"}
      - {action: reject}
`, there, c.site, packetEcho(t), c.site, plain, plain))
	c.want(t, "openssl", strings.Replace(p.Addr("dtls"), "127.0.0.1", "localhost", 1), "-C", c.anchors)
	c.want(t, "notls", p.Addr("udp"))
	echoed := func(sni string, flags ...string) string {
		out, _ := execute(t, "hello\n", "openssl", append([]string{"s_client", "-dtls1_2", "-connect", p.Addr("dtls"), "-servername", sni, "-CAfile", c.anchors}, flags...)...)
		return out
	}
	if out := echoed("coap.test", "-alpn", "x-ours"); !strings.Contains(out, "Verify return code: 0") {
		t.Errorf("by protocol:\n%s", out)
	}
	echoed("fails.test")
	wantFields(t, p.Reason("match_failed"), testnet.Record{"sni": "fails.test", "route": "dtls/2"})
	endAtOnce(p)
	p.Wait()
	for what, match := range map[string]func(testnet.Record) bool{
		"one passed through": func(r testnet.Record) bool { return r.Text("pattern") == "pass-through" && r.Num("down") > 0 },
		"one by protocol":    func(r testnet.Record) bool { return r.Text("route") == "dtls/2" && r.Text("sni") == "coap.test" },
		"one in clear":       func(r testnet.Record) bool { return r.Text("route") == "udp/1" && r.Num("down") > 0 },
	} {
		p.Flow(what, match)
	}
}

// A reload compiles expressions anew; one that is broken leaves what ran before.
func TestMatchIfReloads(t *testing.T) {
	t.Parallel()
	text := "log: {format: json}\nlisteners:\n  - from: tls://127.0.0.1:0\n    cert: CERT\n    key: KEY\n    to: ECHO\n    routes:\n      - match: {if: 'sni == \"%s\"'}\n"
	r := startReloader(t, fmt.Sprintf(text, "a.test"))
	addr, cfg := r.Addr(""), r.clientConfig(tls.VersionTLS13)
	if _, err := r.knock(addr, cfg); err != nil {
		t.Error(err)
	}
	r.write(t, strings.Replace(fmt.Sprintf(text, "a.test"), "sni ==", "sni == cn or sni ==", 1))
	r.mustKeep(t, "sallyport.yaml:8:29: `if`: cn is not known yet: a route is chosen before the handshake, and before anybody is verified", "`allow`")
	if _, err := r.knock(addr, cfg); err != nil {
		t.Error(err)
	}
	r.mustReload(t, fmt.Sprintf(text, "b.test"))
	if _, err := r.knock(addr, cfg); err == nil {
		t.Error("the route of before is taken still")
	}
	r.Reason("no_route")
	cfg.ServerName = "b.test"
	if _, err := r.knock(addr, cfg); err != nil {
		t.Error(err)
	}
}

// explain says what an expression is and asks of, decides where a name is enough to
// decide, and says on what it depends where it is not.
func TestMatchIfExplained(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := write(t, "s.yaml", fmt.Sprintf(`listeners:
  - from: tls://127.0.0.1:0
    cert: %q
    to: tcp://127.0.0.1:1
    routes:
      - match: {sni: a.test, if: 'time > date("2026-01-01")'}
      - match:
          sni: [a.test, b.test]
          if: |
            "h2" in alpn
            and within(address, "10.0.0.0/8")
      - {match: {if: 'sni startsWith "c."'}}
      - {match: {sni: a.test}}
`, s.cert))
	for host, want := range map[string][]string{
		"": {"takes a.test, where time > date(\"2026-01-01\")\n", "time is when the connection came, in UTC\n",
			"takes a.test or b.test, where \"h2\" in alpn and within(address, \"10.0.0.0/8\"), if no route above does\n", "alpn is the protocols that the client offers\n"},
		"a.test": {"a client where time > date(\"2026-01-01\") (now it is so): is taken by tls-0/1\n", "a client where \"h2\" in alpn and within(address, \"10.0.0.0/8\"): is taken by tls-0/2\n",
			"a client otherwise: is taken by tls-0/4\n"},
		"b.test": {"a client otherwise: is refused as no_route"},
		"C.test": {"a client: is taken by tls-0/3\n"},
	} {
		args := []string{"explain", "-c", file}
		if host != "" {
			args = append(args, host)
		}
		out, err := executeCmd(t, nil, exec.Command(testnet.Binary(t), args...))
		if err != nil {
			t.Errorf("%s: %v\n%s", host, err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: it does not say %q\n%s", host, w, out)
			}
		}
	}
}

func exampleExpressions(t *testing.T, e *example) {
	e.leaf("site", []string{"www.example"})
	for port, name := range map[string]string{"8080": "open", "8081": "closed", "8082": "h2"} {
		e.server("127.0.0.1:"+port, backend(t, name))
	}
	e.server("10.0.0.9:443", e.tlsBackend("theirs", e.serverConfig("build-7.ci.example")))
	e.text = strings.Replace(e.text, "127.0.0.0/8", "127.0.0.1", 1) // from where the clients come, of which none is elsewhere
	clock := write(t, "clock", offset(12))
	e.text += fmt.Sprintf("unsafe: {clock_offset: \"@%s\"}\n", clock)
	p := e.start()
	www := func() *tls.Config { return &tls.Config{ServerName: "www.example", NextProtos: []string{"h2"}} }
	e.mustAskTLS(p.Addr(""), www(), "open")
	e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: "build-7.ci.example"}, "theirs")
	e.refused(p, &tls.Config{ServerName: "build-x.ci.example"}, "unrecognized_name")
	far := tls.Client(from(t, "127.0.0.2", p.Addr("")), &tls.Config{ServerName: "www.example", NextProtos: []string{"h2"}, RootCAs: e.root.Pool()})
	fmt.Fprintln(far, "hello")
	if got, err := io.ReadAll(far); err != nil || string(got) != "h2 got hello\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(clock, []byte(offset(23)), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the night", func() bool {
		got, _, err := e.askTLS(p.Addr(""), www())
		return err == nil && got == "closed got hello\n"
	})
}

// offset makes it half past that hour.
func offset(hour int) string {
	now := time.Now().UTC()
	return time.Date(now.Year(), now.Month(), now.Day(), hour, 30, 0, 0, time.UTC).Sub(now).Truncate(time.Second).String()
}
