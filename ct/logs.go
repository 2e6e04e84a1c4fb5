package ct

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Logs are the lists in force. They may be replaced while others judge by them;
// the zero value has none.
type Logs struct{ now atomic.Pointer[lists] }

// lists never change, but for what is remembered by them.
type lists struct {
	all    []*List
	oldest time.Time
	byID   map[[32]byte]*Log
	known  memory
}

// Set puts all in the place of what was there. Where two have the same log, the
// first is heard.
func (l *Logs) Set(all ...*List) {
	n := &lists{all: all, byID: map[[32]byte]*Log{}}
	for _, list := range all {
		if n.oldest.IsZero() || list.Time.Before(n.oldest) {
			n.oldest = list.Time
		}
		for _, log := range list.Logs {
			if n.byID[log.ID] == nil {
				n.byID[log.ID] = log
			}
		}
	}
	l.now.Store(n)
}

// Oldest is when the oldest of the lists was made; zero of none.
func (l *Logs) Oldest() time.Time {
	if n := l.now.Load(); n != nil {
		return n.oldest
	}
	return time.Time{}
}

// Len counts the logs.
func (l *Logs) Len() int {
	if n := l.now.Load(); n != nil {
		return len(n.byID)
	}
	return 0
}

// memory holds what the signatures of one certificate's SCTs were found to be,
// which costs some 80 microseconds each and does not change with time. A change
// of the lists begins a new one.
type memory struct {
	mu    sync.Mutex
	known map[[32]byte][]Entry
}

// maxKnown bounds what servers and clients can have us keep; an entry is some 300 bytes.
const maxKnown = 512

func (m *memory) at(k [32]byte) ([]Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.known[k]
	return e, ok
}

func (m *memory) keep(k [32]byte, e []Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxKnown {
		m.known = make(map[[32]byte][]Entry)
	}
	m.known[k] = e
}

// key is a hash over all that the signatures depend on, each with its length.
func (e *Evidence) key() (k [32]byte) {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	put(e.Leaf.Raw)
	put(e.Staple)
	for i := range e.Issuers {
		put(e.Issuers[i][:])
	}
	put(nil) // issuers end here
	for _, s := range e.Handshake {
		put(s)
	}
	h.Sum(k[:0])
	return k
}
