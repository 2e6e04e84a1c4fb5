// Package revoke says whether a certificate was taken back: by OCSP (RFC 6960)
// and by CRL (RFC 5280, section 5), stapled, from files, or fetched:
//
//	a, err := revoke.JudgeOCSP(staple, leaf, issuer, now)
//	if err == nil && a.Revoked { ... }
//
//	cache, err := revoke.NewCache(revoke.Options{Dir: dir, Now: now})
//	a, err = cache.Fetcher("", client).OCSP(ctx, leaf, issuer)
//
// An [Answer] is a verified, current yes or no. Whatever else comes, from a
// wrong signature to "unknown" and "try later", is an error, and no error is ever
// a yes: what follows of it is for the caller's policy. A [Fetcher] also fetches
// missing issuers (AIA), and a [Stapler] keeps the answers about certificates of
// our own ready to be stapled.
//
// Not done, each refused by name: delta CRLs, indirect CRLs, CRLs for some reasons
// only, nonces, LDAP. Of a delegated responder its own revocation is not asked, as
// if it had id-pkix-ocsp-nocheck; those certificates are short-lived by custom.
// Nothing here opens a socket or reads a clock: both are handed in.
package revoke
