package archtest

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The key of a PEM file, or of a text that has one pasted; a key is known to everybody
// who has the tree. Its label alone, as in code that looks for it, is none.
var privateKey = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(\s|\\n)*[A-Za-z0-9+/=]{32}`)

// What is nobody's source: left by editors, merges, tools and tests.
var (
	strayNames      = regexp.MustCompile(`(?i)(~|\.(orig|rej|swp|bak|tmp|log|out|test|prof|exe|o|a|so|p12|pfx|jks|pcap|pcapng|key))$|(^|/)(\.DS_Store|core|nohup\.out)$`)
	strayBeginnings = [][]byte{[]byte("\x7fELF"), []byte("!<arch>"), []byte("\x1f\x8b"), []byte("PK\x03\x04")}
)

const mostOfAFile = 1 << 20 // bytes

// tracked gives the root of the tree, and the names of all files that git has of it.
func tracked(t *testing.T) (root string, names []string) {
	t.Helper()
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatal(err)
	}
	root = strings.TrimSpace(string(top))
	list := exec.Command("git", "ls-files", "-z")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	names = strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	if len(names) < 300 {
		t.Fatalf("only %d files in the tree", len(names))
	}
	return root, names
}

// What is in the tree is source: no private key, no program, nothing that was left.
func TestTreeHasNoKeysAndNothingStray(t *testing.T) {
	root, names := tracked(t)
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // taken away, and not yet from git
		}
		begins := func(with []byte) bool { return bytes.HasPrefix(data, with) }
		switch {
		case privateKey.Match(data):
			t.Errorf("%s has a private key in it", name)
		case strayNames.MatchString(name), slices.ContainsFunc(strayBeginnings, begins):
			t.Errorf("%s is no source: what made it?", name)
		case len(data) > mostOfAFile, len(data) == 0:
			t.Errorf("%s has %d bytes", name, len(data))
		}
	}
}

// Go checks no bounds and no lifetimes of what goes by package unsafe, nor of what C
// does. By file, and not by go list, which sees neither those of cgo nor those of other
// architectures.
func TestNothingImportsUnsafeOrC(t *testing.T) {
	root, names := tracked(t)
	for _, name := range names {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // as above
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, i := range f.Imports {
			if path := strings.Trim(i.Path.Value, "`\""); path == "unsafe" || path == "C" {
				t.Errorf("%s imports %q", name, path)
			}
		}
	}
}
