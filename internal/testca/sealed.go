package testca

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
)

// sealer seals records of the server's behind crypto/tls's back: what that would
// never send.
type sealer struct {
	c      net.Conn
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
	v13    bool
	secret []byte
}

// shake makes the server's handshake by crypto/tls and takes over what it writes.
func shake(c net.Conn, cfg *tls.Config) (*tls.Conn, *sealer, error) {
	var log bytes.Buffer
	w := &watched{Conn: c}
	cfg = cfg.Clone()
	cfg.KeyLogWriter, cfg.SessionTicketsDisabled = &log, true
	cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	t := tls.Server(w, cfg)
	if err := t.Handshake(); err != nil {
		return nil, nil, err
	}
	s := &sealer{c: c}
	cs := t.ConnectionState()
	switch {
	case cs.Version == tls.VersionTLS13 && cs.CipherSuite == tls.TLS_AES_128_GCM_SHA256:
		s.v13 = true
		_, secret := logged(log.String(), "SERVER_TRAFFIC_SECRET_0")
		return t, s, s.key(secret)
	case cs.Version == tls.VersionTLS12:
		client, master := logged(log.String(), "CLIENT_RANDOM")
		block := prf(master, "key expansion", append(w.serverRandom(), client...), 40)
		s.iv, s.seq = block[36:40], 1 // Finished was the first
		return t, s, s.use(block[16:32])
	}
	return nil, nil, fmt.Errorf("no keys known of %s", tls.CipherSuiteName(cs.CipherSuite))
}

func logged(text, label string) (random, secret []byte) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			random, _ = hex.DecodeString(f[1])
			secret, _ = hex.DecodeString(f[2])
		}
	}
	return random, secret
}

// prf is that of TLS 1.2 (RFC 5246, section 5).
func prf(secret []byte, label string, seed []byte, n int) []byte {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	var out []byte
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

// key begins with a traffic secret of TLS 1.3.
func (s *sealer) key(secret []byte) error {
	expand := func(label string, n int) []byte {
		info := binary.BigEndian.AppendUint16(nil, uint16(n))
		info = append(append(info, byte(len(label)+6)), "tls13 "+label...)
		out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
		if err != nil {
			panic(err)
		}
		return out
	}
	s.secret, s.iv, s.seq = expand("traffic upd", 32), expand("iv", 12), 0
	return s.use(expand("key", 16))
}

func (s *sealer) use(key []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	s.aead, err = cipher.NewGCM(block)
	return err
}

// update follows a KeyUpdate that was sent.
func (s *sealer) update() error { return s.key(s.secret) }

// seal is one record.
func (s *sealer) seal(typ byte, content []byte) []byte {
	defer func() { s.seq++ }()
	number := binary.BigEndian.AppendUint64(nil, s.seq)
	if !s.v13 {
		aad := append(bytes.Clone(number), typ, 3, 3, byte(len(content)>>8), byte(len(content)))
		sealed := s.aead.Seal(number, append(bytes.Clone(s.iv), number...), content, aad)
		return record(typ, tls.VersionTLS12, sealed)
	}
	nonce := bytes.Clone(s.iv)
	for i, b := range number {
		nonce[4+i] ^= b
	}
	inner := append(bytes.Clone(content), typ)
	n := len(inner) + s.aead.Overhead()
	head := []byte{recordData, 3, 3, byte(n >> 8), byte(n)}
	return s.aead.Seal(head, nonce, inner, head)
}

// flood sends what make gives until the other end has had enough, at most n times,
// and says how often that was.
func (s *sealer) flood(n int, make func() []byte) (sent int) {
	for sent = range n {
		if _, err := s.c.Write(make()); err != nil {
			return sent
		}
	}
	return n
}

// watched keeps the beginning of what is written.
type watched struct {
	net.Conn
	wrote []byte
}

func (w *watched) Write(p []byte) (int, error) {
	if len(w.wrote) < 64 {
		w.wrote = append(w.wrote, p...)
	}
	return w.Conn.Write(p)
}

// serverRandom is in the first message, behind its record's header and its own.
func (w *watched) serverRandom() []byte { return bytes.Clone(w.wrote[11:43]) }
