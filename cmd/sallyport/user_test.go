package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/testnet"
)

// another is who runs no test: an account that needs no name.
const (
	another      = 12345
	anotherGroup = 12346
)

// asRoot has a test that needs root say so: it cannot run by half.
func asRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("only root can become another user: run this test as root")
	}
}

// give makes another the owner of paths, who may enter the folders above, which are
// the test's own.
func give(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Chown(p, another, anotherGroup); err != nil {
			t.Fatal(err)
		}
	}
	enter(t, paths...)
}

// enter opens the folders above paths, as far as they are there.
func enter(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		for up := filepath.Dir(p); strings.HasPrefix(up, os.TempDir()+"/"); up = filepath.Dir(up) {
			if err := os.Chmod(up, 0o755); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
}

// wantUser wants each thread of p to be another, for good and with nothing else.
func wantUser(t testing.TB, p *testnet.Program) {
	t.Helper()
	for thread, text := range statuses(t, p) {
		for _, want := range []string{
			"Uid:\t12345\t12345\t12345\t12345", "Gid:\t12346\t12346\t12346\t12346", "Groups:\t ", "Seccomp:\t2", "NoNewPrivs:\t1",
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("%s does not say %q:\n%s", thread, want, text)
			}
		}
	}
}

func wantOwner(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		info, err := os.Lstat(p)
		if err != nil {
			t.Error(err)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != another || st.Gid != anotherGroup {
			t.Errorf("%s is of %d:%d", p, st.Uid, st.Gid)
		}
	}
}

// P-01: started as root, with a port below 1024, it is another user once all is bound,
// and all that it has made is that user's: a reload goes on, an upgrade by root or by
// that user too, and what needs root again is refused in words.
func TestProgramBecomesAnotherUser(t *testing.T) {
	t.Parallel()
	asRoot(t)
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	run, state, logs := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "deep", "state"), t.TempDir()
	privileged := fmt.Sprintf("127.%d.%d.9:443", os.Getpid()>>8&0xff, os.Getpid()&0xff)
	text := fmt.Sprintf("user: %d:%d\nstate_dir: %s\nadmin: unix:%s/admin.sock\nlisteners:\n", another, anotherGroup, state, run) +
		fmt.Sprintf("  - {from: 'tls://%s', name: a, cert: CERT, key: KEY, to: ECHO, unsafe: {keylog: %s/keys}}\n", privileged, logs) +
		fmt.Sprintf("  - {from: 'tls://unix:%s/s', name: u, cert: CERT, key: KEY, to: ECHO}\n", run)
	r.write(t, text)
	give(t, r.cert, r.key, r.file, logs)
	enter(t, state, run)
	if err := os.Chown(filepath.Dir(r.file), another, anotherGroup); err != nil {
		t.Fatal(err)
	}
	in := func(cmd *exec.Cmd) { promptly(cmd); cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+run) }
	r.Program = testnet.StartIn(t, in, "run", "-c", r.file)
	r.WaitListeners(2)
	visit := func() {
		t.Helper()
		if _, err := r.knock(privileged, r.clientConfig(tls.VersionTLS13)); err != nil {
			t.Error(err)
		}
	}
	visit()
	wantUser(t, r.Program)
	door := filepath.Join(run, "upgrade.sock")
	wantOwner(t, run, filepath.Join(run, "admin.sock"), filepath.Join(run, "s"), door, state, filepath.Join(state, "tickets.secret"), filepath.Join(logs, "keys"))
	if info, err := os.Stat(filepath.Dir(state)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder above the state is %v (%v)", info.Mode(), err)
	}

	r.rotate(t)
	r.mustReload(t, text)
	visit()
	r.write(t, text+"  - {from: 'tcp://127.0.0.1:81', to: ECHO}\n")
	r.mustKeep(t, errRestart.Error(), "port 81 needs CAP_NET_BIND_SERVICE")
	r.write(t, text)
	// A restart would stop at the same, and is not promised to help.
	for _, path := range []string{r.key, r.file} {
		if err := errors.Join(os.Chown(path, 0, 0), os.Chmod(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		said := r.mustKeep(t, "uid 12345 may not read "+path+": permission denied", "is uid 0's, mode 0600", "hint: chown 12345 "+path)
		if strings.Contains(said, errRestart.Error()) {
			t.Errorf("it promises that a restart helps: %s", said)
		}
		give(t, path)
	}

	old := r.Program
	for _, as := range []*syscall.SysProcAttr{nil, {Credential: &syscall.Credential{Uid: another, Gid: anotherGroup, NoSetGroups: false}}} {
		next := testnet.StartIn(t, func(cmd *exec.Cmd) {
			in(cmd)
			cmd.SysProcAttr = as
			// Where the test's binaries are only the test's user may go.
			if as != nil {
				cmd.Path = ownBinary(t)
			}
		}, "upgrade", "-c", r.file)
		if code := old.Wait(); code != 0 {
			t.Errorf("the one before ends with %d", code)
		}
		visit()
		wantOwner(t, door, filepath.Join(run, "admin.sock"))
		for _, text := range statuses(t, next) {
			if !strings.Contains(text, "Uid:\t12345\t12345\t12345\t12345\n") {
				t.Errorf("after an upgrade: %s", text)
			}
		}
		old = next
	}
	old.Signal(syscall.SIGTERM)
	if code := old.Wait(); code != 0 {
		t.Errorf("the last one ends with %d", code)
	}
	if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v (%v)", left, err)
	}
}

// ownBinary is the program where another may run it.
func ownBinary(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "sallyport")
	data, err := os.ReadFile(testnet.Binary(t))
	if err == nil {
		err = os.WriteFile(bin, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	give(t, bin)
	return bin
}

// What the user cannot read, or keep, refuses to start before anything is bound, and
// to pass `check`: which file, which user, what to try.
func TestUserWithoutTheFiles(t *testing.T) {
	t.Parallel()
	asRoot(t)
	s := newSite(t)
	give(t, s.cert, s.key)
	closed, state, log := filepath.Join(t.TempDir(), "closed"), t.TempDir(), filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(closed, "ca.pem")
	pem, err := os.ReadFile(s.anchors)
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(filepath.Dir(s.key), "root.key")
	key, err := os.ReadFile(s.key)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{ca: pem, secret: key, filepath.Join(state, "old"): nil, log: nil} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	enter(t, closed, state, log)
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--key", secret}, []string{"uid 12345 may not read " + secret + ": permission denied", "is uid 0's, mode 0600", "chown 12345 " + secret}},
		{[]string{"--key", s.key, "--client-ca", ca, "--allow", "all"}, []string{"uid 12345 may not read " + ca, "(" + closed + " is uid 0's, mode 0700)", "chgrp 12346 " + closed + " && chmod g+x " + closed}},
		{[]string{"--key", s.key, "--state-dir", state}, []string{"uid 12345 may not keep its state in " + state, "chown 12345 " + state}},
		{[]string{"--key", s.key, "--unsafe-keylog", log}, []string{"uid 12345 may not write to " + log}},
		{[]string{"--key", s.key, "--user", "no-such-user"}, []string{`there is no user "no-such-user" here`, "hint: useradd"}},
		{[]string{"--key", s.key, "--user", "root"}, []string{"user root (uid 0) may not read " + s.key}},
		{[]string{"--key", s.key, "--user", "root:12347"}, []string{"user root (uid 0) may not read " + s.key}},
		{[]string{"--key", s.key, "--user", "54321"}, []string{"uid 54321 has no name here", "54321:GROUP"}},
	} {
		args := append([]string{"tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", s.cert}, c.args...)
		if !slices.Contains(args, "--user") {
			args = append(args, "--user", "12345:12346")
		}
		file := filepath.Join(t.TempDir(), "s.yaml")
		give(t, filepath.Dir(file))
		text := mustExecute(t, "", testnet.Binary(t), append(append([]string{"proxy"}, args...), "--print-config")...)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]string{append([]string{"proxy"}, args...), {"check", "-c", file}} {
			if command[0] == "check" && strings.Contains(text, "state_dir") {
				continue // which the start may make
			}
			p := testnet.Launch(t, promptly, command...)
			if code := p.Wait(); code != exitFailed {
				t.Errorf("%v: exit code %d", command, code)
			}
			for _, w := range c.words {
				if !strings.Contains(p.Stderr(), w) {
					t.Errorf("%v does not say %q: %s", command, w, p.Stderr())
				}
			}
		}
	}
}

// With no word root becomes the package's own user, where there is one, and says what
// it means that there is none.
func TestRootWithoutAUser(t *testing.T) {
	t.Parallel()
	asRoot(t)
	s := newSite(t)
	give(t, s.cert, s.key)
	// For the one as its owner, for root without privileges as a group.
	if err := errors.Join(os.Chown(s.key, another, 0), os.Chmod(s.key, 0o640)); err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(t.TempDir(), "passwd")
	put := func(own string) {
		text := fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\n%s", own)
		if err := os.WriteFile(passwd, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		give(t, passwd)
	}
	launch := func(more ...string) *testnet.Program {
		return testnet.StartIn(t, func(cmd *exec.Cmd) {
			promptly(cmd)
			cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/passwd && exec "$@"`, passwd, cmd.Path}, cmd.Args[1:]...)
			cmd.Path, cmd.Err = exec.LookPath("unshare")
		}, append([]string{"proxy", "tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", s.cert, "--key", s.key}, more...)...)
	}
	put("")
	const said = "started as root, and no `user` says whom to become"
	launch().WaitLog(said)
	put("sallyport:x:12345:12346::/:/usr/sbin/nologin\n")
	wantUser(t, launch())
	root := launch("--user", "root")
	root.Logged("sandboxed", 1)
	for _, text := range statuses(t, root) {
		if !strings.Contains(text, "Uid:\t0\t0\t0\t0\n") || !strings.Contains(text, "CapBnd:\t0000000000000000\n") {
			t.Errorf("as root: %s", text)
		}
	}
	if strings.Contains(root.Stderr(), said) {
		t.Error("who says root is warned")
	}
}

// Who is named without a group has all that it is a member of, and a key may be such a
// group's; with one, that alone.
func TestUserHasItsGroups(t *testing.T) {
	t.Parallel()
	asRoot(t)
	s := newSite(t)
	give(t, s.cert)
	enter(t, s.key)
	const keys = 23456
	if err := errors.Join(os.Chown(s.key, 0, keys), os.Chmod(s.key, 0o640)); err != nil {
		t.Fatal(err)
	}
	etc := t.TempDir()
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\ngateway:x:12345:12346::/:/usr/sbin/nologin\n",
		"group":  "root:x:0:\ngateway:x:12346:\nkeys:x:23456:other,gateway\nmore:x:23457:other\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	known := func(cmd *exec.Cmd) {
		promptly(cmd)
		script := `mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"`
		cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", script, etc, cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.Err = exec.LookPath("unshare")
	}
	as := func(user string) []string {
		return []string{"proxy", "tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", s.cert, "--key", s.key, "--user", user}
	}
	p := testnet.StartIn(t, known, as("gateway")...)
	p.Logged("sandboxed", 1)
	for thread, text := range statuses(t, p) {
		if !strings.Contains(text, "Gid:\t12346\t12346\t12346\t12346\n") || !strings.Contains(text, "Groups:\t23456 \n") {
			t.Errorf("%s: %s", thread, text)
		}
	}
	alone := testnet.Launch(t, known, as("gateway:gateway")...)
	if code := alone.Wait(); code != exitFailed || !strings.Contains(alone.Stderr(), "may not read "+s.key) {
		t.Errorf("exit code %d: %s", code, alone.Stderr())
	}
}

// Who is not root cannot choose.
func TestUserNeedsRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bin := testnet.Binary(t)
	if os.Getuid() == 0 {
		give(t, s.cert, s.key)
		bin = ownBinary(t)
	}
	p := testnet.Launch(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		if cmd.Path = bin; os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: another, Gid: anotherGroup}}
		}
	}, "proxy", "tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", s.cert, "--key", s.key, "--user", "root")
	if code := p.Wait(); code != exitFailed || !strings.Contains(p.Stderr(), "only root can become user root (uid 0)") {
		t.Errorf("exit code %d: %s", code, p.Stderr())
	}
}
