package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/testnet"
)

// A state_dir that nothing can be written to stops no start: a good secret in it is
// taken, and without one that sessions end with the process is said.
func TestStateThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	asRoot(t)
	s := newSite(t)
	give(t, s.cert, s.key)
	const gone = "the secret is in memory only, so sessions end with the process"
	mounted := map[string]string{
		"read-only": `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"`,
		"full": `old=$(cat "$0/tickets.secret" 2>/dev/null); mount -t tmpfs -o size=8k,mode=0700,uid=12345,gid=12346 none "$0" &&
			{ [ -z "$old" ] || { echo "$old" >"$0/tickets.secret" && chown 12345 "$0/tickets.secret"; }; } && { cat /dev/zero >"$0/full" 2>/dev/null; true; }`,
	}
	for name, mount := range mounted {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		give(t, dir)
		launch := func(mount string) *testnet.Program {
			p := testnet.StartIn(t, func(cmd *exec.Cmd) {
				promptly(cmd)
				cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", mount + ` && exec "$@"`, dir, cmd.Path}, cmd.Args[1:]...)
				cmd.Path, cmd.Err = exec.LookPath("unshare")
			}, "proxy", "tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", s.cert, "--key", s.key, "--state-dir", dir, "--user", fmt.Sprintf("%d:%d", another, anotherGroup))
			p.Logged("sandboxed", 1)
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("%s: exit code %d", name, code)
			}
			return p
		}
		if p := launch(mount); !strings.Contains(p.Stderr(), gone) || !strings.Contains(p.Stderr(), filepath.Join(dir, "tickets.secret")) || strings.Contains(p.Stderr(), "chown") {
			t.Errorf("%s and empty: %s", name, p.Stderr())
		}
		launch("true")
		if p := launch(mount); strings.Contains(p.Stderr(), "tickets.secret") {
			t.Errorf("%s, with a secret: %s", name, p.Stderr())
		}
	}
}
