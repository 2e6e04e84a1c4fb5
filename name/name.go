package name

import (
	"fmt"
	"strings"
)

// Pattern matches names of one kind. It is comparable; two that are equal take
// the same names. The zero value matches nothing.
type Pattern struct {
	kind kind
	text string // canonical: String gives it, and parsing it again gives the same Pattern
}

type kind uint8

const (
	none     kind = iota
	dnsExact      // a.example
	dnsWild       // *.example, **.example, a.*.example
	dnsBelow      // .example
	uriExact      // no wildcard
	uriWild       // * or ** in the path
	textExact
	textAny // *
	mailAt  // *@example.com
)

// Match says whether p takes s. A DNS name is as on the wire, in A-labels; its
// case and one trailing dot do not count. It does not allocate.
func (p Pattern) Match(s string) bool {
	switch p.kind {
	case dnsExact, dnsWild, dnsBelow:
		return p.matchDNS(s)
	case uriExact, uriWild:
		return p.matchURI(s)
	case textExact:
		return s == p.text
	case textAny:
		return s != ""
	case mailAt:
		return matchMail(p.text, s)
	}
	return false
}

// Covers says that p takes every name that q takes. It errs towards no only for
// names near the length limit of DNS.
func (p Pattern) Covers(q Pattern) bool {
	switch q.kind {
	case none:
		return true
	case dnsExact, uriExact, textExact:
		return sort(p.kind) == sort(q.kind) && p.Match(q.text)
	case dnsWild, dnsBelow:
		return sort(p.kind) == sort(q.kind) && coversDNS(p, q)
	case uriWild:
		return p.kind == uriWild && coversURI(p.text, q.text)
	}
	return p.kind == textAny || p == q
}

// sort maps the kinds that take the same sort of names to one of them.
func sort(k kind) kind {
	switch k {
	case dnsExact, dnsWild, dnsBelow:
		return dnsExact
	case uriExact, uriWild:
		return uriExact
	case textExact, textAny, mailAt:
		return textExact
	}
	return none
}

// String gives the pattern in the form that names are compared in: lower case
// and A-labels for DNS.
func (p Pattern) String() string { return p.text }

// IsZero says that p is the zero Pattern, which takes nothing.
func (p Pattern) IsZero() bool { return p.kind == none }

// Literal gives the only name that p takes, if it is but one.
func (p Pattern) Literal() (string, bool) {
	switch p.kind {
	case dnsExact, uriExact, textExact:
		return p.text, true
	}
	return "", false
}

// Suffix gives the labels behind the last wildcard of a DNS pattern: every name
// that p takes is that suffix or ends in a dot and it. An index uses it; it is
// empty where a pattern such as ** promises nothing.
func (p Pattern) Suffix() string {
	switch p.kind {
	case dnsExact:
		return p.text
	case dnsBelow:
		return p.text[1:]
	case dnsWild:
		_, suffix, _ := strings.Cut(p.text[strings.LastIndexByte(p.text, '*'):], ".")
		return suffix
	}
	return ""
}

// ParseText reads a pattern for the plain texts of a certificate: cn, ou, email.
// They are compared literally; * alone takes any text that is not empty, and
// *@example.com any mailbox of that host, whose case does not count.
func ParseText(s string) (Pattern, error) {
	switch {
	case s == "":
		return Pattern{}, fmt.Errorf("empty text: write * for any")
	case s == "*":
		return Pattern{textAny, s}, nil
	case !strings.Contains(s, "*"):
		return Pattern{textExact, s}, nil
	}
	host, ok := strings.CutPrefix(s, "*@")
	if !ok {
		return Pattern{}, fmt.Errorf("text %q: * is not for a part of a text: write the whole text, or * alone for any, or *@example.com for any mailbox there", s)
	}
	h, err := Parse(host)
	if err != nil {
		return Pattern{}, fmt.Errorf("text %q: behind *@ stands a host: %w", s, err)
	}
	if h.kind != dnsExact {
		return Pattern{}, fmt.Errorf("text %q: the host behind *@ has no wildcard: write one item for each host", s)
	}
	return Pattern{mailAt, "*@" + h.text}, nil
}

// matchMail refuses a second @, which only a quoted local part may hold
// (RFC 5321, section 4.1.2): programs differ on where such an address splits.
func matchMail(pattern, s string) bool {
	local, host, ok := strings.Cut(s, "@")
	return ok && local != "" && equalFold(pattern[2:], host)
}

// equalFold compares s to the lower case text; only ASCII letters fold, since
// Unicode's folding maps letters such as U+212A into ASCII.
func equalFold(lower, s string) bool {
	if len(lower) != len(s) {
		return false
	}
	for i := range len(s) {
		if toLower(s[i]) != lower[i] {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// lower is strings.ToLower for ASCII alone.
func lower(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = toLower(b[i])
	}
	return string(b)
}
