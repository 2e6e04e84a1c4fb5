package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// manager is a service manager's end of $NOTIFY_SOCKET.
type manager struct {
	*net.UnixConn
	path string
}

func newManager(t testing.TB) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if m.UnixConn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// expect waits for a message that begins so, and gives its lines by their keys.
func (m *manager) expect(t testing.TB, begins string) map[string]string {
	t.Helper()
	m.SetReadDeadline(time.Now().Add(testnet.Patience))
	buf := make([]byte, 4096)
	for {
		n, err := m.Read(buf)
		if err != nil {
			t.Fatalf("waited in vain for %s: %v", begins, err)
		}
		if text := string(buf[:n]); strings.HasPrefix(text, begins) {
			said := map[string]string{}
			for line := range strings.Lines(text) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				said[key] = value
			}
			return said
		}
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	m := newManager(t)
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, oneListener)
	r.Program = testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	}, "run", "-c", r.file)
	if said := m.expect(t, "READY=1"); said["MAINPID"] != fmt.Sprint(r.Pid()) || said["STATUS"] != "listeners: a" {
		t.Errorf("it says %v", said)
	}
	for range 3 {
		m.expect(t, "WATCHDOG=1")
	}
	for _, want := range []string{"listeners: a", "not reloaded, what ran before goes on: "} {
		r.Signal(syscall.SIGHUP)
		if said := m.expect(t, "RELOADING=1"); said["MONOTONIC_USEC"] == "" {
			t.Errorf("it says %v", said)
		}
		if said := m.expect(t, "READY=1"); !strings.HasPrefix(said["STATUS"], want) {
			t.Errorf("it says %v", said)
		}
		if err := os.WriteFile(r.file, []byte("listeners: ["), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.Signal(syscall.SIGTERM)
	m.expect(t, "STOPPING=1")
	if code := r.Wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}

// Who takes over is started by hand, and goes on speaking to the service manager as the
// process before it did: the manager would end a main process that it does not hear of.
func TestServiceManagerHearsWhoTakesOver(t *testing.T) {
	m, dir := newManager(t), t.TempDir()
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, oneListener)
	r.Program = testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	}, "run", "-c", r.file)
	m.expect(t, "READY=1")
	now := testnet.StartIn(t, func(cmd *exec.Cmd) { promptly(cmd); cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir) }, "upgrade", "-c", r.file)
	m.expect(t, "MAINPID=")
	if said := m.expect(t, "READY=1"); said["MAINPID"] != fmt.Sprint(now.Pid()) {
		t.Errorf("it says %v", said)
	}
	for range 5 { // one of them may be the other's last
		m.expect(t, "WATCHDOG=1")
	}
	if code := r.Wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}
