package probe

import (
	"crypto/sha256"
	"fmt"

	"sallyport/build"
	"sallyport/ct"
	"sallyport/revoke"
	"sallyport/verify"
)

// stapled says what the OCSP response that came with the handshake is worth.
func stapled(p *verify.Presented) []Extra {
	switch {
	case len(p.Staple) == 0:
		return nil
	case len(p.Chain) < 2:
		return []Extra{{"staple", "one that nobody can judge, since the server sent no issuer"}}
	}
	a, err := revoke.JudgeOCSP(p.Staple, p.Chain[0], p.Chain[1], p.Now)
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
