package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
)

// holder is a program whose certificates are replaced while it runs.
type holder struct {
	*testnet.Program
	t    *testing.T
	root *ca.Tester
	dir  string
}

// put gives the listener of that name a new leaf for host, key first.
func (h *holder) put(listener, host string, opts ...ca.Option) *ca.Leaf {
	h.t.Helper()
	leaf := h.root.Leaf([]string{host}, opts...)
	h.give(listener, leaf)
	return leaf
}

func (h *holder) give(listener string, leaf *ca.Leaf) {
	h.t.Helper()
	file := h.file(listener)
	swapIn(h.t, keyOf(file), leaf.KeyPEM())
	swapIn(h.t, file, leaf.CertPEM())
}

func (h *holder) file(listener string) string { return filepath.Join(h.dir, listener+".pem") }

func (h *holder) at(listener, host string) string {
	return host + ":" + portOf(h.t, h.Addr(listener))
}

// line is the record that a listener's file needs.
func (h *holder) line(listener, host string, more ...string) string {
	h.t.Helper()
	return mustExecute(h.t, "", testnet.Binary(h.t), append([]string{"tlsa", h.file(listener), h.at(listener, host)}, more...)...)
}

// shows makes a handshake, which takes the key as well.
func (h *holder) shows(listener string, leaf *ca.Leaf) bool {
	h.t.Helper()
	c, err := tls.Dial("tcp", h.Addr(listener), &tls.Config{InsecureSkipVerify: true, CurvePreferences: quick})
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Equal(leaf.Cert)
}

func (h *holder) must(listener string, leaf *ca.Leaf) {
	h.t.Helper()
	if !h.shows(listener, leaf) {
		h.t.Errorf("%s shows another certificate", listener)
	}
}

// said waits for a line about a listener.
func (h *holder) said(listener, text string, n int) testnet.Record {
	h.t.Helper()
	return h.LoggedAs(text, n, func(r testnet.Record) bool {
		return r.Text("listener") == listener && strings.Contains(r.Text("msg"), text)
	})
}

const (
	missing = "held back: DNS does not have its record"
	present = "held back: DNS has its record"
	unknown = "held back: whether DNS has its record is not known"
	freed   = "a new certificate is shown"
)

// by is a resolver that validates for us.
func by(d *testdns.DNS) string { return fmt.Sprintf("{addr: \"udp://%s\"}", d.Resolver) }

// startHolder runs a listener for each host of that name.
func startHolder(t *testing.T, resolver, top string, hosts map[string]string, opts ...ca.Option) (*holder, map[string]*ca.Leaf) {
	t.Helper()
	h := &holder{t: t, root: ca.Test(t), dir: t.TempDir()}
	leaves := map[string]*ca.Leaf{}
	text := fmt.Sprintf("%s\nresolver: %s\ndefaults: {tlsa: hold}\nlisteners:\n", top, resolver)
	for listener, host := range hosts {
		leaves[listener] = h.put(listener, host, opts...)
		from, to := "tls", "tcp://"+serveEach(t, echo)
		if listener == "dtls" {
			from, to = "dtls", "udp://127.0.0.1:9"
		}
		text += fmt.Sprintf("- {from: \"%s://127.0.0.1:0\", name: %s, cert: %s, to: \"%s\"}\n", from, listener, h.file(listener), to)
	}
	h.Program = start(t, "run", "-c", write(t, "sallyport.yaml", text))
	h.WaitListeners(len(hosts))
	return h, leaves
}

// published waits until DNS has the record of what web's file has.
func (h *holder) published(d *testdns.DNS, host string) {
	h.t.Helper()
	eventually(h.t, "the record", func() bool {
		_, good := checks(h.t, d, h.file("web"), h.at("web", host))
		return good
	})
}

// A new certificate waits for its record, and one TTL; what is held outlives reloads, and
// a newer one takes its place. Zones without signatures hold nothing.
func TestHold(t *testing.T) {
	t.Parallel()
	const host = "svc.example.test"
	d := testdns.Start(t, testdns.Records{"example.test": "svc A 127.0.0.1\n", "insecure.test": "svc A 127.0.0.1\n"})
	h, first := startHolder(t, by(d), "", map[string]string{"web": host, "plain": "svc.insecure.test", "dtls": host})
	zone := "svc A 127.0.0.1\n" + ttl2(h.line("web", host)) + ttl2(h.line("dtls", host, "--udp"))
	d.Set("example.test", zone)
	d.Set("insecure.test", "svc A 127.0.0.1\n"+strings.ReplaceAll(h.line("web", host), ".example.test", ".insecure.test"))
	for _, more := range [][]string{{"web"}, {"dtls", "--udp"}} {
		eventually(t, "the records", func() bool {
			_, good := checks(t, d, append([]string{h.file(more[0]), h.at(more[0], host)}, more[1:]...)...)
			return good
		})
	}
	for _, listener := range []string{"web", "dtls"} {
		h.put(listener, host)
	}
	for listener, udp := range map[string][]string{"web": nil, "dtls": {"--udp"}} {
		said := h.said(listener, missing, 1)
		wantFields(t, said, testnet.Record{"name": host, "publish": strings.TrimSpace(h.line(listener, host, udp...)), "level": "WARN"})
	}
	h.must("web", first["web"])
	if out := h.overDTLS(); !strings.Contains(out, serialOf(first["dtls"])) {
		t.Errorf("dtls shows another certificate: %s", out)
	}

	plain := h.put("plain", "svc.insecure.test")
	eventually(t, "what nothing holds", func() bool { return h.shows("plain", plain) })
	newer := h.put("web", host)
	h.said("web", missing, 2)
	h.Signal(syscall.SIGHUP)
	h.LoggedAs("reloaded by a signal", 1, func(r testnet.Record) bool { return r.Text("cause") == bySignal })
	h.must("web", first["web"])
	d.Set("example.test", zone+ttl2(h.line("web", host))+ttl2(h.line("dtls", host, "--udp")))
	waits := h.said("web", present, 1)
	shown := h.said("web", freed, 1)
	safe, err := time.Parse(time.RFC3339, waits.Text("safe_from"))
	at, err2 := time.Parse(time.RFC3339Nano, shown.Text("time"))
	if err := errors.Join(err, err2); err != nil || at.Before(safe) {
		t.Errorf("shown at %s, safe from %s: %v", at, safe, err)
	}
	h.must("web", newer)
	h.said("dtls", freed, 1)
	if out := h.overDTLS(); strings.Contains(out, serialOf(first["dtls"])) {
		t.Errorf("dtls shows the old certificate: %s", out)
	}
}

// By answers that we validate ourselves, too.
func TestHoldByOurOwnAnchor(t *testing.T) {
	t.Parallel()
	const host = "svc.example.test"
	d := testdns.Start(t, testdns.Records{"example.test": "svc A 127.0.0.1\n"})
	h, first := startHolder(t, fmt.Sprintf("{addr: \"udp://%s\", anchor: %s}", d.Server, d.Anchor), "", map[string]string{"web": host})
	zone := "svc A 127.0.0.1\n" + ttl2(h.line("web", host))
	d.Set("example.test", zone)
	h.published(d, host)
	fresh := h.put("web", host)
	h.said("web", missing, 1)
	h.must("web", first["web"])
	d.Set("example.test", zone+ttl2(h.line("web", host)))
	h.said("web", present, 1)
	h.said("web", freed, 1)
	h.must("web", fresh)
}

// What is shown in place of what waits keeps its staple, though its responder has
// gone. Who cannot wait for DNS takes the key away.
func TestHoldKeepsTheStaple(t *testing.T) {
	t.Parallel()
	const host = "svc.example.test"
	d := testdns.Start(t, testdns.Records{"example.test": "svc A 127.0.0.1\n"})
	desk := newDesk(t)
	h := &holder{t: t, root: desk.inter, dir: t.TempDir()}
	names := []string{host, "face.x.test"} // which is nowhere in DNS, and what stapledBy asks for
	first, second := h.root.Leaf(names, ca.OCSPAt(desk.at("first"))), h.root.Leaf(names, ca.OCSPAt(desk.at("second")))
	desk.answer("first", send(respond(t, desk.delegate, desk.good(first.Cert))))
	desk.answer("second", send(respond(t, desk.delegate, desk.good(second.Cert))))
	h.give("web", first)
	text := fmt.Sprintf("resolver: %s\nlisteners:\n- {from: \"tls://127.0.0.1:0\", name: web, cert: %s, to: \"tcp://127.0.0.1:9\", tlsa: hold}\n", by(d), h.file("web"))
	file := write(t, "sallyport.yaml", text)
	h.Program = start(t, "run", "-c", file)
	staples := func(leaf *ca.Leaf) {
		t.Helper()
		if got := stapledBy(t, h.Addr("web"), desk.Pool(), true); !got.Equal(leaf.Cert) {
			t.Errorf("serial %x is shown", got.SerialNumber)
		}
		out, _ := execute(t, "Q\n", "openssl", "s_client", "-connect", h.Addr("web"), "-servername", host, "-CAfile", desk.anchors, "-status")
		if !strings.Contains(out, "Cert Status: good") || !strings.Contains(out, "Serial Number: "+serialOf(leaf)) {
			t.Errorf("openssl: %s", out)
		}
	}
	staples(first)
	d.Set("example.test", "svc A 127.0.0.1\n"+ttl2(h.line("web", host)))
	h.published(d, host)
	desk.answer("first", nil)
	h.give("web", second)
	h.said("web", missing, 1)
	staples(first)
	h.Signal(syscall.SIGHUP)
	h.LoggedAs("reloaded by a signal", 1, func(r testnet.Record) bool { return r.Text("cause") == bySignal })
	staples(first)

	swapIn(t, file, []byte(strings.ReplaceAll(text, ", tlsa: hold", "")))
	h.Signal(syscall.SIGHUP)
	h.LoggedAs("reloaded by a signal", 2, func(r testnet.Record) bool { return r.Text("cause") == bySignal })
	staples(second)
}

// Who gets no answer does not take it for there being no records.
func TestHoldWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	d := testdns.Start(t, testdns.Records{"lame.test": ""})
	sock := filepath.Join(t.TempDir(), "admin.sock")
	h, first := startHolder(t, by(d), "metrics: tcp://127.0.0.1:0\nadmin: unix:"+sock, map[string]string{"lame": "svc.lame.test"})
	h.put("lame", "svc.lame.test")
	h.said("lame", unknown, 1)
	said := mustExecute(t, "", testnet.Binary(t), "status", "--admin", "unix:"+sock)
	if !strings.Contains(said, "held back") || !strings.Contains(said, "svc.lame.test") {
		t.Errorf("status: %s", said)
	}
	if _, page := curl(t, "http://"+paneAddr(h.Program, "metrics")+"/metrics"); metric(t, page, "sallyport_certificates_held") != 1 {
		t.Errorf("the metrics: %s", page)
	}
	h.must("lame", first["lame"])
}

func (h *holder) overDTLS() string {
	h.t.Helper()
	out, _ := execute(h.t, "Q\n", "sh", "-c", "openssl s_client -dtls1_2 -connect "+h.Addr("dtls")+" | openssl x509 -noout -serial")
	return out
}

func serialOf(l *ca.Leaf) string { return fmt.Sprintf("%X", l.Cert.SerialNumber) }

// ttl2 has a record live for two seconds.
func ttl2(line string) string { return strings.Replace(line, " IN TLSA", " 2 IN TLSA", 1) }

// The old one is not shown until it expires, and what does not pass at the start is
// cried out.
func TestHoldUntilTheOldOneExpires(t *testing.T) {
	t.Parallel()
	const host = "svc.example.test"
	d := testdns.Start(t, testdns.Records{"example.test": "svc A 127.0.0.1\n"})
	offset := write(t, "offset", "0s")
	h, first := startHolder(t, by(d), fmt.Sprintf("unsafe: {clock_offset: \"@%s\"}", offset), map[string]string{"web": host}, ca.Validity(20*time.Hour))
	d.Set("example.test", "svc A 127.0.0.1\n"+h.line("web", host))
	h.published(d, host)
	second := h.put("web", host)
	h.said("web", missing, 1)
	h.must("web", first["web"])
	if err := os.WriteFile(offset, []byte("19h"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := h.said("web", "since the one before it expires", 1)
	wantFields(t, said, testnet.Record{"level": "ERROR", "name": host, "publish": strings.TrimSpace(h.line("web", host))})
	h.must("web", second)

	h.Signal(syscall.SIGTERM)
	h.Wait()
	port := portOf(t, h.Addr("web"))
	again := start(t, "proxy", "tls://127.0.0.1:"+port, "tcp://127.0.0.1:9", "--cert", h.file("web"), "--tlsa", "hold", "--resolver-addr", "udp://"+d.Resolver)
	wantFields(t, again.LoggedAs("the missing record", 1, func(r testnet.Record) bool { return strings.Contains(r.Text("msg"), "DOES NOT PASS") }),
		testnet.Record{"level": "ERROR", "name": host, "publish": said.Text("publish")})
}
