package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/admin"
	"sallyport/internal/testnet"
)

// commanded runs a command that asks the process at sock.
func commanded(t testing.TB, sock string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(testnet.Binary(t), append(args, "--admin", "unix:"+sock)...)
	promptly(cmd)
	cmd.Env = append(os.Environ(), cmd.Env...)
	return executeCmd(t, nil, cmd)
}

func asked[T any](t testing.TB, sock, command string) (v T) {
	t.Helper()
	out, err := commanded(t, sock, command, "--json")
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return v
}

// The control socket shows what is open, ends one, takes a server out, reads all
// anew and ends the process; its mode is 0600 from the beginning.
func TestControl(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := t.TempDir()
	sock, file, server := filepath.Join(dir, "admin.sock"), filepath.Join(dir, "s.yaml"), serving(t, echo)
	put := func(more string) {
		text := fmt.Sprintf("listeners:\n  - {from: \"tls://127.0.0.1:0\", cert: %q, key: %q, to: [\"tcp://%s\"]%s}\n", s.cert, s.key, server, more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("")
	w := &way{site: s, in: true}
	w.Program = testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir)
	}, "run", "-c", file)
	if addr := paneAddr(w.Program, "admin"); addr != sock {
		t.Fatalf("the control socket is %s", addr)
	}
	if info, err := os.Stat(sock); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	open := w.dial(t, tls.VersionTLS13)
	if err := open.handshake(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(open, "12345")
	io.ReadFull(open, make([]byte, 5))
	flows := asked[admin.Flows](t, sock, "flows")
	if len(flows.List) != 1 || flows.All != 1 {
		t.Fatalf("%+v", flows)
	}
	f := flows.List[0]
	if f.Stage != "relay" || f.SNI != "a.test" || f.Route != "tls-0" || f.Up != 5 || f.Down != 5 || f.Server != server || f.Version != "TLS 1.3" || f.Client == "" {
		t.Errorf("%+v", f)
	}
	if out, err := commanded(t, sock, "flows"); err != nil || !strings.Contains(out, "a.test") || !strings.Contains(out, "STAGE") {
		t.Errorf("%v: %s", err, out)
	}
	st := asked[admin.Status](t, sock, "status")
	if st.Open != 1 || st.Up != 5 || !st.Ready || st.PID != w.Pid() || len(st.Listeners) != 1 || len(st.Certificates) != 1 || st.Certificates[0].Name != "a.test" {
		t.Errorf("%+v", st)
	}
	if out, err := commanded(t, sock, "status"); err != nil || !strings.Contains(out, "ready") || !strings.Contains(out, "a.test") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := commanded(t, sock, "kill", fmt.Sprint(f.ID)); err != nil {
		t.Errorf("kill: %v %s", err, out)
	}
	wantRecord(t, w.Reason("killed"), "killed", "relay")
	if out, err := commanded(t, sock, "kill", fmt.Sprint(f.ID)); err == nil || !strings.Contains(out, "no flow has the ID") {
		t.Errorf("kill of one that has ended: %v %s", err, out)
	}

	if out, err := commanded(t, sock, "reload"); err != nil {
		t.Errorf("reload: %v %s", err, out)
	}
	put(", nonsense: 1")
	if out, err := commanded(t, sock, "reload"); err == nil || !strings.Contains(out, "unknown key `nonsense`") {
		t.Errorf("reload of a wrong file: %v %s", err, out)
	}
	if out, err := commanded(t, sock, "pprof", "goroutine"); err != nil || !strings.HasPrefix(out, "\x1f\x8b") {
		t.Errorf("pprof: %v %.80q", err, out)
	}
	if out, err := commanded(t, sock, "drain"); err != nil {
		t.Errorf("drain: %v %s", err, out)
	}
	if code := w.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(sock); err == nil {
		t.Error("the socket is still there")
	}
	if out, err := commanded(t, sock, "status"); err == nil || !strings.Contains(out, "hint: does sallyport run") {
		t.Errorf("nobody answers: %v %s", err, out)
	}
}

// A server that is taken out gets no new connections, until it is put back in.
func TestControlDrainsServers(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "a.sock")
	one, two := serving(t, echo), serving(t, echo)
	w := &way{site: newSite(t), in: true}
	w.Program = start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+one, "tcp://"+two, "--cert", w.cert, "--key", w.key, "--admin", "unix:"+sock, "--metrics", "tcp://127.0.0.1:0")
	if out, err := commanded(t, sock, "drain", "tcp://"+one); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	_, page := curl(t, "http://"+paneAddr(w.Program, "metrics")+"/metrics")
	for name, want := range map[string]float64{
		`sallyport_servers{route="tls-0",state="up"}`:      1,
		`sallyport_servers{route="tls-0",state="down"}`:    0,
		`sallyport_servers{route="tls-0",state="drained"}`: 1,
	} {
		if got := metric(t, page, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	state := func() string {
		for _, u := range asked[admin.Status](t, sock, "status").Servers {
			if u.Addr == "tcp://"+one {
				return u.State
			}
		}
		return ""
	}
	if got := state(); got != "drained" {
		t.Errorf("it is %q", got)
	}
	for range 6 {
		w.good(t)
	}
	for _, r := range w.Flows(6) {
		if r.Text("server") != two {
			t.Errorf("a connection to %s", r.Text("server"))
		}
	}
	if out, err := commanded(t, sock, "drain", "tcp://"+one, "--back"); err != nil || state() == "drained" {
		t.Errorf("%v %s: it is %q", err, out, state())
	}
	if out, err := commanded(t, sock, "drain", "tcp://192.0.2.1:1"); err == nil {
		t.Errorf("a server that there is not: %s", out)
	}
}

// A socket that nobody answers at is replaced; one that a process answers at, or
// what is no socket, is left alone.
func TestControlSocketThatExists(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "a.sock")
	args := []string{"proxy", "tcp://127.0.0.1:0", "tcp://" + serving(t, echo), "--admin", "unix:" + sock}
	first := start(t, args...)
	second := testnet.Launch(t, promptly, args...)
	if code := second.Wait(); code != exitFailed || !strings.Contains(second.Stderr(), "another process listens there") {
		t.Errorf("alive: exit code %d\n%s", code, second.Stderr())
	}
	first.Signal(syscall.SIGKILL)
	first.Wait()
	if _, err := os.Stat(sock); err != nil {
		t.Fatalf("the test needs what is left of it: %v", err)
	}
	third := start(t, args...)
	if out, err := commanded(t, sock, "status"); err != nil {
		t.Errorf("stale: %v %s", err, out)
	}
	third.Signal(syscall.SIGTERM)
	third.Wait()
	os.WriteFile(sock, []byte("a file"), 0o600)
	fourth := testnet.Launch(t, promptly, args...)
	if code := fourth.Wait(); code != exitFailed || !strings.Contains(fourth.Stderr(), "is no socket") {
		t.Errorf("a file: exit code %d\n%s", code, fourth.Stderr())
	}
}

// P-07: over TCP the control socket takes no request that another site's page could
// have a browser send, and gives no profile.
func TestControlOverTCP(t *testing.T) {
	t.Parallel()
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+serving(t, echo), "--admin", "tcp://127.0.0.1:0", "--unsafe-admin-tcp")
	url := "http://" + paneAddr(p, "admin")
	for _, c := range []struct {
		path string
		args []string
		want int
	}{
		{"/status", nil, 200}, {"/status", []string{"-H", "Host: evil.example"}, 403}, {"/status", []string{"-X", "POST"}, 405},
		{"/reload", []string{"-X", "POST"}, 403}, {"/kill?id=1", nil, 405}, {"/drain", []string{"-X", "OPTIONS", "-H", "Origin: http://evil.example"}, 405},
		{"/kill?id=1", []string{"-X", "POST", "-H", admin.Header + ": 1"}, 404}, {"/kill?id=x", []string{"-X", "POST", "-H", admin.Header + ": 1"}, 400},
		{"/pprof?kind=heap", nil, 404}, {"/debug/pprof/", nil, 404}, {"/metrics", nil, 404},
	} {
		code, body := curl(t, append(c.args, "-i", url+c.path)...)
		if code != c.want || strings.Contains(strings.ToLower(body), "access-control-allow") {
			t.Errorf("%s %q: %d, want %d\n%s", c.path, c.args, code, c.want, body)
		}
	}
	if c, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), time.Second); err == nil {
		c.Close()
	}
	p.Logged("unsafe.admin_tcp", 1)
}

// top on a terminal shows what is open, and ends at q with the terminal as it was.
func TestTop(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "a.sock")
	w := &way{site: newSite(t), in: true}
	w.Program = start(t, w.args(serving(t, echo), "--admin", "unix:"+sock)...)
	open := w.dial(t, tls.VersionTLS13)
	if err := open.handshake(); err != nil {
		t.Fatal(err)
	}
	const altScreen, mainScreen = "\x1b[?1049h", "\x1b[?1049l"
	cmd := exec.Command(tool(t, "script"), "-qefc", "stty rows 24 cols 120; exec "+testnet.Binary(t)+" top --admin unix:"+sock, "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(testnet.Patience); !strings.Contains(out.String(), "a.test") && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	io.WriteString(keys, "q")
	select {
	case err = <-ended:
	case <-time.After(testnet.Patience):
		cmd.Process.Kill()
		err = <-ended
	}
	text := out.String()
	if err != nil || !strings.Contains(text, altScreen) || !strings.Contains(text, mainScreen) || !strings.Contains(text, "1 open") || !strings.Contains(text, "a.test") {
		t.Errorf("%v\n%q", err, text)
	}
	if out, err := commanded(t, filepath.Join(t.TempDir(), "none.sock"), "top"); err == nil {
		t.Errorf("of nobody: %s", out)
	}
}
