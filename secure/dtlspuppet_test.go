package secure

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	be "encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3/pkg/crypto/prf"

	"sallyport/internal/ca"
	"sallyport/wire"
)

// Messages of a handshake, and the suites that a puppet knows.
const (
	msgClientHello        = 1
	msgServerHello        = 2
	msgHelloVerify        = 3
	msgCertificate        = 11
	msgServerKeyExchange  = 12
	msgCertificateRequest = 13
	msgServerHelloDone    = 14
	msgCertificateVerify  = 15
	msgClientKeyExchange  = 16
	msgFinished           = 20

	suiteECDSA = 0xc02b // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	suitePSK   = 0x00a8 // TLS_PSK_WITH_AES_128_GCM_SHA256
)

// puppet is a DTLS 1.2 client that does what it is told, in whatever order, and of
// whose own accord nothing happens.
type puppet struct {
	t      testing.TB
	socket *net.UDPConn
	suite  uint16

	clientRandom, serverRandom [32]byte
	transcript                 []byte
	message                    uint16    // number of the next message
	seq                        [2]uint64 // of the next record, by epoch
	share                      []byte    // the server's, of ECDHE
	key                        *ecdh.PrivateKey
	master                     []byte
	seal, open                 cipher.AEAD
	sealIV, openIV             []byte
	cid                        []byte // with which the server wants its records; nil: without
}

func newPuppet(t testing.TB, to netip.AddrPort, suite uint16) *puppet {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { c.Close() })
	p := &puppet{t: t, socket: c, suite: suite}
	rand.Read(p.clientRandom[:])
	if p.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return p
}

// receive gives the next datagram, or nil once time is up.
func (p *puppet) receive(within time.Duration) []byte {
	p.t.Helper()
	p.socket.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, 65536)
	n, err := p.socket.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return b[:n]
}

// send sends records as one datagram.
func (p *puppet) send(records ...[]byte) {
	p.t.Helper()
	if _, err := p.socket.Write(slices.Concat(records...)); err != nil {
		p.t.Fatal(err)
	}
}

func u24(n int) []byte { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }

func vector8(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }

func vector16(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }

func vector24(b []byte) []byte { return append(u24(len(b)), b...) }

// handshake gives a message in one fragment, and takes it into the transcript.
func (p *puppet) handshake(typ byte, body []byte) []byte {
	m := fragmentOf(typ, p.message, len(body), 0, body)
	p.message++
	p.transcript = append(p.transcript, m...)
	return m
}

func fragmentOf(typ byte, seq uint16, length, offset int, body []byte) []byte {
	m := append([]byte{typ}, u24(length)...)
	m = be.BigEndian.AppendUint16(m, seq)
	m = append(m, u24(offset)...)
	return append(append(m, u24(len(body))...), body...)
}

// record gives a record in clear.
func (p *puppet) record(typ byte, body []byte) []byte {
	r := plainRecord(typ, 0, p.seq[0], body)
	p.seq[0]++
	return r
}

func plainRecord(typ byte, epoch uint16, seq uint64, body []byte) []byte {
	r := []byte{typ, 0xfe, 0xfd}
	r = be.BigEndian.AppendUint64(r, uint64(epoch)<<48|seq)
	return append(r, vector16(body)...)
}

// sealed gives an encrypted record with the next number.
func (p *puppet) sealed(typ byte, body []byte) []byte {
	r := p.sealedAs(p.seq[1], typ, body)
	p.seq[1]++
	return r
}

// sealedAs gives an encrypted record with this number (RFC 5288; with a connection
// ID RFC 9146, section 5).
func (p *puppet) sealedAs(seq uint64, typ byte, body []byte) []byte {
	head := be.BigEndian.AppendUint64(nil, 1<<48|seq)
	nonce := slices.Concat(p.sealIV, head)
	var ad []byte
	if p.cid != nil {
		body, typ = append(slices.Clone(body), typ), wire.TypeCID
		ad = slices.Concat(bytes.Repeat([]byte{0xff}, 8), []byte{typ, byte(len(p.cid)), typ, 0xfe, 0xfd}, head, p.cid)
	} else {
		ad = slices.Concat(head, []byte{typ, 0xfe, 0xfd})
	}
	ad = be.BigEndian.AppendUint16(ad, uint16(len(body)))
	out := p.seal.Seal(slices.Clone(head), nonce, body, ad)
	return slices.Concat([]byte{typ, 0xfe, 0xfd}, head, p.cid, vector16(out))
}

// opened decrypts a record of the server's.
func (p *puppet) opened(r *wire.Record) ([]byte, error) {
	if len(r.Body) < 8 {
		return nil, errors.New("no nonce")
	}
	ad := slices.Clone(r.Raw[3:11])
	ad = be.BigEndian.AppendUint16(append(ad, r.Type, 0xfe, 0xfd), uint16(len(r.Body)-8-16))
	return p.open.Open(nil, slices.Concat(p.openIV, r.Body[:8]), r.Body[8:], ad)
}

// hello goes through the exchange of cookies and reads the server's flight, up to
// its end. It gives the messages therein by type.
func (p *puppet) hello() map[byte][]byte {
	p.t.Helper()
	p.greet()
	return p.flight()
}

// greet goes through the exchange of cookies.
func (p *puppet) greet() {
	p.t.Helper()
	exts := slices.Concat(
		[]byte{0, 10}, vector16(vector16([]byte{0, 29})),
		[]byte{0, 11}, vector16(vector8([]byte{0})),
		[]byte{0, 13}, vector16(vector16([]byte{4, 3})),
		[]byte{0, 0}, vector16(vector16(append([]byte{0}, vector16([]byte("a.test"))...))),
	)
	if p.cid != nil {
		exts = append(exts, slices.Concat([]byte{0, extConnectionID}, vector16(vector8(nil)))...)
	}
	body := func(cookie []byte) []byte {
		return slices.Concat([]byte{0xfe, 0xfd}, p.clientRandom[:], vector8(nil), vector8(cookie),
			vector16([]byte{byte(p.suite >> 8), byte(p.suite)}), vector8([]byte{0}), vector16(exts))
	}
	p.send(p.record(wire.TypeHandshake, p.handshake(msgClientHello, body(nil))))
	answer := p.receive(patience)
	r, _, err := wire.ReadRecord(answer, 0)
	if err != nil || len(r.Body) < 15 || r.Body[0] != msgHelloVerify {
		p.t.Fatalf("in place of a HelloVerifyRequest came %x", answer)
	}
	p.transcript = nil
	p.send(p.record(wire.TypeHandshake, p.handshake(msgClientHello, body(r.Body[15:15+int(r.Body[14])]))))
}

// flight reads the server's flight.
func (p *puppet) flight() map[byte][]byte {
	p.t.Helper()
	got := map[byte][]byte{}
	parts := map[uint16][]byte{} // fragments come in order on the loopback
	for next := uint16(1); got[msgServerHelloDone] == nil; {
		datagram := p.receive(patience)
		if datagram == nil {
			p.t.Fatal("the server's flight does not end")
		}
		for len(datagram) > 0 {
			r, rest, err := wire.ReadRecord(datagram, 0)
			if err != nil || r.Type != wire.TypeHandshake {
				p.t.Fatalf("amid the server's flight came %x (%v)", datagram, err)
			}
			datagram = rest
			m := r.Body
			if seq := be.BigEndian.Uint16(m[4:]); seq != next {
				continue // sent again
			}
			parts[next] = append(parts[next], m[12:]...)
			if len(parts[next]) == int(m[1])<<16|int(m[2])<<8|int(m[3]) {
				whole := fragmentOf(m[0], next, len(parts[next]), 0, parts[next])
				p.transcript = append(p.transcript, whole...)
				got[m[0]] = parts[next]
				if got[m[0]] == nil {
					got[m[0]] = []byte{}
				}
				next++
			}
		}
	}
	copy(p.serverRandom[:], got[msgServerHello][2:34])
	if ske := got[msgServerKeyExchange]; p.suite == suiteECDSA {
		p.share = ske[4 : 4+int(ske[3])]
	}
	if p.cid != nil {
		hello := got[msgServerHello]
		at := bytes.Index(hello, []byte{0, extConnectionID, 0, cidSize + 1, cidSize})
		if at < 0 {
			p.t.Fatalf("no connection ID in %x", hello)
		}
		p.cid = slices.Clone(hello[at+5 : at+5+cidSize])
	}
	return got
}

func (p *puppet) certificate(l *ca.Leaf) []byte {
	if l == nil {
		return p.handshake(msgCertificate, vector24(nil))
	}
	certs, err := l.Certs()
	if err != nil {
		p.t.Fatal(err)
	}
	return p.handshake(msgCertificate, vector24(vector24(certs[0].Raw)))
}

func (p *puppet) keyExchange() []byte {
	p.t.Helper()
	if p.suite == suitePSK {
		return p.handshake(msgClientKeyExchange, vector16([]byte("device")))
	}
	return p.handshake(msgClientKeyExchange, vector8(p.key.PublicKey().Bytes()))
}

func (p *puppet) certificateVerify(key crypto.Signer) []byte {
	digest := sha256.Sum256(p.transcript)
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.handshake(msgCertificateVerify, append([]byte{4, 3}, vector16(sig)...))
}

// agree makes the keys.
func (p *puppet) agree() {
	p.t.Helper()
	secret := prf.PSKPreMasterSecret([]byte(deviceKey))
	if p.suite == suiteECDSA {
		share, err := ecdh.X25519().NewPublicKey(p.share)
		if err == nil {
			secret, err = p.key.ECDH(share)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	var err error
	if p.master, err = prf.MasterSecret(secret, p.clientRandom[:], p.serverRandom[:], sha256.New); err != nil {
		p.t.Fatal(err)
	}
	k, err := prf.GenerateEncryptionKeys(p.master, p.clientRandom[:], p.serverRandom[:], 0, 16, 4, sha256.New)
	if err != nil {
		p.t.Fatal(err)
	}
	p.seal, p.sealIV = newGCM(p.t, k.ClientWriteKey), k.ClientWriteIV
	p.open, p.openIV = newGCM(p.t, k.ServerWriteKey), k.ServerWriteIV
}

func newGCM(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

// finished is the message with which all that was said is confirmed.
func (p *puppet) finished() []byte {
	p.t.Helper()
	data, err := prf.VerifyDataClient(p.master, p.transcript, sha256.New)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.handshake(msgFinished, data)
}

func (p *puppet) changeCipherSpec() []byte { return p.record(typeChangeCipherSpec, []byte{1}) }

// done waits until the server has finished as well. A server that says again what it
// said before has missed our last flight, which again sends (RFC 6347, section 4.2.4).
func (p *puppet) done(again ...func()) *puppet {
	p.t.Helper()
	for {
		datagram := p.receive(patience)
		if datagram == nil {
			p.t.Fatal("the server does not finish")
		}
		for len(datagram) > 0 {
			r, rest, err := wire.ReadRecord(datagram, 0)
			if err != nil {
				p.t.Fatalf("%x: %v", datagram, err)
			}
			if r.Epoch == 1 && r.Type == wire.TypeHandshake {
				if m, err := p.opened(&r); err != nil || m[0] != msgFinished {
					p.t.Fatalf("%x: %v", m, err)
				}
				return p
			}
			datagram = rest
		}
		for _, send := range again {
			send()
		}
	}
}

// shake makes a handshake as it should be.
func (p *puppet) shake() *puppet {
	p.t.Helper()
	p.hello()
	cke := p.keyExchange()
	p.agree()
	p.send(p.record(wire.TypeHandshake, cke), p.changeCipherSpec(), p.sealed(wire.TypeHandshake, p.finished()))
	return p.done()
}

// data sends application data.
func (p *puppet) data(text string) {
	p.t.Helper()
	p.send(p.sealed(typeApplicationData, []byte(text)))
}

// puppets have a server with a key for devices, and a puppet that has shaken hands.
func puppets(t testing.TB) (*side, *puppet) {
	t.Helper()
	s := newSite(t)
	s.psk()
	l := listenDTLS(t, NewDTLSServer(s.server))
	p := newPuppet(t, l.at(), suitePSK).shake()
	server := l.next()
	if server.err != nil {
		t.Fatal(server.err)
	}
	return server, p
}

// puppetPool runs n puppets' doings side by side.
func puppetPool(n, width int, f func(i int)) {
	var all sync.WaitGroup
	for w := range width {
		all.Go(func() {
			for i := w; i < n; i += width {
				f(i)
			}
		})
	}
	all.Wait()
}
