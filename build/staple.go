package build

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/revoke"
)

// stapling is whether answers about our own certificates go with them.
type stapling int

const (
	stapleNever stapling = iota // as in DTLS, whose clients cannot expect any
	stapleOff                   // somebody said so
	stapleOn
)

// staplingOf is what c says for clients of l.
func staplingOf(l *config.Listener, c *config.Route) stapling {
	switch {
	case l.From.Datagram():
		return stapleNever
	case bool(c.Staple):
		return stapleOn
	}
	return stapleOff
}

// staples gives who has the answers about our own certificates, nil where no client
// expects any.
func (b *builder) staples(s stapling) credential.Staple {
	switch s {
	case stapleNever:
		return nil
	case stapleOff:
		return func(leaf, _ *x509.Certificate) func() []byte {
			b.neverStapled(leaf, "`staple` is off here")
			return nil
		}
	}
	return func(leaf, issuer *x509.Certificate) func() []byte {
		switch {
		case len(leaf.OCSPServer) == 0:
			b.neverStapled(leaf, "it names no OCSP responder")
			return nil
		case len(revoke.Responders(leaf)) == 0:
			b.neverStapled(leaf, fmt.Sprintf("%.120q is no http:// responder, and others are not asked", leaf.OCSPServer[0]))
			return nil
		}
		s, err := b.stapler()
		if err != nil {
			b.warn("OCSP responses are not stapled: %v", err)
			return nil
		}
		own := s.Of(leaf, issuer)
		b.own = append(b.own, own)
		return own.Staple
	}
}

// neverStapled cries where leaf must not go without what it will not get.
func (b *builder) neverStapled(leaf *x509.Certificate, why string) {
	if revoke.MustStaple(leaf) {
		b.cry("our certificate of %.120q (serial %x) asks for a stapled answer (must-staple), and %s: clients will refuse it", leaf.Subject.String(), leaf.SerialNumber, why)
	}
}

// stapler is the one of all programs that follow each other: a reload takes no
// answer away.
func (b *builder) stapler() (*revoke.Stapler, error) {
	if b.lasting.stapler != nil {
		return b.lasting.stapler, nil
	}
	cache, err := b.answers()
	if err != nil {
		return nil, err
	}
	log := b.o.Log
	// Who named the places is a certificate that the operator has given us.
	b.lasting.stapler = revoke.NewStapler(cache.Fetcher("own", b.operators()), func(urgent bool, text string) {
		level := slog.LevelWarn
		if urgent {
			level = slog.LevelError
		}
		log.Log(context.Background(), level, text)
	})
	return b.lasting.stapler, nil
}

// startStapler has the answers fetched while the program runs.
func (b *builder) startStapler() {
	s, own := b.lasting.stapler, b.own
	if s != nil {
		b.program.Work = append(b.program.Work, func(ctx context.Context) { s.Run(ctx, own) })
	}
}
