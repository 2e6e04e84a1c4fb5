package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	rights "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"sallyport/internal/testnet"
)

// `check --running` says beforehand what a reload would: nothing of the running process
// changes.
func TestCheckRunning(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "admin.sock")
	base := "admin: unix:" + sock + oneListener
	r := startReloader(t, base)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.pem")
	anchors, err := os.ReadFile(r.anchors)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(elsewhere, anchors, 0o600); err != nil {
		t.Fatal(err)
	}
	outside := fmt.Sprintf("  - {from: 'tcp://127.0.0.1:0', name: b, to: {addr: 'tls://127.0.0.1:1', ca: %s}}\n", elsewhere)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	more := func(from net.Addr, scheme, to string) string {
		return fmt.Sprintf("%s  - {from: '%s://%s', name: d, to: %s}\n", base, scheme, from, to)
	}
	low := "  - {from: 'tcp://127.0.0.1:81', name: c, to: ECHO}\n"
	for _, c := range []struct {
		name, text string
		code       int
		want       string
	}{
		{"the same", base, 0, ": good, and a reload would do"},
		{"one more", base + "  - {from: 'tcp://127.0.0.1:0', name: b, to: ECHO}\n", 0, "a reload would do"},
		{"another folder", base + outside, exitFailed, errRestart.Error() + ": " + elsewhere + " is outside the sandbox"},
		{"a port below 1024", base + low, exitFailed, errRestart.Error() + ": port 81 of tcp://127.0.0.1:81 needs CAP_NET_BIND_SERVICE"},
		{"a port that is taken", more(taken.Addr(), "tcp", "ECHO"), exitFailed, "a reload would not do: listening on " + taken.Addr().String() + ": another process listens on"},
		{"a port of datagrams", more(datagrams.LocalAddr(), "udp", "'udp://127.0.0.1:1'"), exitFailed, "address already in use"},
		{"a state", base + "state_dir: " + filepath.Join(t.TempDir(), "state") + "\n", exitFailed, "a-state.yaml: good, but state_dir needs a restart; it stays none"},
		{"limits", base + "limits: {flows: 7}\n", exitFailed, "good, but the process's limits need a restart; they stay"},
		{"no sandbox", base + "unsafe: {no_sandbox: on}\n", exitFailed, "good, but unsafe.no_sandbox needs a restart"},
		{"the log", base + "log: {format: text}\n", 0, "a reload would do"}, // its command line says json
		{"a wrong file", base + "nonsense: 1\n", exitUsage, "unknown key `nonsense`"},
	} {
		if v, err := rights.LandlockGetABIVersion(); (err != nil || v < 1) && c.name == "another folder" {
			c.code, c.want = 0, "a reload would do" // nothing confines its files
		}
		other := *r // not the file that runs, which would be read
		other.file = filepath.Join(filepath.Dir(r.file), strings.ReplaceAll(c.name, " ", "-")+".yaml")
		other.write(t, c.text)
		code, out := checked(t, "-c", other.file, "--running")
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", c.name, code, c.code, c.want, out)
		}
	}
	if code, out := checked(t, "-c", r.file, "--running", "--admin", "unix:"+sock+"x"); code != exitFailed || !strings.Contains(out, "hint: does sallyport run") {
		t.Errorf("with nobody there: exit code %d: %s", code, out)
	}
	if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
	if strings.Contains(r.Stderr(), "reloaded") {
		t.Error("what runs was told to read its file again")
	}
}

// checked runs check, and gives its exit code and all that it says.
func checked(t testing.TB, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(testnet.Binary(t), append([]string{"check"}, args...)...)
	promptly(cmd)
	cmd.Env = append(os.Environ(), cmd.Env...)
	out, err := executeCmd(t, nil, cmd)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), out
	} else if err != nil {
		t.Fatal(err)
	}
	return 0, out
}

// The one who asks as root knows in which groups the running process is: those that its
// service manager gave it count.
func TestCheckRunningByGroups(t *testing.T) {
	t.Parallel()
	asRoot(t)
	const shared = 23456
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	dir := t.TempDir()
	r.write(t, "admin: unix:"+filepath.Join(dir, "admin.sock")+oneListener)
	give(t, dir)
	enter(t, r.cert, r.file)
	if err := errors.Join(os.Chmod(r.file, 0o644), os.Chown(r.key, 0, shared), os.Chmod(r.key, 0o640)); err != nil {
		t.Fatal(err)
	}
	p := testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Path = ownBinary(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: another, Gid: anotherGroup, Groups: []uint32{shared}}}
	}, "run", "-c", r.file)
	p.WaitListeners(1)
	p.WaitLog("admin answers")
	if code, out := checked(t, "-c", r.file, "--running"); code != 0 {
		t.Errorf("with the key its group's, exit code %d: %s", code, out)
	}
	if err := os.Chown(r.key, 0, shared+1); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("uid %d may not read %s", another, r.key)
	if code, out := checked(t, "-c", r.file, "--running"); code != exitFailed || !strings.Contains(out, want) {
		t.Errorf("with the key another group's, exit code %d, want %q: %s", code, want, out)
	}
}
