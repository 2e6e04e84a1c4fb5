package revoke

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MaxCRL bounds a CRL that is fetched. One of the web's largest has 10 MiB; 16 MiB
// are half a million certificates, which cost some 48 MiB once they are read.
const MaxCRL = 16 << 20

// MaxCRLFile bounds a file of CRLs, which the operator names and nobody else can
// make grow.
const MaxCRLFile = 64 << 20

// CRL is a list of revoked certificates, indexed. It never changes, and says
// nothing before its signature is checked, which [CRL.Judge] does once an issuer.
type CRL struct {
	list    *x509.RevocationList // without its entries
	scope   scope
	entries []revoked // by serial number

	mu       sync.Mutex
	verified map[[32]byte]error // by issuer
}

// Extensions of CRLs (RFC 5280, section 5.2).
var (
	oidCRLNumber = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDelta     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidPoint     = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthority = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// ParseCRLs reads a file of CRLs: one in DER, or any number as PEM blocks.
func ParseCRLs(data []byte) ([]*CRL, error) {
	b, rest := pem.Decode(data)
	if b == nil {
		c, err := parseDER(data)
		return []*CRL{c}, err
	}
	var list []*CRL
	for ; b != nil; b, rest = pem.Decode(rest) {
		c, err := parseBlock(b)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("a PEM block is cut off or damaged after %d CRLs", len(list))
	}
	return list, nil
}

// ParseCRL reads one CRL, in DER or as a PEM block.
func ParseCRL(data []byte) (*CRL, error) {
	b, rest := pem.Decode(data)
	if b == nil {
		return parseDER(data)
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, errors.New("several CRLs in one, where one is expected")
	}
	return parseBlock(b)
}

func parseBlock(b *pem.Block) (*CRL, error) {
	if b.Type != "X509 CRL" {
		return nil, fmt.Errorf("a PEM block of the type %.40q where an X509 CRL is expected", b.Type)
	}
	return parseDER(b.Bytes)
}

func parseDER(der []byte) (*CRL, error) {
	bare, entries, err := split(der)
	if err != nil {
		return nil, fmt.Errorf("no CRL: %w", err)
	}
	list, err := x509.ParseRevocationList(bare.der)
	if err != nil {
		return nil, fmt.Errorf("no CRL: %w", err)
	}
	list.Raw, list.RawTBSRevocationList = bare.raw, bare.rawTBS // what is signed
	c := &CRL{list: list, verified: map[[32]byte]error{}}
	if err := c.extensions(); err != nil {
		return nil, err
	}
	c.entries, err = parseEntries(entries)
	if err != nil {
		return nil, err
	}
	return c, nil
}

var errIndirect = errors.New("an indirect CRL, with certificates of other CAs than its own, which is not supported: use the CRL of the CA itself")

func (c *CRL) extensions() error {
	for _, e := range c.list.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return errors.New("a delta CRL, which holds changes alone and is not supported: use the complete CRL")
		case e.Id.Equal(oidPoint):
			var err error
			if c.scope, err = parseScope(e.Value); err != nil {
				return err
			}
		}
	}
	return critical(c.list.Extensions, "CRL", oidCRLNumber, oidPoint, oidAuthority)
}

// size is about what c takes in memory.
func (c *CRL) size() int { return len(c.list.Raw) + 32*len(c.entries) }

// Len counts the entries.
func (c *CRL) Len() int { return len(c.entries) }

// Issuer is the name of who made it.
func (c *CRL) Issuer() pkix.Name { return c.list.Issuer }

// Next is when there will be a newer one at the latest; zero if it does not say.
func (c *CRL) Next() time.Time { return c.list.NextUpdate }

// By says whether c goes by the name of who issued cert.
func (c *CRL) By(cert *x509.Certificate) bool { return bytes.Equal(c.list.RawIssuer, cert.RawIssuer) }

// older says that c came before other from the same hand: its number is lower
// (RFC 5280, section 5.2.3), or both have none and it is of an earlier time.
func (c *CRL) older(other *CRL) bool {
	if a, b := c.list.Number, other.list.Number; a != nil && b != nil {
		return a.Cmp(b) < 0
	}
	return c.list.ThisUpdate.Before(other.list.ThisUpdate)
}

// Judge gives what c says of cert, which issuer issued, at now.
func (c *CRL) Judge(cert, issuer *x509.Certificate, now time.Time) (*Answer, error) {
	if !c.By(cert) {
		return nil, fmt.Errorf("the CRL is of %.120q, the certificate of %.120q", c.list.Issuer.String(), cert.Issuer.String())
	}
	if err := c.signedBy(issuer); err != nil {
		return nil, err
	}
	if err := current("CRL", c.list.ThisUpdate, c.list.NextUpdate, now); err != nil {
		return nil, err
	}
	if err := c.scope.covers(cert); err != nil {
		return nil, err
	}
	a := &Answer{This: c.list.ThisUpdate, Next: c.list.NextUpdate}
	want := serialOf(cert.SerialNumber)
	i, found := slices.BinarySearchFunc(c.entries, want, func(e revoked, s serial) int { return bytes.Compare(e.serial[:], s[:]) })
	if found {
		a.Revoked, a.At, a.Reason = true, time.Unix(c.entries[i].at, 0), Reason(c.entries[i].reason)
	}
	return a, nil
}

// maxIssuers bounds what a CRL remembers; a CA has one key, or two while it is
// renewed.
const maxIssuers = 16

// signedBy checks the signature, which costs a hash over all of it, once.
func (c *CRL) signedBy(issuer *x509.Certificate) error {
	key := sha256.Sum256(issuer.Raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err, known := c.verified[key]; known {
		return err
	}
	err := c.check(issuer)
	if len(c.verified) >= maxIssuers {
		clear(c.verified)
	}
	c.verified[key] = err
	return err
}

func (c *CRL) check(issuer *x509.Certificate) error {
	if _, err := algorithmIn(c.list.Raw); err != nil {
		return fmt.Errorf("the CRL is %w", err)
	}
	if err := c.list.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("the CRL was not signed by the CA of that name: %w", err)
	}
	return nil
}

// scope is which certificates a CRL is about (RFC 5280, section 5.2.5).
type scope struct {
	points        []string // URIs, one of which the certificate has to name; nil: any
	users, others bool     // of leaves alone; of CAs alone
}

// issuingPoint is the IssuingDistributionPoint.
type issuingPoint struct {
	Point       asn1.RawValue  `asn1:"optional,tag:0"`
	UsersOnly   bool           `asn1:"optional,tag:1"`
	CAsOnly     bool           `asn1:"optional,tag:2"`
	SomeReasons asn1.BitString `asn1:"optional,tag:3"`
	Indirect    bool           `asn1:"optional,tag:4"`
	Attributes  bool           `asn1:"optional,tag:5"`
}

func parseScope(der []byte) (s scope, err error) {
	var p issuingPoint
	if err := unmarshal(der, &p); err != nil {
		return s, fmt.Errorf("the CRL's issuingDistributionPoint: %w", err)
	}
	switch {
	case p.Indirect:
		return s, errIndirect
	case p.Attributes:
		return s, errors.New("a CRL of attribute certificates, which no TLS peer has")
	case p.SomeReasons.BitLength > 0:
		return s, errors.New("a CRL for some reasons of revocation only, which is not supported: use the complete CRL")
	}
	s.users, s.others = p.UsersOnly, p.CAsOnly
	if len(p.Point.FullBytes) == 0 {
		return s, nil
	}
	var full asn1.RawValue // fullName [0]; a name relative to the issuer's is [1]
	if err := unmarshal(p.Point.Bytes, &full); err != nil || full.Class != asn1.ClassContextSpecific || full.Tag != 0 {
		return s, errors.New("a CRL whose distribution point is no full name, which is not supported")
	}
	s.points = []string{}
	for rest := full.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return s, fmt.Errorf("the CRL's issuingDistributionPoint: %w", err)
		}
		if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
			s.points = append(s.points, string(name.Bytes))
		}
	}
	return s, nil
}

// covers is RFC 5280, section 6.3.3 (b)(2). A CA may well have its certificates in
// several CRLs: in the wrong one any of them is missing.
func (s scope) covers(cert *x509.Certificate) error {
	ca := cert.BasicConstraintsValid && cert.IsCA
	switch {
	case s.users && ca:
		return errors.New("the CRL is about certificates of end entities alone, not of CAs")
	case s.others && !ca:
		return errors.New("the CRL is about certificates of CAs alone")
	case s.points != nil && !slices.ContainsFunc(s.points, func(p string) bool { return slices.Contains(cert.CRLDistributionPoints, p) }):
		return fmt.Errorf("the CRL is for certificates that name %.200q as distribution point, and this one does not", cmp.Or(s.points...))
	}
	return nil
}
