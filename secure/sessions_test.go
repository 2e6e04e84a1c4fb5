package secure

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
)

func sessionOf(n int) dtls.Session {
	return dtls.Session{ID: fmt.Append(nil, n), Secret: bytes.Repeat([]byte{byte(n) | 1}, 48)}
}

func keyOf(n int) [32]byte { return [32]byte(scope(fmt.Sprint(n))) }

func TestSessionsAreBounded(t *testing.T) {
	s := NewSessions(time.Now)
	s.most = 3
	for n := range 5 {
		s.put(keyOf(n), sessionOf(n))
	}
	for n := range 5 {
		if _, ok := s.get(keyOf(n)); ok != (n >= 2) {
			t.Errorf("session %d is there: %t", n, ok)
		}
	}
	s.put(keyOf(3), sessionOf(13)) // in the place of its own, and the youngest now
	s.put(keyOf(5), sessionOf(5))
	for n, want := range map[int]string{2: "", 3: "13", 4: "4", 5: "5"} {
		if got, _ := s.get(keyOf(n)); string(got.ID) != want {
			t.Errorf("session %d is %q, want %q", n, got.ID, want)
		}
	}
	s.remove(keyOf(4))
	s.remove(keyOf(4))
	if _, ok := s.get(keyOf(4)); ok || s.age.Len() != 2 || len(s.by) != 2 {
		t.Errorf("%d and %d are left", s.age.Len(), len(s.by))
	}
}

func TestSessionsAge(t *testing.T) {
	now := time.Now()
	s := NewSessions(func() time.Time { return now })
	start := now
	s.put(keyOf(1), sessionOf(1))
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{sessionLife - 1, true}, {0, true}} {
		now = start.Add(c.age)
		if _, ok := s.get(keyOf(1)); ok != c.want {
			t.Errorf("after %v it is there: %t", c.age, ok)
		}
	}
	for _, age := range []time.Duration{sessionLife, -time.Second} {
		now = start
		s.put(keyOf(1), sessionOf(1))
		now = start.Add(age)
		if _, ok := s.get(keyOf(1)); ok {
			t.Errorf("after %v it is there", age)
		}
		if now = start; s.age.Len() != 0 {
			t.Errorf("after %v it is kept", age)
		}
	}
}

// What was given stays whole while the store lets go of its own, of which nothing is left.
func TestSessionsForget(t *testing.T) {
	s := NewSessions(time.Now)
	mine := sessionOf(1)
	s.put(keyOf(1), mine)
	given, _ := s.get(keyOf(1))
	s.remove(keyOf(1))
	if !bytes.Equal(mine.Secret, make([]byte, 48)) {
		t.Error("the secret is still in memory")
	}
	if !bytes.Equal(given.Secret, sessionOf(1).Secret) {
		t.Error("the secret that was given is gone")
	}
}

func TestSessionsSideBySide(t *testing.T) {
	s := NewSessions(time.Now)
	s.most = 4
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			r := &resumable{store: s, scope: scope("r")}
			for i := range 500 {
				n := (i + w) % 8
				r.Set(fmt.Append(nil, n), sessionOf(n))
				if got, err := r.Get(fmt.Append(nil, n)); err != nil || len(got.ID) > 0 && !bytes.Equal(got.Secret, sessionOf(n).Secret) {
					t.Errorf("session %d has secret %x, %v", n, got.Secret, err)
				}
				if i%10 == 0 {
					r.Del(fmt.Append(nil, n))
				}
			}
		})
	}
	all.Wait()
}

func TestSessionScopes(t *testing.T) {
	store := NewSessions(time.Now)
	seen := map[[32]byte]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"a", "b"}, {"ab"}, {"ab", ""}, {"b", "a"}, {"1:a"}, {"1", "a"}} {
		r := &resumable{store: store, scope: scope(parts...)}
		for _, id := range []string{"", "1", "2"} {
			key, what := r.key([]byte(id)), fmt.Sprintf("%q of %q", id, parts)
			if other := seen[key]; other != "" {
				t.Errorf("%s has the key of %s", what, other)
			}
			seen[key] = what
		}
		r.whole = true
		if r.key([]byte("1")) != r.key([]byte("2")) {
			t.Errorf("%q: the engine's name for a server counts", parts)
		}
	}
	r := &resumable{store: store, scope: scope("a")}
	r.Set([]byte("1"), sessionOf(1))
	if got, err := r.Get([]byte("1")); err != nil || string(got.ID) != "1" || !r.resumed([]byte("1")) || r.resumed([]byte("2")) || r.resumed(nil) {
		t.Errorf("%+v, %v", got, err)
	}
	never := &resumable{store: store, scope: scope("a"), never: true}
	other := &resumable{store: store, scope: scope("b")}
	for _, r := range []*resumable{never, other} {
		if got, err := r.Get([]byte("1")); err != nil || len(got.ID) != 0 || r.resumed([]byte("1")) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if (*resumable)(nil).resumed([]byte("1")) {
		t.Error("nothing resumed")
	}
}
