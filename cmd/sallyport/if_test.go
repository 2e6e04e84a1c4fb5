package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// An expression decides over the certificate, the address, the names, the
// version and the time, on a full handshake and on a resumed session.
func TestInteropAllowIf(t *testing.T) {
	t.Parallel()
	s, clock := newStock(t), write(t, "clock", "0s")
	certs := map[string]string{
		"app":   s.leaf(t, "if-app", []string{"app.example", "spiffe://corp/app/1", "app@example.test", "10.9.8.7"}, ca.OU("admin", "db"), ca.CN("App")),
		"other": s.leaf(t, "if-other", []string{"other.example"}, ca.OU("guest"), ca.CN("Other")),
	}
	rows := []struct {
		name, expr string
		app, other bool
	}{
		{"dns", `any(dns, like(#, "app.*"))`, true, false},
		{"uri", `any(uri, like(#, "spiffe://corp/app/*"))`, true, false},
		{"email", `"app@example.test" in email`, true, false},
		{"ip", `any(ip_san, within(#, "10.0.0.0/8"))`, true, false},
		{"names", `len(names) == 4`, true, false},
		{"cn", `cn matches "^A"`, true, false},
		{"ou", `"guest" in ou`, false, true},
		{"issuer", `issuer contains "throw-away root" and subject contains "Other"`, false, true},
		{"address", `within(address, "127.0.0.0/8")`, true, true},
		{"elsewhere", `within(address, "192.0.2.0/24")`, false, false},
		{"sni", `sni startsWith "app-"`, true, false},
		{"version", `version == "TLS 1.3"`, true, true},
		{"alpn", `alpn == "h2"`, false, false},
		{"lifetime", `not_after - not_before < duration("2400h") and not_before < time and time < not_after`, true, true},
		{"spki", `spki startsWith "sha256//" and serial != ""`, true, true},
		{"failing", `ou[1] != ""`, true, false},
	}
	text := fmt.Sprintf("unsafe: {clock_offset: \"@%s\"}\ndefaults: {cert: %s, client: {ca: %s}, to: \"tcp://%s\"}\nlisteners:\n", clock, s.ecdsa, s.anchors, backend(t, "web"))
	for _, r := range rows {
		text += fmt.Sprintf("  - from: tls://127.0.0.1:0\n    name: %s\n    allow:\n      - if: |\n          %s\n", r.name, r.expr)
	}
	p := runFile(t, text)
	for _, r := range rows {
		for who, passes := range map[string]bool{"app": r.app, "other": r.other} {
			sni := who + "-" + r.name + ".x.test"
			out, err := s.sClient(t, p.Addr(r.name), sni, "-tls1_3", "-cert", certs[who], "-key", keyOf(certs[who]))
			if (err == nil && strings.Contains(out, "web got")) != passes {
				t.Errorf("%s: %v\n%s", sni, err, out)
			}
			record := bySNI(t, p, sni)
			if passes {
				wantFields(t, record, testnet.Record{"reason": "ok", "in_peer_by": "pkix,allow"})
				continue
			}
			wantFields(t, record, testnet.Record{"reason": "client_not_allowed", "fault": "client"})
			if r.name == "failing" && !strings.Contains(record.Text("err"), "evaluating `if`: index out of range") {
				t.Errorf("%v", record)
			}
		}
	}
}

// A session that is resumed is asked anew: what held an hour ago need not now.
func TestInteropAllowIfResumed(t *testing.T) {
	t.Parallel()
	s, clock := newStock(t), write(t, "clock", "0s")
	app := s.leaf(t, "if-time", []string{"app.example"})
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+backend(t, "web"), "--cert", s.ecdsa, "--client-ca", s.anchors,
		"--allow-if", `time - not_before < duration("2h")`, "--unsafe-clock-offset", "@"+clock)
	p.WaitLog("unsafe.clock_offset")
	with := func(version string) []string { return []string{version, "-cert", app, "-key", keyOf(app)} }
	sessions := map[string]string{}
	for _, version := range ticketVersions {
		sessions[version] = s.session(t, p.Addr(""), "early.x.test", with(version)...)
		if !s.reused(t, p.Addr(""), "early.x.test", sessions[version], with(version)...) {
			t.Errorf("%s: the session was not resumed while the expression holds", version)
		}
	}
	if err := os.WriteFile(clock, []byte("3h"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the clock to be read", func() bool {
		_, err := s.sClient(t, p.Addr(""), "early.x.test", with("-tls1_3")...)
		return err != nil
	})
	for i, version := range ticketVersions {
		sni := fmt.Sprintf("late-%d.x.test", i)
		if out, err := s.sClient(t, p.Addr(""), sni, append(with(version), "-sess_in", sessions[version])...); err == nil {
			t.Errorf("%s: it still passes\n%s", version, out)
		}
		wantFields(t, bySNI(t, p, sni), testnet.Record{"reason": "client_not_allowed"})
	}
}
