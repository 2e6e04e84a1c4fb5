package secure

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
)

// Sessions keeps what DTLS sessions are resumed from. DTLS 1.2 could seal it into a
// ticket, but the engine knows only sessions by ID, which the server has to keep.
// It is bounded, the oldest goes first, and nothing outlives a day.
type Sessions struct {
	now func() time.Time

	mu   sync.Mutex
	most int
	by   map[[32]byte]*list.Element
	age  list.List // of *kept, the oldest first
}

type kept struct {
	key     [32]byte
	session dtls.Session
	since   time.Time
}

const (
	mostSessions = 20_000 // of some 500 bytes
	sessionLife  = ticketDay
)

// NewSessions gives an empty store.
func NewSessions(now func() time.Time) *Sessions {
	return &Sessions{now: now, most: mostSessions, by: map[[32]byte]*list.Element{}}
}

func (s *Sessions) get(key [32]byte) (dtls.Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.by[key]
	if e == nil {
		return dtls.Session{}, false
	}
	k := e.Value.(*kept)
	if age := s.now().Sub(k.since); age < 0 || age >= sessionLife {
		s.drop(e)
		return dtls.Session{}, false
	}
	session := k.session
	session.Secret = bytes.Clone(session.Secret) // drop wipes the store's
	return session, true
}

func (s *Sessions) put(key [32]byte, session dtls.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.by[key]; e != nil {
		s.drop(e)
	}
	for s.age.Len() >= s.most {
		s.drop(s.age.Front())
	}
	s.by[key] = s.age.PushBack(&kept{key, session, s.now()})
}

func (s *Sessions) remove(key [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.by[key]; e != nil {
		s.drop(e)
	}
}

func (s *Sessions) drop(e *list.Element) {
	k := s.age.Remove(e).(*kept)
	delete(s.by, k.key)
	clear(k.session.Secret)
}

// resumable is one handshake's view of a store, as the engine asks for it. What
// must not be crossed is part of each key.
type resumable struct {
	store *Sessions
	scope []byte
	whole bool   // scope is the key: the engine's own, on a client, is an address
	never bool   // this handshake resumes nothing
	given []byte // ID of the session that the engine was given
}

// scope hashes what must be equal for a session to be taken up again.
func scope(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return h.Sum(nil)
}

func (r *resumable) key(id []byte) [32]byte {
	if r.whole {
		id = nil
	}
	return sha256.Sum256(append(r.scope[:len(r.scope):len(r.scope)], id...))
}

func (r *resumable) Set(id []byte, s dtls.Session) error {
	r.store.put(r.key(id), s)
	return nil
}

// Get gives the zero Session, which the engine takes for none.
func (r *resumable) Get(id []byte) (dtls.Session, error) {
	if r.never {
		return dtls.Session{}, nil
	}
	s, ok := r.store.get(r.key(id))
	if !ok {
		return dtls.Session{}, nil
	}
	r.given = s.ID
	return s, nil
}

func (r *resumable) Del(id []byte) error {
	r.store.remove(r.key(id))
	return nil
}

// resumed says whether the handshake that ended with this ID took up what was given.
func (r *resumable) resumed(id []byte) bool {
	return r != nil && len(id) > 0 && string(id) == string(r.given)
}
