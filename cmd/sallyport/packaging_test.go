package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/internal/testnet"
)

// P-22: the unit that is shipped leaves little, as systemd judges: at most 2.0 of 10.
func TestUnitIsHardened(t *testing.T) {
	mustExecute(t, "", "systemd-analyze", "security", "--offline=yes", "--threshold=20", "../../packaging/sallyport.service")
}

// Nothing of the unit is left out because systemd does not know it: a group of system
// calls that is left out forbids what it was to allow.
func TestUnitIsKnown(t *testing.T) {
	text, err := os.ReadFile("../../packaging/sallyport.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "sallyport.service")
	here := strings.ReplaceAll(string(text), "/usr/bin/sallyport", "/bin/true") // which is not installed here
	if err := os.WriteFile(unit, []byte(here), 0o644); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	if err != nil || strings.Contains(string(said), "sallyport.service") {
		t.Errorf("systemd says (%v): %s", err, said)
	}
	for _, call := range []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "capset"} {
		if !regexp.MustCompile(`(?m)^SystemCallFilter=([^~].*)?\b` + call + `\b`).Match(text) {
			t.Errorf("the unit does not allow %s by name, which the program's sandbox takes", call)
		}
	}
}

// The package has what the unit starts and where it looks, and scripts that a shell can
// read; when it is purged nothing stays of what the program kept.
func TestPackage(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "sallyport")
	if err := os.WriteFile(binary, []byte("it is not run here"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustExecute(t, "", "sh", "-c", `cd ../.. && exec scripts/deb "$0" 1.2.3 "$1"`, binary, dir)
	debs, _ := filepath.Glob(filepath.Join(dir, "sallyport_1.2.3_*.deb"))
	if len(debs) != 1 {
		t.Fatalf("there are %q", debs)
	}
	root, control := filepath.Join(dir, "root"), filepath.Join(dir, "control")
	mustExecute(t, "", "dpkg-deb", "--extract", debs[0], root)
	mustExecute(t, "", "dpkg-deb", "--control", debs[0], control)
	for path, want := range map[string]os.FileMode{
		"usr/bin/sallyport":                    0o755,
		"lib/systemd/system/sallyport.service": 0o644,
		"usr/lib/sysusers.d/sallyport.conf":    0o644,
		"usr/share/man/man1/sallyport.1.gz":    0o644,
		"etc/sallyport":                        os.ModeDir | 0o755,
	} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("%s has mode %v, not %v", path, info.Mode(), want)
		}
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		mustExecute(t, "", "sh", "-n", filepath.Join(control, script))
	}
	if text, err := os.ReadFile(filepath.Join(control, "postrm")); err != nil || !strings.Contains(string(text), "/var/lib/sallyport\n") {
		t.Errorf("what a purge does: %s (%v)", text, err)
	}
}

// What the container file leaves in its image is all that the program needs, beside the
// folder of its file: it serves from there as the image's user, who can write nowhere,
// and verifies a server by the anchors that the image has.
func TestContainer(t *testing.T) {
	t.Parallel()
	asRoot(t)
	s := newSite(t)
	binary := filepath.Join(t.TempDir(), "sallyport")
	mustExecute(t, "", "env", "CGO_ENABLED=0", "go", "build", "-o", binary, ".")
	// The tests' own CA is the world's here.
	root, user, command := image(t, map[string]string{"/sallyport": binary, "/etc/ssl/certs/ca-certificates.crt": s.anchors})
	etc := filepath.Join(root, "etc", "sallyport")
	copyTo(t, s.cert, filepath.Join(etc, "site.pem"), 0o644)
	copyTo(t, s.key, filepath.Join(etc, "site.key"), 0o600)
	text := fmt.Sprintf("listeners: [{from: 'tls://127.0.0.1:0', cert: site.pem, key: site.key, to: {addr: 'tls://%s', name: a.test}}]\n", s.tlsEcho(t))
	if err := errors.Join(os.Chown(filepath.Join(etc, "site.key"), 65532, 65532), os.WriteFile(filepath.Join(etc, "sallyport.yaml"), []byte(text), 0o644),
		os.Mkdir(filepath.Join(root, "proc"), 0o755)); err != nil {
		t.Fatal(err)
	}
	p := testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		script := `mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount -o remount,ro,bind "$0" && exec chroot --userspec="$1" --groups= "$0" $2 --log-format json`
		cmd.Args = []string{"unshare", "--mount", "sh", "-c", script, root, user, command}
		cmd.Path, cmd.Err = exec.LookPath("unshare")
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	})
	if said := p.Logged("sandboxed", 1); said.Num("uid") != 65532 || said.Num("gid") != 65532 {
		t.Errorf("it says %v", said)
	}
	if err := probeOnce(p.Addr(""), s.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
}

// image makes the folder that the last stage of the container file describes, of files
// of this machine, and gives who runs what there.
func image(t testing.TB, files map[string]string) (root, user, command string) {
	t.Helper()
	recipe, err := os.ReadFile("../../packaging/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, last, _ := strings.Cut(string(recipe), "\nFROM scratch\n")
	root = t.TempDir()
	enter(t, filepath.Join(root, "x"))
	for line := range strings.Lines(last) {
		switch word := strings.Fields(line); word[0] {
		case "COPY": // --from=build WHAT WHERE
			copyTo(t, files[word[2]], filepath.Join(root, word[3]), 0o755)
		case "USER":
			user = word[1]
		case "ENTRYPOINT", "CMD":
			command += strings.Trim(word[1], `[]"`) + " "
		}
	}
	return root, user, command
}

func copyTo(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, mode))
	}
	if err != nil {
		t.Fatal(err)
	}
}
