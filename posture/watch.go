package posture

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchQuiet = 200 * time.Millisecond // after which a series of changes is over
	watchMost  = 800 * time.Millisecond // which it is in any case, so that a new certificate is seen within a second
	watchPoll  = time.Minute            // for what the kernel does not tell of: a network file system, the source of a bind mount
	watchAlone = 2 * time.Second        // where it tells of nothing
)

// Watcher sees when files change: by writing, by rename, or by another target of a
// symbolic link anywhere on the way to them. The kernel is asked about folders, and
// what it says is a hint: what has changed is what stat(2) says of the files.
type Watcher struct {
	notify *os.File // inotify(7); nil: there is none, and only polling

	mu      sync.Mutex
	paths   []string
	marks   Marks
	watches map[string]int // of folders
}

// Marks tell one state of files from another, by their paths.
type Marks map[string]string

// NewWatcher gives one that watches nothing yet. With an error it still does, every
// few seconds.
func NewWatcher() (*Watcher, error) {
	w := &Watcher{watches: map[string]int{}}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return w, fmt.Errorf("watching files (inotify): %w; they are looked at each %s", err, watchAlone)
	}
	w.notify = os.NewFile(uintptr(fd), "inotify")
	return w, nil
}

// Close ends Run.
func (w *Watcher) Close() {
	if w.notify != nil {
		w.notify.Close()
	}
}

// Marks gives the state of what is watched.
func (w *Watcher) Marks() Marks {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mark(w.paths)
}

// Watch has w watch these files, folders and patterns in place of those before. read
// is their state before they were read, as far as they were watched then, and since
// when that reading began: what is newer counts as changed.
func (w *Watcher) Watch(paths []string, read Marks, since time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	w.marks = Marks{}
	for _, p := range w.paths {
		was, known := read[p]
		if !known {
			was = markOf(p, since)
		}
		w.marks[p] = was
	}
	return w.arm()
}

// Run tells changed of each change, until ctx ends or w is closed. Who is still busy
// with the last one is told once.
func (w *Watcher) Run(ctx context.Context, changed chan<- struct{}) {
	hints := make(chan struct{}, 1)
	every := watchAlone
	if w.notify != nil {
		every = watchPoll
		go w.listen(hints)
	}
	poll := time.NewTicker(every)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-hints:
			if !settle(ctx, hints) {
				return
			}
		}
		if w.differs() {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}

// listen reads what the kernel says, and passes on that it said something.
func (w *Watcher) listen(hints chan<- struct{}) {
	buf := make([]byte, 64<<10)
	for {
		if _, err := w.notify.Read(buf); err != nil {
			return // closed
		}
		select {
		case hints <- struct{}{}:
		default:
		}
	}
}

// settle waits until hints are over, and says whether ctx is not.
func settle(ctx context.Context, hints <-chan struct{}) bool {
	quiet, most := time.NewTimer(watchQuiet), time.NewTimer(watchMost)
	defer quiet.Stop()
	defer most.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-hints:
			quiet.Reset(watchQuiet)
		case <-quiet.C:
			return true
		case <-most.C:
			return true
		}
	}
}

// differs says whether anything has changed since it was last asked, or read.
func (w *Watcher) differs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := mark(w.paths)
	changed := !maps.Equal(now, w.marks)
	w.marks = now
	_ = w.arm() // a folder may be another one by that name; what cannot be watched has been said
	return changed
}

const watchMask = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// arm has the kernel tell of the folders on the way to w.paths, and of no others.
func (w *Watcher) arm() error {
	if w.notify == nil {
		return nil
	}
	raw, err := w.notify.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		now := map[string]int{}
		for _, folder := range watchedFolders(w.paths) {
			wd, err := unix.InotifyAddWatch(int(fd), folder, watchMask)
			if err != nil && failed == nil {
				failed = fmt.Errorf("watching %s: %w; it is looked at each %s", folder, err, watchPoll)
			} else if err == nil {
				now[folder] = wd
			}
		}
		keep := slices.Collect(maps.Values(now)) // two paths may be one folder
		for _, wd := range w.watches {
			if !slices.Contains(keep, wd) {
				_, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) // gone already where the folder is
			}
		}
		w.watches = now
	})
	if err != nil {
		return err
	}
	return failed
}

// watchedFolders are those in which something happens when one of paths changes.
func watchedFolders(paths []string) []string {
	f := folders{set: map[string]bool{}, trails: map[string]string{}}
	for _, p := range paths {
		f.add(p)
		if !isPattern(p) {
			continue
		}
		for _, match := range expand(p) {
			f.add(match)
		}
		for _, dir := range expand(filepath.Dir(p)) {
			f.add(filepath.Join(dir, "any"))
		}
	}
	return slices.Sorted(maps.Keys(f.set))
}

// folders are gathered; of ten thousand files in one the way to it is followed once.
type folders struct {
	set    map[string]bool
	trails map[string]string
}

func (f *folders) add(path string) {
	dir, base := filepath.Split(strings.TrimRight(absolute(path), "/"))
	real, known := f.trails[dir]
	if !known {
		real = f.follow(dir)
		f.trails[dir] = real
	}
	path = filepath.Join(real, base)
	switch info, err := os.Lstat(path); {
	case err != nil:
		f.put(existing(real))
	case info.IsDir():
		f.put(path)
		f.put(real)
	case info.Mode().Type() == os.ModeSymlink:
		f.put(real)
		f.put(existing(filepath.Dir(f.follow(path))))
	default:
		f.put(real)
	}
}

// follow puts in the folders of the links on the way to path.
func (f *folders) follow(path string) (real string) {
	real, holders := trail(path)
	for _, h := range holders {
		f.put(h)
	}
	return real
}

func (f *folders) put(folder string) {
	if !virtual(folder+"/") && isDir(folder) {
		f.set[folder] = true
	}
}

func mark(paths []string) Marks {
	m := Marks{}
	for _, p := range paths {
		m[p] = markOf(p, time.Time{})
	}
	return m
}

// markOf tells one state of what path stands for from another. A file that has
// changed after since, where that is a time, has a mark that it never has again.
func markOf(path string, since time.Time) string {
	var b strings.Builder
	for _, name := range expand(path) {
		info, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&b, "%q absent\n", name)
			continue
		}
		s, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok || info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeDevice) != 0:
		case info.IsDir():
			fmt.Fprintf(&b, "%q folder %d %d %o\n", name, s.Dev, s.Ino, s.Mode)
		default:
			if !since.IsZero() && time.Unix(s.Ctim.Unix()).After(since) {
				b.WriteString("newer ")
			}
			fmt.Fprintf(&b, "%q %d %d %o %d %d %d\n", name, s.Dev, s.Ino, s.Mode, s.Size, s.Mtim.Nano(), s.Ctim.Nano())
		}
	}
	return b.String()
}
