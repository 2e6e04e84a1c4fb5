// Package name holds the patterns by which the file speaks of DNS names, URIs
// and the plain texts of a certificate.
//
//	a.example          that name
//	*.b.example        one label more: x.b.example, not b.example, not y.x.b.example
//	**.b.example       one label or more
//	.b.example         b.example, and all below it
//	spiffe://corp/*    one path segment; ** at the end one or more
//	*@b.example        any mailbox there
//
// A * is a whole label or segment, never a part of one: who reads a*.b cannot
// say which names it takes, and neither can two programs agree on it. There is
// no regular expression and no negation, so that [Pattern.Covers] can tell
// whether a later rule can be reached.
//
// The package does not judge certificates: RFC 9525's matching of a reference
// identity against a presented wildcard is crypto/x509's. Here the pattern is
// ours and the name is the stranger's, so a * in the name is never special.
package name
