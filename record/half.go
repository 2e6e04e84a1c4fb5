package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"sallyport/wire"
)

// Of a record (RFC 8446, sections 5.1 and 5.2).
const (
	typeAlert           = 21
	typeHandshake       = 22
	typeApplicationData = 23

	headerSize   = 5
	tagSize      = 16 // of all three suites
	maxPlaintext = 1 << 14
	maxInner     = maxPlaintext + 1         // with the content type
	maxBody      = maxPlaintext + 256       // on the wire
	overhead     = headerSize + 1 + tagSize // of a record without padding
)

// suite is what a cipher suite means for records (RFC 8446, appendix B.4).
type suite struct {
	hash    func() hash.Hash
	secret  int // bytes of a traffic secret
	key     int // bytes of a key
	encrypt func(key []byte) (cipher.AEAD, error)
}

var suites = map[uint16]*suite{
	0x1301: {sha256.New, sha256.Size, 16, gcm}, // TLS_AES_128_GCM_SHA256
	0x1302: {sha512.New384, sha512.Size384, 32, gcm},
	0x1303: {sha256.New, sha256.Size, chacha20poly1305.KeySize, chacha20poly1305.New},
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Fault is what the peer did against the protocol, with the alert that says so.
type Fault struct {
	Alert wire.Alert
	What  string
}

func (f *Fault) Error() string { return f.What }

// RemoteAlert is a fatal alert of the peer's, as an error.
type RemoteAlert wire.Alert

func (a RemoteAlert) Error() string { return "remote alert: " + wire.Alert(a).String() }

const nonceSize = 12 // of all three suites

// half is one direction: its current traffic secret, and how many records that
// secret has sealed. A cipher is made when one is needed.
type half struct {
	suite  *suite // nil once wiped
	secret [sha512.Size384]byte
	iv     [nonceSize]byte
	seq    uint64
	aead   cipher.AEAD     // nil at rest
	nonce  [nonceSize]byte // of the record at hand; here, since what an AEAD is given escapes
}

func newHalf(id uint16, secret []byte) (half, error) {
	s := suites[id]
	if s == nil {
		return half{}, fmt.Errorf("cipher suite %#04x is none of TLS 1.3", id)
	}
	if len(secret) != s.secret {
		return half{}, fmt.Errorf("a traffic secret of %d bytes, cipher suite %#04x has %d", len(secret), id, s.secret)
	}
	h := half{suite: s}
	copy(h.secret[:], secret)
	return h, nil
}

// expand is HKDF-Expand-Label without a context (RFC 8446, section 7.1).
func (h *half) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(len(label))), label...)
	out, err := hkdf.Expand(h.suite.hash, h.secret[:h.suite.secret], string(append(info, 0)), n)
	if err != nil {
		panic(err) // only for lengths that HKDF does not have
	}
	return out
}

// cipher makes the AEAD of the current secret (RFC 8446, section 7.3).
func (h *half) cipher() cipher.AEAD {
	if h.aead == nil {
		key := h.expand("key", h.suite.key)
		aead, err := h.suite.encrypt(key)
		if err != nil {
			panic(err) // only for lengths that no suite has
		}
		clear(key)
		h.aead = aead
		copy(h.iv[:], h.expand("iv", nonceSize))
	}
	return h.aead
}

// perRecord is the nonce of the next record (RFC 8446, section 5.3).
func (h *half) perRecord() []byte {
	h.nonce = h.iv
	tail := h.nonce[nonceSize-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^h.seq)
	return h.nonce[:]
}

// update goes on to the next traffic secret (RFC 8446, section 7.2).
func (h *half) update() {
	next := h.expand("traffic upd", h.suite.secret)
	copy(h.secret[:], next)
	clear(next)
	h.seq, h.aead = 0, nil
}

// rest lets the cipher go, which is many times as large as its secret.
func (h *half) rest() { h.aead = nil }

// wipe forgets the secret. What of it a cipher held is the collector's.
func (h *half) wipe() { *h = half{} }

// seal appends the record that holds content to dst. Nothing counts the records
// here that one key may seal: see [Conn.Write].
func (h *half) seal(dst []byte, typ byte, content []byte) []byte {
	start, size := len(dst), len(content)+1+tagSize
	dst = append(dst, typeApplicationData, 3, 3, byte(size>>8), byte(size))
	body := len(dst)
	aead := h.cipher()
	// The type has to follow the content: no cipher takes them from two places.
	dst = append(append(dst, content...), typ)
	dst = aead.Seal(dst[:body], h.perRecord(), dst[body:], dst[start:body])
	h.seq++
	return dst
}

// header judges a record by its header, and gives the length of its body.
func header(b []byte) (size int, fault *Fault) {
	size = int(b[3])<<8 | int(b[4])
	switch {
	case b[0] != typeApplicationData:
		// A ChangeCipherSpec too: none comes after Finished (RFC 8446, section 5).
		return 0, &Fault{wire.AlertUnexpectedMessage, fmt.Sprintf("a record of type %d after the handshake", b[0])}
	case b[1] != 3 || b[2] != 3:
		return 0, &Fault{wire.AlertProtocolVersion, fmt.Sprintf("a record of version %d.%d", b[1], b[2])}
	case size > maxBody:
		return 0, &Fault{wire.AlertRecordOverflow, fmt.Sprintf("a record of %d bytes", size)}
	case size <= tagSize:
		return 0, &Fault{wire.AlertBadRecordMAC, fmt.Sprintf("a record of %d bytes, too short for what protects it", size)}
	}
	return size, nil
}

// open opens a whole record, whose header is good, into dst's free capacity: its
// content and, behind it, the type and padding, which are for the caller to
// overwrite. dst may be where the record's body begins.
func (h *half) open(dst, record []byte) (typ byte, content []byte, fault *Fault) {
	if h.seq == math.MaxUint64 {
		return 0, nil, &Fault{wire.AlertUnexpectedMessage, "the last sequence number came without a KeyUpdate"}
	}
	aead := h.cipher()
	inner, err := aead.Open(dst[:0], h.perRecord(), record[headerSize:], record[:headerSize])
	if err != nil {
		return 0, nil, &Fault{wire.AlertBadRecordMAC, "a record that does not open"}
	}
	h.seq++
	if len(inner) > maxInner {
		return 0, nil, &Fault{wire.AlertRecordOverflow, fmt.Sprintf("a record with %d bytes of plaintext", len(inner))}
	}
	for i := len(inner) - 1; i >= 0; i-- {
		if inner[i] != 0 {
			return inner[i], inner[:i], nil
		}
	}
	return 0, nil, &Fault{wire.AlertUnexpectedMessage, "a record of padding alone"}
}

// skip goes past the records at the end of flight that were sealed with this
// secret already. A server's tickets leave with the flight of its handshake, or
// after it, and each may take several records: how many there are under the last
// key, only that key tells. The first of them opens with sequence number 0.
func (h *half) skip(flight []byte) error {
	var records [][]byte
	for len(flight) >= headerSize {
		n := headerSize + int(flight[3])<<8 + int(flight[4])
		if n > len(flight) {
			break
		}
		records, flight = append(records, flight[:n]), flight[n:]
	}
	if len(flight) > 0 {
		return fmt.Errorf("the flight ends with %d bytes that are no whole record", len(flight))
	}
	for i, r := range slices.Backward(records) {
		if _, fault := header(r); fault != nil {
			break // in clear, ahead of any secret
		}
		if _, _, fault := h.open(nil, r); fault == nil {
			h.seq = uint64(len(records) - i)
			break
		}
	}
	return nil
}
