package posture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is whom a process becomes that root has started.
type User struct {
	Name     string // or its UID, where it has none
	UID, GID int
	Groups   []int // beside GID
}

// Own is the user of the package, whom root becomes where nobody else is named.
const Own = "sallyport"

// Current is the user that this process acts as.
func Current() User {
	return User{Name: strconv.Itoa(os.Geteuid()), UID: os.Geteuid(), GID: os.Getegid()}
}

func (u User) String() string {
	if u.Name == strconv.Itoa(u.UID) {
		return "uid " + u.Name
	}
	return fmt.Sprintf("user %s (uid %d)", u.Name, u.UID)
}

// FindUser finds who NAME or UID is: of its own groups, or of that behind a colon alone.
func FindUser(text string) (User, error) {
	name, group, named := strings.Cut(text, ":")
	u := User{Name: name}
	known, err := user.Lookup(name)
	if uid, e := strconv.ParseUint(name, 10, 31); err != nil && e == nil {
		u.UID = int(uid)
		if known, err = user.LookupId(name); err != nil && !named {
			return u, fmt.Errorf("uid %s has no name here, and so no group: %s:GROUP names one", name, name)
		}
		err = nil
	}
	if err != nil {
		return u, fmt.Errorf("there is no user %q here (%w)\nhint: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin %s", name, err, name)
	}
	if known != nil {
		u.Name = known.Username
		u.UID, err = strconv.Atoi(known.Uid)
		if err == nil {
			u.GID, err = strconv.Atoi(known.Gid)
		}
	}
	if err != nil {
		return u, err
	}
	if !named {
		u.Groups, err = groupsOf(known, u.GID)
		return u, err
	}
	gid := group
	if g, e := user.LookupGroup(group); e == nil {
		gid = g.Gid
	}
	n, err := strconv.ParseUint(gid, 10, 31)
	if err != nil {
		return u, fmt.Errorf("there is no group %q here", group)
	}
	u.GID = int(n)
	return u, nil
}

// groupsOf are those that u is a member of by the system's own files, beside gid. Root has no use for any.
func groupsOf(u *user.User, gid int) (groups []int, err error) {
	if u.Uid == "0" {
		return nil, nil
	}
	ids, err := u.GroupIds()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a container's /etc may have users alone
	}
	if err != nil {
		return nil, fmt.Errorf("the groups of %s: %w", u.Username, err)
	}
	for _, id := range ids {
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("the groups of %s: %w", u.Username, err)
		}
		if n != gid {
			groups = append(groups, n)
		}
	}
	return groups, nil
}

// Acting says that this process is u already. Only root has a choice of groups.
func (u User) Acting() bool {
	return u.UID == os.Geteuid() && (u.UID != 0 || u.GID == os.Getegid())
}

// Assume has a process of root's open files as u may, until back is called: what it
// makes is u's from the beginning, and what u cannot read is known at once. Root acts
// without its capabilities, as it will once it is confined.
func (u User) Assume() (back func() error, err error) {
	if u.Acting() {
		return setAside()
	}
	whole := func() error { return nil }
	was, groups, err := os.Getegid(), []int(nil), error(nil)
	if groups, err = syscall.Getgroups(); err == nil {
		err = syscall.Setgroups(u.Groups)
	}
	// Of all threads, as those below (package syscall).
	if err == nil {
		err = syscall.Setresgid(-1, u.GID, -1)
	}
	if err == nil {
		err = syscall.Setresuid(-1, u.UID, -1)
	}
	if err == nil && u.UID == 0 {
		whole, err = setAside()
	}
	if err != nil {
		return nil, fmt.Errorf("acting as %s: %w", u, err)
	}
	return func() error {
		err := whole()
		if err == nil {
			err = syscall.Setresuid(-1, 0, -1)
		}
		if err == nil {
			err = syscall.Setresgid(-1, was, -1)
		}
		if err == nil {
			err = syscall.Setgroups(groups)
		}
		if err != nil {
			return fmt.Errorf("acting as root again: %w", err)
		}
		return nil
	}, nil
}

// Become makes u the user of all threads for good, of u's groups alone. Only
// root can; who is u already stays as it is.
func (u User) Become() error {
	if u.Acting() {
		return nil
	}
	err := dropBounding() // while there is a right to
	if err == nil {
		err = syscall.Setgroups(u.Groups)
	}
	if err == nil {
		err = syscall.Setresgid(u.GID, u.GID, u.GID)
	}
	if err == nil {
		err = syscall.Setresuid(u.UID, u.UID, u.UID)
	}
	if err == nil {
		// The kernel sets it anew with the user (credentials(7), fs.suid_dumpable).
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	if err == nil && u.UID != 0 && syscall.Setresuid(-1, 0, -1) == nil {
		err = errors.New("root could be had back")
	}
	if err != nil {
		return fmt.Errorf("becoming %s: %w", u, err)
	}
	return nil
}

// Settle makes dir, a folder for this program alone, and gives it to u. One that is
// there is given where it is root's and empty, as from a service manager: whose files
// lie in another is for who put them there to say. It is given only where nobody but
// root could have put another folder in its place.
func (u User) Settle(dir string, mode fs.FileMode) error {
	err := os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(dir), 0o755); err == nil { // #nosec G301 -- those above it are others' too
			err = os.Mkdir(dir, mode)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || ownerOf(info) != 0 {
		return err
	}
	if !onlyRoots(dir) {
		return nil
	}
	if _, err := f.Readdirnames(1); !errors.Is(err, io.EOF) {
		return err
	}
	return f.Chown(u.UID, u.GID)
}

// onlyRoots says that nobody but root can make, remove or replace what is on the way to
// dir, a link included. So it holds as long as root leaves it.
func onlyRoots(dir string) bool {
	real, holders := trail(dir)
	for _, h := range append(holders, filepath.Dir(real)) {
		if info, err := os.Lstat(h); err != nil || info.Mode().Perm()&0o022 != 0 {
			return false
		}
		for ; ; h = filepath.Dir(h) {
			info, err := os.Lstat(h)
			// In a sticky folder each takes away its own alone: root's below it stays.
			if err != nil || ownerOf(info) != 0 || info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
				return false
			}
			if h == "/" {
				break
			}
		}
	}
	return true
}

// Give makes u the owner of a unix socket that was just bound, and of nothing else that
// somebody may have put in its place.
func (u User) Give(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("giving %s to %s: %w", path, u, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Nlink != 1) {
		err = errors.New("it is not the socket that was bound")
	}
	if err == nil {
		err = unix.Fchownat(fd, "", u.UID, u.GID, unix.AT_EMPTY_PATH)
	}
	if err != nil {
		return fmt.Errorf("giving %s to %s: %w", path, u, err)
	}
	return nil
}

// ownerOf is the uid that a file belongs to.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
