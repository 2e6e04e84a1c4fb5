package posture

import (
	"errors"
	"fmt"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"golang.org/x/sys/unix"
)

// forbidPrivileges takes from all threads, and from what a program started from here
// could get, the way to any privilege that they do not have (no_new_privs).
func forbidPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("setting no_new_privs: %w", errno)
	}
	return dropBounding()
}

// dropBounding does nothing without CAP_SETPCAP, since then nothing could come of it.
func dropBounding() error {
	for c := cap.Value(0); c < cap.MaxBits(); c++ {
		if err := cap.DropBound(c); err != nil && !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("dropping %s from the bounding set: %w", c, err)
		}
	}
	return nil
}

// setAside leaves this process the capabilities that it has, but has none in effect
// until back is called.
func setAside() (back func() error, err error) {
	before, none := cap.GetProc(), cap.GetProc()
	if err = none.ClearFlag(cap.Effective); err == nil {
		err = none.SetProc()
	}
	if err != nil {
		return nil, fmt.Errorf("acting without capabilities: %w", err)
	}
	return func() error {
		if err := before.SetProc(); err != nil {
			return fmt.Errorf("having capabilities again: %w", err)
		}
		return nil
	}, nil
}

// dropCapabilities gives up every capability on all threads.
func dropCapabilities() error {
	if err := cap.ResetAmbient(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	if err := cap.NewSet().SetProc(); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}
