// Package testca makes the chains and the servers that a verifier has to refuse,
// and those beside them that it has to take. [Cases] is the one table of faulty
// certificates, [Servers] that of faulty servers: each row has the number under
// which INTERCEPTION lists it, how it is made, and the verdict of every profile.
//
//	for _, c := range testca.Cases() {
//		m := c.Make(t, now)
//		// present m.Chain for m.Name to who trusts m.Anchors; want c.Want.Of(profile)
//	}
//
// Package verify holds the table against [verify.PKIX], cmd/sallyport against the
// running program. Nothing here is ever linked into it.
package testca
