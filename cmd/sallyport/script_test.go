package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/internal/testnet"
)

// TestScripts runs testdata/script: one script a behaviour, each saying at its
// top what to look at when it breaks. Besides testscript's own commands there are
//
//	exits CODE COMMAND...       run it and ask for that exit code
//	start NAME ARGS...          run sallyport beside the script; it writes NAME.out and NAME.err
//	await FILE PATTERN [VAR]    wait for a line; the first group of PATTERN becomes $VAR
//	ends NAME SIGNAL CODE       send TERM, INT, HUP or none, and ask for that exit code
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts (%v)", err)
	}
	testscript.Run(t, testscript.Params{
		Files: scripts,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GOTRACEBACK", "") // testscript sets it, and sallyport has an opinion on it
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			running := beside{}
			env.Values[besideKey{}] = running
			env.Defer(func() {
				for _, c := range running {
					c.Process.Kill()
					c.Wait()
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "start": cmdStart, "await": cmdAwait, "ends": cmdEnds,
		},
	})
}

// beside are the programs that run beside a script, by name.
type beside map[string]*exec.Cmd

type besideKey struct{}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	if code := exitCode(err); strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d instead of %s (%v):\n%s%s", code, args[0], err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		return e.ExitCode()
	}
	return -1
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARGS...")
	}
	// The script's own folder and environment, which exec.Command does not know.
	bin, err := exec.LookPath("sallyport")
	ts.Check(err)
	c := exec.Command(bin, args[1:]...)
	c.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GORACE", "GODEBUG", "SSLKEYLOGFILE", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"} {
		c.Env = append(c.Env, name+"="+ts.Getenv(name))
	}
	stdout, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	defer stdout.Close()
	stderr, err := os.Create(ts.MkAbs(args[0] + ".err"))
	ts.Check(err)
	defer stderr.Close()
	c.Stdout, c.Stderr = stdout, stderr
	ts.Check(c.Start())
	ts.Value(besideKey{}).(beside)[args[0]] = c
}

const scriptPatience = testnet.Patience

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: await FILE PATTERN [VAR]")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for deadline := time.Now().Add(scriptPatience); ; time.Sleep(10 * time.Millisecond) {
		text := ts.ReadFile(args[0])
		if m := pattern.FindStringSubmatch(text); m != nil {
			if len(args) == 3 {
				ts.Setenv(args[2], m[1])
			}
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited in vain for %q in %s:\n%s", args[1], args[0], text)
		}
	}
}

func cmdEnds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ends NAME SIGNAL CODE")
	}
	running := ts.Value(besideKey{}).(beside)
	c := running[args[0]]
	if c == nil {
		ts.Fatalf("nothing runs under the name %s", args[0])
	}
	if s, ok := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP}[args[1]]; ok {
		ts.Check(c.Process.Signal(s))
	}
	delete(running, args[0])
	late := time.AfterFunc(scriptPatience, func() { c.Process.Kill() })
	defer late.Stop()
	if code := exitCode(c.Wait()); strconv.Itoa(code) != args[2] {
		ts.Fatalf("exit code %d instead of %s:\n%s", code, args[2], ts.ReadFile(args[0]+".err"))
	}
}
