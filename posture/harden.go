package posture

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps the process's memory, in which there are keys, out of core files
// and from other processes of the same user. Each error is of one step, after
// which the others were taken; none is a reason not to start.
//
// The limit of file descriptors is not touched: the Go runtime raises the soft one
// to the hard one by itself. The umask, which unix sockets follow, is [Umask]'s.
func Harden() []error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("forbidding to trace this process (PR_SET_DUMPABLE): %w", err))
	}
	// Beside the above, which a core_pattern that pipes to a program respects also:
	// this one is what child processes inherit.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("forbidding core files (RLIMIT_CORE): %w", err))
	}
	return errs
}

// Private is the umask for what a process writes once its sockets are bound.
const Private = 0o077

// Umask sets the umask, and gives the one before.
func Umask(mask int) int { return unix.Umask(mask) }
