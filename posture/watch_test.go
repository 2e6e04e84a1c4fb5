package posture

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func put(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
}

// swap has name point to target, in one step, as ln -sfn does not.
func swap(t testing.TB, target, name string) {
	t.Helper()
	must(t, os.Symlink(target, name+".new"), os.Rename(name+".new", name))
}

// A change is seen however it is made, once; what does not concern the files is none.
func TestWatcher(t *testing.T) {
	for _, c := range []struct {
		name   string
		path   string // watched
		before func(t *testing.T)
		change func(t *testing.T)
		none   bool
	}{
		{name: "written", path: "a.pem", change: func(t *testing.T) { put(t, "a.pem", "new") }},
		{name: "replaced", path: "a.pem", change: func(t *testing.T) { put(t, "b", "new"); must(t, os.Rename("b", "a.pem")) }},
		{name: "removed", path: "a.pem", change: func(t *testing.T) { must(t, os.Remove("a.pem")) }},
		{name: "made", path: "new.pem", change: func(t *testing.T) { put(t, "new.pem", "new") }},
		{name: "made in a folder that was not there", path: "d/e/new.pem", change: func(t *testing.T) { put(t, "d/e/new.pem", "new") }},
		{name: "mode", path: "a.pem", change: func(t *testing.T) { must(t, os.Chmod("a.pem", 0o640)) }},
		{name: "pattern", path: "conf.d/*.yaml", before: func(t *testing.T) { put(t, "conf.d/a.yaml", "a") },
			change: func(t *testing.T) { put(t, "conf.d/b.yaml", "b") }},
		{name: "a folder that is replaced", path: "conf.d/*.yaml", before: func(t *testing.T) { put(t, "conf.d/a.yaml", "a"); put(t, "next/a.yaml", "b") },
			change: func(t *testing.T) { must(t, os.Rename("conf.d", "old"), os.Rename("next", "conf.d")) }},
		{name: "Kubernetes", path: "vol/tls.crt",
			before: func(t *testing.T) {
				put(t, "vol/..1/tls.crt", "one")
				must(t, os.Symlink("..1", "vol/..data"), os.Symlink("..data/tls.crt", "vol/tls.crt"))
			},
			change: func(t *testing.T) {
				put(t, "vol/..2/tls.crt", "two")
				swap(t, "..2", "vol/..data")
				must(t, os.RemoveAll("vol/..1"))
			}},
		{name: "certbot", path: "live/x/fullchain.pem",
			before: func(t *testing.T) {
				put(t, "archive/x/fullchain1.pem", "one")
				must(t, os.MkdirAll("live/x", 0o700), os.Symlink("../../archive/x/fullchain1.pem", "live/x/fullchain.pem"))
			},
			change: func(t *testing.T) {
				put(t, "archive/x/fullchain2.pem", "two")
				swap(t, "../../archive/x/fullchain2.pem", "live/x/fullchain.pem")
			}},
		{name: "behind a link", path: "live/x/fullchain.pem",
			before: func(t *testing.T) {
				put(t, "archive/x/fullchain1.pem", "one")
				must(t, os.MkdirAll("live/x", 0o700), os.Symlink("../../archive/x/fullchain1.pem", "live/x/fullchain.pem"))
			},
			change: func(t *testing.T) { put(t, "archive/x/fullchain1.pem", "two") }},
		{name: "beside", path: "a.pem", change: func(t *testing.T) { put(t, "keys.log", "noise") }, none: true},
		{name: "other files than the pattern's", path: "*.pem", change: func(t *testing.T) { put(t, "keys.log", "noise") }, none: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			put(t, "a.pem", "old")
			if c.before != nil {
				c.before(t)
			}
			w, err := NewWatcher()
			must(t, err, w.Watch([]string{c.path}, nil, time.Now()))
			t.Cleanup(w.Close)
			changed := make(chan struct{}, 1)
			go w.Run(t.Context(), changed)
			c.change(t)
			if c.none {
				if w.differs() {
					t.Error("it says that something has changed")
				}
				return
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing is seen in %v", watchedFolders([]string{c.path}))
			}
			if w.differs() {
				t.Error("it is seen twice")
			}
		})
	}
}

// What changes between being read and being watched has changed.
func TestWatchOfWhatIsNewer(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, a, "old")
	put(t, b, "old")
	w, err := NewWatcher()
	must(t, err)
	t.Cleanup(w.Close)
	must(t, w.Watch([]string{a}, nil, time.Now()))
	read := w.Marks()
	for _, c := range []struct {
		change string
		since  time.Time
		want   bool
	}{
		{"", time.Now(), false},
		{a, time.Now(), true},
		{b, time.Now().Add(-time.Hour), true},
	} {
		if c.change != "" {
			put(t, c.change, "new "+c.change)
		}
		must(t, w.Watch([]string{a, b}, read, c.since))
		if got := w.differs(); got != c.want {
			t.Errorf("%s: %t", c.change, got)
		}
		read = w.Marks()
		delete(read, b)
	}
}

func TestTrail(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := filepath.EvalSymlinks(".")
	must(t, err)
	dir, err = filepath.Abs(dir)
	must(t, err)
	put(t, "x/y/file", "")
	must(t, os.Symlink("y", "x/link"), os.Symlink("link/../link/file", "x/two"), os.Symlink("loop", "loop"), os.Symlink(filepath.Join(dir, "x/two"), "abs"))
	for _, c := range []struct {
		path, want string
		holders    []string
	}{
		{"x/y/file", "x/y/file", nil},
		{"x/./y//file", "x/y/file", nil},
		{"x/link/file", "x/y/file", []string{"x"}},
		{"x/link/../y/file", "x/y/file", []string{"x"}},
		{"x/two", "x/y/file", []string{"x"}},
		{"abs", "x/y/file", []string{"", "x"}},
		{"x/none/file", "x/none/file", nil},
		{"loop", "loop", []string{""}},
	} {
		var holders []string
		for _, h := range c.holders {
			holders = append(holders, filepath.Join(dir, h))
		}
		real, got := trail(c.path)
		if real != filepath.Join(dir, c.want) || fmt.Sprint(got) != fmt.Sprint(holders) {
			t.Errorf("%s: %s by %v", c.path, real, got)
		}
	}
}

// Ten thousand files in one folder are one folder to watch.
func TestWatchedFolders(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for i := range 100 {
		put(t, filepath.Join(dir, fmt.Sprintf("certs/%d.pem", i)), "")
	}
	paths = append(paths, filepath.Join(dir, "certs/*.pem"), filepath.Join(dir, "certs"), filepath.Join(dir, "a.yaml"), "/dev/stdin", "/proc/self/fd/0")
	if got, want := watchedFolders(paths), []string{dir, filepath.Join(dir, "certs")}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
