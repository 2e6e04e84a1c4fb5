package dane

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Usage says what a record is held against (RFC 6698, section 2.1.1; RFC 7218).
type Usage uint8

const (
	PKIXTA Usage = iota // a CA of the path, which PKIX must find good as well
	PKIXEE              // the leaf, which PKIX must find good as well
	DANETA              // a trust anchor that need be nobody else's
	DANEEE              // the leaf, of which nothing else is asked
)

func (u Usage) String() string {
	switch u {
	case PKIXTA:
		return "PKIX-TA"
	case PKIXEE:
		return "PKIX-EE"
	case DANETA:
		return "DANE-TA"
	case DANEEE:
		return "DANE-EE"
	}
	return "usage " + strconv.Itoa(int(u))
}

// Selector says which part of a certificate is meant (RFC 6698, section 2.1.2).
type Selector uint8

const (
	Cert Selector = iota // all of it
	SPKI                 // its SubjectPublicKeyInfo
)

// Matching says how the part is written (RFC 6698, section 2.1.3).
type Matching uint8

const (
	Full Matching = iota
	SHA256
	SHA512
)

// Record is one TLSA record.
type Record struct {
	Usage    Usage
	Selector Selector
	Matching Matching
	Data     []byte
}

// New makes the record that c matches.
func New(c *x509.Certificate, u Usage, s Selector, m Matching) (Record, error) {
	r := Record{Usage: u, Selector: s, Matching: m}
	if u > DANEEE || s > SPKI || m > SHA512 {
		return r, fmt.Errorf("no TLSA record has the parameters %d %d %d: the usage is 0 to 3, the selector 0 or 1, the matching type 0 to 2", u, s, m)
	}
	r.Data = r.of(c)
	return r, nil
}

// of is what the record's data would be if it was c's; nil for parameters that
// are not known.
func (r Record) of(c *x509.Certificate) []byte {
	part := c.Raw
	switch r.Selector {
	case Cert:
	case SPKI:
		part = c.RawSubjectPublicKeyInfo
	default:
		return nil
	}
	switch r.Matching {
	case Full:
		return part
	case SHA256:
		sum := sha256.Sum256(part)
		return sum[:]
	case SHA512:
		sum := sha512.Sum512(part)
		return sum[:]
	}
	return nil
}

// Matches says whether the record is c's, whatever its usage.
func (r Record) Matches(c *x509.Certificate) bool {
	want := r.of(c)
	return len(want) > 0 && bytes.Equal(want, r.Data)
}

// Concerns is the part of a chain that the record's usage is about: the leaf, or what
// stands behind it.
func (r Record) Concerns(chain []*x509.Certificate) []*x509.Certificate {
	if r.Usage == PKIXEE || r.Usage == DANEEE {
		return chain[:1]
	}
	return chain[1:]
}

// Equal compares all that is in two records.
func (r Record) Equal(o Record) bool {
	return r.Usage == o.Usage && r.Selector == o.Selector && r.Matching == o.Matching && bytes.Equal(r.Data, o.Data)
}

// String is the record's data as in a zone file: 3 1 1 and the rest in hexadecimal.
func (r Record) String() string {
	return fmt.Sprintf("%s %x", r.Params(), r.Data)
}

// Params is String without the data.
func (r Record) Params() string { return fmt.Sprintf("%d %d %d", r.Usage, r.Selector, r.Matching) }

// Generic is the record's type and data for software that does not know TLSA
// (RFC 3597, section 5).
func (r Record) Generic() string {
	return fmt.Sprintf(`TYPE52 \# %d %02x%02x%02x%x`, 3+len(r.Data), uint8(r.Usage), uint8(r.Selector), uint8(r.Matching), r.Data)
}

// ParseRecord reads what String writes; the hexadecimal digits may have spaces
// and parentheses among them, as in zone files.
func ParseRecord(s string) (Record, error) {
	fields := strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(s))
	if len(fields) < 4 {
		return Record{}, errors.New("a TLSA record is three numbers and hexadecimal digits: 3 1 1 0123…")
	}
	var params [3]uint8
	for i := range params {
		n, err := strconv.ParseUint(fields[i], 10, 8)
		if err != nil {
			return Record{}, fmt.Errorf("%.20q is no parameter of a TLSA record, which is from 0 to 255", fields[i])
		}
		params[i] = uint8(n)
	}
	data, err := hex.DecodeString(strings.Join(fields[3:], ""))
	if err != nil {
		return Record{}, errors.New("the data of a TLSA record are hexadecimal digits, two a byte")
	}
	return Record{Usage(params[0]), Selector(params[1]), Matching(params[2]), data}, nil
}

// Unusable says why a record can match nothing (RFC 6698, section 4.1), or nil.
func (r Record) Unusable() error {
	switch {
	case r.Usage > DANEEE:
		return fmt.Errorf("usage %d is not known", r.Usage)
	case r.Selector > SPKI:
		return fmt.Errorf("selector %d is not known", r.Selector)
	case r.Matching > SHA512:
		return fmt.Errorf("matching type %d is not known", r.Matching)
	case r.Matching == SHA256 && len(r.Data) != sha256.Size, r.Matching == SHA512 && len(r.Data) != sha512.Size:
		return fmt.Errorf("its digest has %d bytes", len(r.Data))
	case r.Matching != Full:
		return nil
	case r.Selector == Cert:
		c, err := r.Certificate()
		if err != nil {
			return fmt.Errorf("its certificate cannot be read: %w", err)
		}
		return tooLarge(c.PublicKey)
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return fmt.Errorf("its public key cannot be read: %w", err)
	}
	return tooLarge(key)
}

// tooLarge keeps what a record says from costing seconds a signature.
func tooLarge(key any) error {
	if k, ok := key.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSA {
		return fmt.Errorf("its RSA key has %d bits", k.N.BitLen())
	}
	return nil
}

const maxRSA = 8192 // bits, as crypto/tls

// Certificate is the whole one in a record with the parameters x 0 0.
func (r Record) Certificate() (*x509.Certificate, error) {
	if r.Selector != Cert || r.Matching != Full {
		return nil, fmt.Errorf("a record %s has no whole certificate", r.Params())
	}
	return x509.ParseCertificate(r.Data)
}

// Usable keeps the records that certificates are to be held against: those that
// are not unusable, and of those with the same usage and selector only the ones
// with the strongest digest (RFC 7671, section 9). Whole ones stay.
func Usable(records []Record) []Record {
	type group struct {
		u Usage
		s Selector
	}
	strongest := make(map[group]Matching)
	var usable []Record
	for _, r := range records {
		if r.Unusable() != nil {
			continue
		}
		usable = append(usable, r)
		g := group{r.Usage, r.Selector}
		strongest[g] = max(strongest[g], r.Matching)
	}
	return slices.DeleteFunc(usable, func(r Record) bool {
		return r.Matching != Full && r.Matching != strongest[group{r.Usage, r.Selector}]
	})
}
