package revoke

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Request makes an OCSP request in DER for cert, which issuer issued. It has no
// nonce, so that responders may answer with what they have signed already
// (RFC 5019, section 3.1).
func Request(cert, issuer *x509.Certificate) ([]byte, error) {
	der, err := ocsp.CreateRequest(cert, issuer, nil)
	if err != nil {
		return nil, fmt.Errorf("making an OCSP request: %w", err)
	}
	return der, nil
}

// fetchOCSP asks the responders of cert in their order.
func fetchOCSP(ctx context.Context, client *http.Client, cert, issuer *x509.Certificate, now time.Time) (*Answer, error) {
	request, err := Request(cert, issuer)
	if err != nil {
		return nil, err
	}
	return each(cert.OCSPServer, func(place string) (*Answer, error) {
		der, err := askOCSP(ctx, client, place, request)
		if err != nil {
			return nil, err
		}
		a, err := judgeFetched(der, cert, issuer, now)
		if err != nil {
			return nil, fmt.Errorf("from %.200q: %w", place, err)
		}
		return a, nil
	})
}

// askOCSP goes by GET where it may. Some responders never learnt that.
func askOCSP(ctx context.Context, client *http.Client, place string, request []byte) ([]byte, error) {
	get := strings.TrimSuffix(place, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(request))
	if len(get) <= getLimit {
		der, err := ask(ctx, client, place, get, nil, MaxOCSP, perURL)
		if status := statusError(0); !errors.As(err, &status) {
			return der, err
		}
	}
	return ask(ctx, client, place, place, request, MaxOCSP, perURL)
}

// judgeFetched also refuses the answer to somebody else's question.
func judgeFetched(der []byte, cert, issuer *x509.Certificate, now time.Time) (*Answer, error) {
	if basic, err := parseOCSP(der); err == nil && basic.nonce() {
		return nil, errors.New("the OCSP response has a nonce, and none was sent: it answers another request")
	}
	return JudgeOCSP(der, cert, issuer, now)
}
