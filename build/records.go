package build

import (
	"context"
	"crypto/x509"
	"time"

	"sallyport/dane"
	"sallyport/verify"
)

// leaf is one of our certificates at one listener. Programs that follow each other
// share it.
type leaf struct {
	held         bool      // another is shown in its place
	since, until time.Time // of that
	records      map[string]*records
}

// records is what is known of one name's TLSA records, and whether a certificate passes
// by them.
type records struct {
	found
	known  bool      // a look-up has succeeded
	safe   time.Time // when nobody remembers any that the certificate does not pass by
	due    time.Time // when to ask next
	said   phase
	saidAt time.Time
}

// found is what one look-up has found.
type found struct {
	err    error         // it failed
	count  bool          // there are records that clients go by
	passes bool          // one of them lets the certificate pass
	ttl    time.Duration // of the set, as published
}

// Bounds of how often is asked.
const (
	askLeast = time.Second
	askMost  = time.Hour
	askAgain = 30 * time.Second // where a look-up failed
)

func pace(ttl time.Duration) time.Duration { return min(max(ttl, askLeast), askMost) }

// saw takes what a look-up has found. Others may have asked just before now, and go
// by what there was then for its whole TTL.
func (r *records) saw(f found, now time.Time) {
	if f.err != nil {
		r.err, r.due = f.err, now.Add(askAgain)
		return
	}
	if end := now.Add(max(f.ttl, r.ttl)); f.count && !(f.passes && r.passes) && end.After(r.safe) {
		r.safe = end
	}
	r.found, r.known, r.due = f, true, now.Add(pace(f.ttl))
	if f.passes && now.Before(r.safe) && r.safe.Before(r.due) {
		r.due = r.safe
	}
}

// ready says that no client is known to go by records that refuse the certificate.
// After a look-up that failed nothing is known.
func (r *records) ready(now time.Time) bool {
	return r.known && r.err == nil && (!r.count || r.passes && !now.Before(r.safe))
}

// refused says that there are records, and that the certificate does not pass by them.
func (r *records) refused() bool { return r.known && r.count && !r.passes }

// phase is what keeps a certificate held.
type phase uint8

const (
	phaseNone    phase = iota // it was not asked yet
	phaseLookup               // nobody says what there is
	phaseMissing              // its record
	phaseWaiting              // until the records from before are forgotten
)

func (r *records) phase() phase {
	switch {
	case r.err != nil:
		return phaseLookup
	case !r.known:
		return phaseNone
	case r.refused():
		return phaseMissing
	}
	return phaseWaiting
}

// sayEvery is how often is said again what has not changed.
const sayEvery = time.Hour

// say says whether p is to be said.
func (r *records) say(p phase, now time.Time) bool {
	if p == r.said && now.Sub(r.saidAt) < sayEvery {
		return false
	}
	r.said, r.saidAt = p, now
	return true
}

// deadline is when the one after c is shown, whatever DNS has: a day before c expires,
// or a tenth of its life.
func deadline(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-min(24*time.Hour, c.NotAfter.Sub(c.NotBefore)/10))
}

// find looks up the records of a service, and holds a chain against them.
func find(ctx context.Context, at verify.TLSA, p *verify.Presented) found {
	s, err := at.Service(ctx, p.Name, p.Port, p.Transport)
	switch {
	case err != nil:
		return found{err: err}
	case s.State != dane.Secure || len(dane.Usable(s.Records)) == 0:
		return found{ttl: s.Whole}
	}
	return found{count: true, passes: verify.PassesBy(ctx, s, p) != "", ttl: s.Whole}
}

// recordOf is what is to be published for a leaf.
func recordOf(c *x509.Certificate, host string, port uint16, transport string) string {
	r, err := dane.New(c, dane.DANEEE, dane.SPKI, dane.SHA256)
	if err != nil { // those parameters are known
		return ""
	}
	return dane.Line(host, port, transport, r)
}
