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
	file := h.file(listener)
	swapIn(h.t, keyOf(file), leaf.KeyPEM())
	swapIn(h.t, file, leaf.CertPEM())
	return leaf
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

// startHolder runs a listener for each host of that name.
func startHolder(t *testing.T, d *testdns.DNS, top string, hosts map[string]string, opts ...ca.Option) (*holder, map[string]*ca.Leaf) {
	t.Helper()
	h := &holder{t: t, root: ca.Test(t), dir: t.TempDir()}
	leaves := map[string]*ca.Leaf{}
	text := fmt.Sprintf("%s\nresolver: {addr: \"udp://%s\"}\ndefaults: {tlsa: hold}\nlisteners:\n", top, d.Resolver)
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

// A new certificate waits for its record, and one TTL; what is held outlives reloads, and
// a newer one takes its place. Zones without signatures hold nothing.
func TestHold(t *testing.T) {
	t.Parallel()
	const host = "svc.example.test"
	d := testdns.Start(t, testdns.Records{"example.test": "svc A 127.0.0.1\n", "insecure.test": "svc A 127.0.0.1\n"})
	h, first := startHolder(t, d, "", map[string]string{"web": host, "plain": "svc.insecure.test", "dtls": host})
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

// Who gets no answer does not take it for there being no records.
func TestHoldWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	d := testdns.Start(t, testdns.Records{"lame.test": ""})
	sock := filepath.Join(t.TempDir(), "admin.sock")
	h, first := startHolder(t, d, "metrics: tcp://127.0.0.1:0\nadmin: unix:"+sock, map[string]string{"lame": "svc.lame.test"})
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
	h, first := startHolder(t, d, fmt.Sprintf("unsafe: {clock_offset: \"@%s\"}", offset), map[string]string{"web": host}, ca.Validity(20*time.Hour))
	d.Set("example.test", "svc A 127.0.0.1\n"+h.line("web", host))
	eventually(t, "the record", func() bool {
		_, good := checks(t, d, h.file("web"), h.at("web", host))
		return good
	})
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
