package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"sallyport/build"
	"sallyport/config"
	"sallyport/posture"
)

// chosen is whom the process becomes once all is bound.
func chosen(file *config.File, warn func(string, ...any)) (posture.User, error) {
	current := posture.Current()
	if file.User != "" {
		u, err := posture.FindUser(file.User)
		if err != nil {
			return u, fmt.Errorf("user: %w", err)
		}
		if current.UID != 0 && current.UID != u.UID {
			return u, fmt.Errorf("user: only root can become %s, and this is %s\nhint: start it as root or as that user, or leave `user` away", u, current)
		}
		return u, nil
	}
	// Who goes without the sandbox asked for the privileges of the start.
	if current.UID != 0 || file.Unsafe.NoSandbox {
		return current, nil
	}
	u, err := posture.FindUser(posture.Own)
	if err == nil {
		return u, nil
	}
	if unknown := user.UnknownUserError(""); !errors.As(err, &unknown) && !errors.Is(err, fs.ErrNotExist) {
		return u, fmt.Errorf("whom to become: %w", err)
	}
	warn("started as root, and no `user` says whom to become, nor is there a user " + posture.Own +
		": it stays root, without privileges, and the files of root are open to who breaks in as far as the sandbox lets them; user: root says that this is meant")
	return current, nil
}

// settle makes the folders that are the process's alone, for who it becomes.
func settle(u posture.User, file *config.File) error {
	if os.Geteuid() != 0 || u.UID == 0 {
		return nil
	}
	if file.StateDir != "" {
		if err := u.Settle(file.StateDir, 0o700); err != nil {
			return fmt.Errorf("making state_dir: %w", err)
		}
	}
	if door := doorPath(os.Getenv("RUNTIME_DIRECTORY")); door != "" {
		if err := u.Settle(filepath.Dir(door), 0o700); err != nil {
			return fmt.Errorf("making $RUNTIME_DIRECTORY: %w", err)
		}
	}
	return nil
}

// readyAs is ready as far as u can read what file names and write what it keeps.
func readyAs(u posture.User, needs posture.Needs, file *config.File, o build.Options) (program *build.Program, err error) {
	if u.Acting() && (u.UID != 0 || bool(file.Unsafe.NoSandbox)) {
		return ready(file, o)
	}
	back, err := u.Assume()
	if err != nil {
		return nil, failure{err, exitFailed}
	}
	defer func() { err = cmp.Or(back(), err) }()
	if err := needs.Denied(u); err != nil {
		return nil, failure{err, exitFailed}
	}
	return ready(file, o)
}

// rehearse is readyAs for who only wants to know whether it would start, and may not
// be the one who starts it.
func rehearse(file *config.File, read *survey, warn func(string, ...any)) (*build.Program, error) {
	o := build.Options{Env: os.Getenv, DryRun: true}
	u, err := chosen(file, func(string, ...any) {})
	if os.Geteuid() != 0 {
		if err != nil {
			warn(err.Error())
		}
		return ready(file, o)
	}
	if err != nil {
		return nil, failure{err, exitFailed}
	}
	needs := read.needs(file)
	needs.Keeps = nil // which the start makes
	return readyAs(u, needs, file, o)
}
