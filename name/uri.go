package name

import (
	"fmt"
	"strings"
)

const spiffe = "spiffe://"

// ParseURI reads a URI pattern: spiffe://corp/ops/*, https://b.example/a/**, or
// without wildcards a URI of any scheme, urn:a:b. Scheme and host are compared
// without regard to case, all else literally and without normalization.
//
// A wildcard takes no segment that is empty, "." or "..", or holds a percent
// sign: programs differ on what such a path means (RFC 3986, section 6.2.2).
// Under spiffe: the syntax of the SPIFFE-ID standard, section 2, holds.
func ParseURI(s string) (Pattern, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !isScheme(scheme) {
		return Pattern{}, fmt.Errorf("uri %q: no scheme: write one such as spiffe://corp/ops/*", s)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return Pattern{}, fmt.Errorf("uri %q: it holds a byte that no URI has: write it percent-encoded", s)
		}
	}
	scheme = lower(scheme) + ":"
	rest, ok = strings.CutPrefix(rest, "//")
	if !ok {
		return parseOpaque(s, scheme, rest)
	}
	authority, path := cutAuthority(rest)
	switch {
	case strings.Contains(authority, "*"):
		return Pattern{}, fmt.Errorf("uri %q: the host has no wildcard: write one item for each host", s)
	case authority == "":
		return Pattern{}, fmt.Errorf("uri %q: no host: write %s//host/path", s, scheme)
	case strings.Contains(authority, "@"):
		return Pattern{}, fmt.Errorf("uri %q: user information is not compared: write the host alone", s)
	case strings.ContainsAny(path, "?#"):
		return Pattern{}, fmt.Errorf("uri %q: query and fragment are not compared: write it up to the path", s)
	}
	k, err := parsePath(path)
	if err != nil {
		return Pattern{}, fmt.Errorf("uri %q: %w", s, err)
	}
	p := Pattern{k, scheme + "//" + lower(authority) + path}
	if strings.HasPrefix(p.text, spiffe) && !isSPIFFE(lower(authority), path) {
		return Pattern{}, fmt.Errorf("uri %q: no SPIFFE ID: write spiffe://trust.domain/path of letters, digits, dots, hyphens and underscores", s)
	}
	return p, nil
}

func parseOpaque(s, scheme, rest string) (Pattern, error) {
	if strings.Contains(rest, "*") {
		return Pattern{}, fmt.Errorf("uri %q: * is a path segment behind scheme://host: write this one in full", s)
	}
	if rest == "" || scheme == "spiffe:" {
		return Pattern{}, fmt.Errorf("uri %q: nothing to compare: write %s//host/path", s, scheme)
	}
	return Pattern{uriExact, scheme + rest}, nil
}

func parsePath(path string) (kind, error) {
	k := uriExact
	for more := path != ""; more; {
		var seg string
		seg, path, more = cutSegment(path)
		switch {
		case seg == "*", seg == "**" && !more:
			k = uriWild
		case seg == "**":
			return none, fmt.Errorf("** is only for the end: write * for each segment in between")
		case strings.Contains(seg, "*"):
			return none, fmt.Errorf("* is not for a part of a segment: write * in place of %q, or list the URIs", seg)
		}
	}
	return k, nil
}

// isScheme is RFC 3986, section 3.1.
func isScheme(s string) bool {
	for i := range len(s) {
		c := toLower(s[i])
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// isSPIFFE checks what stands behind spiffe:// against the SPIFFE-ID standard,
// sections 2.1 to 2.3; wildcards pass for segments.
func isSPIFFE(domain, path string) bool {
	if len(spiffe)+len(domain)+len(path) > 2048 || len(domain) > 255 {
		return false
	}
	for i := range len(domain) {
		if c := domain[i]; !isSPIFFEChar(c) || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	for more := path != ""; more; {
		var seg string
		if seg, path, more = cutSegment(path); seg != "*" && seg != "**" && !takes(seg, true) {
			return false
		}
	}
	return true
}

func isSPIFFEChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// takes says whether a wildcard may stand for the segment: pchar of RFC 3986,
// section 3.3, without percent-encoding.
func takes(seg string, spiffe bool) bool {
	if seg == "" || seg == "." || seg == ".." {
		return false
	}
	for i := range len(seg) {
		c := seg[i]
		if !isSPIFFEChar(c) && (spiffe || strings.IndexByte("~!$&'()*+,;=:@", c) < 0) {
			return false
		}
	}
	return true
}

func (p Pattern) matchURI(s string) bool {
	n := strings.IndexByte(p.text, ':')
	if len(s) <= n || !equalFold(p.text[:n+1], s[:n+1]) {
		return false
	}
	pat, ok := strings.CutPrefix(p.text[n+1:], "//")
	if !ok {
		return s[n+1:] == pat
	}
	rest, ok := strings.CutPrefix(s[n+1:], "//")
	if !ok {
		return false
	}
	wantHost, wantPath := cutAuthority(pat)
	gotHost, gotPath := cutAuthority(rest)
	if !equalFold(wantHost, gotHost) {
		return false
	}
	if p.kind == uriExact {
		return wantPath == gotPath
	}
	return matchPath(wantPath, gotPath, strings.HasPrefix(p.text, spiffe))
}

func matchPath(pat, path string, spiffe bool) bool {
	for {
		if pat == "" || path == "" {
			return pat == path
		}
		var want, got string
		var left bool
		want, pat, _ = cutSegment(pat)
		got, path, left = cutSegment(path)
		switch want {
		case "**":
			for ; left && takes(got, spiffe); got, path, left = cutSegment(path) {
			}
			return !left && takes(got, spiffe)
		case "*":
			if !takes(got, spiffe) {
				return false
			}
		default:
			if want != got {
				return false
			}
		}
	}
}

// coversURI is for a q with a wildcard; it compares segment by segment. A
// literal segment of q that no wildcard takes is covered by itself alone.
func coversURI(p, q string) bool {
	p, pPath := splitURI(p)
	q, qPath := splitURI(q)
	if p != q {
		return false
	}
	narrow := p == "spiffe:" || strings.HasPrefix(p, spiffe)
	for {
		if pPath == "" || qPath == "" {
			return pPath == qPath
		}
		var ps, qs string
		ps, pPath, _ = cutSegment(pPath)
		qs, qPath, _ = cutSegment(qPath)
		switch {
		case ps == "**":
			return coversRest(qs, qPath, narrow)
		case ps == qs:
		case ps != "*", qs == "**", qs != "*" && !takes(qs, narrow):
			return false
		}
	}
}

// coversRest says whether ** takes all of a pattern's rest.
func coversRest(seg, rest string, spiffe bool) bool {
	for {
		if seg != "*" && seg != "**" && !takes(seg, spiffe) {
			return false
		}
		if rest == "" {
			return true
		}
		seg, rest, _ = cutSegment(rest)
	}
}

// splitURI splits a canonical hierarchical URI before its path.
func splitURI(s string) (head, path string) {
	i := strings.Index(s, "://") + len("://")
	_, path = cutAuthority(s[i:])
	return s[:len(s)-len(path)], path
}

// cutAuthority splits what stands behind scheme:// (RFC 3986, section 3.2).
func cutAuthority(s string) (authority, path string) {
	if i := strings.IndexAny(s, "/?#"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// cutSegment takes the first segment off a path that begins with a slash; more
// says that rest holds another one. A query ends up in a segment, where nothing
// takes it.
func cutSegment(path string) (seg, rest string, more bool) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:], true
	}
	return path, "", false
}
