package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree lists pid and all below it.
func tree(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		if f, err := statFields(file); err == nil {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// statFields are those of proc_pid_stat(5) from the third on, so that [0] is the
// state; what stands before may hold spaces.
func statFields(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	i := strings.LastIndexByte(string(b), ')')
	if i < 0 {
		return nil, fmt.Errorf("%s: no command", file)
	}
	return strings.Fields(string(b)[i+1:]), nil
}

// cpu is the time that pid and all below it have spent, threads and processes that
// have ended included. A reload ends some, which may happen as we look.
func cpu(pid int) (total time.Duration, err error) {
	for range 10 {
		if total, err = cpuOnce(pid); err == nil {
			return total, nil
		}
	}
	return 0, err
}

const tick = 10 * time.Millisecond // of proc_pid_stat(5)

// cpuOnce asks the clock of each process that lives, which counts nanoseconds, and
// takes the ended ones from whoever has waited for them.
func cpuOnce(pid int) (time.Duration, error) {
	var total time.Duration
	for _, p := range tree(pid) {
		// clock_getcpuclockid(3): the complement of the id, and 2 for CPUCLOCK_SCHED.
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^p<<3|2), &t); err != nil {
			return 0, fmt.Errorf("the CPU clock of process %d: %w", p, err)
		}
		f, err := statFields(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			return 0, err
		}
		total += time.Duration(t.Nano())
		for _, ticks := range f[13:15] { // cutime, cstime
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * tick
		}
	}
	return total, nil
}

// pss is the proportional set size of pid and all below it, in bytes.
func pss(pid int) (int64, error) {
	var total int64
	for _, p := range tree(pid) {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			return 0, err
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			if rest, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
				kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					return 0, err
				}
				total += kib << 10
			}
		}
		closing(f)
	}
	return total, nil
}
