package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/wire"
)

const (
	cookieSize = 20
	secretFor  = 30 * time.Second // a cookie is good for this long at least, for twice as long at most
)

// secrets are those that cookies are made with: of now, and of before.
type secrets struct {
	born time.Time
	keys [2][32]byte
}

// jar has the secrets of a listener.
type jar struct {
	mu  sync.Mutex
	now atomic.Pointer[secrets]
}

func (j *jar) at(now time.Time) *secrets {
	if s := j.now.Load(); s != nil && now.Sub(s.born) < secretFor {
		return s
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	old := j.now.Load()
	if old != nil && now.Sub(old.born) < secretFor {
		return old
	}
	s := &secrets{born: now}
	rand.Read(s.keys[0][:]) // never fails
	if old != nil && now.Sub(old.born) < 2*secretFor {
		// Not now: a secret that came late would keep the one before it for longer.
		s.born = old.born.Add(secretFor)
		s.keys[1] = old.keys[0]
	} else {
		rand.Read(s.keys[1][:])
	}
	j.now.Store(s)
	return s
}

// export gives the secrets, and their age in nanoseconds, for adopt in another process.
func (j *jar) export(now time.Time) []byte {
	s := j.at(now)
	b := binary.BigEndian.AppendUint64(nil, uint64(now.Sub(s.born)))
	return append(append(b, s.keys[0][:]...), s.keys[1][:]...)
}

func (j *jar) adopt(b []byte, now time.Time) {
	if len(b) != 8+2*32 {
		return
	}
	age := min(time.Duration(binary.BigEndian.Uint64(b)), 2*secretFor)
	j.now.Store(&secrets{born: now.Add(-age), keys: [2][32]byte{[32]byte(b[8:]), [32]byte(b[40:])}})
}

// baker makes cookies for one reader.
type baker struct {
	jar  *jar
	with *secrets
	macs [2]hash.Hash
	text []byte
	sum  []byte
}

// cookie is what a client proves to have received where its hello's packets say to
// come from: no one else can tell it, and nothing need be kept of the client (RFC
// 6347, section 4.2.1). age is 0, or 1 for the secret before.
//
// Each part has its length or ends by itself, so that no two clients share a text.
func (b *baker) cookie(age int, now time.Time, from *sender, h *wire.HelloHead) []byte {
	if s := b.jar.at(now); s != b.with {
		b.with = s
		for i := range b.macs {
			b.macs[i] = hmac.New(sha256.New, s.keys[i][:])
		}
	}
	t := appendAddrPort(b.text[:0], from.client)
	t = appendAddrPort(t, from.who.Client) // so that the hello comes again in nobody else's name
	t = appendAddr(t, from.local)
	t = append(t, h.Before...)
	b.text = append(t, h.After...)
	m := b.macs[age]
	m.Reset()
	m.Write(b.text)
	b.sum = m.Sum(b.sum[:0])
	return b.sum[:cookieSize]
}

// knows says whether the hello brings a cookie of ours.
func (b *baker) knows(now time.Time, from *sender, h *wire.HelloHead) bool {
	return len(h.Cookie) == cookieSize &&
		(hmac.Equal(h.Cookie, b.cookie(0, now, from, h)) || hmac.Equal(h.Cookie, b.cookie(1, now, from, h)))
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(appendAddr(b, a.Addr()), a.Port())
}

func appendAddr(b []byte, a netip.Addr) []byte {
	whole := a.As16()
	b = append(b, whole[:]...)
	b = append(b, byte(len(a.Zone())))
	return append(b, a.Zone()...)
}
