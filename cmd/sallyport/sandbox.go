package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"sallyport/posture"
)

// confine leaves the process what it needs from here on. Its sockets are bound.
func (s *service) confine(needs posture.Needs) error {
	if s.file.Unsafe.NoSandbox {
		return nil
	}
	sandbox, missing := posture.Enter(needs)
	for _, err := range missing {
		s.log.Warn("sandbox: " + err.Error())
	}
	s.sandbox = sandbox
	s.log.Info("sandboxed", "uid", os.Getuid(), "capabilities", has(!sandbox.Dropped), "landlock", landlocked(sandbox.Landlock), "seccomp", has(sandbox.Seccomp))
	s.log.Debug("what the sandbox lets through", "paths", fmt.Sprintf("%+v", sandbox.Folders))
	if err := needs.Unreadable(); err != nil {
		return fmt.Errorf("%w\nhint: files are read again when they change, and by then uid %d has none of the privileges that it began with: let it own the file, or its group read it",
			err, os.Getuid())
	}
	return nil
}

func has(it bool) string {
	if it {
		return "on"
	}
	return "off"
}

func landlocked(version int) string {
	if version == 0 {
		return "off"
	}
	return "version " + strconv.Itoa(version)
}

// errRestart says what a running process cannot do any more.
var errRestart = errors.New("needs a restart (or `sallyport upgrade`)")

// inside refuses what the sandbox would not let through.
func (s *service) inside(needs posture.Needs) error {
	needs.Keeps = nil // which stays what it was
	outside := s.sandbox.Outside(needs)
	switch len(outside) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %s is outside the sandbox", errRestart, outside[0])
	}
	return fmt.Errorf("%w: %s are outside the sandbox", errRestart, strings.Join(outside, ", "))
}

// givenUp says of a refusal by the system that the process did have the right.
func (s *service) givenUp(err error) error {
	if s.sandbox == nil || !errors.Is(err, fs.ErrPermission) || errors.Is(err, errRestart) {
		return err
	}
	return fmt.Errorf("%w: %w; the right may have been given up once all was bound", errRestart, err)
}
