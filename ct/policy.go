package ct

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxAge of a list that is enforced. Logs come and go: by an older one, good
// certificates would be refused (Chrome does the same).
const MaxAge = 70 * 24 * time.Hour

// Evidence is a certificate with all that came beside it.
type Evidence struct {
	Leaf      *x509.Certificate
	Issuers   [][32]byte // SHA-256 of the keys that may have issued it
	Handshake [][]byte   // SerializedSCTs of the handshake's extension
	Staple    []byte     // the OCSP response
}

// Entry is one SCT with what was found of it.
type Entry struct {
	SCT *SCT  // nil where it could not be read
	Log *Log  // nil where no list has it
	Err error // why it does not count
}

func (e Entry) String() string {
	switch {
	case e.Log != nil && e.Err != nil:
		return fmt.Sprintf("%s: %v", e.Log, e.Err)
	case e.Log != nil:
		return e.Log.String()
	}
	return e.Err.Error()
}

// Outcome is what a certificate's SCTs amount to.
type Outcome uint8

const (
	NoList  Outcome = iota // there is nothing to judge by
	Old                    // the list is older than [MaxAge]: nothing is enforced
	Missing                // no SCT at all
	Invalid                // too few count, since others are not what they should be
	TooFew                 // all are good, and too few
	Good
)

// Verdict is a judgement with its reasons.
type Verdict struct {
	Outcome Outcome
	Entries []Entry // all SCTs that came, good or not
	Text    string  // for the log; names the logs
}

// Counted are the descriptions of the logs whose SCTs count, each once.
func (v *Verdict) Counted() (names []string) {
	for _, e := range v.Entries {
		if e.Err == nil && e.SCT.Origin != Staple && !slices.Contains(names, e.Log.Description) {
			names = append(names, e.Log.Description)
		}
	}
	return names
}

// Judge says whether e satisfies Chrome's policy of 2026: SCTs in the
// certificate, two or for more than 180 days three of different logs, one of
// which is still in use; or two in the handshake, of logs in use; in either
// case of two operators. SCTs in OCSP responses are read and do not count.
func (l *Logs) Judge(e *Evidence, now time.Time) Verdict {
	n := l.now.Load()
	if n == nil || len(n.byID) == 0 {
		return Verdict{Outcome: NoList, Text: "there is no list of logs to judge SCTs by"}
	}
	k := e.key()
	found, ok := n.known.at(k)
	if !ok {
		found = n.verify(e)
		n.known.keep(k, found)
	}
	v := Verdict{Entries: slices.Clone(found)}
	for i := range v.Entries {
		if x := &v.Entries[i]; x.Err == nil {
			x.Err = x.inTime(e.Leaf, now)
		}
	}
	v.judge(e.Leaf)
	if age := now.Sub(n.oldest); age > MaxAge {
		v.Text = fmt.Sprintf("not enforced, since the list of logs is %d days old; it would be: %s", int(age.Hours()/24), v.Text)
		v.Outcome = Old
	}
	return v
}

// verify finds all SCTs, and what does not change with time about them.
func (n *lists) verify(e *Evidence) []Entry {
	var out []Entry
	add := func(origin Origin, list [][]byte, err error) {
		if err != nil {
			out = append(out, Entry{Err: fmt.Errorf("%w, %s", err, origin)})
		}
		for _, raw := range list {
			t, err := ParseSCT(raw)
			if err != nil {
				out = append(out, Entry{Err: fmt.Errorf("%w, %s", err, origin)})
				continue
			}
			t.Origin = origin
			out = append(out, n.entry(t, e))
		}
	}
	list, err := embedded(e.Leaf)
	add(Embedded, list, err)
	if list, err = e.Handshake, nil; len(list) > maxSCTs {
		list, err = nil, fmt.Errorf("a list of more than %d SCTs", maxSCTs)
	}
	add(Handshake, list, err)
	list, err = stapled(e.Staple, e.Leaf)
	add(Staple, list, err)
	return out
}

func (n *lists) entry(t *SCT, e *Evidence) Entry {
	log := n.byID[t.LogID]
	switch {
	case log == nil:
		return Entry{SCT: t, Err: fmt.Errorf("an SCT of a log that no list has (%x)", t.LogID[:8])}
	case log.Test:
		return Entry{t, log, errors.New("a log for tests")}
	case log.key == nil:
		return Entry{t, log, fmt.Errorf("a log with a key that is not known here: %w", log.noKey)}
	}
	err := t.verify(log.key, e.Leaf, e.Issuers)
	t.extensions, t.signature = nil, nil // they would hold on to the message that they came in
	return Entry{t, log, err}
}

// inTime says why an SCT does not count at now, whatever it is signed by.
func (e *Entry) inTime(leaf *x509.Certificate, now time.Time) error {
	t, log := e.SCT, e.Log
	end := leaf.NotAfter
	switch {
	case t.Time.After(now):
		return fmt.Errorf("an SCT of the future (%s)", stamp(t.Time))
	case !log.End.IsZero() && (end.Before(log.Start) || !end.Before(log.End)):
		return fmt.Errorf("the log takes certificates that expire from %s until %s, this one does on %s", stamp(log.Start), stamp(log.End), stamp(end))
	case log.State.live():
		return nil
	case log.State != Retired:
		return fmt.Errorf("the log is %s", log.State)
	case t.Origin != Embedded:
		return fmt.Errorf("the log is retired since %s", stamp(log.Since))
	case !t.Time.Before(log.Since):
		return fmt.Errorf("an SCT of %s, and the log is retired since %s", stamp(t.Time), stamp(log.Since))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// longLived is the lifetime above which a certificate needs one SCT more.
const longLived = 180 * 24 * time.Hour

func (v *Verdict) judge(leaf *x509.Certificate) {
	if len(v.Entries) == 0 {
		v.Outcome, v.Text = Missing, "no SCT in the certificate, in the handshake or in an OCSP staple"
		return
	}
	need := 2
	if leaf.NotAfter.Sub(leaf.NotBefore) > longLived {
		need = 3
	}
	inside, outside := v.count(Embedded, need), v.count(Handshake, 2)
	for _, c := range []count{inside, outside} {
		if c.lacks == "" {
			v.Outcome, v.Text = Good, fmt.Sprintf("%d SCTs %s, of %s", len(c.logs), c.origin, strings.Join(c.names(), " and "))
			return
		}
	}
	v.Outcome = TooFew
	best := inside
	if len(outside.logs) > len(inside.logs) {
		best = outside
	}
	v.Text = best.lacks
	if names := best.names(); len(names) > 0 {
		v.Text += ": of " + strings.Join(names, " and ")
	}
	if bad := v.bad(); bad != "" {
		v.Text += "; not counted: " + bad
	}
}

// bad lists what does not count. The outcome is another where it is not what
// its sender or its log made it.
func (v *Verdict) bad() string {
	const most = 5
	var texts []string
	for _, e := range v.Entries {
		switch {
		case e.Err != nil:
			v.Outcome = Invalid
			texts = append(texts, e.String())
		case e.SCT.Origin == Staple:
			texts = append(texts, e.String()+": in an OCSP response")
		}
	}
	if n := len(texts); n > most {
		texts = append(texts[:most], fmt.Sprintf("%d more", n-most))
	}
	return strings.Join(texts, "; ")
}

// count is what the SCTs of one origin amount to.
type count struct {
	origin Origin
	logs   []Entry // one each
	lacks  string  // what the policy misses; "" is nothing
}

func (c *count) names() []string {
	var list []string
	for _, e := range c.logs {
		list = append(list, e.Log.String())
	}
	return list
}

func (v *Verdict) count(origin Origin, need int) count {
	c := count{origin: origin}
	var operators []string
	live := false
	for _, e := range v.Entries {
		if e.Err != nil || e.SCT.Origin != origin {
			continue
		}
		live = live || e.Log.State.live()
		if op := e.Log.OperatorAt(e.SCT.Time); !slices.Contains(operators, op) {
			operators = append(operators, op)
		}
		if !slices.ContainsFunc(c.logs, func(x Entry) bool { return x.Log == e.Log }) {
			c.logs = append(c.logs, e)
		}
	}
	switch {
	case len(c.logs) < need:
		c.lacks = fmt.Sprintf("SCTs of %d logs are needed %s, and those of %d count", need, origin, len(c.logs))
	case !live:
		c.lacks = fmt.Sprintf("none of the %d logs whose SCTs count %s is in use any more", len(c.logs), origin)
	case len(operators) < 2:
		c.lacks = fmt.Sprintf("the %d logs whose SCTs count %s are all of one operator", len(c.logs), origin)
	}
	return c
}
