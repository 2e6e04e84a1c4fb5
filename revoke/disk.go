package revoke

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// disk keeps what was fetched over a restart, one file a key, as it came. Nothing
// in it is believed: whoever reads a file verifies it as if it came anew.
type disk struct {
	dir                string
	maxFiles, maxBytes int

	mu    sync.Mutex
	files map[string]file
	bytes int
}

type file struct {
	size int
	at   time.Time // when it was written
}

// Endings of the files, after a hash of the key.
const (
	ocspFile = ".ocsp"
	crlFile  = ".crl"
)

// openDisk makes dir and counts what is in it; of none it keeps nothing.
func openDisk(dir string, maxFiles, maxBytes int) (*disk, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder for answers about revocation: %w", err)
	}
	d := &disk{dir: dir, maxFiles: maxFiles, maxBytes: maxBytes, files: map[string]file{}}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of answers about revocation: %w", err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if strings.HasPrefix(e.Name(), ".new-") {
			os.Remove(filepath.Join(dir, e.Name())) // of a process that was killed
			continue
		}
		d.files[e.Name()] = file{int(info.Size()), info.ModTime()}
		d.bytes += int(info.Size())
	}
	d.prune()
	return d, nil
}

func fileName(key, ending string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16]) + ending
}

// path is where name is, for texts.
func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

// read gives what is kept by name, nil if nothing is.
func (d *disk) read(name string, limit int) []byte {
	if d == nil {
		return nil
	}
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

// write keeps b by name, whole or not at all.
func (d *disk) write(name string, b []byte, now time.Time) error {
	if d == nil || len(b) > d.maxBytes {
		return nil
	}
	tmp, err := os.CreateTemp(d.dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keeping an answer about revocation: %w", err)
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Sync()
	}
	err = cmp.Or(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), d.path(name))
	}
	if err != nil {
		return fmt.Errorf("keeping an answer about revocation: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += len(b) - d.files[name].size
	d.files[name] = file{len(b), now}
	d.prune()
	return nil
}

func (d *disk) remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(name)
}

// drop removes one file. d.mu is held.
func (d *disk) drop(name string) {
	if err := os.Remove(d.path(name)); err == nil || errors.Is(err, fs.ErrNotExist) {
		d.bytes -= d.files[name].size
		delete(d.files, name)
	}
}

// prune drops the oldest files beyond the bounds, a tenth at once, so that it is
// seldom. d.mu is held.
func (d *disk) prune() {
	if len(d.files) <= d.maxFiles && d.bytes <= d.maxBytes {
		return
	}
	names := make([]string, 0, len(d.files))
	for n := range d.files {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { return d.files[a].at.Compare(d.files[b].at) })
	for _, n := range names {
		if len(d.files) <= d.maxFiles*9/10 && d.bytes <= d.maxBytes/10*9 {
			return
		}
		d.drop(n)
	}
}
