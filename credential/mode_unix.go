//go:build unix

package credential

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// judgeMode says what is wrong with who may read a file with a key in it. refuse
// is for everybody, warn for a group that is not the process's own. The mode is
// judged, not what this process can do: root reads everything.
func judgeMode(name string, info os.FileInfo) (refuse, warn string) {
	if info == nil || !info.Mode().IsRegular() {
		return "", ""
	}
	mode := info.Mode().Perm()
	if mode&0o004 != 0 {
		return fmt.Sprintf("%s: holds a private key and everybody can read it (mode %#o): chmod 600 %s; in a Kubernetes Secret volume set defaultMode: 0400",
			name, mode, name), ""
	}
	if mode&0o040 == 0 {
		return "", ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || ownGroup(int(st.Gid)) {
		return "", ""
	}
	group := strconv.Itoa(int(st.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		if g.Name == "ssl-cert" { // Debian's group for just this
			return "", ""
		}
		group = g.Name
	}
	return "", fmt.Sprintf("%s: holds a private key, and the group %s, which sallyport is not in, can read it (mode %#o)", name, group, mode)
}

func ownGroup(gid int) bool {
	if gid == os.Getegid() {
		return true
	}
	groups, err := os.Getgroups()
	return err == nil && slices.Contains(groups, gid)
}

func ownership(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Mode().String()
	}
	return fmt.Sprintf("%s, of uid %d and gid %d", info.Mode(), st.Uid, st.Gid)
}
