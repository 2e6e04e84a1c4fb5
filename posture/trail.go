package posture

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mostLinks is after how many symbolic links the kernel gives up (path_resolution(7)).
const mostLinks = 40

// trail follows path as the kernel does. It gives the path that has no link in it,
// as far as there is something, and the folders that hold the links on the way.
func trail(path string) (real string, holders []string) {
	real = "/"
	todo := components(absolute(path))
	for links := 0; len(todo) > 0; {
		if todo[0] == ".." {
			real, todo = filepath.Dir(real), todo[1:]
			continue
		}
		next := filepath.Join(real, todo[0])
		info, err := os.Lstat(next)
		if err != nil {
			return filepath.Join(real, filepath.Join(todo...)), holders
		}
		todo = todo[1:]
		if info.Mode().Type() != os.ModeSymlink {
			real = next
			continue
		}
		target, err := os.Readlink(next)
		if links++; err != nil || links > mostLinks {
			return next, holders
		}
		if !slices.Contains(holders, real) {
			holders = append(holders, real)
		}
		if filepath.IsAbs(target) {
			real = "/"
		}
		todo = append(components(target), todo...)
	}
	return real, holders
}

// absolute does not clean, as filepath.Abs does: x/../y is not y where x is a link.
func absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		return path // of a folder that is gone, nothing is to be had
	}
	return dir + "/" + path
}

// components leaves .. in: where what is before it is a link, it is another folder's.
func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(c string) bool { return c == "" || c == "." })
}

// existing is path itself, or the nearest folder above that is there.
func existing(path string) string {
	for path != "/" && path != "." {
		if _, err := os.Lstat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// virtual says that path is of the kernel's making: descriptors, devices. Nothing
// is replaced there.
func virtual(path string) bool {
	return strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/")
}

// isPattern says that path stands for what filepath.Glob makes of it.
func isPattern(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// expand gives the files that path stands for now.
func expand(path string) []string {
	if !isPattern(path) {
		return []string{path}
	}
	matches, _ := filepath.Glob(path) // one that is no pattern matches nothing
	return matches
}
