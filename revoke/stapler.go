package revoke

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// oidFeature is RFC 7633, and 5 the number of status_request in it.
var oidFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

const statusRequest = 5

// MustStaple says whether cert asks for a stapled answer in every handshake.
func MustStaple(cert *x509.Certificate) bool {
	for _, e := range cert.Extensions {
		var features []int
		if e.Id.Equal(oidFeature) && unmarshal(e.Value, &features) == nil {
			return slices.Contains(features, statusRequest)
		}
	}
	return false
}

// Stapler fetches answers about certificates of our own ahead of the handshakes
// that they are stapled to. Run does the work; handshakes wait for nothing.
type Stapler struct {
	cache *Fetcher
	say   func(text string)

	mu   sync.Mutex
	list map[[32]byte]*stapled
	wake chan struct{}
}

// stapled is one certificate of ours.
type stapled struct {
	cert, issuer *x509.Certificate
	answer       atomic.Pointer[Answer]
	due          time.Time // when to ask next
	said         string    // last, so that it is not said each time
}

// NewStapler gives one that has c fetch and tells say of trouble.
func NewStapler(c *Fetcher, say func(text string)) *Stapler {
	return &Stapler{cache: c, say: say, list: map[[32]byte]*stapled{}, wake: make(chan struct{}, 1)}
}

// Add has answers about cert kept ready. The function gives the current one in
// DER, nil while there is none; it is nil itself where cert has no responder, which
// is normal.
func (s *Stapler) Add(cert, issuer *x509.Certificate) func() []byte {
	if len(places(cert.OCSPServer)) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256(cert.Raw)
	c := s.list[key]
	if c == nil {
		c = &stapled{cert: cert, issuer: issuer}
		s.list[key] = c
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return func() []byte { return c.at(s.cache.now()) }
}

// at is what may be stapled at now: strictly within its time, since clients have
// clocks of their own.
func (c *stapled) at(now time.Time) []byte {
	a := c.answer.Load()
	if a == nil || now.Before(a.This.Add(-skew)) || !now.Before(a.Next) {
		return nil
	}
	return a.raw
}

// look is how often Run looks whether something is due. The clock that answers are
// judged by is not that of timers.
const look = 20 * time.Second

// atOnce is how many certificates are asked about at one time.
const atOnce = 8

// Run asks until ctx ends.
func (s *Stapler) Run(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

func (s *Stapler) round(ctx context.Context) {
	now := s.cache.now()
	s.mu.Lock()
	var due []*stapled
	for _, c := range s.list {
		if c.answer.Load() == nil || c.at(now) == nil || !now.Before(c.due) {
			due = append(due, c)
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, atOnce)
	for _, c := range due {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-places }()
			s.renew(ctx, c)
		})
	}
}

// renew takes what the cache has, which fetches what is past half of its time.
func (s *Stapler) renew(ctx context.Context, c *stapled) {
	a, err := s.cache.OCSP(ctx, c.cert, c.issuer)
	now := s.cache.now()
	name := fmt.Sprintf("our certificate of %.120q (serial %x)", c.cert.Subject.String(), c.cert.SerialNumber)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		what := "is served without a stapled answer"
		if c.at(now) != nil {
			what = "is served with the stapled answer of before"
		} else if MustStaple(c.cert) {
			what = "ASKS FOR A STAPLED ANSWER AND HAS NONE: clients will refuse it"
		}
		s.once(c, fmt.Sprintf("%s %s: %v", name, what, err))
	case a.Revoked:
		c.answer.Store(nil)
		c.due = now.Add(look)
		s.once(c, fmt.Sprintf("%s WAS REVOKED on %s (%s): clients that ask will refuse it; replace it", name, stamp(a.At), a.Reason))
	default:
		if c.at(now) == nil && c.said != "" {
			s.once(c, name+" has a stapled answer again")
		}
		c.answer.Store(a)
		c.said = ""
		c.due = a.half().Add(jitter(a.Next.Sub(a.half()) / 8))
	}
}

func (s *Stapler) once(c *stapled, text string) {
	if c.said != text {
		c.said = text
		s.say(text)
	}
}

// jitter is up to most, so that who has a thousand certificates does not ask about
// all of them in one second.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	n, err := rand.Int(rand.Reader, big.NewInt(int64(most)))
	if err != nil {
		return 0
	}
	return time.Duration(n.Int64())
}
