package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/internal/testnet"
)

// F-16: a process takes over from another, three times in a row, while connections
// come all the time and others pump: none is refused, none is reset.
func TestFaultUpgradeUnderLoad(t *testing.T) {
	m := newManager(t)
	dir := t.TempDir()
	in := func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir, "NOTIFY_SOCKET="+m.path)
	}
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	unix := filepath.Join(dir, "s")
	window, admin := freeAddr(t), filepath.Join(dir, "admin.sock")
	r.write(t, fmt.Sprintf("admin: tcp://unix:%s\nmetrics: tcp://%s", admin, window)+oneListener+fmt.Sprintf("  - {from: 'tls://unix:%s', name: u, cert: CERT, key: KEY, to: ECHO}\n  - {from: 'udp://127.0.0.1:0', name: d, to: 'udp://%s'}\n", unix, packetEcho(t)))
	r.Program = testnet.StartIn(t, in, "run", "-c", r.file)
	r.WaitListeners(3)
	m.expect(t, "READY=1")
	addr, datagrams, cfg := r.Addr("a"), r.Addr("d"), r.clientConfig(tls.VersionTLS13)
	mustEcho(t, dialUDP(t, datagrams), []byte("before"))
	long := startPumps(t, 20, addr, cfg)

	var visits atomic.Int64
	var ending atomic.Bool
	var callers sync.WaitGroup
	t.Cleanup(func() { ending.Store(true); callers.Wait() })
	for range 4 {
		callers.Go(func() {
			for !ending.Load() {
				if _, err := r.knock(addr, cfg); err != nil {
					t.Errorf("after %d connections: %v", visits.Load(), err)
					return
				}
				visits.Add(1)
			}
		})
	}
	old := r.Program
	for range 3 {
		was := visits.Load()
		now := testnet.StartIn(t, in, "upgrade", "-c", r.file)
		old.WaitLog("another process has taken over")
		if said := m.expect(t, "MAINPID="); said["MAINPID"] != fmt.Sprint(now.Pid()) {
			t.Errorf("the service manager is told %v", said)
		}
		m.expect(t, "READY=1")
		eventually(t, "new connections", func() bool { return visits.Load() > was+8 || t.Failed() })
		long.goOn(t)
		if now.Addr("a") != addr || now.Addr("d") != datagrams {
			t.Errorf("it listens on %s and %s, not on %s and %s", now.Addr("a"), now.Addr("d"), addr, datagrams)
		}
		mustEcho(t, dialUDP(t, datagrams), []byte("after"))
		for _, path := range []string{unix, admin} {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if out := mustExecute(t, "", "curl", "-sS", "http://"+window+"/readyz"); out != "ready\n" {
			t.Errorf("it says that it is %q", out)
		}
		old = now
	}
	if _, err := os.Stat(filepath.Join(dir, "upgrade.sock")); err != nil {
		t.Error(err)
	}
	ending.Store(true)
	callers.Wait()
	long.end()
	if code := r.Wait(); code != 0 {
		t.Errorf("the first one's exit code is %d", code)
	}
	t.Logf("%d connections", visits.Load())
}

// What does not begin changes nothing.
func TestUpgradeThatFails(t *testing.T) {
	dir := t.TempDir()
	in := func(cmd *exec.Cmd) { promptly(cmd); cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir) }
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, oneListener)
	alone := testnet.Launch(t, in, "upgrade", "-c", r.file)
	if code := alone.Wait(); code != exitFailed || !strings.Contains(alone.Stderr(), "upgrade.sock") {
		t.Errorf("with nobody to take over from: %d %s", code, alone.Stderr())
	}
	r.Program = testnet.StartIn(t, in, "run", "-c", r.file)
	taken := listen(t).Addr().String()
	other := filepath.Join(filepath.Dir(r.file), "other.yaml")
	text := strings.NewReplacer("CERT", r.cert, "KEY", r.key, "ECHO", "tcp://"+r.echo).Replace(oneListener) + fmt.Sprintf("  - {from: 'tcp://%s', to: 'tcp://%s'}\n", taken, r.echo)
	if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := testnet.Launch(t, in, "upgrade", "-c", other)
	if code := p.Wait(); code != exitFailed || !strings.Contains(p.Stderr(), taken) {
		t.Errorf("it ends with %d: %s", code, p.Stderr())
	}
	r.WaitLog("not handed over, what ran before goes on")
	if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
	next := testnet.StartIn(t, in, "upgrade", "-c", r.file)
	if _, err := r.knock(next.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
	if code := r.Wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}
