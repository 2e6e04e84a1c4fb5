package rule

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sallyport/name"
)

// function is one of ours. Its last argument is a literal, checked at load.
type function struct {
	name  string
	takes string
	kind  any
	check func(literal string) error
	call  func(args ...any) (any, error)
}

var functions = []function{
	{
		"like", "a pattern", new(func(string, string) bool),
		func(s string) error { _, err := pattern(s); return err },
		func(args ...any) (any, error) {
			p, err := pattern(args[1].(string))
			if err != nil {
				return false, err
			}
			// A wildcard is many names, and stands for none of them.
			s := args[0].(string)
			return !strings.Contains(s, "*") && p.Match(s), nil
		},
	},
	{
		"within", "an address or a CIDR", new(func(string, string) bool),
		func(s string) error { _, err := prefix(s); return err },
		func(args ...any) (any, error) {
			p, err := prefix(args[1].(string))
			if err != nil {
				return false, err
			}
			a, err := netip.ParseAddr(args[0].(string))
			return err == nil && p.Contains(a.Unmap()), nil
		},
	},
	{
		"date", "a date", new(func(string) time.Time),
		func(s string) error { _, err := date(s); return err },
		func(args ...any) (any, error) { return date(args[0].(string)) },
	},
}

// pattern is one of URIs where it looks like one, else of DNS names.
func pattern(s string) (name.Pattern, error) {
	if strings.Contains(s, ":") {
		return name.ParseURI(s)
	}
	return name.Parse(s)
}

func prefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		if a, err := netip.ParseAddr(s); err == nil {
			return a.Unmap().Prefix(a.Unmap().BitLen())
		}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is neither an address nor a CIDR: write 10.0.0.0/8", s)
	}
	return p, nil
}

func date(s string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date: write 2027-01-31 or 2027-01-31T08:00:00Z", s)
}
