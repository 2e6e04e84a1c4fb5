package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sallyport/ct"
)

// listMemory has the lists that were fetched, for the next reload and, where
// there is a state_dir, for the next start.
type listMemory struct {
	dir string // "" is none

	mu    sync.Mutex
	known map[string]*keptList // by URL; as many as the file names
	said  map[string]time.Time // which list of each place the log has told of
}

// keptList is one list, as it came.
type keptList struct {
	URL       string    `json:"url"`
	Fetched   time.Time `json:"fetched"`
	List      []byte    `json:"list"`
	Signature []byte    `json:"signature"`
}

func newListMemory(dir string) *listMemory {
	m := &listMemory{known: map[string]*keptList{}, said: map[string]time.Time{}}
	if dir != "" {
		m.dir = filepath.Join(dir, "ct")
	}
	return m
}

func (m *listMemory) file(url string) string {
	sum := sha256.Sum256([]byte(url))
	return filepath.Join(m.dir, hex.EncodeToString(sum[:8])+".json")
}

// get gives nil where nothing was kept, or nothing that can be read; the warning
// names the file then.
func (m *listMemory) get(url string) (k *keptList, warning string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[url]; k != nil || m.dir == "" {
		return k, ""
	}
	f, err := os.Open(m.file(url))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ""
	}
	if err == nil {
		defer f.Close()
		k = new(keptList)
		// Base64 takes a third more.
		err = json.NewDecoder(io.LimitReader(f, 2*(ct.MaxList+ct.MaxSignature))).Decode(k)
		if err == nil && k.URL != url {
			err = fmt.Errorf("it is of %q", k.URL)
		}
	}
	if err != nil {
		return nil, fmt.Sprintf("the list of CT logs kept in %s is discarded: %v", m.file(url), err)
	}
	m.known[url] = k
	return k, ""
}

// put keeps k, whole or not at all.
func (m *listMemory) put(k *keptList) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[k.URL] = k
	if m.dir == "" {
		return nil
	}
	text, err := json.Marshal(k)
	if err == nil {
		err = os.MkdirAll(m.dir, 0o700)
	}
	if err == nil {
		err = replaceFile(m.file(k.URL), text)
	}
	if err != nil {
		return fmt.Errorf("keeping a list of CT logs: %w", err)
	}
	return nil
}

// news says whether the list that place has now was not told of before.
func (m *listMemory) news(place string, at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said[place].Equal(at) {
		return false
	}
	m.said[place] = at
	return true
}

func replaceFile(name string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(text); err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	return err
}
