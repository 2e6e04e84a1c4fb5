package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// desk is where the certificates of a stock say that one has to ask: a server of
// OCSP responses, CRLs and issuers, each place with an answer of its own.
type desk struct {
	*stock
	*httptest.Server
	inter    *ca.Tester
	delegate *ca.Responder

	mu      sync.Mutex
	places  map[string]http.HandlerFunc
	asked   map[string]int
	servers map[string]tls.Certificate // by SNI
}

func newDesk(t testing.TB) *desk {
	d := &desk{stock: newStock(t), places: map[string]http.HandlerFunc{}, asked: map[string]int{}, servers: map[string]tls.Certificate{}}
	d.inter = d.Intermediate()
	d.delegate = d.responder(ca.EKU(x509.ExtKeyUsageOCSPSigning))
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, rest, _ := strings.Cut(r.URL.Path, "/")
		place, _, _ := strings.Cut(rest, "/")
		d.mu.Lock()
		answer := d.places[place]
		d.asked[place]++
		d.mu.Unlock()
		if answer == nil {
			http.NotFound(w, r)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *desk) responder(opts ...ca.Option) *ca.Responder {
	return d.inter.Leaf([]string{"responder.test"}, opts...).Delegate()
}

func (d *desk) at(place string) string { return d.URL + "/" + place }

// named is the same by a name, which only --resolve with d.mapped leads to.
func (d *desk) named(place string) string {
	return strings.Replace(d.at(place), "127.0.0.1", "desk.x.test", 1)
}

func (d *desk) mapped() string {
	return strings.TrimSuffix(strings.TrimPrefix(d.named(""), "http://"), "/") + ":127.0.0.1"
}

func (d *desk) answer(place string, a http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.places[place] = a
}

func (d *desk) times(place string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[place]
}

func send(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }
}

func (d *desk) good(c *x509.Certificate) ca.Status {
	return ca.Status{Cert: c, Issuer: d.inter.Cert, This: time.Now().Add(-time.Hour), Next: time.Now().Add(day)}
}

func (d *desk) revoked(c *x509.Certificate) ca.Status {
	st := d.good(c)
	st.Revoked = time.Now().Add(-time.Hour)
	return st
}

func respond(t testing.TB, r *ca.Responder, st ca.Status) []byte {
	t.Helper()
	der, err := r.Respond(time.Now(), st)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (d *desk) crl(t testing.TB, by *ca.Tester, at time.Time, revoked ...*x509.Certificate) []byte {
	t.Helper()
	var serials []*big.Int
	for _, c := range revoked {
		serials = append(serials, c.SerialNumber)
	}
	der, err := by.CRL(at, serials, nil)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// serve is a TLS server for all of d.servers, which sends lines back.
func (d *desk) serve(t testing.TB) string {
	cfg := &tls.Config{CurvePreferences: quick, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		c := d.servers[h.ServerName]
		return &c, nil
	}}
	return serveEach(t, func(c *net.TCPConn) {
		server := tls.Server(c, cfg)
		defer server.Close()
		server.SetDeadline(time.Now().Add(bound))
		io.Copy(server, server)
	})
}

// dribble sends a byte a second, as long as anybody listens.
func dribble(w http.ResponseWriter, r *http.Request) {
	for {
		if _, err := w.Write([]byte{0x30}); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// askOf asks a listener a line, by TLS where its name says so.
func askOf(p *testnet.Program, listener string, pool *x509.CertPool) error {
	var err error
	if strings.HasSuffix(listener, "bridge") {
		_, err = askTLS(p.Addr(listener), "level", pool)
	} else {
		_, err = ask(p.Addr(listener), "level")
	}
	return err
}

// after waits for the flow of a listener that is not among seen, and adds it.
func after(t testing.TB, p *testnet.Program, listener string, seen map[float64]bool) testnet.Record {
	t.Helper()
	r := p.Flow("of "+listener, func(r testnet.Record) bool { return r.Text("listener") == listener && !seen[r.Num("id")] })
	seen[r.Num("id")] = true
	return r
}

// IC-43, IC-44, F-27 and F-28: what responders and CRL servers do, as encrypt and as
// bridge, on the first connection, the second and a resumed one.
func TestRevocationFetched(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	other := d.inter.Leaf([]string{"else.x.test"}).Cert
	ocsp := func(answer func(c *x509.Certificate) []byte) func(string, *x509.Certificate) http.HandlerFunc {
		return func(_ string, c *x509.Certificate) http.HandlerFunc { return send(answer(c)) }
	}
	fixed := func(h http.HandlerFunc) func(string, *x509.Certificate) http.HandlerFunc {
		return func(string, *x509.Certificate) http.HandlerFunc { return h }
	}
	edit := func(f func(*ca.Status)) func(string, *x509.Certificate) http.HandlerFunc {
		return ocsp(func(c *x509.Certificate) []byte {
			st := d.good(c)
			f(&st)
			return respond(t, d.delegate, st)
		})
	}
	by := func(r *ca.Responder) func(string, *x509.Certificate) http.HandlerFunc {
		return ocsp(func(c *x509.Certificate) []byte { return respond(t, r, d.good(c)) })
	}
	rows := []struct {
		name   string
		answer func(place string, c *x509.Certificate) http.HandlerFunc
		reason string // of soft and hard; where it is empty soft goes on and hard does not
		says   string
	}{
		{"good", by(d.delegate), "ok", ""},
		{"good-crl", nil, "ok", ""},
		{"revoked", edit(func(st *ca.Status) { st.Revoked = time.Now().Add(-time.Hour) }), "revoked", "was revoked on"},
		{"revoked-crl", nil, "revoked", "was revoked on"},
		{"unknown", edit(func(st *ca.Status) { st.Unknown = true }), "", "(unknown)"},
		{"late", edit(func(st *ca.Status) { st.This, st.Next = st.This.Add(-2*day), st.Next.Add(-2*day) }), "", "was good until"},
		{"early", edit(func(st *ca.Status) { st.This = time.Now().Add(time.Hour) }), "", "which is to come"},
		{"endless", edit(func(st *ca.Status) { st.Next = time.Time{} }), "", "nextUpdate"},
		{"serial", edit(func(st *ca.Status) { st.Cert = other }), "", "other certificates"},
		{"issuer", edit(func(st *ca.Status) { st.Issuer = d.Cert }), "", "other certificates"},
		{"signer", by(d.responder(ca.ServerAuth())), "", "lacks OCSPSigning"},
		{"signer-expired", by(d.responder(ca.EKU(x509.ExtKeyUsageOCSPSigning), ca.Expired())), "", "is good from"},
		{"try-later", fixed(send([]byte{0x30, 3, 0x0a, 1, 3})), "", "tryLater"},
		{"garbage", fixed(send([]byte("<html>"))), "", "no OCSP response"},
		{"nothing", fixed(send(nil)), "", "no OCSP response"},
		{"missing", fixed(http.NotFound), "", "404"},
		{"huge", fixed(send(make([]byte, 1<<20))), "", "more than 65536 bytes"},
		{"slow", fixed(dribble), "", "in time"},
		{"loop", func(place string, _ *x509.Certificate) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/"+place+"/x", http.StatusFound) }
		}, "", "redirected more than"},
		{"inward", fixed(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		}), "", "169.254.169.254 is not fetched from: it is a link-local address"},
		{"closed", fixed(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "", "EOF"},
		{"garbage-crl", fixed(send([]byte("<html>"))), "", "no CRL"},
		{"missing-crl", fixed(http.NotFound), "", "404"},
		{"huge-crl", fixed(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "16777217")
			dribble(w, r)
		}), "", "more than 16777216 bytes"},
		{"slow-crl", fixed(dribble), "", "in time"},
		{"inward-crl", fixed(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		}), "", "169.254.169.254 is not fetched from: it is a link-local address"},
		{"closed-crl", fixed(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "", "EOF"},
	}
	root := d.crl(t, d.Tester, time.Now())
	file := fmt.Sprintf("state_dir: %s\ndefaults: {to: {ca: %s, profile: private, crl: %s, reach: 127.0.0.0/8}}\nlisteners:\n",
		filepath.Join(t.TempDir(), "state"), d.anchors, write(t, "root.crl", string(root)))
	server := d.serve(t)
	for _, r := range rows {
		name := r.name + ".x.test"
		where := ca.OCSPAt(d.at(r.name))
		if strings.HasSuffix(r.name, "-crl") {
			where = ca.CRLAt(d.at(r.name))
		}
		leaf := d.inter.Leaf([]string{name}, where)
		d.servers[name] = leaf.TLS()
		switch r.name {
		case "good-crl":
			d.answer(r.name, send(d.crl(t, d.inter, time.Now(), other)))
		case "revoked-crl":
			d.answer(r.name, send(d.crl(t, d.inter, time.Now(), leaf.Cert)))
		default:
			d.answer(r.name, r.answer(r.name, leaf.Cert))
		}
		for _, mode := range []string{"off", "soft", "hard"} {
			to := fmt.Sprintf("to: {addr: \"tls://%s\", name: %s, revocation: %s}", server, name, mode)
			file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s-%s, %s}\n", r.name, mode, to)
			file += fmt.Sprintf("- {from: \"tls://127.0.0.1:0\", name: %s-%s-bridge, cert: %s, %s}\n", r.name, mode, d.ecdsa, to)
		}
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(6 * len(rows))
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			seen := map[float64]bool{}
			for _, mode := range []string{"off", "soft", "hard"} {
				want := r.reason
				switch {
				case mode == "off", mode == "soft" && want == "":
					want = "ok"
				case want == "":
					want = "revocation_unknown"
				}
				for i := range 2 {
					for _, listener := range []string{r.name + "-" + mode, r.name + "-" + mode + "-bridge"} {
						begun := time.Now()
						err := askOf(p, listener, d.Pool())
						if took := time.Since(begun); mode == "soft" && took > 4*time.Second { // 1 s of budget, and the machine's own
							t.Errorf("%s took %s", listener, took)
						}
						if (err == nil) != (want == "ok") {
							t.Errorf("%s, time %d: %v", listener, i+1, err)
						}
						flow := after(t, p, listener, seen)
						wantFields(t, flow, testnet.Record{"listener": listener, "reason": want})
						if want == "ok" {
							wantFields(t, flow, testnet.Record{"out_resumed": i == 1})
						} else if !strings.Contains(flow.Text("err"), r.says) && !strings.HasPrefix(r.name, "slow") {
							t.Errorf("%s: %q", listener, flow.Text("err"))
						}
						if note := flow.Text("out_notes"); (note != "") != (mode == "soft" && r.reason == "") || note != "" && !strings.HasPrefix(r.name, "slow") && !strings.Contains(note, r.says) {
							t.Errorf("%s: noted %q", listener, note)
						}
					}
				}
				if n := d.times(r.name); mode == "off" && n > 0 || mode == "soft" && n == 0 {
					t.Errorf("%s: asked %d times", mode, n)
				}
			}
			if n := d.times(r.name); n > 12 {
				t.Errorf("asked %d times in all", n)
			}
		})
	}
	t.Run("state", func(t *testing.T) {
		if strings.Contains(p.Stderr(), "damaged") {
			t.Error(p.Stderr())
		}
	})
}

// IC-42 and IC-45: what openssl staples, looked at in every mode.
func TestRevocationStapled(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	chain := write(t, "chain.pem", string(d.inter.CertPEM()))
	rows := []struct {
		name   string
		must   bool
		staple func(c *x509.Certificate) []byte
		reason string
		note   string
	}{
		{"good", false, func(c *x509.Certificate) []byte { return respond(t, d.delegate, d.good(c)) }, "ok", ""},
		{"revoked", false, func(c *x509.Certificate) []byte { return respond(t, d.delegate, d.revoked(c)) }, "revoked", ""},
		{"none", false, nil, "ok", ""},
		{"stale", false, func(c *x509.Certificate) []byte {
			st := d.revoked(c)
			st.This, st.Next = st.This.Add(-3*day), st.Next.Add(-3*day)
			return respond(t, d.delegate, st)
		}, "ok", "revocation_unknown"},
		{"must-good", true, func(c *x509.Certificate) []byte { return respond(t, d.delegate, d.good(c)) }, "ok", ""},
		{"must-none", true, nil, "must_staple", ""},
		{"must-forged", true, func(c *x509.Certificate) []byte { return respond(t, d.responder(ca.ServerAuth()), d.good(c)) }, "must_staple", ""},
		{"must-revoked", true, func(c *x509.Certificate) []byte { return respond(t, d.delegate, d.revoked(c)) }, "revoked", ""},
	}
	file := fmt.Sprintf("defaults: {to: {ca: %s, profile: private, name: face.x.test}}\nlisteners:\n", d.anchors)
	for _, r := range rows {
		var opts []ca.Option
		if r.must {
			opts = append(opts, ca.MustStaple())
		}
		leaf := d.inter.Leaf([]string{"face.x.test"}, opts...)
		cert, _, err := leaf.Write(d.dir, "staple-"+r.name)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"-cert_chain", chain}
		if r.staple != nil {
			args = append(args, "-status_file", write(t, "staple.der", string(r.staple(leaf.Cert))))
		}
		to := fmt.Sprintf("to: {addr: \"tls://%s\"}", d.sServer(t, cert, args...).addr)
		file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s, %s}\n", r.name, to)
		file += fmt.Sprintf("- {from: \"tls://127.0.0.1:0\", name: %s-bridge, cert: %s, %s}\n", r.name, d.ecdsa, to)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(2 * len(rows))
	seen := map[float64]bool{}
	for _, r := range rows {
		for i := range 2 {
			for _, listener := range []string{r.name, r.name + "-bridge"} {
				if err := askOf(p, listener, d.Pool()); (err == nil) != (r.reason == "ok") {
					t.Errorf("%s, time %d: %v", listener, i+1, err)
				}
				flow := after(t, p, listener, seen)
				wantFields(t, flow, testnet.Record{"reason": r.reason})
				if r.reason == "ok" {
					wantFields(t, flow, testnet.Record{"out_resumed": i == 1})
				}
				if note := flow.Text("out_notes"); !strings.HasPrefix(note, r.note) || note != "" && r.note == "" {
					t.Errorf("%s: noted %q", listener, note)
				}
				stapled := r.reason == "ok" && strings.HasSuffix(r.name, "good")
				if age, said := flow["out_staple_age"].(float64); said != stapled || said && (age < 3600 || age > 7200) {
					t.Errorf("%s: a staple of %v s", listener, flow["out_staple_age"])
				}
			}
		}
	}
}

// IC-41, by file: of the server, of an intermediate, and of clients; and the file is
// read again where it changes.
func TestRevocationFiles(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	leaf := d.inter.Leaf([]string{"face.x.test"})
	d.servers["face.x.test"] = leaf.TLS()
	server := d.serve(t)
	pemOf := func(der []byte) string {
		return mustExecute(t, string(der), "openssl", "crl", "-inform", "der")
	}
	clean := write(t, "clean.crl", pemOf(d.crl(t, d.Tester, time.Now()))+pemOf(d.crl(t, d.inter, time.Now())))
	byLeaf := write(t, "leaf.crl", string(d.crl(t, d.inter, time.Now(), leaf.Cert)))
	byInter := write(t, "inter.crl", string(d.crl(t, d.Tester, time.Now(), d.inter.Cert)))
	old := write(t, "old.crl", string(d.crl(t, d.inter, time.Now().Add(-3*day), leaf.Cert)))
	dir := t.TempDir()
	mine := func(stem string) (*ca.Leaf, string) {
		l := d.inter.Leaf([]string{stem + ".x.test"})
		cert, _, err := l.Write(dir, stem)
		if err != nil {
			t.Fatal(err)
		}
		return l, cert
	}
	fine, good := mine("good")
	bad, badFile := mine("bad")
	clients := write(t, "clients.crl", string(d.crl(t, d.inter, time.Now(), bad.Cert)))
	file := "listeners:\n"
	rows := []struct{ name, keys, reason, note string }{
		{"clean", "crl: " + clean, "ok", ""},
		{"leaf", "crl: " + byLeaf, "revoked", ""},
		{"inter", fmt.Sprintf("crl: [%s, %s]", clean, byInter), "revoked", ""},
		{"old", "crl: " + old, "ok", "revocation_unknown"},
		{"hard-clean", "revocation: hard, crl: " + clean, "ok", ""},
		{"hard-old", fmt.Sprintf("revocation: hard, crl: [%s, %s]", old, clean), "ok", ""}, // one of two is enough
		{"hard-none", "revocation: hard", "revocation_unknown", ""},
	}
	for _, r := range rows {
		to := fmt.Sprintf("to: {addr: \"tls://%s\", ca: %s, name: face.x.test, %s}", server, d.anchors, r.keys)
		file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s, %s}\n", r.name, to)
		file += fmt.Sprintf("- {from: \"tls://127.0.0.1:0\", name: %s-bridge, cert: %s, %s}\n", r.name, d.ecdsa, to)
	}
	for _, carrier := range []string{"tls", "dtls"} {
		to := "tcp://" + serveEach(t, echo)
		if carrier == "dtls" {
			to = "udp://" + packetEcho(t)
		}
		file += fmt.Sprintf("- {from: \"%s://127.0.0.1:0\", name: clients-%s, cert: %s, client: {ca: %s, crl: %s}, allow: all, to: \"%s\"}\n", carrier, carrier, d.ecdsa, d.anchors, clients, to)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(2*len(rows) + 2)
	p.WaitLog("says nothing any more: fetch a newer one")
	seen := map[float64]bool{}
	for _, r := range rows {
		for i := range 2 {
			for _, listener := range []string{r.name, r.name + "-bridge"} {
				if err := askOf(p, listener, d.Pool()); (err == nil) != (r.reason == "ok") {
					t.Errorf("%s, time %d: %v", listener, i+1, err)
				}
				flow := after(t, p, listener, seen)
				wantFields(t, flow, testnet.Record{"reason": r.reason})
				if note := flow.Text("out_notes"); !strings.HasPrefix(note, r.note) || note != "" && r.note == "" {
					t.Errorf("%s: noted %q", listener, note)
				}
			}
		}
	}
	for listener, flag := range map[string]string{"clients-tls": "-tls1_3", "clients-dtls": "-dtls1_2"} {
		for cert, reason := range map[string]string{good: "ok", badFile: "client_cert_revoked"} {
			execute(t, "hello\n", "timeout", "5", "openssl", "s_client", flag, "-connect", p.Addr(listener), "-cert", cert, "-key", keyOf(cert), "-cert_chain", write(t, "i.pem", string(d.inter.CertPEM())))
			wantFields(t, after(t, p, listener, seen), testnet.Record{"reason": reason})
		}
	}
	// The good client is taken off.
	if err := os.WriteFile(clients, d.crl(t, d.inter, time.Now(), fine.Cert, bad.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	p.WaitLog("reloaded")
	execute(t, "hello\n", "timeout", "5", "openssl", "s_client", "-connect", p.Addr("clients-tls"), "-cert", good, "-key", keyOf(good), "-cert_chain", write(t, "i.pem", string(d.inter.CertPEM())))
	wantFields(t, after(t, p, "clients-tls", seen), testnet.Record{"reason": "client_cert_revoked"})
}

// DTLS has no staples: OCSP is asked instead, of servers and of clients.
func TestRevocationOfDTLS(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	c := &coap{stock: d.stock}
	for _, r := range []struct {
		name            string
		must            bool
		answer          func(*x509.Certificate) ca.Status
		off, soft, hard string
	}{
		{"good", false, d.good, "ok", "ok", "ok"},
		{"revoked", false, d.revoked, "ok", "revoked", "revoked"},
		{"down", false, nil, "ok", "ok", "revocation_unknown"},
		{"must-good", true, d.good, "ok", "ok", "ok"},
		{"must-down", true, nil, "ok", "must_staple", "must_staple"},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			opts := []ca.Option{ca.OCSPAt(d.named(r.name))}
			if r.must {
				opts = append(opts, ca.MustStaple())
			}
			leaf := d.Leaf([]string{"127.0.0.1"}, opts...) // libcoap sends no intermediates
			cert, key, err := leaf.Write(d.dir, "dtls-"+r.name)
			if err != nil {
				t.Fatal(err)
			}
			if r.answer != nil {
				st := r.answer(leaf.Cert)
				st.Issuer = d.Cert
				d.answer(r.name, send(respond(t, d.Responder(), st)))
			}
			_, server := c.server(t, "openssl", "-c", cert, "-j", key, "-n")
			for mode, want := range map[string]string{"off": r.off, "soft": r.soft, "hard": r.hard} {
				p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+server, "--to-ca", d.anchors, "--to-revocation", mode, "--resolve", d.mapped())
				for range 2 {
					if want == "ok" {
						c.want(t, "notls", p.Addr(""))
						continue
					}
					dialUDP(t, p.Addr("")).Write([]byte("hello"))
				}
				if want != "ok" {
					for _, f := range p.Flows(2) {
						wantFields(t, f, testnet.Record{"reason": want})
					}
				}
				if r.must {
					continue
				}
				for _, carrier := range []string{"tls", "dtls"} {
					to, flag := "tcp://"+serveEach(t, echo), "-tls1_3"
					if carrier == "dtls" {
						to, flag = "udp://"+packetEcho(t), "-dtls1_2"
					}
					want := map[string]string{"revoked": "client_cert_revoked", "revocation_unknown": "client_cert_rejected"}[want]
					p := start(t, "proxy", carrier+"://127.0.0.1:0", to, "--cert", d.ecdsa, "--client-ca", d.anchors, "--allow", "all", "--client-revocation", mode, "--resolve", d.mapped())
					execute(t, "hello\n", "timeout", "5", "openssl", "s_client", flag, "-connect", p.Addr(""), "-cert", cert, "-key", key)
					if want == "" {
						want = "ok"
					}
					wantFields(t, p.Flows(1)[0], testnet.Record{"reason": want})
				}
			}
		})
	}
}
