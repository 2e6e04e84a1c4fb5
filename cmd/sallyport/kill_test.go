package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// F-18: killed and started again, twenty times (make kill: a hundred, of a released
// build, within half a second each): nothing that the dead left is in the way, and its
// sessions go on.
func TestFaultKilledAndStarted(t *testing.T) {
	rounds, within := 20, testnet.Patience
	if os.Getenv("SALLYPORT_KILL") == "full" {
		rounds, within = 100, 500*time.Millisecond
	}
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	fixed, dir := freeAddr(t), t.TempDir()
	unix := filepath.Join(dir, "s")
	r.write(t, fmt.Sprintf(`
state_dir: %s
listeners:
  - {from: "tls://%s", name: a, cert: CERT, key: KEY, to: "ECHO", unsafe: {keylog: %s}}
  - {from: "tls://unix:%s", name: u, cert: CERT, key: KEY, to: "ECHO"}
`, filepath.Join(dir, "state"), fixed, filepath.Join(dir, "keys.log"), unix))
	cfg := r.clientConfig(tls.VersionTLS13)
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var worst time.Duration
	for i := range rounds {
		began := time.Now()
		r.Program = start(t, "run", "-c", r.file)
		r.WaitListeners(2)
		took := time.Since(began)
		if worst = max(worst, took); took > within {
			t.Errorf("round %d: ready after %s", i, took)
		}
		cs, err := r.knock(fixed, cfg)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if cs.DidResume != (i > 0) {
			t.Errorf("round %d: resumed is %t", i, cs.DidResume)
		}
		c, err := net.Dial("unix", unix)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		c.Close()
		r.Signal(syscall.SIGKILL)
		if code := r.Wait(); code != -1 {
			t.Fatalf("round %d: it ended by itself, %d", i, code)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "state"))
	if err != nil || len(left) != 1 {
		t.Errorf("in its folder there is %v (%v)", left, err)
	}
	t.Logf("ready after %s at most, %d times", worst, rounds)
}
