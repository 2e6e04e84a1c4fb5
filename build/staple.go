package build

import (
	"context"
	"crypto/x509"
	"log/slog"

	"sallyport/credential"
	"sallyport/revoke"
)

// staples gives who has the answers about our own certificates, nil where none are
// to be stapled.
func (b *builder) staples(on bool) credential.Staple {
	if !on {
		return nil
	}
	return func(leaf, issuer *x509.Certificate) func() []byte {
		if len(leaf.OCSPServer) == 0 {
			if revoke.MustStaple(leaf) {
				b.warn("our certificate of %.120q asks for a stapled answer (must-staple) and names no OCSP responder: clients will refuse it", leaf.Subject.String())
			}
			return nil
		}
		s, err := b.stapler()
		if err != nil {
			b.warn("OCSP responses are not stapled: %v", err)
			return nil
		}
		own := s.Of(leaf, issuer)
		if own == nil {
			return nil
		}
		b.own = append(b.own, own)
		return own.Staple
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
