package secure

import (
	"bytes"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"sallyport/wire"
)

const (
	kemX25519        = 0x0020 // RFC 9180, section 7
	kdfHKDFSHA256    = 0x0001
	aeadAES128GCM    = 0x0001
	aeadChaCha20     = 0x0003
	echMaxNameLength = 64 // inner names up to it look alike in length
	versionTLS13     = 0x0304
)

// parseECHConfigs reads an ECHConfigList (RFC 9849, section 4), without the
// configurations of other versions.
func parseECHConfigs(b []byte) ([]echConfig, error) {
	s := cryptobyte.String(b)
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return nil, errECHList
	}
	var configs []echConfig
	for !list.Empty() {
		raw := []byte(list)
		var version uint16
		var contents, publicKey cryptobyte.String
		if !list.ReadUint16(&version) || !list.ReadUint16LengthPrefixed(&contents) {
			return nil, errECHList
		}
		if version != extECH {
			continue
		}
		c := echConfig{raw: bytes.Clone(raw[:len(raw)-len(list)])}
		if !contents.ReadUint8(&c.id) || !contents.ReadUint16(&c.kem) || !contents.ReadUint16LengthPrefixed(&publicKey) {
			return nil, errECHList
		}
		c.publicKey = bytes.Clone(publicKey)
		configs = append(configs, c)
	}
	return configs, nil
}

func marshalECHConfigs(id uint8, kem uint16, publicKey []byte, publicName string) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { // ECHConfigList
		b.AddUint16(extECH)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8(id)
			b.AddUint16(kem)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(publicKey) })
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, aead := range []uint16{aeadAES128GCM, aeadChaCha20} {
					b.AddUint16(kdfHKDFSHA256)
					b.AddUint16(aead)
				}
			})
			b.AddUint8(echMaxNameLength)
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(publicName)) })
			b.AddUint16(0) // extensions
		})
	})
	return b.Bytes()
}

var (
	errInnerMalformed = errors.New("the inner hello cannot be read")
	errInnerOuterExts = errors.New("ech_outer_extensions name what the outer hello does not have, or not in this order")
	errInnerMarker    = errors.New("the inner hello does not say that it is one")
	errInnerVersions  = errors.New("the inner hello must offer TLS 1.3 and nothing older")
)

// decodeInner rebuilds the inner ClientHello from its EncodedClientHelloInner (RFC
// 9849, section 5.1), with the checks that crypto/tls makes.
func decodeInner(outer *wire.Hello, encoded []byte) (*wire.Hello, error) {
	s := cryptobyte.String(encoded)
	var sessionID, suites, compression, extensions cryptobyte.String
	var start []byte // version and random
	if !s.ReadBytes(&start, 2+32) || !s.ReadUint8LengthPrefixed(&sessionID) || !sessionID.Empty() ||
		!s.ReadUint16LengthPrefixed(&suites) || !s.ReadUint8LengthPrefixed(&compression) || !s.ReadUint16LengthPrefixed(&extensions) {
		return nil, errInnerMalformed
	}
	for _, padding := range s {
		if padding != 0 {
			return nil, errInnerMalformed
		}
	}
	expanded, err := expandOuter(outer, extensions)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint8(1) // client_hello
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddBytes(start)
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(outer.SessionID) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(suites) })
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(compression) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(expanded) })
	})
	msg, err := b.Bytes()
	if err != nil {
		return nil, errInnerMalformed
	}
	inner, err := wire.ParseHello(msg)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(inner.ECH, []byte{echInner}) {
		return nil, errInnerMarker
	}
	has13 := false
	for _, v := range inner.Versions {
		if v < versionTLS13 {
			return nil, errInnerVersions
		}
		has13 = has13 || v == versionTLS13
	}
	if !has13 {
		return nil, errInnerVersions
	}
	return inner, nil
}

// expandOuter puts the extensions that the inner hello shares with the outer one
// where ech_outer_extensions stands for them. Each search goes on behind the last
// hit, which is what keeps the work linear (RFC 9849, section 10.12.4).
func expandOuter(outer *wire.Hello, extensions cryptobyte.String) ([]byte, error) {
	var out []byte
	expanded := false
	for !extensions.Empty() {
		before := []byte(extensions)
		var typ uint16
		var body, types cryptobyte.String
		if !extensions.ReadUint16(&typ) || !extensions.ReadUint16LengthPrefixed(&body) {
			return nil, errInnerMalformed
		}
		if typ != extECHOuterExtensions {
			out = append(out, before[:len(before)-len(extensions)]...)
			continue
		}
		// No hello has an extension twice. Said before anything is expanded: a thousand
		// of these would multiply a large outer extension.
		if expanded || !body.ReadUint8LengthPrefixed(&types) {
			return nil, errInnerMalformed
		}
		expanded = true
		from := outerExtensions(outer)
		for !types.Empty() {
			var want uint16
			if !types.ReadUint16(&want) || want == extECH {
				return nil, errInnerOuterExts
			}
			whole, ok := nextExtension(&from, want)
			if !ok {
				return nil, errInnerOuterExts
			}
			out = append(out, whole...)
		}
	}
	return out, nil
}

// outerExtensions gives the extensions as they stand in a hello that has been parsed.
func outerExtensions(h *wire.Hello) cryptobyte.String {
	s := cryptobyte.String(h.Raw)
	var skipped, extensions cryptobyte.String
	if !s.Skip(4+2+32) || !s.ReadUint8LengthPrefixed(&skipped) || !s.ReadUint16LengthPrefixed(&skipped) ||
		!s.ReadUint8LengthPrefixed(&skipped) || !s.ReadUint16LengthPrefixed(&extensions) {
		return nil
	}
	return extensions
}

// nextExtension gives the next extension of a type, whole, and leaves what follows it.
func nextExtension(s *cryptobyte.String, want uint16) (whole []byte, ok bool) {
	for !s.Empty() {
		before := []byte(*s)
		var typ uint16
		var body cryptobyte.String
		if !s.ReadUint16(&typ) || !s.ReadUint16LengthPrefixed(&body) {
			return nil, false
		}
		if typ == want {
			return before[:len(before)-len(*s)], true
		}
	}
	return nil, false
}
