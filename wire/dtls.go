package wire

import (
	"golang.org/x/crypto/cryptobyte"
)

// Content types of a DTLS record.
const (
	TypeAlert     = typeAlert
	TypeHandshake = typeHandshake
	TypeCID       = 25 // tls12_cid (RFC 9146, section 4)
)

const (
	dtlsMajor       = 0xfe
	dtlsHeader      = 13 // of a record (RFC 6347, section 4.1)
	handshakeHeader = 12 // of a handshake message (section 4.2.2)
	maxDTLSBody     = 1<<14 + 2048
	maxSeq          = 1<<48 - 1
	lastClearSeq    = 0xffff

	typeHelloVerifyRequest = 3
)

// MaxDTLSHello is the largest ClientHello over DTLS that is read, in bytes of its
// body: with its header it fits into one record.
const MaxDTLSHello = maxPlaintext - handshakeHeader

// Record is one DTLS record, as it stands in a datagram.
type Record struct {
	Type    uint8
	Version uint16
	Epoch   uint16
	Seq     uint64 // within the epoch
	CID     []byte // nil unless Type is [TypeCID]
	Body    []byte // as sent: encrypted above epoch 0
	Raw     []byte // all of it, with its header
}

// ReadRecord reads the record that datagram begins with, and gives what is behind
// it. cid is the length of the connection IDs that we gave out, in bytes; a record
// does not say it (RFC 9146, section 4). It gives [ErrNotTLS] for what is no DTLS
// record, and a [*MalformedError] for one that the datagram cuts off.
func ReadRecord(datagram []byte, cid int) (r Record, rest []byte, err error) {
	s := cryptobyte.String(datagram)
	var seq uint64
	var body cryptobyte.String
	if len(s) < dtlsHeader || s[0] < 20 || s[0] > TypeCID || s[1] != dtlsMajor {
		return Record{}, nil, ErrNotTLS
	}
	s.ReadUint8(&r.Type)
	s.ReadUint16(&r.Version)
	s.ReadUint64(&seq)
	r.Epoch, r.Seq = uint16(seq>>48), seq&maxSeq
	if r.Type == TypeCID && !s.ReadBytes(&r.CID, cid) {
		return Record{}, nil, malformed("a record that ends within its connection ID")
	}
	if !s.ReadUint16LengthPrefixed(&body) || len(body) > maxDTLSBody {
		return Record{}, nil, malformed("a record that is shorter than its length says, or too large")
	}
	r.Body, r.Raw = body, datagram[:len(datagram)-len(s)]
	return r, s, nil
}

// appendDTLSHeader appends the header of a record of epoch 0.
func appendDTLSHeader(b []byte, typ uint8, version uint16, seq uint64, length int) []byte {
	return append(b, typ, byte(version>>8), byte(version), 0, 0,
		byte(seq>>40), byte(seq>>32), byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq),
		byte(length>>8), byte(length))
}

// appendHandshakeHeader appends the header of a message of one fragment.
func appendHandshakeHeader(b []byte, typ uint8, length int, seq uint16) []byte {
	return append(b, typ, byte(length>>16), byte(length>>8), byte(length), byte(seq>>8), byte(seq),
		0, 0, 0, byte(length>>16), byte(length>>8), byte(length))
}

// fragment is a part of a ClientHello, or all of it.
type fragment struct {
	length, offset int // of the whole message's body, and therein
	seq            uint16
	body           []byte
	raw            []byte // with its header
}

func (f *fragment) whole() bool { return f.offset == 0 && len(f.body) == f.length }

// readFragment reads the handshake message that b, a record's body, begins with.
func readFragment(b []byte) (f fragment, rest []byte, err error) {
	if len(b) < handshakeHeader {
		return f, nil, malformed("ends within the header of the message")
	}
	f.length = int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	f.seq = uint16(b[4])<<8 | uint16(b[5])
	f.offset = int(b[6])<<16 | int(b[7])<<8 | int(b[8])
	n := int(b[9])<<16 | int(b[10])<<8 | int(b[11])
	switch {
	case b[0] != typeClientHello:
		return f, nil, malformed("handshake message %d where a ClientHello is due", b[0])
	case f.length > MaxDTLSHello:
		return f, nil, ErrTooLarge
	case n > len(b)-handshakeHeader:
		return f, nil, malformed("a fragment that is shorter than its length says")
	case f.offset+n > f.length:
		return f, nil, malformed("a fragment that reaches beyond its message")
	case n == 0:
		return f, nil, malformed("an empty fragment")
	}
	f.raw, rest = b[:handshakeHeader+n], b[handshakeHeader+n:]
	f.body = f.raw[handshakeHeader:]
	return f, rest, nil
}

// IsClientHello says whether r holds a ClientHello in clear, or a part of one.
func (r *Record) IsClientHello() bool {
	return r.Type == TypeHandshake && r.Epoch == 0 && len(r.Body) > 0 && r.Body[0] == typeClientHello
}

// HelloHead is what a server looks at in a ClientHello before it keeps anything of
// it (RFC 6347, section 4.2.1). It shares the datagram's memory.
type HelloHead struct {
	MessageSeq uint16
	RecordSeq  uint64
	Random     []byte
	Cookie     []byte
	// Before and After are what stands around the cookie: version, random and session
	// ID, and suites and compression methods. The client must send them again as they are.
	Before, After []byte
	Raw           []byte // the handshake message, with its twelve byte header
	Record        []byte // around it
}

// ReadHelloHead reads a datagram that begins with a whole ClientHello in one
// record. It gives [ErrNotTLS], [ErrMore] for a hello that is only a part,
// [ErrTooLarge] or a [*MalformedError]. What follows the record is not looked at.
func ReadHelloHead(datagram []byte) (h HelloHead, err error) {
	r, _, err := ReadRecord(datagram, 0)
	switch {
	case err != nil:
		return h, err
	case r.Type != TypeHandshake || r.Epoch != 0:
		return h, ErrNotTLS
	}
	f, rest, err := readFragment(r.Body)
	switch {
	case err != nil:
		return h, err
	case !f.whole():
		return h, ErrMore
	case len(rest) > 0:
		return h, malformed("bytes behind the message")
	}
	h.MessageSeq, h.RecordSeq, h.Raw, h.Record = f.seq, r.Seq, f.raw, r.Raw
	s := cryptobyte.String(f.body)
	var sessionID, cookie, list cryptobyte.String
	if !s.Skip(2) || !s.ReadBytes(&h.Random, 32) || !s.ReadUint8LengthPrefixed(&sessionID) || len(sessionID) > 32 {
		return h, malformed("ends within version, random and session id")
	}
	h.Before = f.body[:len(f.body)-len(s)]
	if !s.ReadUint8LengthPrefixed(&cookie) {
		return h, malformed("ends within the cookie")
	}
	after := s
	if !s.ReadUint16LengthPrefixed(&list) || !s.ReadUint8LengthPrefixed(&list) {
		return h, malformed("ends within suites and compression methods")
	}
	h.Cookie, h.After = cookie, after[:len(after)-len(s)]
	return h, nil
}

// ParseDTLSHello reads a datagram that begins with a whole ClientHello in one
// record; its answers are those of [ReadHelloHead]. The Hello shares the
// datagram's memory. See [HelloFragments] for one that came in parts.
func ParseDTLSHello(datagram []byte) (*Hello, error) {
	head, err := ReadHelloHead(datagram)
	if err != nil {
		return nil, err
	}
	h := &Hello{DTLS: true, MessageSeq: head.MessageSeq, RecordSeq: head.RecordSeq, Raw: head.Raw}
	if err := h.readBody(head.Raw[handshakeHeader:]); err != nil {
		return nil, err
	}
	return h, nil
}

// DTLSRecord is the hello once more, as one record that holds all of it, with
// other numbers and another cookie; nil is none. It is nil once the hello has
// forgotten what it was made of.
func (h *Hello) DTLSRecord(messageSeq uint16, recordSeq uint64, cookie []byte) []byte {
	if !h.DTLS || h.Raw == nil {
		return nil
	}
	body := h.Raw[handshakeHeader:]
	at := 2 + 32 + 1 + len(h.SessionID) // of the cookie
	length := len(body) - len(h.Cookie) + len(cookie)
	b := make([]byte, 0, dtlsHeader+handshakeHeader+length)
	// Ahead of an agreement a record is of DTLS 1.0 (RFC 9147, section 5.3).
	b = appendDTLSHeader(b, TypeHandshake, VersionDTLS10, recordSeq, handshakeHeader+length)
	b = appendHandshakeHeader(b, typeClientHello, length, messageSeq)
	b = append(b, body[:at]...)
	b = append(b, byte(len(cookie)))
	b = append(b, cookie...)
	return append(b, body[at+1+len(h.Cookie):]...)
}

// ReadHelloVerifyRequest gives the cookie of a datagram that begins with a whole
// HelloVerifyRequest (RFC 6347, section 4.2.1). It shares the datagram's memory.
func ReadHelloVerifyRequest(datagram []byte) (cookie []byte, ok bool) {
	r, _, err := ReadRecord(datagram, 0)
	if err != nil || r.Type != TypeHandshake || r.Epoch != 0 {
		return nil, false
	}
	s := cryptobyte.String(r.Body)
	var typ uint8
	if !s.ReadUint8(&typ) || typ != typeHelloVerifyRequest || !s.Skip(handshakeHeader-1+2) || !s.ReadUint8LengthPrefixed((*cryptobyte.String)(&cookie)) {
		return nil, false
	}
	return cookie, len(s) == 0
}

// AppendHelloVerifyRequest appends the record that asks a client to say its hello
// again with this cookie. recordSeq and messageSeq are the hello's: who keeps no
// state has no numbers of its own, and the version is 1.0's for any client (RFC
// 6347, section 4.2.1).
func AppendHelloVerifyRequest(b []byte, recordSeq uint64, messageSeq uint16, cookie []byte) []byte {
	length := 2 + 1 + len(cookie)
	b = appendDTLSHeader(b, TypeHandshake, VersionDTLS10, recordSeq, handshakeHeader+length)
	b = appendHandshakeHeader(b, typeHelloVerifyRequest, length, messageSeq)
	b = append(b, byte(VersionDTLS10>>8), byte(VersionDTLS10&0xff), byte(len(cookie)))
	return append(b, cookie...)
}
