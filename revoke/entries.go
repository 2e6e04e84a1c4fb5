package revoke

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// revoked is one entry, small, since there are many.
type revoked struct {
	serial serial
	reason int8
	at     int64 // Unix time
}

// serial is the number's octets, to the right; of one with more than RFC 5280
// allows, a hash.
type serial [20]byte

func serialOf(n *big.Int) (s serial) {
	if b := n.Bytes(); len(b) <= len(s) && n.Sign() >= 0 {
		copy(s[len(s)-len(b):], b)
	} else {
		sum := sha256.Sum256(append([]byte{byte(n.Sign())}, b...))
		copy(s[:], sum[:])
	}
	return s
}

// bareCRL is a CRL without its entries, for crypto/x509, which makes half a KiB of
// each of them.
type bareCRL struct {
	der         []byte
	raw, rawTBS []byte // of the whole one
}

// split takes a CRL apart (RFC 5280, section 5.1): what stands in it but the entries,
// and the entries. It judges neither.
func split(der []byte) (b bareCRL, entries []byte, err error) {
	in := cryptobyte.String(der)
	var raw, list, rawTBS, tbs, old cryptobyte.String
	if !in.ReadASN1Element(&raw, tags.SEQUENCE) {
		return b, nil, errNotDER
	}
	if !in.Empty() {
		return b, nil, fmt.Errorf("%d bytes too many", len(in))
	}
	list = raw
	if !list.ReadASN1(&list, tags.SEQUENCE) || !list.ReadASN1Element(&rawTBS, tags.SEQUENCE) {
		return b, nil, errNotDER
	}
	b = bareCRL{der: raw, raw: raw, rawTBS: rawTBS}
	tbs = rawTBS
	if !tbs.ReadASN1(&tbs, tags.SEQUENCE) {
		return b, nil, errNotDER
	}
	all := tbs
	if !tbs.SkipOptionalASN1(tags.INTEGER) || !tbs.SkipASN1(tags.SEQUENCE) || !tbs.SkipASN1(tags.SEQUENCE) ||
		!skipTime(&tbs) || isTime(tbs) && !skipTime(&tbs) {
		return b, nil, errNotDER
	}
	before := all[:len(all)-len(tbs)]
	if !tbs.PeekASN1Tag(tags.SEQUENCE) {
		return b, nil, nil
	}
	// A second one crypto/x509 would take for the first, since it is not given that.
	if !tbs.ReadASN1(&old, tags.SEQUENCE) || tbs.PeekASN1Tag(tags.SEQUENCE) {
		return b, nil, errNotDER
	}
	var out cryptobyte.Builder
	out.AddASN1(tags.SEQUENCE, func(out *cryptobyte.Builder) {
		out.AddASN1(tags.SEQUENCE, func(out *cryptobyte.Builder) {
			out.AddBytes(before)
			out.AddBytes(tbs)
		})
		out.AddBytes(list)
	})
	b.der, err = out.Bytes()
	return b, old, err
}

func isTime(s cryptobyte.String) bool {
	return s.PeekASN1Tag(tags.UTCTime) || s.PeekASN1Tag(tags.GeneralizedTime)
}

func skipTime(s *cryptobyte.String) bool {
	return s.SkipASN1(tags.UTCTime) || s.SkipASN1(tags.GeneralizedTime)
}

// parseEntries reads revokedCertificates, in the order of their serial numbers.
func parseEntries(der []byte) ([]revoked, error) {
	in := cryptobyte.String(der)
	var (
		list  []revoked
		entry cryptobyte.String
		n     big.Int
	)
	for !in.Empty() {
		if !in.ReadASN1(&entry, tags.SEQUENCE) || !entry.ReadASN1Integer(&n) {
			return nil, fmt.Errorf("no CRL: entry %d: %w", len(list)+1, errNotDER)
		}
		at, ok := readTime(&entry)
		if !ok {
			return nil, fmt.Errorf("no CRL: entry %d: %w", len(list)+1, errNotDER)
		}
		if list == nil { // the others are about as long as the first
			list = make([]revoked, 0, len(der)/(len(der)-len(in)))
		}
		reason, err := entryExtensions(entry)
		if err != nil {
			return nil, err
		}
		list = append(list, revoked{serialOf(&n), reason, at.Unix()})
	}
	slices.SortFunc(list, func(a, b revoked) int { return bytes.Compare(a.serial[:], b.serial[:]) })
	return list, nil
}

func readTime(s *cryptobyte.String) (t time.Time, ok bool) {
	if s.PeekASN1Tag(tags.UTCTime) {
		return t, s.ReadASN1UTCTime(&t)
	}
	return t, s.ReadASN1GeneralizedTime(&t)
}

// Extensions of entries (RFC 5280, section 5.3), as they stand in DER.
var (
	reasonCode        = []byte{0x55, 0x1d, 0x15} // 2.5.29.21
	certificateIssuer = []byte{0x55, 0x1d, 0x1d} // 2.5.29.29
)

// entryExtensions gives the reason that an entry has, and refuses what would have to
// be understood.
func entryExtensions(entry cryptobyte.String) (reason int8, err error) {
	var list cryptobyte.String
	if !entry.ReadOptionalASN1(&list, nil, tags.SEQUENCE) {
		return 0, errNotDER
	}
	for !list.Empty() {
		var e, rawID, id, value cryptobyte.String
		var critical bool
		if !list.ReadASN1(&e, tags.SEQUENCE) || !e.ReadASN1Element(&rawID, tags.OBJECT_IDENTIFIER) ||
			e.PeekASN1Tag(tags.BOOLEAN) && !e.ReadASN1Boolean(&critical) || !e.ReadASN1(&value, tags.OCTET_STRING) {
			return 0, fmt.Errorf("no CRL: an entry's extension: %w", errNotDER)
		}
		id = rawID
		id.ReadASN1(&id, tags.OBJECT_IDENTIFIER)
		switch {
		case bytes.Equal(id, certificateIssuer):
			return 0, errIndirect
		case bytes.Equal(id, reasonCode):
			var code int
			if !value.ReadASN1Enum(&code) {
				return 0, fmt.Errorf("no CRL: an entry's reason: %w", errNotDER)
			}
			reason = int8(min(max(code, -1), 127))
		case critical:
			var known asn1.ObjectIdentifier
			rawID.ReadASN1ObjectIdentifier(&known)
			return 0, fmt.Errorf("the CRL has an entry with a critical extension that is not understood (%s)", known)
		}
	}
	return reason, nil
}
