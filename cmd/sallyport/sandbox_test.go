package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	rights "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"sallyport/internal/testnet"
)

// statuses are what /proc says of each thread of a process.
func statuses(t testing.TB, p *testnet.Program) map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
	if err != nil || len(files) == 0 {
		t.Fatalf("the process has no thread (%v)", err)
	}
	all := map[string]string{}
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil { // else the thread has ended
			all[f] = string(text)
		}
	}
	return all
}

// P-01, P-03, P-06: what is left to the running program, on every thread.
func TestProgramIsConfined(t *testing.T) {
	r := startReloader(t, oneListener)
	if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Fatal(err)
	}
	for thread, text := range statuses(t, r.Program) {
		for _, want := range []string{
			"Seccomp:\t2", "NoNewPrivs:\t1", "Umask:\t0077",
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("%s does not say %q:\n%s", thread, want, text)
			}
		}
		if bound := "CapBnd:\t0000000000000000\n"; os.Getuid() == 0 && !strings.Contains(text, bound) {
			t.Errorf("%s does not say %q:\n%s", thread, bound, text)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.Pid()))
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0`).Match(limits) {
		t.Errorf("it may leave a core file (%v):\n%s", err, limits)
	}
	said := r.Logged("sandboxed", 1)
	if said.Text("capabilities") != "off" || said.Text("seccomp") != "on" {
		t.Errorf("it says %v", said)
	}
	if v, err := rights.LandlockGetABIVersion(); err != nil || v < 1 {
		r.WaitLog("this kernel has no Landlock")
	} else if said.Text("landlock") != fmt.Sprintf("version %d", v) {
		t.Errorf("it says %v", said)
	}
}

// P-02: a reload that needs what the sandbox does not let through keeps what runs, and
// says what is needed.
func TestReloadOutsideTheSandbox(t *testing.T) {
	r := startReloader(t, oneListener)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.pem")
	anchors, err := os.ReadFile(r.anchors)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(elsewhere, anchors, 0o600); err != nil {
		t.Fatal(err)
	}
	const restart = "needs a restart (or `sallyport upgrade`): "
	for _, c := range []struct{ text, want string }{
		{oneListener + fmt.Sprintf("  - {from: 'tcp://127.0.0.1:0', to: {addr: 'tls://127.0.0.1:1', ca: %s}}\n", elsewhere), elsewhere + " is outside the sandbox"},
		{"include: " + elsewhere + "\n" + oneListener, elsewhere + " is outside the sandbox"},
		{oneListener + fmt.Sprintf("  - {from: 'tcp://unix:%s', to: 'ECHO'}\n", filepath.Join(filepath.Dir(elsewhere), "s")), filepath.Dir(elsewhere) + "/s is outside the sandbox"},
		{oneListener + fmt.Sprintf("  - {from: 'tls://127.0.0.1:0', cert: CERT, key: KEY, to: 'ECHO', unsafe: {keylog: %s.log}}\n", elsewhere), elsewhere + ".log is outside the sandbox"},
	} {
		if v, err := rights.LandlockGetABIVersion(); err != nil || v < 1 {
			r.WaitLog("this kernel has no Landlock")
			break
		}
		r.write(t, c.text)
		r.mustKeep(t, restart+c.want)
	}
	r.write(t, oneListener+"  - {from: 'tcp://127.0.0.1:81', to: 'ECHO'}\n")
	r.mustKeep(t, restart, "port 81 needs CAP_NET_BIND_SERVICE")
	if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
	r.mustReload(t, oneListener)
}

// unsafe.no_sandbox goes without, and that is announced.
func TestNoSandbox(t *testing.T) {
	const without = oneListener + "unsafe: {no_sandbox: on}\n"
	r := startReloader(t, without)
	r.WaitLog("unsafe.no_sandbox: ")
	for thread, text := range statuses(t, r.Program) {
		if !strings.Contains(text, "Seccomp:\t0\n") || !strings.Contains(text, "NoNewPrivs:\t0\n") {
			t.Errorf("%s is confined:\n%s", thread, text)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.yaml")
	if err := os.WriteFile(elsewhere, []byte("listeners: [{from: 'tcp://127.0.0.1:0', name: b, to: 'tcp://"+r.echo+"'}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := r.mustReload(t, "include: "+elsewhere+"\n"+without); said.Text("added") != "b" {
		t.Errorf("it says %v", said)
	}
	r.mustReload(t, oneListener)
	r.WaitLog("unsafe.no_sandbox needs a restart")
}

// A key that only the privileges of the start could read is refused before anybody is
// told that all is well: the next reload could not read it.
func TestKeyThatCannotBeReadAgain(t *testing.T) {
	s := newSite(t)
	if os.Getuid() == 0 {
		if err := os.Chown(s.key, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(s.key, 0); err != nil {
		t.Fatal(err)
	}
	p := testnet.Launch(t, promptly, "proxy", "tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", s.cert, "--key", s.key)
	if code := p.Wait(); code != exitFailed {
		t.Errorf("the exit code is %d", code)
	}
	for _, want := range []string{s.key, "permission denied"} {
		if !strings.Contains(p.Stderr(), want) {
			t.Errorf("it does not say %q: %s", want, p.Stderr())
		}
	}
}

// P-19: in the FIPS 140-3 mode of Go's cryptography it serves, and agrees on nothing that
// is not approved.
func TestFIPS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server := s.serverConfig(tls.VersionTLS13)
	server.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	to := serving(t, func(c *net.TCPConn) {
		conn := tls.Server(c, server)
		io.Copy(conn, conn)
		conn.Close()
	})
	p := testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "GODEBUG=fips140=on")
	}, "proxy", "tls://127.0.0.1:0", "tls://"+to, "--cert", s.cert, "--key", s.key, "--to-ca", s.anchors, "--to-name", "a.test")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := s.clientConfig(version)
		cfg.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
		if err := probeOnce(p.Addr(""), cfg); err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	for _, r := range p.Flows(2) {
		wantFields(t, r, testnet.Record{"reason": "ok", "in_group": "CurveP256", "out_group": "CurveP256"})
		for _, side := range []string{"in_cipher", "out_cipher"} {
			if suite := r.Text(side); !strings.Contains(suite, "_AES_") {
				t.Errorf("it agreed on %s", suite)
			}
		}
	}
}
