package posture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Denied gives the first of n that the user whom this process acts as may not do, and
// what would let it: a process that was started with more rights than it keeps would
// not notice before its next reload.
func (n Needs) Denied(u User) error {
	for _, p := range slices.Concat(n.Reads, n.Polls) {
		for _, file := range append(expand(p), folderOfPattern(p)...) {
			if err := reads(file); err != nil {
				return refusal(u, "read", file, "r", err)
			}
		}
	}
	for _, p := range n.Appends {
		at := p
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			at = filepath.Dir(p) // which it will be made in
		}
		if err := allowed(at, unix.W_OK); err != nil {
			return refusal(u, "write to", at, "w", err)
		}
	}
	for _, p := range n.Keeps {
		// The kernel would say that its rights are amiss, which is not the matter.
		if info, err := os.Stat(p); err == nil && !info.IsDir() {
			return fmt.Errorf("state is to be kept in %s, which is not a folder", p)
		}
		err := allowed(p, unix.R_OK|unix.W_OK|unix.X_OK)
		if errors.Is(err, unix.EROFS) { // who keeps something there warns: it is in memory then
			err = allowed(p, unix.R_OK|unix.X_OK)
		}
		if err != nil {
			return refusal(u, "keep its state in", p, "rwx", err)
		}
	}
	return nil
}

// reads opens file, where there is one. A pipe gives what it has once.
func reads(file string) error {
	info, err := os.Stat(file)
	if err == nil && (info.Mode().IsRegular() || info.IsDir()) {
		var f *os.File
		if f, err = os.Open(file); err == nil {
			f.Close()
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // what is not there was not needed
}

// folderOfPattern is where files that match p will be looked for.
func folderOfPattern(p string) []string {
	if dir := filepath.Dir(p); isPattern(p) && !isPattern(dir) {
		return []string{dir}
	}
	return nil
}

func allowed(path string, how uint32) error {
	err := unix.Faccessat(unix.AT_FDCWD, path, how, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// refusal says who may not do what, what is in the way and what to try.
func refusal(u User, verb, path, right string, err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	real, _ := trail(path)
	at, hint := real, fmt.Sprintf("chown %s %s, or chgrp %d %s && chmod g+%s %s", u.Name, real, u.GID, real, right, real)
	if dir := closed(real); dir != "" {
		at, hint = dir, fmt.Sprintf("put it where that user may go, or chgrp %d %s && chmod g+x %s", u.GID, dir, dir)
	}
	if readOnly(real) {
		hint = fmt.Sprintf("%s is mounted read-only: set who may %s it where it comes from, or name another place", real, verb)
	}
	mode := ""
	if info, e := os.Lstat(at); e == nil {
		mode = fmt.Sprintf(" (%s is uid %d's, mode %04o)", at, ownerOf(info), info.Mode().Perm())
	}
	return fmt.Errorf("%s may not %s %s: %w%s\nhint: %s; files are read again when they change, and privileges are given up once all is bound", u, verb, path, err, mode, hint)
}

// readOnly says that neither owner nor mode of path can be changed.
func readOnly(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}

// closed is the first folder on the way to path that may not be entered.
func closed(path string) string {
	for i, c := range path {
		if c == '/' && i > 0 && unix.Faccessat(unix.AT_FDCWD, path[:i], unix.X_OK, unix.AT_EACCESS) == unix.EACCES {
			return path[:i]
		}
	}
	return ""
}
