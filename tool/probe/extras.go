package probe

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"sallyport/build"
	"sallyport/ct"
	"sallyport/revoke"
	"sallyport/verify"
)

// stapled says what the OCSP response that came with the handshake is worth. The order
// of what was sent says nothing about who issued the leaf, and on paths there may be
// who was not sent.
func stapled(p *verify.Presented, paths [][]*x509.Certificate) []Extra {
	if len(p.Staple) == 0 {
		return nil
	}
	all := p.Chain[1:]
	for _, path := range paths {
		all = append(slices.Clone(all), path[1:]...)
	}
	i := slices.IndexFunc(all, func(c *x509.Certificate) bool { return p.Chain[0].CheckSignatureFrom(c) == nil })
	if i < 0 {
		return []Extra{{"staple", "one that nobody can judge, since the server did not send the certificate of its issuer"}}
	}
	a, err := revoke.JudgeOCSP(p.Staple, p.Chain[0], all[i], p.Now)
	switch {
	case err != nil:
		return []Extra{{"staple", "does not count: " + err.Error()}}
	case a.Revoked:
		return []Extra{{"staple", fmt.Sprintf("revoked on %s (%s)", day(a.At), a.Reason)}}
	}
	return []Extra{{"staple", fmt.Sprintf("good, of %s, until %s", stamp(a.This), stamp(a.Next))}}
}

// timestamps are the SCTs that came, with the names of their logs.
func timestamps(p *build.Prober, seen *verify.Presented) []Extra {
	if p.Logs == nil {
		return nil
	}
	e := &ct.Evidence{Leaf: seen.Chain[0], Handshake: seen.SCTs, Staple: seen.Staple}
	for _, c := range seen.Chain[1:] {
		e.Issuers = append(e.Issuers, sha256.Sum256(c.RawSubjectPublicKeyInfo))
	}
	var all []Extra
	for _, entry := range p.Logs.Judge(e, seen.Now).Entries {
		text := entry.String()
		if entry.SCT != nil {
			text += ", " + entry.SCT.Origin.String()
		}
		all = append(all, Extra{"sct", text})
	}
	return all
}
