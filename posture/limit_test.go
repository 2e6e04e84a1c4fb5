package posture

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"
)

func TestLowest(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(dir, text string) {
		if err := os.WriteFile(filepath.Join(dir, "memory.max"), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(deep, "max")
	if n := lowest(root, "/a/b", "memory.max"); n != 0 {
		t.Errorf("max is %d", n)
	}
	put(filepath.Join(root, "a"), "100000000")
	put(root, "200000000")
	if n := lowest(root, "/a/b", "memory.max"); n != 100000000 {
		t.Errorf("the group above has %d", n)
	}
	put(deep, "9223372036854771712") // version 1 without a limit
	if n := lowest(root, "/gone/b", "memory.max"); n != 200000000 {
		t.Errorf("as its own root: %d", n)
	}
}

func TestLimitMemory(t *testing.T) {
	t.Cleanup(func() { debug.SetMemoryLimit(math.MaxInt64) })
	full := LimitMemory(1 << 40)
	if full() {
		t.Error("1 TiB is full")
	}
	debug.FreeOSMemory() // what was let go would be taken again
	full = LimitMemory(memory() + 16<<20)
	held := make([]byte, 64<<20)
	for i := range held {
		held[i] = 1
	}
	for until := time.Now().Add(5 * time.Second); !full(); time.Sleep(lookEvery) {
		if time.Now().After(until) {
			t.Fatal("never full")
		}
	}
	if held[1<<20] != 1 {
		t.Error("what is held was lost")
	}
}
