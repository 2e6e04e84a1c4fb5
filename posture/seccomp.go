package posture

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"

	"golang.org/x/sys/unix"
)

// calls are the system calls that a proxy makes, beside those of its architecture;
// all others fail with EPERM. What is missing is what matters: to run a program, to
// look into or signal others, to mount, to load, to trace, io_uring, namespaces. The
// kernel keeps a list of those that are allowed whatever their arguments, so that
// they cost nothing more.
const calls = `
read write readv writev pread64 pwrite64 preadv pwritev close close_range openat openat2 lseek fstat statx statfs fstatfs faccessat faccessat2
readlinkat getdents64 getcwd unlinkat mkdirat renameat renameat2 fchmod fchmodat fchown fsync fdatasync ftruncate fallocate flock utimensat fcntl dup dup3
umask splice tee vmsplice copy_file_range sendfile inotify_init1 inotify_add_watch inotify_rm_watch
epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 eventfd2 pipe2 ppoll pselect6 timerfd_create timerfd_settime
bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown socketpair
futex nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday munmap mremap madvise mincore brk mlock mlock2 munlock
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack restart_syscall sched_yield sched_getaffinity
gettid getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid capget exit exit_group
set_robust_list get_robust_list rseq membarrier timer_create timer_settime timer_delete setitimer getitimer
getrusage getrlimit prlimit64 getrandom sysinfo uname times`

// filterCalls leaves calls, on all threads.
func filterCalls() error {
	if len(archCalls) == 0 {
		return fmt.Errorf("there is no list of system calls for this architecture: none is refused")
	}
	f := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy(os.Getpid())}
	err := seccomp.LoadFilter(f)
	if errors.Is(err, unix.EPERM) {
		return refusedAbove("system calls are not refused (seccomp)", "seccomp")
	}
	if err != nil {
		return fmt.Errorf("refusing system calls (seccomp): %w", err)
	}
	return nil
}

func policy(pid int) seccomp.Policy {
	is := func(arg uint32, values ...uint64) (any []seccomp.ArgumentConditions) {
		for _, v := range values {
			any = append(any, seccomp.ArgumentConditions{{Argument: arg, Operation: seccomp.Equal, Value: v}})
		}
		return any
	}
	with := func(op seccomp.Operation, arg uint32, bits uint64) []seccomp.ArgumentConditions {
		return []seccomp.ArgumentConditions{{{Argument: arg, Operation: op, Value: bits}}}
	}
	var limited []seccomp.NameWithConditions
	limit := func(name string, any []seccomp.ArgumentConditions) {
		for _, c := range any {
			limited = append(limited, seccomp.NameWithConditions{Name: name, Conditions: c})
		}
	}
	limit("clone", with(seccomp.BitsSet, 0, unix.CLONE_THREAD)) // a thread, no process
	limit("tgkill", is(0, uint64(pid)))                         // the runtime's own, to preempt
	limit("socket", is(0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK))
	limit("prctl", is(0, unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_GET_DUMPABLE, unix.PR_CAPBSET_READ))
	limit("ioctl", []seccomp.ArgumentConditions{{
		{Argument: 1, Operation: seccomp.NotEqual, Value: unix.TIOCSTI}, // typing into the terminal
		{Argument: 1, Operation: seccomp.NotEqual, Value: unix.TIOCLINUX},
	}})
	free := slices.Concat(strings.Fields(calls), strings.Fields(archCalls))
	if mapsCode {
		free = append(free, "mmap", "mprotect")
	} else {
		limit("mmap", with(seccomp.BitsNotSet, 2, unix.PROT_EXEC))
		limit("mprotect", with(seccomp.BitsNotSet, 2, unix.PROT_EXEC))
	}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
		{Action: seccomp.ActionAllow, Names: free},
		{Action: seccomp.ActionAllow, NamesWithCondtions: limited},
		// Its flags are behind a pointer, which no filter follows: the C library then
		// takes clone.
		{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
	}}
}
