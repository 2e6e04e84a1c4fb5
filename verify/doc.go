// Package verify finds out who the other end is. An [Authenticator] makes an
// [Identity] out of what was [Presented], and any number of [Check]s must then
// agree with it:
//
//	v := verify.With(verify.PKIX{Anchors: anchors, From: "to.ca", Profile: verify.Private}, verify.Pin(spki))
//	id, err := v.Verify(ctx, &verify.Presented{Name: "db.example", Chain: chain, Now: now})
//
// An Identity cannot be made outside this package, so that one look at who calls
// identify shows every way to be somebody. Every refusal is an [*Error] with a
// stable [Reason] and a text that says which certificate, what is wrong with it
// and what to try; strings out of certificates are quoted and cut in it.
//
// Nothing here leans on what GODEBUG can loosen in crypto/x509: key sizes,
// signatures, key usage and names are judged by code of our own on the paths
// that crypto/x509 found. Nothing here opens a socket or reads a clock.
package verify
