package posture

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	rights "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that confines itself, which is for good.
func TestMain(m *testing.M) {
	if os.Getenv("POSTURE_UNDER_A_FILTER") != "" {
		fmt.Println(underAFilter())
		return
	}
	if dir := os.Getenv("POSTURE_CONFINED"); dir != "" {
		if err := json.NewEncoder(os.Stdout).Encode(confined(dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// confined enters the sandbox and tries what is in it and what is not.
func confined(dir string) map[string]string {
	got := map[string]string{}
	in := func(name string) string { return filepath.Join(dir, name) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		got["listen"] = err.Error()
		return got
	}
	inherited, _ := os.OpenFile(in("elsewhere/log"), os.O_WRONLY|os.O_CREATE, 0o600)
	_, errs, err := Enter(Needs{
		Reads: []string{in("certs/a.pem"), in("sub/link/b.pem"), in("conf.d/*.yaml")}, Appends: []string{in("logs/keys.log")},
		Keeps: []string{in("state")}, Listens: []string{in("run/x.sock")},
	}, Current())
	if err != nil {
		got["become"] = err.Error()
	}
	for _, err := range errs {
		got["missing"] += err.Error() + "\n"
	}
	try := func(what string, err error) {
		got[what] = "ok"
		if e := syscall.Errno(0); errors.As(err, &e) {
			got[what] = unix.ErrnoName(e)
		} else if err != nil {
			got[what] = err.Error()
		}
	}
	read := func(name string) error { _, err := os.ReadFile(name); return err }
	try("read a certificate", read(in("certs/a.pem")))
	try("read another one beside", read(in("certs/later.pem")))
	try("read through a link", read(in("sub/link/b.pem")))
	try("read an included file", read(in("conf.d/later.yaml")))
	try("list a folder", func() error { _, err := os.ReadDir(in("conf.d")); return err }())
	try("read elsewhere", read(in("elsewhere/log")))
	try("read /etc/shadow", read("/etc/shadow"))
	try("read /etc/hosts", read("/etc/hosts"))
	try("read /proc/self/status", read("/proc/self/status"))
	try("read /proc/1/status", read("/proc/1/status"))
	try("write to a certificate", os.WriteFile(in("certs/a.pem"), []byte("x"), 0o600))
	try("write beside it", os.WriteFile(in("certs/new"), []byte("x"), 0o600))
	try("append to a log", func() error {
		f, err := os.OpenFile(in("logs/keys.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}())
	try("keep a state", errors.Join(os.WriteFile(in("state/new"), []byte("x"), 0o600), os.Rename(in("state/new"), in("state/old")), read(in("state/old"))))
	try("write to what was open", func() error { _, err := inherited.WriteString("x"); return err }())
	try("listen on a unix socket", func() error {
		l, err := net.Listen("unix", in("run/x.sock"))
		if err == nil {
			err = l.Close()
		}
		return err
	}())
	try("dial", func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}())
	try("look up a name", func() error { _, err := net.LookupHost("localhost"); return err }())
	try("run a program", exec.Command("/bin/true").Run())
	try("run its own program", syscall.Exec("/proc/self/exe", []string{"x"}, nil))
	try("signal its parent", syscall.Kill(os.Getppid(), 0))
	try("trace", unix.PtraceAttach(os.Getppid()))
	try("a raw socket", func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }())
	try("a namespace", unix.Unshare(unix.CLONE_NEWUSER))
	try("become another user", unix.Setresgid(65534, 65534, 65534))
	try("a memory file", func() error { _, err := unix.MemfdCreate("x", 0); return err }())
	try("code", func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	}())
	try("threads", threads())
	return got
}

// underAFilter enters the sandbox where the calls for it are forbidden, as systemd does it.
func underAFilter() error {
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: []string{
			"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"}}},
	}})
	if err != nil {
		return err
	}
	_, missing, err := Enter(Needs{}, Current())
	return errors.Join(append(missing, err)...)
}

// Whoever forbids the calls is named, not the kernel: what to allow is said.
func TestSandboxUnderAFilter(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "POSTURE_UNDER_A_FILTER=1")
	out, err := cmd.CombinedOutput()
	must(t, err)
	for _, want := range []string{
		"files are not confined (Landlock): who started this process forbids", "allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self there",
		"system calls are not refused (seccomp): who started this process forbids", "allow seccomp there",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
	if strings.Contains(string(out), "this kernel has no") {
		t.Errorf("it blames the kernel: %s", out)
	}
}

// What the kernel lacks is told from what is forbidden.
func TestNoLandlock(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOSYS: "this kernel has no Landlock", unix.EOPNOTSUPP: "this kernel has no Landlock",
		unix.EPERM: "allow landlock_create_ruleset", unix.ENOMEM: "files are not confined (Landlock): cannot allocate memory",
	} {
		if got := noLandlock(err).Error(); !strings.Contains(got, want) {
			t.Errorf("%v: %s", err, got)
		}
	}
}

// threads has the runtime make fifty, each of which sees the same sandbox.
func threads() error {
	var all sync.WaitGroup
	errs := make([]error, 50)
	var started sync.WaitGroup
	started.Add(len(errs))
	for i := range errs {
		all.Go(func() {
			runtime.LockOSThread()
			started.Done()
			started.Wait()
			text, err := os.ReadFile("/proc/thread-self/status")
			switch {
			case err != nil:
				errs[i] = err
			case !strings.Contains(string(text), "Seccomp:\t2\n"), !strings.Contains(string(text), "CapEff:\t0000000000000000\n"):
				errs[i] = fmt.Errorf("a thread has got away: %s", text)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func TestSandbox(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"certs/a.pem", "certs/later.pem", "sub/real/b.pem", "conf.d/now.yaml", "conf.d/later.yaml", "elsewhere/log", "logs/x", "state/x", "run/x"} {
		put(t, filepath.Join(dir, name), "text")
	}
	must(t, os.Symlink("real", filepath.Join(dir, "sub/link")))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "POSTURE_CONFINED="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	var got map[string]string
	must(t, json.Unmarshal(out, &got))

	denied, missing := "EACCES", ""
	if v, err := rights.LandlockGetABIVersion(); err != nil || v < 1 {
		denied, missing = "ok", "this kernel has no Landlock (Linux 5.13): files are not confined\n"
	}
	shadow := denied
	if os.Getuid() != 0 {
		shadow = "EACCES"
	}
	code := "EPERM"
	if mapsCode {
		code = "ok"
	}
	want := map[string]string{
		"read a certificate": "ok", "read another one beside": "ok", "read through a link": "ok", "read an included file": "ok", "list a folder": "ok",
		"read elsewhere": denied, "read /etc/shadow": shadow, "read /etc/hosts": "ok", "read /proc/self/status": "ok", "read /proc/1/status": denied,
		"write to a certificate": denied, "write beside it": denied, "append to a log": "ok", "keep a state": "ok", "write to what was open": "ok",
		"listen on a unix socket": "ok", "dial": "ok", "look up a name": "ok", "run a program": "EPERM", "run its own program": "EPERM",
		"signal its parent": "EPERM", "trace": "EPERM", "a raw socket": "EPERM", "a namespace": "EPERM", "become another user": "EPERM",
		"a memory file": "EPERM", "code": code, "threads": "ok",
	}
	if missing != "" {
		want["missing"] = missing
	}
	for what, w := range want {
		if got[what] != w {
			t.Errorf("%s: %s, want %s", what, got[what], w)
		}
		delete(got, what)
	}
	if len(got) > 0 {
		t.Errorf("%v", got)
	}
}

func TestFoldersOf(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"vol/..1/tls.crt", "archive/x/fullchain1.pem", "live/x/README", "certs/a.pem", "conf/sallyport.yaml", "conf/conf.d/a.yaml"} {
		put(t, in(name), "")
	}
	must(t, os.Symlink("..1", in("vol/..data")), os.Symlink("..data/tls.crt", in("vol/tls.crt")),
		os.Symlink("../../archive/x/fullchain1.pem", in("live/x/fullchain.pem")), os.Symlink(in("conf"), in("here")))
	for _, c := range []struct {
		reads []string
		want  []string
	}{
		{[]string{in("certs/a.pem")}, []string{in("certs")}},
		{[]string{in("certs"), in("certs/*.pem"), in("certs.key")}, []string{dir}},
		{[]string{in("certs")}, []string{in("certs")}},
		{[]string{in("vol/tls.crt")}, []string{in("vol")}}, // where the next ..2 will be
		{[]string{in("live/x/fullchain.pem")}, []string{in("archive/x")}},
		{[]string{in("conf/sallyport.yaml"), in("conf/conf.d/*.yaml")}, []string{in("conf")}},
		{[]string{in("conf/conf.d/*.yaml")}, []string{in("conf/conf.d")}},
		{[]string{"/etc/hostname"}, []string{"/etc/hostname"}},
		{[]string{"/dev/stdin", "/proc/self/fd/0"}, nil},
		{[]string{in("none/x.pem")}, nil},
	} {
		if got := foldersOf(Needs{Reads: c.reads}).Read; !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.reads, got, c.want)
		}
	}
	a := foldersOf(Needs{Appends: []string{in("logs/keys.log"), "/tmp/keys.log"}, Keeps: []string{in("state")}, Listens: []string{in("run/x.sock"), "/run/y.sock"}})
	if fmt.Sprint(a.Append, a.Keep, a.Sockets) != fmt.Sprint([]string{in("logs"), "/tmp/keys.log"}, []string{in("state")}, []string{"/run", in("run")}) {
		t.Errorf("%+v", a)
	}
}

func TestOutside(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a/x.pem", "ab/x.pem", "b/x.pem"} {
		put(t, in(name), "")
	}
	must(t, os.Symlink("../b/x.pem", in("a/link.pem")))
	s := &Sandbox{Landlock: 1, Folders: foldersOf(Needs{Reads: []string{in("a/x.pem")}, Appends: []string{in("a/log")}, Listens: []string{in("a/sock")}})}
	all := Needs{
		Reads:   []string{in("a/x.pem"), in("a/new.pem"), in("ab/x.pem"), in("b/*.pem"), in("a/link.pem"), in("none/x")},
		Appends: []string{in("a/other.log"), in("b/log")}, Listens: []string{in("a/new"), in("b/new")}, Keeps: []string{in("b")},
	}
	want := []string{in("a/link.pem"), in("ab/x.pem"), in("b"), in("b/log"), in("b/new"), in("b/x.pem")}
	if got := s.Outside(all); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := (*Sandbox)(nil).Outside(all); got != nil {
		t.Errorf("outside of nothing is %v", got)
	}
}
