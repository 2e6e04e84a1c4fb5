package revoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Bounds on what is fetched as the issuer of a certificate.
const (
	MaxIssuers   = 64 << 10 // bytes
	maxPerAnswer = 32       // certificates
	issuersHold  = 24 * time.Hour
	perIssuer    = 3 * time.Second
	maxAIA       = 2 // places that are asked: nothing vouches yet for who named them
)

// Issuers fetches the certificates that signed cert from where its authority
// information access says (caIssuers; RFC 5280, section 4.2.2.1). Nothing is said
// of whether they are to be trusted.
func (c *Fetcher) Issuers(ctx context.Context, cert *x509.Certificate) ([]*x509.Certificate, error) {
	where := places(cert.IssuingCertificateURL)
	if len(where) == 0 {
		return nil, fmt.Errorf("%w: it does not say where its issuer's certificate is", ErrNoSource)
	}
	sum := sha256.Sum256(cert.Raw)
	list, err := c.issuers.get(ctx, c.id+string(sum[:]), hostOf(where[0]), func(ctx context.Context, _ *kept[[]*x509.Certificate]) (*kept[[]*x509.Certificate], error) {
		if c.client == nil {
			return nil, errNoClient
		}
		found, err := each(where[:min(len(where), maxAIA)], func(place string) ([]*x509.Certificate, error) {
			data, err := ask(ctx, c.client, place, place, nil, MaxIssuers, perIssuer)
			if err != nil {
				return nil, err
			}
			found, err := issuersOf(cert, data)
			if err != nil {
				return nil, fmt.Errorf("from %.200q: %w", place, err)
			}
			return found, nil
		})
		if err != nil {
			return nil, err
		}
		size := 0
		for _, f := range found {
			size += len(f.Raw)
		}
		now := c.now()
		return &kept[[]*x509.Certificate]{found, size, now, now.Add(issuersHold)}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("authority information access: %w", err)
	}
	return list, nil
}

// issuersOf are those in data that signed cert.
func issuersOf(cert *x509.Certificate, data []byte) ([]*x509.Certificate, error) {
	all, err := parseIssuers(data)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for _, c := range all {
		if bytes.Equal(c.RawSubject, cert.RawIssuer) && keyFloor(c.PublicKey) == nil && cert.CheckSignatureFrom(c) == nil {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("none of the certificates there is that of the issuer")
	}
	return found, nil
}

// parseIssuers reads a certificate in DER, certificates in PEM, or a PKCS #7 with
// nothing but certificates, in DER or in PEM (RFC 5280, section 4.2.2.1).
func parseIssuers(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	block, rest := pem.Decode(data)
	if block == nil {
		return parseBinary(data)
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		more, err := parseBinary(block.Bytes)
		if err != nil {
			return nil, err
		}
		if list = append(list, more...); len(list) > maxPerAnswer {
			return nil, fmt.Errorf("more than %d certificates", maxPerAnswer)
		}
	}
	return list, nil
}

// signedData is RFC 2315, section 9.1, as far as the certificates.
type signedData struct {
	Version      int
	Digests      asn1.RawValue `asn1:"set"`
	Content      asn1.RawValue
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
}

var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

func parseBinary(der []byte) ([]*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err == nil {
		return []*x509.Certificate{c}, nil
	}
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0"`
	}
	var inner signedData
	if unmarshal(der, &outer) != nil || !outer.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("neither a certificate nor a PKCS #7 with certificates: %w", err)
	}
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &inner); err != nil {
		return nil, fmt.Errorf("no PKCS #7: %w", err)
	}
	var list []*x509.Certificate
	for rest := inner.Certificates.Bytes; len(rest) > 0; {
		var one asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &one); err != nil {
			return nil, fmt.Errorf("no PKCS #7: %w", err)
		}
		c, err := x509.ParseCertificate(one.FullBytes)
		if err != nil {
			return nil, fmt.Errorf("in the PKCS #7: %w", err)
		}
		if list = append(list, c); len(list) > maxPerAnswer {
			return nil, fmt.Errorf("more than %d certificates", maxPerAnswer)
		}
	}
	return list, nil
}
