package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// P-22: the unit that is shipped leaves little, as systemd judges: at most 2.0 of 10.
func TestUnitIsHardened(t *testing.T) {
	mustExecute(t, "", "systemd-analyze", "security", "--offline=yes", "--threshold=20", "../../packaging/sallyport.service")
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
