package name

import (
	"fmt"
	"strings"
)

// Limits of RFC 1035, section 2.3.4; a name of 255 octets on the wire is 253 as text.
const (
	maxName  = 253
	maxLabel = 63
)

// Parse reads a DNS name pattern. Case and one trailing dot are dropped.
func Parse(s string) (Pattern, error) {
	rest := strings.TrimSuffix(s, ".")
	if rest == "" {
		return Pattern{}, fmt.Errorf("empty name: write a name such as a.example, or ** for any")
	}
	k := dnsExact
	if body, ok := strings.CutPrefix(rest, "."); ok {
		if strings.Contains(body, "*") {
			return Pattern{}, fmt.Errorf("name %q: a leading dot does not go with *: write %s", s, body)
		}
		k, rest = dnsBelow, body
	}
	var b strings.Builder
	if k == dnsBelow {
		b.WriteByte('.')
	}
	for i, label := range strings.Split(rest, ".") {
		if i > 0 {
			b.WriteByte('.')
		}
		switch {
		case label == "*":
			k = dnsWild
		case label == "**" && i == 0:
			k = dnsWild
		default:
			var err error
			if label, err = parseLabel(label); err != nil {
				return Pattern{}, fmt.Errorf("name %q: %w", s, err)
			}
		}
		b.WriteString(label)
	}
	if b.Len() > maxName {
		return Pattern{}, fmt.Errorf("name %q: %d octets, DNS has at most %d: write a shorter one", s, b.Len(), maxName)
	}
	return Pattern{k, b.String()}, nil
}

func parseLabel(label string) (string, error) {
	switch {
	case label == "":
		return "", fmt.Errorf("empty label: write a single dot between labels")
	case label == "**":
		return "", fmt.Errorf("** is only for the first label: write * for each label in between")
	case strings.Contains(label, "*"):
		return "", fmt.Errorf("* is not for a part of a label: write * in place of %q, or list the names", label)
	}
	ascii, err := toASCII(label)
	if err != nil {
		return "", err
	}
	if ascii = lower(ascii); !isLabel(ascii) {
		return "", fmt.Errorf("%q is no DNS label: write 1 to %d letters, digits, hyphens and underscores", label, maxLabel)
	}
	return ascii, nil
}

// isLabel allows the underscore, which service names have (RFC 8552) and some
// hosts too. Names that hold anything else are none that a wildcard may take:
// not one with a NUL, and no presented wildcard either.
func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// matchDNS walks both names from the right, where the label that decides most
// often stands.
func (p Pattern) matchDNS(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if p.kind == dnsExact {
		return equalFold(p.text, s)
	}
	if s == "" || len(s) > maxName {
		return false
	}
	pat := p.text
	for {
		var want, got string
		var more, left bool
		pat, want, more = cutLast(pat)
		s, got, left = cutLast(s)
		switch want {
		case "**":
			return allLabels(got) && (!left || allLabels(s))
		case "*":
			if !isLabel(got) {
				return false
			}
		default:
			if !equalFold(want, got) {
				return false
			}
		}
		if !more {
			return !left
		}
		if pat == "" { // of .example
			return !left || allLabels(s)
		}
		if !left {
			return false
		}
	}
}

// cutLast splits at the last dot; more says that there was one.
func cutLast(s string) (rest, label string, more bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

func allLabels(s string) bool {
	for more := true; more; {
		var label string
		if s, label, more = cutLast(s); !isLabel(label) {
			return false
		}
	}
	return true
}

// labels reads a pattern as single labels and whether any number of further ones
// may stand before them: ** is * and more, .example is example and more.
func (p Pattern) labels() (single []string, more bool) {
	text := p.text
	if p.kind == dnsBelow {
		return strings.Split(text[1:], "."), true
	}
	single = strings.Split(text, ".")
	if single[0] == "**" {
		single[0], more = "*", true
	}
	return single, more
}

// coversDNS compares label by label from the right. As q takes some name of
// exactly its single labels, p must not have more of them.
func coversDNS(p, q Pattern) bool {
	ps, pMore := p.labels()
	qs, qMore := q.labels()
	if len(ps) > len(qs) || !pMore && (qMore || len(ps) < len(qs)) {
		return false
	}
	qs = qs[len(qs)-len(ps):]
	for i, label := range ps {
		if label != "*" && label != qs[i] {
			return false
		}
	}
	return true
}
