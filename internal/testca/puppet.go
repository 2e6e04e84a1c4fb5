package testca

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// Types of records and handshake messages (RFC 8446, appendix B).
const (
	recordCCS       = 20
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
	recordHeartbeat = 24 // RFC 6520

	helloRequest      = 0
	serverHello       = 2
	newSessionTicket  = 4
	certificateMsg    = 11
	serverKeyExchange = 12
	serverHelloDone   = 14
	keyUpdateMsg      = 24
)

// puppet says what it is told to, whatever sense that makes.
type puppet struct {
	net.Conn
	hello []byte // the client's, without its record
}

// hear takes the ClientHello.
func (p *puppet) hear() error {
	typ, body, err := p.record()
	if err != nil || typ != recordHandshake || len(body) < 39 {
		return errors.Join(errors.New("no ClientHello"), err)
	}
	p.hello = body
	return nil
}

// record takes one record.
func (p *puppet) record() (typ byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(p, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err = io.ReadFull(p, body)
	return head[0], body, err
}

// sessionID is the one that the ClientHello offers.
func (p *puppet) sessionID() []byte {
	n := int(p.hello[38])
	return p.hello[39 : 39+n]
}

func record(typ byte, version uint16, body []byte) []byte {
	head := []byte{typ, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(head[1:], version)
	binary.BigEndian.PutUint16(head[3:], uint16(len(body)))
	return append(head, body...)
}

func message(typ byte, body []byte) []byte {
	return append([]byte{typ, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func extensionBytes(typ uint16, body []byte) []byte {
	head := binary.BigEndian.AppendUint16(nil, typ)
	return append(binary.BigEndian.AppendUint16(head, uint16(len(body))), body...)
}

// helloOf is a ServerHello as its fields say.
type helloOf struct {
	version     uint16
	random      []byte // 32; nil is of no meaning
	session     []byte
	suite       uint16
	compression byte
	extensions  []byte
}

func (h helloOf) bytes() []byte {
	random := h.random
	if random == nil {
		random = make([]byte, 32)
		for i := range random {
			random[i] = byte(i + 1)
		}
	}
	b := append(binary.BigEndian.AppendUint16(nil, h.version), random...)
	b = append(append(b, byte(len(h.session))), h.session...)
	b = append(binary.BigEndian.AppendUint16(b, h.suite), h.compression)
	if h.extensions != nil {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(h.extensions))), h.extensions...)
	}
	return message(serverHello, b)
}

// retry is the random of a HelloRetryRequest (RFC 8446, section 4.1.3).
var retry = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

// splitter writes what is below TLS's encryption in pieces.
type splitter struct {
	net.Conn
	segment  int  // bytes a write; 0 leaves them whole
	fragment int  // bytes of handshake a record, as long as that is in clear
	sealed   bool // a ChangeCipherSpec has gone
	left     []byte
}

func (s *splitter) Write(b []byte) (int, error) {
	s.left = append(s.left, b...)
	var out []byte
	for len(s.left) >= 5 && len(s.left) >= 5+int(binary.BigEndian.Uint16(s.left[3:])) {
		n := int(binary.BigEndian.Uint16(s.left[3:]))
		typ, version, body := s.left[0], binary.BigEndian.Uint16(s.left[1:]), s.left[5:5+n]
		s.sealed = s.sealed || typ == recordCCS
		if s.fragment == 0 || s.sealed || typ != recordHandshake {
			out = append(out, s.left[:5+n]...)
		} else {
			for len(body) > 0 {
				m := min(s.fragment, len(body))
				out = append(out, record(typ, version, body[:m])...)
				body = body[m:]
			}
		}
		s.left = s.left[5+n:]
	}
	for len(out) > 0 {
		m := len(out)
		if s.segment > 0 {
			m = min(s.segment, m)
		}
		if _, err := s.Conn.Write(out[:m]); err != nil {
			return 0, err
		}
		out = out[m:]
	}
	return len(b), nil
}
