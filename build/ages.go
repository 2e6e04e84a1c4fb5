package build

import (
	"fmt"
	"time"

	"sallyport/ct"
	"sallyport/revoke"
)

// Ages tells how old is what others have signed and this program goes by, by its
// own clock.
type Ages struct {
	now     func() time.Time
	logs    *ct.Logs // nil where no list is asked for
	staples []*revoke.Stapled
}

// Staple is one of our own certificates that an answer is to be stapled to.
type Staple struct {
	Name   string // the first that it is for
	Serial string // in hexadecimal
	Held   bool   // there is an answer; what follows is of it
	Age    time.Duration
	Left   time.Duration // until its nextUpdate; negative past that
}

func (b *builder) ages() *Ages {
	a := &Ages{now: b.now, staples: b.own}
	if b.lists != nil && b.lists.used {
		a.logs = b.lists.logs
	}
	return a
}

// LogLists is the age of the oldest list of CT logs, if there is one in force.
func (a *Ages) LogLists() (age time.Duration, ok bool) {
	if a.logs == nil || a.logs.Oldest().IsZero() {
		return 0, false
	}
	return a.now().Sub(a.logs.Oldest()), true
}

// Staples are those of all certificates that have a responder.
func (a *Ages) Staples() []Staple {
	list := make([]Staple, 0, len(a.staples))
	now := a.now()
	for _, own := range a.staples {
		c := own.Cert()
		s := Staple{Name: c.Subject.CommonName, Serial: fmt.Sprintf("%x", c.SerialNumber)}
		if len(c.DNSNames) > 0 {
			s.Name = c.DNSNames[0]
		}
		if answer := own.Answer(); answer != nil {
			s.Held, s.Age, s.Left = true, now.Sub(answer.This), answer.Next.Sub(now)
		}
		list = append(list, s)
	}
	return list
}
