package build

import (
	"context"
	"time"

	"sallyport/config"
	"sallyport/secure"
	"sallyport/spiffe"
	"sallyport/verify"
)

// agentAtStart is how long the process waits for a SPIFFE agent's first word.
const agentAtStart = 5 * time.Second

// workload is what the SPIFFE agent at a says, now and while the program runs.
func (b *builder) workload(a config.Address) (*spiffe.Workload, error) {
	addr := "unix://" + a.Unix
	if a.Unix == "" {
		addr = "tcp://" + a.String()
	}
	w := b.lasting.agents[addr]
	if w == nil {
		var err error
		if w, err = spiffe.New(addr, b.now, b.o.Log); err != nil {
			return nil, err
		}
		b.lasting.agents[addr] = w
	}
	if b.o.DryRun || b.agents[addr] {
		return w, nil
	}
	b.agents[addr] = true
	b.program.Work = append(b.program.Work, w.Run)
	if !w.Known() {
		ctx, cancel := context.WithTimeout(context.Background(), agentAtStart)
		defer cancel()
		if err := w.Fetch(ctx); err != nil {
			b.warn("the SPIFFE agent at %s: %v; until it answers, who needs it is refused", a, err)
		}
	}
	return w, nil
}

// voucher is who vouches for the other end.
type voucher struct {
	by      verify.Authenticator
	private bool // whom the operator has named, be it by an agent's word: no public CA
}

// clientVoucher is client.ca, or else the SPIFFE agent, whose word may change: a
// ticket's chain is verified anew by what it says then.
func (b *builder) clientVoucher(s *secure.Server, c *config.Route, issuers verify.Issuers) (v voucher, trust []byte, err error) {
	if len(c.Client.CA) == 0 {
		w, err := b.workload(c.SPIFFE)
		if err != nil {
			return v, nil, err
		}
		s.Pool = w.Pool
		return voucher{w.Authenticator("spiffe", verify.Profile(c.Client.Profile), issuers), true}, []byte("spiffe " + c.SPIFFE.String()), nil
	}
	if s.Anchors, err = b.trust("client.ca", c.Client.CA); err != nil {
		return v, nil, err
	}
	return voucher{pkix(s.Anchors, "client.ca", c.Client.Profile, issuers), !s.Anchors.System}, s.Anchors.Hash[:], nil
}

// serverVoucher is to.ca, or else the SPIFFE agent.
func (b *builder) serverVoucher(c *config.Route, issuers verify.Issuers) (v voucher, err error) {
	if len(c.To.CA) == 0 {
		w, err := b.workload(c.To.SPIFFE)
		if err != nil {
			return v, err
		}
		return voucher{w.Authenticator("to.spiffe", verify.Profile(c.To.Profile), issuers), true}, nil
	}
	anchors, err := b.trust("to.ca", c.To.CA)
	if err != nil {
		return v, err
	}
	by := pkix(anchors, "to.ca", c.To.Profile, issuers)
	by.Own = b.signers
	return voucher{by, !anchors.System}, nil
}
