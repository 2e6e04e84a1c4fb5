package verify

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"

	"sallyport/ct"
)

// Transparency is a check that the leaf was made public in enough of logs. Where
// it does not require that, what is missing is a note on the identity.
func Transparency(logs *ct.Logs, require bool) Check {
	if require {
		return transparency{logs}
	}
	return reported{transparency{logs}}
}

type transparency struct{ logs *ct.Logs }

func (transparency) String() string { return "ct" }

func (c transparency) Check(_ context.Context, p *Presented, id *Identity) error {
	v, code := c.judge(p, id)
	if v.Outcome == ct.Old { // Chrome's rule: by a list of long ago nobody is refused
		id.Note(code, "%s", v.Text)
		id.idled(c.String())
		return nil
	}
	if code == "" {
		return nil
	}
	return fail(code, "the %s: %s", describe(id.leaf), v.Text)
}

// reported has no String: what passes it has not been checked.
type reported struct{ c transparency }

func (r reported) Check(_ context.Context, p *Presented, id *Identity) error {
	if v, code := r.c.judge(p, id); code != "" {
		id.Note(code, "%s", v.Text)
	}
	return nil
}

func (c transparency) judge(p *Presented, id *Identity) (ct.Verdict, Reason) {
	v := c.logs.Judge(&ct.Evidence{Leaf: id.leaf, Issuers: issuers(p, id), Handshake: p.SCTs, Staple: p.Staple}, p.Now)
	id.logged(v.Counted())
	switch v.Outcome {
	case ct.Good:
		return v, ""
	case ct.Missing:
		return v, CTMissing
	case ct.Invalid:
		return v, CTInvalid
	case ct.TooFew:
		return v, CTTooFew
	}
	return v, CTNoList
}

const maxIssuers = 8

// issuers are the keys that may have signed the leaf: those of the paths that
// passed or, where no path was asked for, of what was presented with the issuer's
// name. The logs have signed whose it is, so that a wrong one proves nothing.
func issuers(p *Presented, id *Identity) (keys [][32]byte) {
	add := func(c *x509.Certificate) {
		if k := spkiOf(c); len(keys) < maxIssuers && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	for _, chain := range id.chains {
		if len(chain) > 1 {
			add(chain[1])
		}
	}
	if len(id.chains) == 0 {
		for _, c := range p.Chain[1:] {
			if bytes.Equal(c.RawSubject, id.leaf.RawIssuer) {
				add(c)
			}
		}
	}
	return keys
}
