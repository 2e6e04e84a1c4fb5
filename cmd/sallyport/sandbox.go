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
		return s.user.Become()
	}
	sandbox, missing, err := posture.Enter(needs, s.user)
	for _, err := range missing {
		s.log.Warn("sandbox: " + err.Error())
	}
	if err != nil {
		return err
	}
	s.sandbox = sandbox
	s.log.Info("sandboxed", "uid", os.Getuid(), "gid", os.Getgid(), "capabilities", has(!sandbox.Dropped), "landlock", landlocked(sandbox.Landlock), "seccomp", has(sandbox.Seccomp))
	s.log.Debug("what the sandbox lets through", "paths", fmt.Sprintf("%+v", sandbox.Folders))
	return needs.Denied(s.user)
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
	return outside(s.sandbox, needs)
}

func outside(sandbox *posture.Sandbox, needs posture.Needs) error {
	paths := sandbox.Outside(needs)
	switch len(paths) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %s is outside the sandbox", errRestart, paths[0])
	}
	return fmt.Errorf("%w: %s are outside the sandbox", errRestart, strings.Join(paths, ", "))
}

// denied gives what the user may not read or write of needs: a restart would stop at
// the same, where the sandbox lets it through.
func (s *service) denied(needs posture.Needs) error {
	needs.Keeps = nil // which stays what it was
	return needs.Denied(s.user)
}

// givenUp says of a refusal by the system what is in the way, or that the process did
// have the right.
func (s *service) givenUp(needs posture.Needs, err error) error {
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, errRestart) {
		return err
	}
	if denied := s.denied(needs); denied != nil {
		return denied
	}
	if s.sandbox == nil {
		return err
	}
	return fmt.Errorf("%w: %w; the right may have been given up once all was bound", errRestart, err)
}
