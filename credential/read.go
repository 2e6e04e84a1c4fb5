package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"sallyport/wait"
)

// maxSize bounds what is read of a certificate, a key or a bundle of anchors.
const maxSize = 4 << 20

// Read gives what is at location: FILE, env:VAR, or cred:NAME for a credential
// that systemd passes (systemd.exec(5), LoadCredential=). The FileInfo is that of
// the file itself behind any links, and nil where there is none to judge.
func Read(location string, env func(string) string) ([]byte, os.FileInfo, error) {
	return ReadUpTo(maxSize, location, env)
}

// ReadUpTo is Read for what may have another size, in bytes.
func ReadUpTo(size int64, location string, env func(string) string) ([]byte, os.FileInfo, error) {
	if v, ok := strings.CutPrefix(location, "env:"); ok {
		text := env(v)
		if text == "" {
			return nil, nil, fmt.Errorf("%s: the variable is not set", location)
		}
		return []byte(text), nil, nil
	}
	if n, ok := strings.CutPrefix(location, "cred:"); ok {
		dir := env("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, nil, fmt.Errorf("%s: $CREDENTIALS_DIRECTORY is not set: the unit needs LoadCredential=%s:/path/of/the/file", location, n)
		}
		if n == "" || n == "." || n == ".." || strings.Contains(n, "/") {
			return nil, nil, fmt.Errorf("%s: a credential's name has no path", location)
		}
		data, _, err := readUpTo(size, filepath.Join(dir, n))
		return data, nil, err
	}
	return readUpTo(size, location)
}

// File is the file that Read opens for location, and "" where there is none.
func File(location string, env func(string) string) string {
	if strings.HasPrefix(location, "env:") {
		return ""
	}
	if n, ok := strings.CutPrefix(location, "cred:"); ok {
		if env == nil || env("CREDENTIALS_DIRECTORY") == "" {
			return ""
		}
		return filepath.Join(env("CREDENTIALS_DIRECTORY"), n)
	}
	return location
}

func readFile(name string) ([]byte, os.FileInfo, error) { return readUpTo(maxSize, name) }

func readUpTo(size int64, name string) ([]byte, os.FileInfo, error) {
	type file struct {
		data []byte
		info os.FileInfo
	}
	f, err := wait.AtMost(wait.Time, func(givenUp func() bool) (f file, err error) {
		f.data, f.info, err = readWhole(size, name, givenUp)
		return f, err
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%s: %s", name, wait.Hangs)
	}
	return f.data, f.info, err
}

func readWhole(size int64, name string, givenUp func() bool) ([]byte, os.FileInfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, explain(name, err)
	}
	defer f.Close()
	if givenUp() {
		return nil, nil, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, explain(name, err)
	}
	if info.IsDir() {
		return nil, nil, fmt.Errorf("%s: is a folder where a file is expected", name)
	}
	var data bytes.Buffer
	if info.Size() <= size {
		data.Grow(int(info.Size()) + bytes.MinRead)
		if _, err := data.ReadFrom(io.LimitReader(f, size+1)); err != nil { // a pipe has no size
			return nil, nil, explain(name, err)
		}
	}
	if max(info.Size(), int64(data.Len())) > size {
		return nil, nil, fmt.Errorf("%s: is larger than %d MiB", name, size>>20)
	}
	return data.Bytes(), info, nil
}

// explain adds who was refused: the program may run as another user than the one
// who reads the message.
func explain(name string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	whose := ""
	if info, e := os.Stat(name); e == nil {
		whose = fmt.Sprintf("; the file is %s", ownership(info))
	}
	return fmt.Errorf("%w: sallyport runs as %s%s", err, self(), whose)
}

func self() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return fmt.Sprintf("user %q (uid %s)", u.Username, id)
	}
	return "uid " + id
}
