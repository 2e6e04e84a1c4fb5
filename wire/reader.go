package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// MaxHello is the largest ClientHello handshake message that is reassembled,
// in bytes, without record headers.
const MaxHello = 64 << 10

// MaxRaw is the largest number of bytes, with record headers, that a ClientHello
// may take up: who puts each byte into a record of its own has no good reason.
const MaxRaw = 128 << 10

// ErrMore says that the bytes so far may begin a ClientHello, and that more are needed.
var ErrMore = errors.New("more bytes needed")

// ErrNotTLS says that the bytes are no TLS handshake record at all.
var ErrNotTLS = errors.New("not a TLS ClientHello")

// ErrTooLarge says that a ClientHello is larger than [MaxHello] or [MaxRaw].
var ErrTooLarge = errors.New("ClientHello too large")

// MalformedError says that bytes began as a ClientHello and then broke its form.
type MalformedError struct{ What string }

func (e *MalformedError) Error() string { return "malformed ClientHello: " + e.What }

func malformed(format string, args ...any) error {
	return &MalformedError{fmt.Sprintf(format, args...)}
}

// Of a record (RFC 8446, section 5.1).
const (
	typeAlert     = 21
	typeHandshake = 22
	recordHeader  = 5
	maxPlaintext  = 1 << 14
)

// HelloReader reassembles one ClientHello from the first bytes of a stream. The
// zero value is ready.
//
//	header ──5 bytes──▶ fragment ──all of it──▶ header ...
//	                       └─ message complete ──▶ ParseHello
//
// It looks at each byte once and holds no more than the message; whoever wants
// to pass the raw bytes on keeps them.
type HelloReader struct {
	header [recordHeader]byte
	filled int    // of header
	left   int    // of the fragment
	raw    int    // bytes taken, with record headers
	msg    []byte // the message so far
	hello  *Hello
	err    error
}

// Feed takes the next bytes and gives the Hello, or [ErrMore], [ErrNotTLS],
// [ErrTooLarge] or a [*MalformedError]. What follows the ClientHello is not
// looked at: TLS 1.3 sends early data there. An answer other than ErrMore stays.
func (r *HelloReader) Feed(p []byte) (*Hello, error) {
	for r.hello == nil && r.err == nil && len(p) > 0 {
		if r.raw == MaxRaw {
			r.err = ErrTooLarge
			break
		}
		n := 0
		if r.left == 0 {
			n, r.err = r.readHeader(p[:1])
		} else {
			n, r.err = r.readFragment(p[:min(len(p), r.left, MaxRaw-r.raw)])
		}
		r.raw += n
		p = p[n:]
	}
	if r.hello == nil && r.err == nil {
		return nil, ErrMore
	}
	return r.hello, r.err
}

// readHeader takes one byte, and judges it by itself so far as possible: a peer
// that speaks something else may wait for us after it.
func (r *HelloReader) readHeader(p []byte) (int, error) {
	r.header[r.filled] = p[0]
	r.filled++
	first := len(r.msg) == 0
	switch {
	case r.filled == 1 && p[0] != typeHandshake:
		if first {
			return 1, ErrNotTLS // SSLv2's ClientHello too, as RFC 8446, appendix D.5 wants
		}
		return 1, malformed("record type %d within the ClientHello", p[0]) // RFC 8446, section 5.1
	case r.filled == 2 && p[0] != 3:
		if first {
			return 1, ErrNotTLS
		}
		return 1, malformed("record version %d.x within the ClientHello", p[0])
	case r.filled < recordHeader:
		return 1, nil
	}
	r.filled = 0
	r.left = int(r.header[3])<<8 | int(r.header[4])
	switch {
	case r.left == 0:
		return 1, malformed("handshake record of length 0") // RFC 8446, section 5.1
	case r.left > maxPlaintext:
		return 1, malformed("record of length %d", r.left)
	}
	return 1, nil
}

// readFragment takes at most the rest of the message's header, then of its body.
func (r *HelloReader) readFragment(p []byte) (int, error) {
	size, sized := r.size()
	want := 4
	if sized {
		want = size
	}
	p = p[:min(len(p), want-len(r.msg))]
	r.left -= len(p)
	r.grow(len(p), want)
	r.msg = append(r.msg, p...)
	if r.msg[0] != typeClientHello {
		return len(p), malformed("handshake message %d where a ClientHello is due", r.msg[0])
	}
	size, sized = r.size()
	switch {
	case !sized:
		return len(p), nil
	case size > MaxHello:
		return len(p), ErrTooLarge
	case len(r.msg) < size:
		return len(p), nil
	}
	var err error
	r.hello, err = ParseHello(r.msg)
	r.msg = nil
	return len(p), err
}

// size is the message's whole length, once its header is there.
func (r *HelloReader) size() (n int, ok bool) {
	if len(r.msg) < 4 {
		return 0, false
	}
	return 4 + int(r.msg[1])<<16 + int(r.msg[2])<<8 + int(r.msg[3]), true
}

// grow makes room for n bytes. It doubles and does not believe want at once: a
// stranger must send bytes to make us hold some.
func (r *HelloReader) grow(n, want int) {
	if need := len(r.msg) + n; need > cap(r.msg) {
		room := min(max(need, 2*cap(r.msg), 512), max(want, 512))
		r.msg = append(make([]byte, 0, room), r.msg...)
	}
}

var methods = [...]string{"GET ", "POST ", "HEAD ", "PUT ", "OPTIONS ", "DELETE ", "CONNECT ", "PATCH ", "TRACE ", "PRI "}

// What a PROXY header begins with, by its version (the PROXY protocol, sections 2.1 and 2.2).
const (
	PROXYv1 = "PROXY "
	PROXYv2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// LooksLikePROXY says that b, the first bytes of a connection, begin with such a header.
func LooksLikePROXY(b []byte) bool {
	return bytes.HasPrefix(b, []byte(PROXYv1)) || bytes.HasPrefix(b, []byte(PROXYv2))
}

// LooksLikeHTTP says that b, the first bytes of a connection, begin with an HTTP
// method and a space. Fewer bytes than that are no.
func LooksLikeHTTP(b []byte) bool {
	for _, m := range methods {
		if bytes.HasPrefix(b, []byte(m)) {
			return true
		}
	}
	return false
}
