package wire

import "errors"

// MaxHello is the largest ClientHello handshake message that is reassembled,
// in bytes, without record headers.
const MaxHello = 64 << 10

// ErrMore says that the bytes so far may begin a ClientHello, and that more are needed.
var ErrMore = errors.New("more bytes needed")

// ErrNotTLS says that the bytes are no TLS handshake record at all.
var ErrNotTLS = errors.New("not a TLS ClientHello")

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
	Raw          []byte   // the whole handshake message, with its four byte header
}
