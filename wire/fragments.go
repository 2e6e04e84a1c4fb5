package wire

import (
	"bytes"
	"errors"
	"slices"
)

// maxFragments bounds the parts of a ClientHello that are held: a large one with a
// post-quantum share, at the smallest MTU in use, has some thirty.
const maxFragments = 64

// HelloFragments puts a ClientHello together that came in several records or
// datagrams (RFC 6347, section 4.2.3). The zero value is ready. It holds no more
// than what came: at most [MaxDTLSHello] bytes in 64 parts.
type HelloFragments struct {
	length int
	seq    uint16
	size   int        // of all pieces
	pieces []fragment // by offset; they do not overlap
}

// Feed takes the next datagram, and gives the hello as a datagram of one record
// once it is whole, which [ParseDTLSHello] reads. Until then it gives [ErrMore].
// Any other error means that the parts make no hello: parts that
// disagree about what they share, about the length of the whole, too many of them.
func (h *HelloFragments) Feed(datagram []byte) (whole []byte, err error) {
	first := true
	for len(datagram) > 0 {
		r, rest, err := ReadRecord(datagram, 0)
		if err != nil {
			return nil, err
		}
		if !r.IsClientHello() {
			if first {
				return nil, ErrNotTLS
			}
			break // something else follows, which is not for us
		}
		first = false
		for body := r.Body; len(body) > 0; {
			var f fragment
			if f, body, err = readFragment(body); err != nil {
				return nil, err
			}
			if err := h.add(f); err != nil {
				return nil, err
			}
			if h.size == h.length {
				return h.join(r.Seq), nil
			}
		}
		datagram = rest
	}
	return nil, ErrMore
}

// add takes one part. A hello with a later number, which the client sends after a
// HelloVerifyRequest, takes the place of one before; of an earlier one parts may
// still be under way.
func (h *HelloFragments) add(f fragment) error {
	switch {
	case h.length == 0 || f.seq > h.seq:
		*h = HelloFragments{length: f.length, seq: f.seq}
	case f.seq < h.seq:
		return nil
	case f.length != h.length:
		return malformed("fragments of one message that disagree about its length")
	}
	// What is there already must be the same; what lies between is new.
	at, end := f.offset, f.offset+len(f.body)
	var fresh []fragment
	for _, p := range h.pieces {
		from, to := max(at, p.offset), min(end, p.offset+len(p.body))
		if from >= to {
			continue
		}
		if !bytes.Equal(f.body[from-f.offset:to-f.offset], p.body[from-p.offset:to-p.offset]) {
			return errOverlap
		}
		if at < from {
			fresh = append(fresh, fragment{offset: at, body: bytes.Clone(f.body[at-f.offset : from-f.offset])})
		}
		at = to
	}
	if at < end {
		fresh = append(fresh, fragment{offset: at, body: bytes.Clone(f.body[at-f.offset:])})
	}
	if len(h.pieces)+len(fresh) > maxFragments {
		return errManyFragments
	}
	for _, p := range fresh {
		h.size += len(p.body)
	}
	h.pieces = append(h.pieces, fresh...)
	slices.SortFunc(h.pieces, func(a, b fragment) int { return a.offset - b.offset })
	return nil
}

// These are said of what nobody has proved to have sent, at any rate: they are made once.
var (
	errOverlap       error = &MalformedError{"fragments that overlap and differ"}
	errManyFragments error = errors.New("ClientHello in too many fragments")
)

func (h *HelloFragments) join(recordSeq uint64) []byte {
	b := make([]byte, 0, dtlsHeader+handshakeHeader+h.length)
	b = appendDTLSHeader(b, TypeHandshake, VersionDTLS10, recordSeq, handshakeHeader+h.length)
	b = appendHandshakeHeader(b, typeClientHello, h.length, h.seq)
	for _, p := range h.pieces {
		b = append(b, p.body...)
	}
	*h = HelloFragments{}
	return b
}
