package name

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// IsPublicSuffix says whether the public registers names directly below s, a
// lower-case DNS name: com, co.uk, and every top-level domain that the list of
// public suffixes does not know. A provider's suffix, such as github.io, is its
// owner's to have a wildcard for.
func IsPublicSuffix(s string) bool {
	suffix, icann := publicsuffix.PublicSuffix(s)
	return s != "" && suffix == s && (icann || !strings.Contains(s, "."))
}
