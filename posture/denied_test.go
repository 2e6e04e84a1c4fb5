package posture

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file where a folder has to be is no matter of rights.
func TestStateThatIsNoFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state")
	must(t, os.WriteFile(file, nil, 0o600))
	err := Needs{Keeps: []string{file}}.Denied(Current())
	if err == nil || !strings.Contains(err.Error(), file+", which is not a folder") || strings.Contains(err.Error(), "chown") {
		t.Errorf("got %v", err)
	}
	must(t, Needs{Keeps: []string{dir}}.Denied(Current()))
}
