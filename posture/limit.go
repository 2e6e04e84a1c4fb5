package posture

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// GroupMemory is the memory limit of the process's control group, of either version,
// in bytes; 0 where there is none.
func GroupMemory() int64 {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	defer f.Close()
	least := int64(0)
	for s := bufio.NewScanner(f); s.Scan(); {
		part := strings.SplitN(s.Text(), ":", 3) // cgroups(7)
		if len(part) != 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		switch {
		case part[1] == "memory":
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case part[1] != "":
			continue
		}
		if n := lowest(root, part[2], file); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// unlimited is above what any machine has; version 1 writes a number near 2^63.
const unlimited = 1 << 50

// lowest is the least limit of a group and those that it is in. A container sees its
// own group as the root.
func lowest(root, group, file string) (least int64) {
	for {
		text, err := os.ReadFile(filepath.Join(root, group, file))
		if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil && n < unlimited && (least == 0 || n < least) {
			least = n
		}
		if group == "/" || group == "." || group == "" {
			return least
		}
		group = filepath.Dir(group)
	}
}

// The collector works harder from collectAt on, and at fullAt new flows are refused;
// what is left is for those that are alive, and for memory that is not Go's.
const (
	collectAt = 80 // per cent
	fullAt    = 90
	lookEvery = 20 * time.Millisecond
)

// LimitMemory has the process keep below most bytes, and gives what says whether it
// is near them.
func LimitMemory(most int64) func() bool {
	debug.SetMemoryLimit(most / 100 * collectAt)
	var looked, full atomic.Int64
	start := time.Now()
	return func() bool {
		now := int64(time.Since(start)) + 1
		if last := looked.Load(); last != 0 && now-last < int64(lookEvery) || !looked.CompareAndSwap(looked.Load(), now) {
			return full.Load() != 0
		}
		taken := int64(0)
		if memory() > most/100*fullAt {
			taken = 1
		}
		full.Store(taken)
		return taken != 0
	}
}

// memory is what the runtime has of the system, and has not given back.
func memory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
