package build

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/config"
	"sallyport/internal/ca"
	"sallyport/secure"
	"sallyport/verify"
)

// Session tickets outlive an edit of the file that leaves untouched who may pass,
// and no other.
func TestTrustIsWhoMayPass(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ca", "other"} {
		if _, err := ca.Test(t).Write(dir, name); err != nil {
			t.Fatal(err)
		}
	}
	trust := func(above, client, allow string) [32]byte {
		t.Helper()
		file := filepath.Join(dir, "f.yaml")
		text := above + "listeners:\n  - from: tls://:1\n    cert: site.pem\n    to: tcp://127.0.0.1:1\n    client: " + client + "\n    allow: " + allow + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := config.Load(file, config.Options{Env: func(string) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		b := &builder{now: time.Now, anchors: map[string]*verify.Anchors{}, program: &Program{}}
		var s secure.Server
		if err := b.clientAuth(&s, &f.Listeners[0].Routes[0]); err != nil {
			t.Fatal(err)
		}
		return s.Trust
	}
	const client, allow = "{ca: ca.pem}", "[{dns: a.test}, {dns: b.test}]"
	was := trust("", client, allow)
	if now := trust("# a comment\n", client, allow); now != was {
		t.Error("a line above ends sessions")
	}
	pin := verify.FormatPin([32]byte{1})
	for _, c := range [][2]string{
		{client, "[{dns: a.test}]"},
		{client, "[{dns: a.test, ou: b.test}]"},
		{client, "all"},
		{"{ca: other.pem}", allow},
		{"{ca: [ca.pem, other.pem]}", allow},
		{"{ca: ca.pem, auth: optional}", allow},
		{"{ca: ca.pem, profile: strict}", allow},
		{"{ca: ca.pem, from: 10.0.0.0/8}", allow},
		{"{ca: ca.pem, pin: " + pin + "}", allow},
	} {
		if trust("", c[0], c[1]) == was {
			t.Errorf("client: %s, allow: %s has the trust of client: %s, allow: %s", c[0], c[1], client, allow)
		}
	}
}
