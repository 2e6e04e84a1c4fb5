package posture

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Needs are what a process goes on doing with files once it is confined.
type Needs struct {
	Reads   []string // files, folders and patterns
	Polls   []string // files
	Appends []string // files that it makes where they are not there
	Keeps   []string // folders of its own
	Listens []string // unix sockets that it makes and removes
}

// Sandbox is what a process has confined itself to.
type Sandbox struct {
	Landlock int     // version of the kernel's Landlock that confines its files; 0: nothing does
	Seccomp  bool    // only the system calls that it needs are left
	Dropped  bool    // it has no capability, and none can come back
	Folders  Folders // what it may reach
}

// Enter confines this process, for good: it is u, without capabilities and none to
// come, with no files but those that it needs and the system's that every program
// reads, and no system calls but those that it needs. Each of missing is of one step,
// after which the others were taken: what the kernel does not have is left out. That
// it could not become u is err.
func Enter(n Needs, u User) (s *Sandbox, missing []error, err error) {
	s = &Sandbox{Folders: foldersOf(n)}
	step := func(err error) bool {
		if err != nil {
			missing = append(missing, err)
		}
		return err == nil
	}
	forbidden := step(forbidPrivileges())
	// While all folders can be opened still: below one that u may not enter lies
	// nothing for it, and it would have no Landlock.
	s.Landlock, err = confineFiles(s.Folders)
	step(err)
	if err := u.Become(); err != nil {
		return s, missing, err
	}
	s.Dropped = step(dropCapabilities()) && forbidden
	s.Seccomp = step(filterCalls())
	return s, missing, nil
}

// Outside gives what of n the sandbox does not let through, as far as it is there. A
// nil sandbox lets everything through.
func (s *Sandbox) Outside(n Needs) (paths []string) {
	if s == nil || s.Landlock == 0 {
		return nil
	}
	for _, p := range slices.Concat(n.Reads, n.Polls) {
		for _, file := range expand(p) {
			if real, _ := trail(file); exists(real) && !within(s.Folders.Read, real) {
				paths = append(paths, file)
			}
		}
	}
	for list, may := range map[*[]string][]string{&n.Appends: s.Folders.Append, &n.Keeps: s.Folders.Keep, &n.Listens: s.Folders.Sockets} {
		for _, p := range *list {
			real, _ := trail(p)
			if exists(filepath.Dir(real)) && !within(may, real) {
				paths = append(paths, p)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Folders are what may be reached: folders with all that is below, or single files.
type Folders struct {
	Read    []string
	Append  []string
	Keep    []string
	Sockets []string // folders in which sockets are made
}

// systemFolders are too much to be opened for the sake of one file that lies in them;
// then only the file is, and one that replaces it needs a restart.
var systemFolders = strings.Fields("/ /bin /boot /dev /etc /home /lib /lib64 /opt /proc /root /run /sbin /sys /tmp /usr /usr/lib /usr/share /usr/local /var /var/lib /var/run /var/tmp")

// foldersOf opens what n needs by the folder, since files are replaced by others.
func foldersOf(n Needs) Folders {
	var a Folders
	for _, p := range n.Reads {
		a.reads(p)
	}
	for _, p := range n.Polls {
		a.reads(p)
	}
	for _, p := range n.Appends {
		real, _ := trail(p)
		a.Append = append(a.Append, folderOr(real))
	}
	for _, p := range n.Keeps {
		real, _ := trail(p)
		a.Keep = append(a.Keep, real)
		a.Read = append(a.Read, real)
	}
	for _, p := range n.Listens {
		real, _ := trail(p)
		a.Sockets = append(a.Sockets, filepath.Dir(real))
	}
	for _, list := range []*[]string{&a.Read, &a.Append, &a.Keep, &a.Sockets} {
		slices.Sort(*list)
		*list = outermost(slices.Compact(*list))
	}
	return a
}

// reads adds what reading p takes.
func (a *Folders) reads(p string) {
	if isPattern(p) {
		for _, dir := range append(expand(filepath.Dir(p)), filepath.Dir(p)) {
			if real, _ := trail(dir); isDir(real) && !slices.Contains(systemFolders, real) {
				a.Read = append(a.Read, real)
			}
		}
	}
	for _, file := range expand(p) {
		if virtual(file) {
			continue
		}
		real, holders := trail(file)
		switch {
		case isDir(real):
			a.Read = append(a.Read, real)
		case exists(filepath.Dir(real)):
			a.Read = append(a.Read, folderOr(real))
		}
		// Another target of the link will lie beside the one that it has now.
		for _, h := range holders {
			if within([]string{h}, real) && !slices.Contains(systemFolders, h) {
				a.Read = append(a.Read, h)
			}
		}
	}
}

// folderOr is the folder of a file, or the file.
func folderOr(file string) string {
	if dir := filepath.Dir(file); !slices.Contains(systemFolders, dir) {
		return dir
	}
	return file
}

// outermost leaves out of a sorted list what lies in another of it.
func outermost(list []string) (out []string) {
	for _, p := range list {
		if !within(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func within(folders []string, path string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == f || strings.HasPrefix(path, strings.TrimSuffix(f, "/")+"/")
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
