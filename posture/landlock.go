package posture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	rights "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

const (
	mayRead   = rights.AccessFSReadFile
	mayList   = rights.AccessFSReadFile | rights.AccessFSReadDir
	mayAppend = rights.AccessFSWriteFile | rights.AccessFSMakeReg
	mayKeep   = mayList | mayAppend | rights.AccessFSTruncate | rights.AccessFSMakeDir | rights.AccessFSRemoveFile | rights.AccessFSRemoveDir
	mayListen = rights.AccessFSMakeSock | rights.AccessFSRemoveFile
	ofFiles   = rights.AccessFSReadFile | rights.AccessFSWriteFile | rights.AccessFSTruncate // those that a single file can have
)

// What every program reads: to look up names and users, for the time zone and the
// system's trust anchors, and what the kernel says of the process.
var (
	systemFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
		"/etc/localtime", "/etc/passwd", "/etc/group", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"}
	systemPaths = []string{"/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", // where resolv.conf is put in place by a rename
		"/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
		"/usr/share/pki", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom", "/proc/self", "/proc/stat", "/proc/meminfo", "/proc/loadavg", "/proc/sys/net", "/proc/sys/kernel", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage"}
)

// confineFiles leaves a and what every program reads, on all threads, and gives the
// version of Landlock that does it. What was opened before stays open. Dialling and
// listening are left alone: their ports are the configuration's, which changes.
func confineFiles(a Folders) (version int, err error) {
	version, err = rights.LandlockGetABIVersion()
	if err != nil || version < 1 {
		return 0, noLandlock(err)
	}
	system := foldersOf(Needs{Reads: append(systemFiles, environment()...)})
	var rules []landlock.Rule
	add := func(right landlock.AccessFSSet, paths ...string) {
		for _, p := range paths {
			r := right
			if !isDir(p) {
				r &= ofFiles
			}
			rules = append(rules, landlock.PathAccess(r, p).IgnoreIfMissing())
		}
	}
	add(mayList, system.Read...)
	add(mayList, systemPaths...)
	add(mayList, linked...)
	add(mayList, a.Read...)
	add(mayAppend, a.Append...)
	add(mayKeep, a.Keep...)
	add(mayListen, a.Sockets...)
	add(rights.AccessFSWriteFile, "/dev/null")
	// V7, not the newest: later ones may restrict what we have not thought of.
	if err := landlock.V7.BestEffort().RestrictPaths(rules...); err != nil {
		return 0, noLandlock(err)
	}
	return version, nil
}

// noLandlock says why files are not confined.
func noLandlock(err error) error {
	switch {
	case err == nil, errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("this kernel has no Landlock (Linux 5.13): files are not confined")
	case errors.Is(err, unix.EPERM):
		return refusedAbove("files are not confined (Landlock)", "landlock_create_ruleset, landlock_add_rule and landlock_restrict_self")
	}
	return fmt.Errorf("files are not confined (Landlock): %w", err)
}

// refusedAbove tells what a filter of system calls that the process was started under
// forbids (EPERM) from what the kernel lacks.
func refusedAbove(without, calls string) error {
	return fmt.Errorf("%s: who started this process forbids the system calls for it, as SystemCallFilter of a systemd unit or a container's seccomp profile does; allow %s there", without, calls)
}

// environment is what variables name that Go's verifier reads (crypto/x509).
func environment() (paths []string) {
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		paths = append(paths, f)
	}
	return append(paths, filepath.SplitList(os.Getenv("SSL_CERT_DIR"))...)
}
