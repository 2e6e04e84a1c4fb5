package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/testnet"
)

// explain says of each kind of client what the program then does with it, which
// openssl tries.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "s.yaml")
	text := fmt.Sprintf(`listeners:
  - from: tls://127.0.0.1:0
    cert: %[1]q
    key: %[2]q
    to: tcp://%[3]s
    routes:
      - {match: {sni: a.test}, client: {ca: %[4]q}, allow: [{dns: ops.example}]}
      - {match: {sni: b.test, client: 10.0.0.0/8}}
      - {match: {sni: c.test}, tls: {min: "1.3"}}
      - {match: {sni: theirs.test}, action: splice}
`, s.cert, s.key, serving(t, echo), s.anchors)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	say := func(args ...string) (string, error) {
		cmd := exec.Command(testnet.Binary(t), append([]string{"explain", "-c", file}, args...)...)
		cmd.Env = os.Environ()
		return executeCmd(t, nil, cmd)
	}
	all, err := say()
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	for _, want := range []string{
		"tls-0: clients connect to tls://127.0.0.1:0\n", "takes a.test\n", "takes b.test, from 10.0.0.0/8, if no route above does",
		"with clients: TLS 1.3 only", "key exchange: X25519MLKEM768", "may pass: certificates of client.ca with dns ops.example",
		"to clients it shows a certificate for a.test (" + s.cert + "), until ",
		"sends no server name: is refused as unrecognized_name", "as no-such-name.invalid: is refused as unrecognized_name",
		"speaks no more than TLS 1.0, at tls-0/3: is refused as version_unsupported (alert 70, protocol_version)",
		"has no certificate, at tls-0/1: is refused amid its handshake, as client_cert_missing", "has no certificate, at tls-0/3: may pass",
		"pass-through to tcp://", "is not decrypted", "expires, the first one first:", "no state_dir",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	one, err := say("B.test")
	if err != nil || !strings.Contains(one, "a client: is refused as no_route") || !strings.Contains(one, "a client from 10.0.0.0: is taken by tls-0/2") || strings.Contains(one, "tls-0/1:") {
		t.Errorf("%v\n%s", err, one)
	}
	none, err := say("d.test")
	if err == nil || !strings.Contains(none, "alert 112, unrecognized_name") || !strings.Contains(none, "nobody takes d.test") {
		t.Errorf("%v\n%s", err, none)
	}
	if t.Failed() {
		t.Log(all)
	}
	p := start(t, "run", "-c", file)
	for _, c := range []struct{ name, flag, want string }{
		{"d.test", "-tls1_3", "alert number 112"}, {"c.test", "-tls1_2", "alert number 70"}, {"b.test", "-tls1_3", "alert number 49"},
	} {
		out, _ := execute(t, "", "openssl", "s_client", "-connect", p.Addr(""), "-servername", c.name, c.flag)
		if !strings.Contains(out, c.want) {
			t.Errorf("openssl for %s %s: no %s\n%s", c.name, c.flag, c.want, out)
		}
	}
	p.Reason("unrecognized_name")
	p.Reason("version_unsupported")
	p.Reason("no_route")
}
