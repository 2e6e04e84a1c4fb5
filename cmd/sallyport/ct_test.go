package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// logs are three of two operators, and one that no list has.
type logs struct{ a, b, b2, foreign *ca.Log }

func newLogs(t testing.TB) *logs {
	l := &logs{ca.TestLog(t, "Alder", "A"), ca.TestLog(t, "Birch", "B"), ca.TestLog(t, "Bramble", "B"), ca.TestLog(t, "Nettle", "N")}
	l.b.Tiled, l.b.Extensions = true, []byte{0, 0, 5, 0, 0, 0, 1, 2}
	return l
}

// list is what is told of them, of that age.
func (l *logs) list(age time.Duration) []byte {
	return ca.LogList(time.Now().Add(-age).UTC().Truncate(time.Second), l.a, l.b, l.b2)
}

const day = 24 * time.Hour

// yesterday is a promise that each of list has made.
func yesterday(list ...*ca.Log) (p []ca.Promise) {
	for _, l := range list {
		p = append(p, ca.Promise{Log: l, At: time.Now().Add(-day)})
	}
	return p
}

// shows starts an openssl whose certificate, or handshake, has SCTs.
func (s *stock) shows(t testing.TB, stem string, embedded []ca.Promise, handshake ...*ca.Log) string {
	t.Helper()
	var opts []ca.Option
	if embedded != nil {
		opts = append(opts, ca.Embed(s.Cert, embedded...))
	}
	leaf := s.Leaf([]string{"*.x.test"}, opts...)
	var args []string
	if handshake != nil {
		args = []string{"-serverinfo", write(t, "info.pem", string(ca.ServerInfo(promised(t, leaf, handshake...))))}
	}
	return s.sServer(t, s.written(t, leaf, stem), args...).addr
}

// staples is shows with the SCTs in an OCSP response.
func (s *stock) staples(t testing.TB, stem string, logs ...*ca.Log) string {
	t.Helper()
	leaf := s.Leaf([]string{"*.x.test"})
	value, err := asn1.Marshal(promised(t, leaf, logs...))
	if err != nil {
		t.Fatal(err)
	}
	scts := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 5}, Value: value} // RFC 6962, section 3.3
	staple, err := s.Responder().Respond(time.Now(), ca.Status{Cert: leaf.Cert, Issuer: s.Cert,
		This: time.Now().Add(-time.Hour), Next: time.Now().Add(day), Extensions: []pkix.Extension{scts}})
	if err != nil {
		t.Fatal(err)
	}
	return s.sServer(t, s.written(t, leaf, stem), "-status_file", write(t, "staple.der", string(staple))).addr
}

func (s *stock) written(t testing.TB, leaf *ca.Leaf, stem string) string {
	t.Helper()
	cert, _, err := leaf.Write(s.dir, "ct-"+stem)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// promised is a list of SCTs for all of leaf, of yesterday.
func promised(t testing.TB, leaf *ca.Leaf, logs ...*ca.Log) []byte {
	t.Helper()
	var scts [][]byte
	for _, l := range logs {
		sct, err := l.SCT(time.Now().Add(-day), leaf.Cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		scts = append(scts, sct)
	}
	return ca.SCTList(scts...)
}

// askTLS is [ask] of a TLS listener.
func askTLS(addr, line string, root *x509.CertPool) (string, error) {
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: root, ServerName: "face.x.test", CurvePreferences: quick})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testnet.Patience))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	b := make([]byte, len(line)+1)
	_, err = io.ReadFull(c, b)
	return string(b), err
}

// IC-46, as encrypt and as bridge, on the first connection and after it.
func TestTransparency(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	future := yesterday(l.a, l.b)
	future[1].At = time.Now().Add(time.Hour)
	spoiled := yesterday(l.a, l.b)
	spoiled[1].Tamper = func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	issuer := yesterday(l.a, l.b)
	issuer[1].Issuer = ca.Test(t).Cert
	both := yesterday(l.a, l.b)
	retired, closed, rejected := ca.TestLog(t, "Rowan", "R"), ca.TestLog(t, "Cedar", "C"), ca.TestLog(t, "Juniper", "J")
	retired.State, closed.State, rejected.State = "retired", "retired", "rejected"
	for _, gone := range []*ca.Log{retired, closed, rejected} {
		gone.Since = time.Now().Add(-10 * day).UTC()
	}
	early := yesterday(l.a, retired, closed)
	early[1].At, early[2].At = early[1].At.Add(-10*day), early[2].At.Add(-10*day)
	rows := []struct {
		name, addr, reason, says string // of "ok" the logs that count
	}{
		{"good", s.shows(t, "good", both), "ok", "Alder; Birch"},
		{"handshake", s.shows(t, "handshake", nil, l.a, l.b), "ok", "Alder; Birch"},
		{"retired-since", s.shows(t, "retired-since", early[:2]), "ok", "Alder; Rowan"},
		{"retired-before", s.shows(t, "retired-before", yesterday(l.a, retired)), "ct_invalid", "and the log is retired since"},
		{"retired-both", s.shows(t, "retired-both", early[1:]), "ct_too_few", "is in use any more"},
		{"retired-handshake", s.shows(t, "retired-handshake", nil, l.a, retired), "ct_invalid", "the log is retired since"},
		{"rejected", s.shows(t, "rejected", yesterday(l.a, rejected)), "ct_invalid", "the log is rejected"},
		{"staple", s.staples(t, "staple", l.a, l.b), "ct_too_few", "in an OCSP response"},
		{"none", s.shows(t, "none", nil), "ct_missing", "no SCT"},
		{"one", s.shows(t, "one", both[:1]), "ct_too_few", `\"Alder\" (A)`},
		{"operator", s.shows(t, "operator", yesterday(l.b, l.b2)), "ct_too_few", "all of one operator"},
		{"unknown", s.shows(t, "unknown", yesterday(l.a, l.foreign)), "ct_invalid", "a log that no list has"},
		{"signature", s.shows(t, "signature", spoiled), "ct_invalid", `\"Birch\" (B): its signature`},
		{"future", s.shows(t, "future", future), "ct_invalid", "an SCT of the future"},
		{"issuer", s.shows(t, "issuer", issuer), "ct_invalid", `\"Birch\" (B): its signature`},
		{"handshake-one", s.shows(t, "handshake-one", nil, l.a), "ct_too_few", "in the handshake"},
		{"split", s.shows(t, "split", both[:1], l.b), "ct_too_few", ""},
		{"handshake-unknown", s.shows(t, "handshake-unknown", nil, l.a, l.foreign), "ct_invalid", "a log that no list has"},
	}
	text := fmt.Sprintf("ct_log_list: %s\ndefaults: {to: {ca: %s, name: a.x.test}}\nlisteners:\n",
		write(t, "logs.json", string(ca.LogList(time.Now().Add(-day).UTC(), l.a, l.b, l.b2, retired, closed, rejected))), s.anchors)
	for _, r := range rows {
		for _, want := range []string{"require", "report"} {
			text += fmt.Sprintf("  - {from: \"tcp://127.0.0.1:0\", name: encrypt-%s-%s, to: {addr: \"tls://%s\", ct: %[2]s}}\n", r.name, want, r.addr)
			text += fmt.Sprintf("  - {from: \"tls://127.0.0.1:0\", name: bridge-%s-%s, cert: %s, to: {addr: \"tls://%s\", ct: %[2]s}}\n", r.name, want, s.ecdsa, r.addr)
		}
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", text))
	p.WaitListeners(4 * len(rows))
	p.WaitLog("list of CT logs")
	for _, r := range rows {
		for _, pattern := range []string{"encrypt", "bridge"} {
			for _, want := range []string{"require", "report"} {
				name := pattern + "-" + r.name + "-" + want
				passes := r.reason == "ok" || want == "report"
				for i := range 3 {
					ask := ask
					if pattern == "bridge" {
						ask = func(addr, line string) (string, error) { return askTLS(addr, line, s.Pool()) }
					}
					if got, err := ask(p.Addr(name), "level"); (err == nil && strings.Contains(got, "level")) != passes {
						t.Errorf("%s, connection %d: %q, %v", name, i+1, got, err)
					}
				}
				wantTransparency(t, p, name, r.reason, r.says, passes)
			}
		}
	}
}

// wantTransparency looks at three records of one listener.
func wantTransparency(t *testing.T, p *testnet.Program, name, reason, says string, passes bool) {
	t.Helper()
	seen := map[float64]bool{}
	resumed := false
	for range 3 {
		r := p.Flow(name, func(r testnet.Record) bool { return r.Text("listener") == name && !seen[r.Num("id")] })
		seen[r.Num("id")] = true
		if yes, _ := r["out_resumed"].(bool); yes {
			resumed = true
		}
		switch notes := r.Text("out_notes"); {
		case !passes && (r.Text("reason") != reason || r.Text("stage") != "outbound" || !strings.Contains(fmt.Sprintf("%q", r.Text("err")), says)):
			t.Errorf("%s: %v, want %s with %s", name, r, reason, says)
		case passes && r.Text("reason") != "ok":
			t.Errorf("%s: %v", name, r)
		case passes && reason != "ok" && (!strings.Contains(fmt.Sprintf("%q", notes), says) || !strings.HasPrefix(notes, reason+": ")):
			t.Errorf("%s: notes %q, want %s with %s", name, notes, reason, says)
		case passes && reason == "ok" && (notes != "" || r.Text("out_ct_logs") != says):
			t.Errorf("%s: notes %q, logs %q", name, notes, r.Text("out_ct_logs"))
		}
	}
	if passes && !resumed {
		t.Errorf("%s: no connection was resumed", name)
	}
}

// What an SCT says of its time is judged anew on a session that is resumed.
func TestTransparencyOnResumption(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	young := yesterday(l.a, l.b)
	young[0].At = time.Now().Add(-30 * time.Minute)
	clock := write(t, "clock", "0s")
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tls://"+s.shows(t, "young", young), "--to-ca", s.anchors, "--to-name", "a.x.test",
		"--to-ct", "require", "--ct-log-list", write(t, "logs.json", string(l.list(day))), "--unsafe-clock-offset", "@"+clock)
	for range 2 {
		mustAsk(t, p.Addr(""), "level", "level")
	}
	p.Flow("resumed", func(r testnet.Record) bool { return r["out_resumed"] == true && r.Text("out_peer_by") == "pkix,ct" })
	if err := os.WriteFile(clock, []byte("-40m"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool {
		_, err := ask(p.Addr(""), "level")
		return err != nil
	})
	if r := p.Reason("ct_invalid"); !strings.Contains(r.Text("err"), "of the future") {
		t.Errorf("%v", r)
	}
}

// DTLS has no extension for SCTs here: those in the certificate are all.
func TestTransparencyDTLS(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	list := write(t, "logs.json", string(l.list(day)))
	for _, row := range []struct {
		promises []ca.Promise
		reason   string
	}{{yesterday(l.a, l.b), ""}, {yesterday(l.a), "ct_too_few"}, {yesterday(l.a, l.foreign), "ct_invalid"}, {nil, "ct_missing"}} {
		var opts []ca.Option
		if row.promises != nil {
			opts = []ca.Option{ca.Embed(s.Cert, row.promises...)}
		}
		c := &coap{stock: s}
		cert := s.leaf(t, "dtls"+row.reason, []string{"coap.test"}, opts...)
		_, addr := c.server(t, "openssl", "-c", cert, "-j", keyOf(cert), "-n")
		p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+addr, "--to-ca", s.anchors, "--to-name", "coap.test", "--to-ct", "require", "--ct-log-list", list)
		if row.reason == "" {
			c.want(t, "notls", p.Addr(""))
			continue
		}
		dialUDP(t, p.Addr("")).Write([]byte("hello"))
		p.Reason(row.reason)
	}
}

// Clients can be held to it as well.
func TestTransparencyOfClients(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	good := s.leaf(t, "in-good", []string{"a.example"}, ca.Embed(s.Cert, yesterday(l.a, l.b)...))
	bad := s.leaf(t, "in-bad", []string{"a.example"}, ca.Embed(s.Cert, yesterday(l.a)...))
	p := start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--cert", s.ecdsa, "--client-ca", s.anchors, "--allow-dns", "a.example",
		"--client-ct", "require", "--ct-log-list", write(t, "logs.json", string(l.list(day))))
	for i, version := range ticketVersions {
		goodSNI, badSNI := fmt.Sprintf("good%d.x.test", i), fmt.Sprintf("bad%d.x.test", i)
		if out, err := s.sClient(t, p.Addr(""), goodSNI, version, "-cert", good, "-key", keyOf(good)); err != nil || !strings.Contains(out, "web got") {
			t.Errorf("%v\n%s", err, out)
		}
		wantFields(t, bySNI(t, p, goodSNI), testnet.Record{"reason": "ok", "in_peer_by": "pkix,allow,ct", "in_ct_logs": "Alder; Birch"})
		if out, err := s.sClient(t, p.Addr(""), badSNI, version, "-cert", bad, "-key", keyOf(bad)); err == nil {
			t.Errorf("a client in one log passes\n%s", out)
		}
		if r := bySNI(t, p, badSNI); r.Text("reason") != "client_cert_rejected" || !strings.Contains(r.Text("err"), "SCTs of 2 logs are needed") {
			t.Errorf("%v", r)
		}
	}
}

// publisher is who makes lists: a key, and a server.
type publisher struct {
	key    crypto.Signer
	public string // the key's file
	url    string
	list   atomic.Pointer[[]byte]
	sig    atomic.Pointer[[]byte]
	gone   atomic.Bool
}

func newPublisher(t testing.TB, list []byte) *publisher {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	u := &publisher{key: key, public: write(t, "list-key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))}
	u.publish(t, list)
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	u.url = server.URL + "/v3/log_list.json"
	return u
}

func (u *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case u.gone.Load():
		http.Error(w, "gone", http.StatusGone)
	case r.URL.Path == "/v3/log_list.json":
		w.Write(*u.list.Load())
	case r.URL.Path == "/v3/log_list.sig":
		w.Write(*u.sig.Load())
	default:
		http.NotFound(w, r)
	}
}

func (u *publisher) sign(t testing.TB, list []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(list)
	sig, err := u.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func (u *publisher) publish(t testing.TB, list []byte) {
	t.Helper()
	sig := u.sign(t, list)
	u.list.Store(&list)
	u.sig.Store(&sig)
}

// A list is fetched and checked, outlives its publisher over a reload and a
// restart, and is renewed by a reload no worse than by its day.
func TestLogListOverTheNetwork(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	u := newPublisher(t, l.list(2*day))
	state := filepath.Join(t.TempDir(), "state")
	file := write(t, "sallyport.yaml", fmt.Sprintf(`
state_dir: %s
ct_log_list: [%s, "%s"]
listeners: [{from: "tcp://127.0.0.1:0", to: {addr: "tls://%s", name: a.x.test, ca: %s, ct: require}}]
`, state, u.public, u.url, s.shows(t, "net", yesterday(l.a, l.b)), s.anchors))
	p := start(t, "run", "-c", file)
	if r := p.Logged("list of CT logs", 1); r.Num("age_days") != 2 || r.Num("logs") != 3 {
		t.Errorf("%v", r)
	}
	mustAsk(t, p.Addr(""), "level", "level")
	u.gone.Store(true)
	p.Signal(syscall.SIGHUP)
	p.WaitLog("reloaded")
	mustAsk(t, p.Addr(""), "level", "level")
	p.Signal(syscall.SIGTERM)
	p.Wait()

	p = start(t, "run", "-c", file)
	mustAsk(t, p.Addr(""), "level", "level")
	p.Signal(syscall.SIGTERM)
	p.Wait()

	kept, err := filepath.Glob(filepath.Join(state, "ct", "*.json"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, spoilt := range map[string]string{"cut": string(text[:len(text)/2]), "forged": strings.Replace(string(text), `"signature":"M`, `"signature":"N`, 1)} {
		if err := os.WriteFile(kept[0], []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		p = start(t, "run", "-c", file)
		p.WaitLog("is discarded")
		if _, err := ask(p.Addr(""), "level"); err == nil {
			t.Errorf("%s: served without a list", name)
		}
		if r := p.Reason("ct_no_list"); r.Text("fault") != "ours" {
			t.Errorf("%v", r)
		}
		p.Signal(syscall.SIGTERM)
		p.Wait()
	}
}

// A list that is not its signer's is not used, and one that is too old not enforced.
func TestLogListBadOrOld(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	to := "tls://" + s.shows(t, "plain", nil)
	run := func(t *testing.T, lists ...string) *testnet.Program {
		return start(t, "proxy", "tcp://127.0.0.1:0", to, "--to-ca", s.anchors, "--to-name", "a.x.test", "--to-ct", "require",
			"--ct-log-list", strings.Join(lists, ","))
	}
	t.Run("another's signature", func(t *testing.T) {
		t.Parallel()
		u := newPublisher(t, l.list(day))
		p := run(t, newPublisher(t, l.list(day)).public, u.url)
		p.WaitLog("by none of the 1 keys")
		if _, err := ask(p.Addr(""), "level"); err == nil {
			t.Error("served")
		}
		p.Reason("ct_no_list")
	})
	t.Run("too old", func(t *testing.T) {
		t.Parallel()
		u := newPublisher(t, l.list(71*day))
		p := run(t, u.public, u.url)
		p.WaitLog("list of CT logs too old: ct enforces nothing until it is renewed")
		mustAsk(t, p.Addr(""), "level", "level")
		if r := p.Reason("ok"); !strings.Contains(r.Text("out_notes"), "not enforced, since the list of logs is 71 days old; it would be: no SCT") {
			t.Errorf("%v", r)
		}
	})
	t.Run("a file with a bad signature beside it", func(t *testing.T) {
		t.Parallel()
		u := newPublisher(t, l.list(day))
		list := write(t, "log_list.json", string(l.list(day)))
		sig := strings.TrimSuffix(list, "json") + "sig"
		if err := os.WriteFile(sig, u.sign(t, []byte("another")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := executeCmd(t, nil, exec.Command(testnet.Binary(t), "proxy", "tcp://127.0.0.1:0", to, "--to-ca", s.anchors, "--to-ct", "require",
			"--ct-log-list", list+","+u.public))
		if err == nil || !strings.Contains(out, "by none of the 1 keys") {
			t.Errorf("%v\n%s", err, out)
		}
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sig, u.sign(t, text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := run(t, list, u.public)
		if _, err := ask(p.Addr(""), "level"); err == nil {
			t.Error("served without any SCT")
		}
		p.Reason("ct_missing")
	})
}
