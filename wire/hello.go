package wire

import (
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// RecordVersion is what stands in a record ahead of any agreement: 1.2's number
// for whoever knows it (RFC 8446, section 5.1), else the client's own. Without a
// hello it is TLS 1.2's.
func (h *Hello) RecordVersion() uint16 {
	switch {
	case h == nil:
		return VersionTLS12
	case h.DTLS: // whose versions count down
		return min(max(h.Version, VersionDTLS12), VersionDTLS10)
	}
	return min(max(h.Version, VersionTLS10), VersionTLS12)
}

// Forget drops what only a parser needs: Raw and what lies in it, which may be
// 64 KiB. SNI, ALPN and the lists of numbers stay.
func (h *Hello) Forget() { h.Raw, h.SessionID, h.Cookie, h.Points, h.ECH = nil, nil, nil, nil, nil }

// Hello is one ClientHello (RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2).
// Lists keep the client's order and its GREASE values unless said otherwise.
type Hello struct {
	Version      uint16   // legacy_version
	Versions     []uint16 // what the client can speak, without GREASE; from supported_versions, else all up to Version
	Random       [32]byte
	SessionID    []byte
	CipherSuites []uint16
	SNI          string   // the host_name, lower case, without a trailing dot; empty if none was sent
	ALPN         []string // as offered
	Groups       []uint16
	Points       []uint8
	Schemes      []uint16
	Extensions   []uint16 // types, in order
	ECH          []byte   // body of encrypted_client_hello (RFC 9849); nil if absent
	Raw          []byte   // the whole handshake message, with its header: four bytes, in DTLS twelve

	// DTLS says that it came in a datagram. All versions in it are DTLS's numbers,
	// and the three below are of DTLS alone (RFC 6347, section 4).
	DTLS       bool
	Cookie     []byte
	MessageSeq uint16 // 0 in the first hello of a handshake, one more after each HelloVerifyRequest
	RecordSeq  uint64 // of its record
}

// Extension types (RFC 8446, section 4.2) that are looked into.
const (
	extServerName        = 0
	extSupportedGroups   = 10
	extECPointFormats    = 11
	extSignatureAlgs     = 13
	extALPN              = 16
	extPreSharedKey      = 41
	extSupportedVersions = 43
	extECH               = 0xfe0d
)

const typeClientHello = 1

// ParseHello reads a complete ClientHello handshake message, with its four byte
// header. The Hello keeps msg and shares its memory.
//
// It refuses what the RFCs call an error in the parts that it reads, so that no
// server behind us can read another name or protocol out of the same bytes. Its
// SNI is what crypto/tls will report, in lower case.
func ParseHello(msg []byte) (*Hello, error) {
	h := &Hello{Raw: msg}
	s := cryptobyte.String(msg)
	var typ uint8
	var body cryptobyte.String
	switch {
	case !s.ReadUint8(&typ) || !s.ReadUint24LengthPrefixed(&body):
		return nil, malformed("shorter than its length says")
	case typ != typeClientHello:
		return nil, malformed("handshake message %d where a ClientHello is due", typ)
	case !s.Empty():
		return nil, malformed("bytes behind the message")
	}
	if err := h.readBody(body); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Hello) readBody(body cryptobyte.String) (err error) {
	var sessionID, cookie, suites, compression, extensions cryptobyte.String
	switch {
	case !body.ReadUint16(&h.Version) || !body.CopyBytes(h.Random[:]):
		return malformed("ends within version and random")
	case !body.ReadUint8LengthPrefixed(&sessionID) || len(sessionID) > 32:
		return malformed("bad session id")
	case h.DTLS && !body.ReadUint8LengthPrefixed(&cookie):
		return malformed("ends within the cookie")
	case !body.ReadUint16LengthPrefixed(&suites):
		return malformed("ends within the cipher suites")
	case !body.ReadUint8LengthPrefixed(&compression) || compression.Empty():
		return malformed("bad compression methods")
	}
	h.SessionID, h.Cookie = sessionID, cookie
	if h.CipherSuites, err = uint16s(suites, "cipher suites"); err != nil {
		return err
	}
	if h.Versions = upTo(h.Version); h.DTLS {
		h.Versions = upToDTLS(h.Version)
	}
	if body.Empty() { // RFC 5246, section 7.4.1.2: a client of TLS 1.2 or older may leave them out
		return nil
	}
	if !body.ReadUint16LengthPrefixed(&extensions) || !body.Empty() {
		return malformed("bad length of the extensions")
	}
	return h.readExtensions(extensions)
}

func (h *Hello) readExtensions(s cryptobyte.String) error {
	seen := make(map[uint16]bool)
	for !s.Empty() {
		var typ uint16
		var body cryptobyte.String
		if !s.ReadUint16(&typ) || !s.ReadUint16LengthPrefixed(&body) {
			return malformed("ends within an extension")
		}
		if seen[typ] { // RFC 8446, section 4.2
			return malformed("extension %d twice", typ)
		}
		if typ == extPreSharedKey && !s.Empty() { // RFC 8446, section 4.2.11
			return malformed("pre_shared_key is not the last extension")
		}
		seen[typ] = true
		h.Extensions = append(h.Extensions, typ)
		if err := h.readExtension(typ, body); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hello) readExtension(typ uint16, body cryptobyte.String) (err error) {
	switch typ {
	case extServerName:
		h.SNI, err = serverName(body)
	case extALPN:
		h.ALPN, err = protocols(body)
	case extSupportedGroups:
		h.Groups, err = list16(body, "supported_groups")
	case extSignatureAlgs:
		h.Schemes, err = list16(body, "signature_algorithms")
	case extECPointFormats:
		var points cryptobyte.String
		if !body.ReadUint8LengthPrefixed(&points) || points.Empty() || !body.Empty() {
			return malformed("bad ec_point_formats") // RFC 8422, section 5.1.2
		}
		h.Points = points
	case extSupportedVersions:
		var versions cryptobyte.String
		if !body.ReadUint8LengthPrefixed(&versions) || !body.Empty() {
			return malformed("bad supported_versions") // RFC 8446, section 4.2.1
		}
		h.Versions, err = uint16s(versions, "supported_versions")
		h.Versions = withoutGREASE(h.Versions)
	case extECH:
		if body.Empty() { // RFC 9849, section 5: at least its type
			return malformed("empty encrypted_client_hello")
		}
		h.ECH = body
	}
	return err
}

// serverName is RFC 6066, section 3. Entries of another type are passed over, as
// crypto/tls does; a second host_name is an error.
func serverName(body cryptobyte.String) (string, error) {
	var list cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&list) || list.Empty() || !body.Empty() {
		return "", malformed("bad server_name")
	}
	name := ""
	for !list.Empty() {
		var typ uint8
		var entry cryptobyte.String
		if !list.ReadUint8(&typ) || !list.ReadUint16LengthPrefixed(&entry) || entry.Empty() {
			return "", malformed("bad entry in server_name")
		}
		if typ != 0 {
			continue
		}
		if name != "" {
			return "", malformed("two host names in server_name")
		}
		if name = string(entry); !isHostName(name) {
			return "", malformed("server_name %.64q is no host name", name)
		}
	}
	return strings.ToLower(name), nil
}

// isHostName takes what clients send: letters, digits and hyphens, and against
// the RFC underscores and literal addresses, which crypto/tls passes on as they
// are. A trailing dot it refuses, as RFC 6066 does.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			if label++; label > 63 {
				return false
			}
		case c == '.' && label > 0:
			label = 0
		default:
			a, err := netip.ParseAddr(s)
			return err == nil && a.Zone() == ""
		}
	}
	return label > 0
}

// protocols is RFC 7301, section 3.1.
func protocols(body cryptobyte.String) ([]string, error) {
	var list cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&list) || list.Empty() || !body.Empty() {
		return nil, malformed("bad application_layer_protocol_negotiation")
	}
	var names []string
	for !list.Empty() {
		var name cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&name) || name.Empty() {
			return nil, malformed("bad protocol name in application_layer_protocol_negotiation")
		}
		names = append(names, string(name))
	}
	return names, nil
}

// list16 reads a list of numbers that is all of an extension.
func list16(body cryptobyte.String, what string) ([]uint16, error) {
	var list cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&list) || !body.Empty() {
		return nil, malformed("bad %s", what)
	}
	return uint16s(list, what)
}

func uint16s(s cryptobyte.String, what string) ([]uint16, error) {
	if s.Empty() || len(s)%2 != 0 {
		return nil, malformed("empty or odd list of %s", what)
	}
	list := make([]uint16, len(s)/2)
	for i := range list {
		s.ReadUint16(&list[i])
	}
	return list, nil
}
