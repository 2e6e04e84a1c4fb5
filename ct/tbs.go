package ct

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	tagVersion    = asn1.Tag(0).ContextSpecific().Constructed()
	tagIssuerID   = asn1.Tag(1).ContextSpecific()
	tagSubjectID  = asn1.Tag(2).ContextSpecific()
	tagExtensions = asn1.Tag(3).ContextSpecific().Constructed()
)

var errTBS = errors.New("a certificate that cannot be taken apart")

// preTBS is what a log has signed of a certificate with embedded SCTs: its
// TBSCertificate without the extension that holds them (RFC 6962, section 3.2).
// Every other byte stays as it is.
func preTBS(tbs []byte) ([]byte, error) {
	s := cryptobyte.String(tbs)
	var body cryptobyte.String
	if !s.ReadASN1(&body, asn1.SEQUENCE) || !s.Empty() {
		return nil, errTBS
	}
	rest := body
	if !skipFields(&rest) {
		return nil, errTBS
	}
	var wrapped, list cryptobyte.String
	head := body[:len(body)-len(rest)]
	if !rest.ReadASN1(&wrapped, tagExtensions) || !rest.Empty() || !wrapped.ReadASN1(&list, asn1.SEQUENCE) || !wrapped.Empty() {
		return nil, errTBS
	}
	kept, err := withoutSCTs(list)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(head)
		if len(kept) == 0 { // Extensions are one or more (RFC 5280, section 4.1)
			return
		}
		b.AddASN1(tagExtensions, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(kept) })
		})
	})
	return b.Bytes()
}

// skipFields passes what stands before the extensions.
func skipFields(s *cryptobyte.String) bool {
	return s.SkipOptionalASN1(tagVersion) &&
		s.SkipASN1(asn1.INTEGER) && // serialNumber
		s.SkipASN1(asn1.SEQUENCE) && // signature
		s.SkipASN1(asn1.SEQUENCE) && // issuer
		s.SkipASN1(asn1.SEQUENCE) && // validity
		s.SkipASN1(asn1.SEQUENCE) && // subject
		s.SkipASN1(asn1.SEQUENCE) && // subjectPublicKeyInfo
		s.SkipOptionalASN1(tagIssuerID) && s.SkipOptionalASN1(tagSubjectID)
}

func withoutSCTs(list cryptobyte.String) ([]byte, error) {
	var (
		kept  []byte
		found bool
	)
	for !list.Empty() {
		var whole, inner cryptobyte.String
		if !list.ReadASN1Element(&whole, asn1.SEQUENCE) {
			return nil, errTBS
		}
		body := whole
		var id cryptobyte.String
		if !body.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) {
			return nil, errTBS
		}
		if string(id) != string(rawEmbedded) {
			kept = append(kept, whole...)
			continue
		}
		if found {
			return nil, errors.New("a certificate with two extensions for SCTs")
		}
		found = true
	}
	if !found {
		return nil, errors.New("a certificate without an extension for SCTs")
	}
	return kept, nil
}

// rawEmbedded is oidEmbedded, its contents in DER.
var rawEmbedded = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02}
