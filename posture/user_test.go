package posture

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestFindUser(t *testing.T) {
	for _, c := range []struct {
		text string
		want User
		err  string
	}{
		{"root", User{Name: "root"}, ""},
		{"0", User{Name: "root"}, ""},
		{"54321:54322", User{Name: "54321", UID: 54321, GID: 54322}, ""},
		{"54321:root", User{Name: "54321", UID: 54321}, ""},
		{"root:54322", User{Name: "root", GID: 54322}, ""},
		{"54321", User{}, "uid 54321 has no name here, and so no group: 54321:GROUP names one"},
		{"54321:no-such", User{}, `there is no group "no-such" here`},
		{"-1:0", User{}, `there is no user "-1" here (user: unknown user -1)` + "\nhint: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin -1"},
	} {
		got, err := FindUser(c.text)
		if said := ""; err != nil {
			if said = err.Error(); said != c.err {
				t.Errorf("%s: %v", c.text, err)
			}
		} else if c.err != "" || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v", c.text, got)
		}
	}
}

// A folder is made with its way, given where it is empty, and left where it is not.
func TestSettle(t *testing.T) {
	me := Current()
	dir := filepath.Join(t.TempDir(), "way", "state")
	must(t, me.Settle(dir, 0o700))
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Dir(dir): 0o755} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if os.Getuid() != 0 {
		return // who can give nothing away
	}
	owner := func() int {
		info, err := os.Stat(dir)
		must(t, err)
		return ownerOf(info)
	}
	other := User{Name: "54321", UID: 54321, GID: 54321}
	put(t, filepath.Join(dir, "x"), "")
	must(t, other.Settle(dir, 0o700))
	if owner() != 0 {
		t.Error("a folder with files was given away")
	}
	must(t, os.Remove(filepath.Join(dir, "x")), os.Chown(filepath.Dir(dir), 54321, 54321), other.Settle(dir, 0o700))
	if owner() != 0 {
		t.Error("a folder was given away that somebody else may have put there")
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	if err := other.Settle(link, 0o700); err == nil {
		t.Error("a link was followed")
	}
	theirs := filepath.Join(t.TempDir(), "theirs")
	must(t, os.Mkdir(theirs, 0o755), os.Chown(filepath.Dir(dir), 0, 0), os.Symlink(filepath.Dir(dir), filepath.Join(theirs, "way")), os.Chown(theirs, 54321, 54321))
	must(t, other.Settle(filepath.Join(theirs, "way", "state"), 0o700))
	if owner() != 0 {
		t.Error("a folder was given away that somebody else's link leads to")
	}
	must(t, other.Settle(dir, 0o700))
	if owner() != 54321 {
		t.Error("an empty folder was not given away")
	}
}

// Only a socket is given away, and no link to something else.
func TestGive(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "")
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	for _, name := range []string{"file", "link", "none"} {
		if err := Current().Give(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was given away", name)
		}
	}
}
