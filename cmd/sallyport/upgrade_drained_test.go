package main

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/admin"
	"sallyport/internal/testnet"
)

// Servers that were taken out by hand get no connections of the next process either,
// until they are put back; one that its file does not name is nobody's.
func TestUpgradeKeepsServersDrained(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "a.sock")
	one, two, gone := serving(t, echo), serving(t, echo), serving(t, echo)
	text := func(addrs ...string) string {
		return fmt.Sprintf("admin: unix:%s\nlisteners:\n  - {from: 'tls://127.0.0.1:0', name: a, cert: CERT, key: KEY, to: ['tcp://%s']}\n", sock, strings.Join(addrs, "', 'tcp://"))
	}
	r, in, _ := startBehindDoor(t, text(one, two, gone))
	for _, addr := range []string{one, gone} {
		if out, err := commanded(t, sock, "drain", "tcp://"+addr); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	r.write(t, text(one, two))
	const said = "drained before, and so still"
	for range 2 { // and the one after next
		r.Program = wantTakenOver(t, r, in)
		for range 5 {
			if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
				t.Error(err)
			}
		}
		for _, f := range r.Flows(6) {
			if f.Text("server") != two {
				t.Errorf("a connection to %s", f.Text("server"))
			}
		}
		if line := r.Logged(said, 1); line.Text("servers") != "tcp://"+one || strings.Count(r.Stderr(), said) != 1 || strings.Contains(r.Stderr(), "taken out") {
			t.Errorf("it is not said once: %v\n%s", line, r.Stderr())
		}
	}
	for _, u := range asked[admin.Status](t, sock, "status").Servers {
		if want := map[string]string{"tcp://" + one: "drained", "tcp://" + two: "up"}[u.Addr]; u.State != want {
			t.Errorf("%s is %s", u.Addr, u.State)
		}
	}
	if out, err := commanded(t, sock, "drain", "tcp://"+one, "--back"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	next := wantTakenOver(t, r, in)
	if strings.Contains(next.Stderr(), said) {
		t.Error("what was put back is drained again")
	}
	if _, err := r.knock(next.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
	next.Flow("to the one that is back", func(f testnet.Record) bool { return f.Text("server") == one })
}
