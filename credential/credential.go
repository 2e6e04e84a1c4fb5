package credential

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"

	"sallyport/verify"
)

// Source gives the credential for a handshake. The same credential comes as the
// same pointer, so that it can be the key of a cache.
type Source interface {
	Credential(ctx context.Context, r *Request) (*Credential, error)
}

// Request is what is known when a credential is needed.
type Request struct {
	ServerName string
	Schemes    []tls.SignatureScheme // that the peer can verify; nil is any
	Issuers    [][]byte              // DER names of the CAs that a server asks a client for
	Mirror     *verify.Identity      // to mint after: a clean leaf comes only from a verified identity
}

// Credential is a chain, leaf first, and the leaf's key. It is never changed.
type Credential struct {
	Chain  []*x509.Certificate
	Key    crypto.Signer
	Staple []byte
	SCTs   [][]byte
}

// ErrNoCredential is in the error where we have nothing that the peer could verify.
var ErrNoCredential = errors.New("no certificate of ours fits")

// Static always gives c; nil is nobody.
func Static(c *Credential) Source { return static{c} }

type static struct{ c *Credential }

func (s static) Credential(context.Context, *Request) (*Credential, error) {
	if s.c == nil {
		return nil, ErrNoCredential
	}
	return s.c, nil
}
