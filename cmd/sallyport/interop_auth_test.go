package main

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// pinOf is the pin of a certificate's key in curl's form.
func pinOf(l *ca.Leaf) string {
	h := sha256.Sum256(l.Cert.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(h[:])
}

// clientCerts are files of client certificates by who shows them; "" shows none.
func clientCerts(t *testing.T, s *stock) (files map[string]string, pin string) {
	t.Helper()
	app := s.Leaf([]string{"app.example", "spiffe://corp/app/1"}, ca.OU("admin", "db"), ca.ClientAuth())
	files = map[string]string{
		"other":   s.leaf(t, "other", []string{"other.example"}, ca.OU("guest")),
		"expired": s.leaf(t, "expired", []string{"app.example"}, ca.Expired()),
		"server":  s.leaf(t, "server", []string{"app.example"}, ca.ServerAuth()),
		"sha1":    s.leaf(t, "sha1", []string{"app.example"}, ca.SHA1()),
	}
	var err error
	if files["app"], _, err = app.Write(s.dir, "app"); err != nil {
		t.Fatal(err)
	}
	stranger := ca.Test(t)
	if files["foreign"], _, err = stranger.Leaf([]string{"app.example"}).Write(t.TempDir(), "foreign"); err != nil {
		t.Fatal(err)
	}
	return files, pinOf(app)
}

func TestInteropClientCertificates(t *testing.T) {
	s := newStock(t)
	files, pin := clientCerts(t, s)
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: [%s, %s], to: "tcp://%s"}
listeners:
  - from: tls://127.0.0.1:0
    client: {ca: %s}
    routes:
      - {match: {sni: "*.all.x.test"}, allow: all}
      - {match: {sni: "*.optional.x.test"}, client: {auth: optional}, allow: all}
      - {match: {sni: "*.dns.x.test"}, allow: [{dns: "*.example", ou: admin}]}
      - {match: {sni: "*.ou.x.test"}, allow: [{ou: nobody}, {ou: db}]}
      - {match: {sni: "*.uri.x.test"}, allow: [{uri: "spiffe://corp/app/*"}]}
      - {match: {sni: "*.spki.x.test"}, allow: [{spki: "%s"}]}
      - {match: {sni: "*.webpki.x.test"}, client: {profile: webpki}, allow: all}
      - {match: {sni: "*.optrule.x.test"}, client: {auth: optional}, allow: [{dns: app.example}]}
`, s.leaf(t, "face", []string{"*.all.x.test", "*.optional.x.test", "*.dns.x.test", "*.ou.x.test", "*.uri.x.test", "*.spki.x.test", "*.webpki.x.test", "*.optrule.x.test"}),
		s.ecdsa, backend(t, "web"), s.anchors, pin))
	const missing12, missing13 = 40, 116
	for _, c := range []struct {
		route, who, reason string
		alerts             [2]int // TLS 1.2 and 1.3
	}{
		{"all", "app", "ok", [2]int{}},
		{"all", "other", "ok", [2]int{}},
		{"all", "", "client_cert_missing", [2]int{missing12, missing13}},
		{"all", "foreign", "client_cert_unknown_ca", [2]int{48, 48}},
		{"all", "expired", "client_cert_expired", [2]int{45, 45}},
		{"all", "sha1", "client_cert_unknown_ca", [2]int{48, 48}}, // crypto/tls finds no issuer by a signature that it does not take
		{"webpki", "server", "client_cert_rejected", [2]int{42, 42}},
		{"optional", "app", "ok", [2]int{}},
		{"optional", "", "ok", [2]int{}},
		{"optional", "foreign", "client_cert_unknown_ca", [2]int{48, 48}},
		{"optrule", "app", "ok", [2]int{}},
		{"optrule", "", "client_cert_missing", [2]int{42, 42}},
		{"dns", "app", "ok", [2]int{}},
		{"dns", "other", "client_not_allowed", [2]int{42, 42}},
		{"ou", "app", "ok", [2]int{}},
		{"ou", "other", "client_not_allowed", [2]int{42, 42}},
		{"uri", "app", "ok", [2]int{}},
		{"uri", "other", "client_not_allowed", [2]int{42, 42}},
		{"spki", "app", "ok", [2]int{}},
		{"spki", "other", "client_not_allowed", [2]int{42, 42}},
	} {
		for i, version := range ticketVersions {
			sni := fmt.Sprintf("%s-%d.%s.x.test", c.who+"none"[min(4, len(c.who)*4):], i, c.route)
			args := []string{version}
			if c.who != "" {
				args = append(args, "-cert", files[c.who], "-key", keyOf(files[c.who]))
			}
			out, err := s.sClient(t, p.Addr(""), sni, args...)
			r := bySNI(t, p, sni)
			if c.reason == "ok" {
				if err != nil || !strings.Contains(out, "web got") {
					t.Errorf("%s: %v\n%s", sni, err, out)
				}
				wantPeer(t, r, c.who)
			} else if want := fmt.Sprintf("SSL alert number %d\n", c.alerts[i]); err == nil || !strings.Contains(out, want) {
				t.Errorf("%s: %v, no %q\n%s", sni, err, want, out)
			}
			wantFields(t, r, testnet.Record{"reason": c.reason})
		}
	}
}

func wantPeer(t *testing.T, r testnet.Record, who string) {
	t.Helper()
	if name := r.Text("in_peer"); who == "" && name != "" || who != "" && !strings.Contains(name, who+".example") {
		t.Errorf("the record has in_peer=%q for %q", name, who)
	}
}

func TestInteropClientCertificatesOfOthers(t *testing.T) {
	s := newStock(t)
	files, _ := clientCerts(t, s)
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--cert", s.ecdsa,
		"--client-ca", s.anchors, "--allow-ou", "admin")
	for _, who := range []string{"app", "other"} {
		good := who == "app"
		cert, key := files[who], keyOf(files[who])
		out, err := s.curl(t, p.Addr(""), "curl-"+who+".x.test", "--cert", cert, "--key", key)
		if (err == nil) != good {
			t.Errorf("curl as %s: %v\n%s", who, err, out)
		}
		out, err = s.gnutls(t, p.Addr(""), "gnutls-"+who+".x.test", "NORMAL", "--x509certfile", cert, "--x509keyfile", key)
		if strings.Contains(out, "web got") != good {
			t.Errorf("gnutls-cli as %s: %v\n%s", who, err, out)
		}
		for _, client := range []string{"curl", "gnutls"} {
			r := bySNI(t, p, client+"-"+who+".x.test")
			if (r.Text("reason") == "ok") != good {
				t.Errorf("%v", r)
			}
		}
	}
}

// The servers of TestInteropServerVerified, by name; what each shows is one fault.
func startFaulty(t *testing.T, s *stock) map[string]string {
	t.Helper()
	names := []string{"*.x.test"}
	servers := map[string]string{"good": s.ecdsa}
	for name, opts := range map[string][]ca.Option{
		"expired": {ca.Expired()}, "notyet": {ca.NotYet()}, "sha1": {ca.SHA1()}, "rsa1024": {ca.RSA(1024)},
		"client": {ca.ClientAuth()},
	} {
		servers[name] = s.leaf(t, name, names, opts...)
	}
	for name, cert := range servers {
		servers[name] = s.sServer(t, cert).addr
	}
	servers["asking12"] = s.sServer(t, s.ecdsa, "-tls1_2", "-Verify", "1", "-CAfile", s.anchors, "-verify_return_error").addr
	servers["asking13"] = s.sServer(t, s.ecdsa, "-tls1_3", "-Verify", "1", "-CAfile", s.anchors, "-verify_return_error").addr
	servers["gnutls"] = s.gnutlsServ(t, s.ecdsa, "--require-client-cert", "--verify-client-cert", "--x509cafile", s.anchors).addr
	return servers
}

func TestInteropServerVerified(t *testing.T) {
	s := newStock(t)
	servers := startFaulty(t, s)
	other, good := s.Leaf([]string{"pin.x.test"}), pinOfFile(t, s.ecdsa)
	stranger := ca.Test(t).File()
	client := s.leaf(t, "to", []string{"app.example"})
	cases := []struct{ name, server, to, reason string }{
		{"good", "good", "", "ok"},
		{"pin", "good", `pin: "` + good + `"`, "ok"},
		{"pin-bad", "good", `pin: "` + pinOf(other) + `"`, "pin_mismatch"},
		{"ca", "good", "ca: " + stranger, "unknown_ca"},
		{"expired", "expired", "", "cert_expired"},
		{"notyet", "notyet", "", "cert_not_yet_valid"},
		{"name", "good", "name: else.example", "name_mismatch"},
		{"sha1", "sha1", "", "weak_sig"},
		{"rsa1024", "rsa1024", "", "weak_key"},
		{"client", "client", "profile: webpki", "key_usage"},
		{"asking12", "asking12", "", "server_rejected_our_certificate"},
		{"asking13", "asking13", "", "server_rejected_our_certificate"},
		{"asking-gnutls", "gnutls", "", "server_rejected_our_certificate"},
		{"shown12", "asking12", "cert: " + client, "ok"},
		{"shown13", "asking13", "cert: " + client, "ok"},
		{"shown-gnutls", "gnutls", "cert: " + client, "ok"},
	}
	file := fmt.Sprintf("defaults: {to: {name: inner.x.test, ca: %s}}\nlisteners:\n", s.anchors)
	for _, c := range cases {
		to := strings.TrimSuffix(fmt.Sprintf("addr: \"tls://%s\", %s", servers[c.server], c.to), ", ")
		for _, m := range modes {
			file += fmt.Sprintf("  - {%s, name: %s-%s, to: {%s}}\n", m.from(s), m, c.name, to)
		}
	}
	p := testnet.Start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(len(cases) * len(modes))
	for i := range len(cases) * len(modes) {
		c, m := cases[i/len(modes)], modes[i%len(modes)]
		name := fmt.Sprintf("%s-%s", m, c.name)
		got, err := m.ask(s, p.Addr(name), "level")
		if ok := err == nil && strings.Contains(got, "level"); ok != (c.reason == "ok") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if c.reason != "ok" && err == nil {
			t.Errorf("%s: the client saw a proper end", name)
		}
		r := byListener(t, p, name)
		wantFields(t, r, testnet.Record{"reason": c.reason})
		if c.reason != "ok" {
			wantFields(t, r, testnet.Record{"fault": "server", "level": "WARN"})
		}
	}
}

func pinOfFile(t *testing.T, cert string) string {
	t.Helper()
	der := exec.Command(tool(t, "openssl"), "x509", "-in", cert, "-noout", "-pubkey")
	pub, err := der.Output()
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Base(cert), string(pub))
	spki, err := exec.Command(tool(t, "openssl"), "pkey", "-pubin", "-in", file, "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(spki)
	return "sha256//" + base64.StdEncoding.EncodeToString(h[:])
}

// The flags that the table above has as keys.
func TestInteropServerVerifiedByFlags(t *testing.T) {
	s := newStock(t)
	server := s.sServer(t, s.ecdsa).addr
	for _, c := range []struct{ reason, says, flags string }{
		{"ok", "", "--to-ca " + s.anchors + " --to-name inner.x.test --to-pin " + pinOfFile(t, s.ecdsa)},
		{"pin_mismatch", "", "--to-ca " + s.anchors + " --to-name inner.x.test --to-pin " + strings.Repeat("0123456789abcdef", 4)},
		{"unknown_ca", "", "--to-name inner.x.test"},
		{"ok", "unsafe.no_verify", "--unsafe-no-verify"},
	} {
		p := testnet.Start(t, append([]string{"proxy", "tcp://127.0.0.1:0", "tls://" + server}, strings.Fields(c.flags)...)...)
		if got, err := ask(p.Addr(""), "level"); (err == nil && strings.Contains(got, "level")) != (c.reason == "ok") {
			t.Errorf("%s: %q, %v", c.flags, got, err)
		}
		p.Reason(c.reason)
		if c.says != "" {
			p.WaitLog(c.says)
		}
	}
}
