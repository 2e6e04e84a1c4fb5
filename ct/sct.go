package ct

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// Origin is by which way an SCT came (RFC 6962, section 3.3).
type Origin uint8

const (
	Embedded  Origin = iota // in the certificate
	Handshake               // in an extension of the handshake
	Staple                  // in the OCSP response stapled to it
)

func (o Origin) String() string {
	switch o {
	case Handshake:
		return "in the handshake"
	case Staple:
		return "in the OCSP staple"
	}
	return "in the certificate"
}

// SCT is a log's promise to publish a certificate (RFC 6962, section 3.2).
type SCT struct {
	LogID  [32]byte  // SHA-256 of the log's key
	Time   time.Time // of the promise, to the millisecond
	Origin Origin

	millis     uint64
	extensions []byte
	algorithm  uint16 // hash and signature (RFC 5246, section 7.4.1.4.1)
	signature  []byte
}

// What a stranger may have us look at. Certificates have two to six SCTs, of
// some 120 bytes.
const (
	maxSCTs   = 32       // of one origin
	maxStaple = 64 << 10 // bytes of an OCSP response
	maxMillis = 253402300799999
)

var (
	oidEmbedded = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2} // RFC 6962, section 3.3
	oidStaple   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 5}
)

// errVersion is of an SCT that is newer than this code (RFC 6962, section 3.2
// has version 0 alone).
var errVersion = errors.New("an SCT of a version that is not known here")

// ParseSCT reads one SerializedSCT.
func ParseSCT(b []byte) (*SCT, error) {
	s := cryptobyte.String(b)
	var (
		version               uint8
		id                    []byte
		t                     SCT
		extensions, signature cryptobyte.String
	)
	if !s.ReadUint8(&version) {
		return nil, errors.New("an empty SCT")
	}
	if version != 0 {
		return nil, errVersion
	}
	if !s.ReadBytes(&id, len(t.LogID)) || !s.ReadUint64(&t.millis) || !s.ReadUint16LengthPrefixed(&extensions) ||
		!s.ReadUint16(&t.algorithm) || !s.ReadUint16LengthPrefixed(&signature) || !s.Empty() {
		return nil, fmt.Errorf("an SCT that cannot be read (%d bytes)", len(b))
	}
	if t.millis > maxMillis {
		return nil, errors.New("an SCT with a time after the year 9999")
	}
	t.LogID = [32]byte(id)
	t.Time = time.UnixMilli(int64(t.millis)).UTC()
	t.extensions, t.signature = extensions, signature
	return &t, nil
}

// SplitList cuts a SignedCertificateTimestampList (RFC 6962, section 3.3) into
// its SCTs, unread.
func SplitList(b []byte) ([][]byte, error) {
	s := cryptobyte.String(b)
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return nil, fmt.Errorf("a list of SCTs that cannot be read (%d bytes)", len(b))
	}
	var out [][]byte
	for !list.Empty() {
		var one cryptobyte.String
		if !list.ReadUint16LengthPrefixed(&one) || one.Empty() {
			return nil, fmt.Errorf("a list of SCTs of which number %d cannot be read", len(out)+1)
		}
		if len(out) == maxSCTs {
			return nil, fmt.Errorf("a list of more than %d SCTs", maxSCTs)
		}
		out = append(out, one)
	}
	return out, nil
}

// embedded gives the SCTs in a certificate; there may be none.
func embedded(c *x509.Certificate) ([][]byte, error) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidEmbedded) {
			return octets(e.Value)
		}
	}
	return nil, nil
}

// stapled gives the SCTs in an OCSP response about leaf. Nobody's signature on
// it is asked for: what counts is the log's on the SCT.
func stapled(staple []byte, leaf *x509.Certificate) ([][]byte, error) {
	if len(staple) == 0 || len(staple) > maxStaple {
		return nil, nil
	}
	r, err := ocsp.ParseResponseForCert(staple, leaf, nil)
	if err != nil {
		return nil, nil // a matter of revocation, which says so
	}
	for _, e := range r.Extensions {
		if e.Id.Equal(oidStaple) {
			return octets(e.Value)
		}
	}
	return nil, nil
}

// octets reads the list in the OCTET STRING that both extensions hold.
func octets(value []byte) ([][]byte, error) {
	s := cryptobyte.String(value)
	var list cryptobyte.String
	if !s.ReadASN1(&list, cbasn1.OCTET_STRING) || !s.Empty() {
		return nil, errors.New("an extension for SCTs that cannot be read")
	}
	return SplitList(list)
}
