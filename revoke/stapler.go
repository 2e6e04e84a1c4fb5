package revoke

import (
	"bytes"
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
	say   func(urgent bool, text string)
	wake  chan struct{}

	running sync.Mutex // one round at a time

	mu    sync.Mutex
	known map[[32]byte]*Stapled // of the last Run
}

// Stapled is one certificate of ours.
type Stapled struct {
	cert, issuer *x509.Certificate // issuer is nil until it is found
	now          func() time.Time
	answer       atomic.Pointer[Answer]
	due          time.Time // when to ask next
	said         string    // last, so that it is not said each time
}

// NewStapler gives one that has c fetch and tells say of trouble.
func NewStapler(c *Fetcher, say func(urgent bool, text string)) *Stapler {
	return &Stapler{cache: c, say: say, wake: make(chan struct{}, 1)}
}

// Responders are those that are asked about cert: of what it names, the good ones.
func Responders(cert *x509.Certificate) []string { return places(cert.OCSPServer) }

// Of gives what is to be handed to Run: of a certificate that Run works on already
// the same again, with its answer, so that a reload takes none away; of another one
// with what is kept of it. It is nil where cert has no responder, which is normal.
// An issuer that is nil is fetched.
func (s *Stapler) Of(cert, issuer *x509.Certificate) *Stapled {
	if len(Responders(cert)) == 0 {
		return nil
	}
	s.mu.Lock()
	old := s.known[sha256.Sum256(cert.Raw)]
	s.mu.Unlock()
	if old != nil {
		return old
	}
	c := &Stapled{cert: cert, issuer: issuer, now: s.cache.now}
	if issuer != nil {
		if a := s.cache.recall(cert, issuer); a != nil && !a.Revoked {
			c.answer.Store(a)
		}
	}
	return c
}

// Staple is the answer in DER, nil while there is none.
func (c *Stapled) Staple() []byte { return c.at(c.now()) }

// at is what may be stapled at now: strictly within its time, since clients have
// clocks of their own.
func (c *Stapled) at(now time.Time) []byte {
	a := c.answer.Load()
	if a == nil || now.Before(a.This.Add(-skew)) || !now.Before(a.Next) {
		return nil
	}
	return a.raw
}

// Answer is what there is to staple, be it in time or not; nil while there is none.
func (c *Stapled) Answer() *Answer { return c.answer.Load() }

// Cert is the certificate.
func (c *Stapled) Cert() *x509.Certificate { return c.cert }

// look is how often Run looks whether something is due. The clock that answers are
// judged by is not that of timers.
const look = 20 * time.Second

// atOnce is how many certificates are asked about at one time.
const atOnce = 8

// Run keeps the answers of own ready until ctx ends. It takes the place of a Run
// before it.
func (s *Stapler) Run(ctx context.Context, own []*Stapled) {
	known := map[[32]byte]*Stapled{}
	for _, c := range own {
		known[sha256.Sum256(c.cert.Raw)] = c
	}
	s.mu.Lock()
	s.known = known
	s.mu.Unlock()
	own = slices.Compact(slices.SortedFunc(slices.Values(own), func(a, b *Stapled) int { return bytes.Compare(a.cert.Raw, b.cert.Raw) }))
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		s.round(ctx, own)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

func (s *Stapler) round(ctx context.Context, own []*Stapled) {
	s.running.Lock()
	defer s.running.Unlock()
	now := s.cache.now()
	var due []*Stapled
	for _, c := range own {
		if c.at(now) == nil || !now.Before(c.due) {
			due = append(due, c)
		}
	}
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
func (s *Stapler) renew(ctx context.Context, c *Stapled) {
	a, err := s.ask(ctx, c)
	now := s.cache.now()
	name := fmt.Sprintf("our certificate of %.120q (serial %x)", c.cert.Subject.String(), c.cert.SerialNumber)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		what, urgent := "is served without a stapled answer", false
		if c.at(now) != nil {
			what = "is served with the stapled answer of before"
		} else if MustStaple(c.cert) {
			what, urgent = "ASKS FOR A STAPLED ANSWER AND HAS NONE: clients will refuse it", true
		}
		s.once(c, urgent, fmt.Sprintf("%s %s: %v", name, what, err))
	case a.Revoked:
		c.answer.Store(nil)
		c.due = now.Add(look)
		s.once(c, true, fmt.Sprintf("%s WAS REVOKED on %s (%s): clients that ask will refuse it; replace it", name, stamp(a.At), a.Reason))
	default:
		if c.at(now) == nil && c.said != "" {
			s.once(c, false, name+" has a stapled answer again")
		}
		c.answer.Store(a)
		c.said = ""
		c.due = a.half().Add(jitter(a.Next.Sub(a.half()) / 8))
	}
}

func (s *Stapler) ask(ctx context.Context, c *Stapled) (*Answer, error) {
	if c.issuer == nil {
		list, err := s.cache.Issuers(ctx, c.cert)
		if err != nil {
			return nil, fmt.Errorf("the certificate of its issuer has to stand behind it in its file: %w", err)
		}
		c.issuer = list[0]
	}
	return s.cache.OCSP(ctx, c.cert, c.issuer)
}

func (s *Stapler) once(c *Stapled, urgent bool, text string) {
	if c.said != text {
		c.said = text
		s.say(urgent, text)
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
