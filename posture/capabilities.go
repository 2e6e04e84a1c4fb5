package posture

import (
	"errors"
	"fmt"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"golang.org/x/sys/unix"
)

// dropCapabilities gives up every capability on all threads, those that a program
// started from here could get too, and the way to any others (no_new_privs).
//
// The user stays who started us: which account that is belongs to the unit (User=),
// the container or setpriv(1), and a root without capabilities is a user like others
// who owns many files.
func dropCapabilities() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("setting no_new_privs: %w", errno)
	}
	// Not without CAP_SETPCAP, and then there is nothing that could come of it.
	for c := cap.Value(0); c < cap.MaxBits(); c++ {
		if err := cap.DropBound(c); err != nil && !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("dropping %s from the bounding set: %w", c, err)
		}
	}
	if err := cap.ResetAmbient(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	if err := cap.NewSet().SetProc(); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}
