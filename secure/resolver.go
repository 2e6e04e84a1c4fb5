package secure

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"sallyport/verify"
)

// DialVerified gives a way to dial that ends in TLS with a server which v takes by the
// host of its address: for DNS over TLS (RFC 7858).
func DialVerified(dial func(ctx context.Context, network, addr string) (net.Conn, error), v verify.Verifier, now func() time.Time,
) func(ctx context.Context, network, addr string) (net.Conn, error) {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The server is verified by VerifyConnection, on resumption as well.
		InsecureSkipVerify: true, // #nosec G402 -- see above
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
		Time:               now,
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cfg := base.Clone()
		cfg.ServerName = host
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			remote, _ := netip.ParseAddrPort(addr)
			_, err := v.Verify(ctx, &verify.Presented{
				Role: verify.Server, Name: host, Port: remote.Port(), Transport: "tcp", Remote: remote,
				Chain: cs.PeerCertificates, Staple: cs.OCSPResponse, SCTs: cs.SignedCertificateTimestamps,
				Version: cs.Version, Suite: cs.CipherSuite, Resumed: cs.DidResume, Now: now(),
			})
			return err
		}
		t := tls.Client(c, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		return t, nil
	}
}
