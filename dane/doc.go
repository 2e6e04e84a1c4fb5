// Package dane finds what DNS says of a TLS server's certificate (RFC 6698, 7671):
// it looks TLSA records up, says how sure DNSSEC makes them, and holds certificates
// against them.
//
//	r, err := dane.NewResolver(dane.Options{Servers: servers, Dial: dial, Now: time.Now})
//	s, err := r.Service(ctx, "mail.example", 443, "tcp")
//	if s.State == dane.Secure {
//		for _, rec := range dane.Usable(s.Records) { ok := rec.Matches(leaf) … }
//	}
//
// There are four answers, and no two of them are alike to who asks: secure (proved
// by signatures), insecure (the zone has none), and as errors bogus (the signatures
// are wrong) and failed (there was no answer). Only the first two say anything
// about records; an error is never "there are none".
//
// Whether signatures are right is found by a resolver whose word counts, or in the
// process from a trust anchor (proof.go). Paths and names of certificates are judged
// by package verify. Nothing here opens a socket or reads a clock.
package dane
