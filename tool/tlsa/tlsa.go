// Package tlsa prints the TLSA records of certificates, and holds those that are
// published against them.
package tlsa

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/dane"
	"sallyport/verify"
)

// Place is a certificate at a service.
type Place struct {
	From      string // where it is from, for people
	Host      string // "" where none is known
	Port      uint16
	Transport string
	Chain     []*x509.Certificate
}

func (p *Place) name() string {
	if p.Host == "" {
		return ""
	}
	return dane.RecordName(p.Host, p.Port, p.Transport)
}

// Form says which record is made of a certificate.
type Form struct {
	Usage    dane.Usage
	Selector dane.Selector
	Matching dane.Matching
	Generic  bool // as RFC 3597 has it
}

// Record makes p's. For an issuer's (usages 0 and 2) it is the last certificate of the
// chain: the one that lives longest.
func (f Form) Record(p *Place) (dane.Record, error) {
	c := p.Chain[0]
	if f.Usage == dane.PKIXTA || f.Usage == dane.DANETA {
		if len(p.Chain) == 1 {
			return dane.Record{}, fmt.Errorf("%s has no issuer's certificate, which a record of usage %d is made of\nhint: --usage 3, or a file with the chain", p.From, f.Usage)
		}
		c = p.Chain[len(p.Chain)-1]
	}
	return dane.New(c, f.Usage, f.Selector, f.Matching)
}

// Line is p's record as a zone file has it, without its name where none is known.
func (f Form) Line(p *Place) (string, error) {
	r, err := f.Record(p)
	if err != nil {
		return "", err
	}
	if p.Host != "" && !f.Generic {
		return dane.Line(p.Host, p.Port, p.Transport, r), nil
	}
	data := "IN TLSA " + r.String()
	if f.Generic {
		data = "IN " + r.Generic()
	}
	if p.Host == "" {
		return data, nil
	}
	return p.name() + ". " + data, nil
}

// Report is what DNS says of one service, and what becomes of its certificates by that.
type Report struct {
	Name         string      `json:"name"`
	State        string      `json:"dnssec"` // secure, insecure, bogus or failed
	Error        string      `json:"error,omitempty"`
	TTL          int         `json:"ttl"` // seconds
	Records      []Published `json:"records,omitempty"`
	Certificates []Judged    `json:"certificates"`
}

// Published is a record that is there.
type Published struct {
	Record   string   `json:"record"`
	Unusable string   `json:"unusable,omitempty"`
	Matches  []string `json:"matches,omitempty"`
}

// Judged is a certificate by the records.
type Judged struct {
	From   string    `json:"from"`
	Passes bool      `json:"passes"`
	By     string    `json:"by,omitempty"`
	Safe   time.Time `json:"safe_from,omitzero"` // when nobody has records from before these any more
	Needs  string    `json:"needs,omitempty"`    // the record to publish; "" where others have to be mended first
}

// Good says that every certificate passes by records that count.
func (r *Report) Good() bool {
	return r.State == dane.Secure.String() && !slices.ContainsFunc(r.Certificates, func(j Judged) bool { return !j.Passes })
}

// Records are where a look-up is made.
type Records interface {
	Service(ctx context.Context, host string, port uint16, transport string) (*dane.Service, error)
}

// Check looks up what is published for a service, and judges its certificates: all of
// places are at one.
func Check(ctx context.Context, at Records, places []*Place, f Form, now time.Time) *Report {
	p := places[0]
	r := &Report{Name: p.name(), State: dane.Failed.String()}
	s, err := at.Service(ctx, p.Host, p.Port, p.Transport)
	if err != nil {
		if e, ok := err.(*dane.Error); ok {
			r.State = e.State.String()
		}
		r.Error = err.Error()
		s = &dane.Service{Name: r.Name}
	} else {
		r.Name, r.State, r.TTL = s.Name, s.State.String(), int(s.TTL/time.Second)
	}
	usable := dane.Usable(s.Records)
	for _, rec := range s.Records {
		r.Records = append(r.Records, published(rec, usable, places))
	}
	for _, p := range places {
		j := Judged{From: p.From}
		if s.State == dane.Secure {
			j.By = verify.PassesBy(ctx, s, &verify.Presented{
				Role: verify.Server, Name: p.Host, Port: p.Port, Transport: p.Transport, Chain: p.Chain, Now: now,
			})
		}
		if j.Passes = j.By != ""; j.Passes {
			j.Safe = now.Add(s.TTL).UTC().Truncate(time.Second)
		} else if line, err := f.Line(p); err == nil && (s.State == dane.Secure || s.State == dane.Insecure) {
			j.Needs = line
		}
		r.Certificates = append(r.Certificates, j)
	}
	return r
}

func published(rec dane.Record, usable []dane.Record, places []*Place) Published {
	out := Published{Record: rec.String()}
	if why := rec.Unusable(); why != nil {
		out.Unusable = why.Error()
	} else if !slices.ContainsFunc(usable, rec.Equal) {
		out.Unusable = "one with a stronger digest stands beside it"
	}
	for _, p := range places {
		if slices.ContainsFunc(rec.Concerns(p.Chain), rec.Matches) || len(dane.Anchors([]dane.Record{rec}, p.Chain)) > 0 && issues(rec, p.Chain) {
			out.Matches = append(out.Matches, p.From)
		}
	}
	return out
}

// issues says whether an anchor out of a record has signed the end of a chain.
func issues(rec dane.Record, chain []*x509.Certificate) bool {
	return slices.ContainsFunc(dane.Anchors([]dane.Record{rec}, chain), func(a *x509.Certificate) bool {
		return chain[len(chain)-1].CheckSignatureFrom(a) == nil
	})
}

// Text is the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Name)
	switch {
	case r.Error != "":
		fmt.Fprintf(&b, "  %s\n", r.Error)
	case len(r.Records) == 0:
		fmt.Fprintf(&b, "  no records (DNSSEC: %s): clients go by their CAs\n", r.State)
	case r.State == dane.Insecure.String():
		fmt.Fprintf(&b, "  DNSSEC does not protect them, so that they do not count\n")
	}
	for _, rec := range r.Records {
		fmt.Fprintf(&b, "  %s\n", short(rec.Record))
		switch {
		case rec.Unusable != "":
			fmt.Fprintf(&b, "    cannot be used: %s\n", rec.Unusable)
		case len(rec.Matches) > 0:
			fmt.Fprintf(&b, "    is of %s\n", strings.Join(rec.Matches, ", "))
		default:
			fmt.Fprintf(&b, "    is of none of these: it can go when what it is of is served no more\n")
		}
	}
	for _, j := range r.Certificates {
		if j.Passes {
			fmt.Fprintf(&b, "  %s: passes by %s; if that is new, it is safe to serve from %s on (TTL %d s)\n", j.From, j.By, j.Safe.Format(time.RFC3339), r.TTL)
			continue
		}
		fmt.Fprintf(&b, "  %s: does not pass%s\n", j.From, r.remedy(j))
	}
	return b.String()
}

// remedy is what has to be done for j to pass.
func (r *Report) remedy(j Judged) string {
	text, first := "", ""
	switch r.State {
	case dane.Failed.String():
		return ": nothing is known of its records"
	case dane.Bogus.String():
		return ", whatever is published: mend the signatures of the zone (DNSSEC) first"
	case dane.Insecure.String():
		first = "have the zone signed (DNSSEC), then "
	}
	if j.Needs != "" {
		text = fmt.Sprintf("; %spublish, and serve it one TTL later:\n    %s", first, j.Needs)
	}
	return text
}

// short cuts the data of whole certificates.
func short(record string) string {
	const most = 8 + 2*64
	if len(record) > most {
		return fmt.Sprintf("%s... (%d bytes)", record[:most], (len(record)-len("3 1 1 "))/2)
	}
	return record
}
