package secure

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"sallyport/internal/ca"
	"sallyport/wire"
)

const (
	innerName  = "secret.example"
	publicName = "public.example"
)

func newECH(t testing.TB) (*ECHKeys, []byte) {
	t.Helper()
	text, list, err := NewECH(publicName)
	if err != nil {
		t.Fatal(err)
	}
	return loadECH(t, text), list
}

func loadECH(t testing.TB, texts ...[]byte) *ECHKeys {
	t.Helper()
	k, err := LoadECH(texts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newP256 is NewECH over P-256, with its key before or after the configuration.
func newP256(t testing.TB) (text, list []byte) {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if list, err = marshalECHConfigs(7, 0x0010, key.PublicKey().Bytes(), publicName); err != nil {
		t.Fatal(err)
	}
	text = pem.EncodeToMemory(&pem.Block{Type: pemECHConfig, Bytes: list})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der})...), list
}

// firstFlight is what a client of crypto/tls begins with: the record, and the hello in it.
func firstFlight(t testing.TB, c *tls.Config) (record []byte, hello *wire.Hello) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan struct{})
	go func() { defer close(done); tls.Client(far, c).Handshake(); far.Close() }()
	header := make([]byte, 5)
	if _, err := io.ReadFull(near, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(near, body); err != nil {
		t.Fatal(err)
	}
	near.Close()
	<-done
	hello, err := wire.ParseHello(body)
	if err != nil {
		t.Fatal(err)
	}
	return append(header, body...), hello
}

func echClient(list []byte) *tls.Config {
	return &tls.Config{ServerName: innerName, EncryptedClientHelloConfigList: list, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		EncryptedClientHelloRejectionVerify: func(tls.ConnectionState) error { return nil }}
}

type oneFlight struct {
	net.Conn
	r io.Reader
}

func (c oneFlight) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c oneFlight) Write(p []byte) (int, error)      { return len(p), nil }
func (c oneFlight) Close() error                     { return nil }
func (c oneFlight) SetWriteDeadline(time.Time) error { return nil }

var errSeen = errors.New("seen")

// serverSees gives what crypto/tls makes of a hello; ok is false where it refuses it.
func serverSees(keys *ECHKeys, record []byte) (name string, protos []string, ok bool) {
	s := tls.Server(oneFlight{r: bytes.NewReader(record)}, &tls.Config{
		EncryptedClientHelloKeys: keys.TLS(),
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, protos, ok = h.ServerName, h.SupportedProtos, true
			return nil, errSeen
		},
	})
	s.Handshake()
	return name, protos, ok
}

func TestOpenECH(t *testing.T) {
	x, xList := newECH(t)
	pText, pList := newP256(t)
	other, otherList := newECH(t)
	oneText, oneList, err := NewECH(publicName)
	if err != nil {
		t.Fatal(err)
	}
	both := loadECH(t, oneText, pText)
	for _, c := range []struct {
		name   string
		keys   *ECHKeys
		client []byte
		opens  bool
	}{
		{"X25519", x, xList, true},
		{"P-256", loadECH(t, pText), pList, true},
		{"the first of several", both, oneList, true},
		{"the second of several", both, pList, true},
		{"a key that is not ours", other, xList, false},
		{"no keys", nil, otherList, false},
		{"no extension", x, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := echClient(c.client)
			record, hello := firstFlight(t, client)
			inner, err := c.keys.Open(hello)
			if err != nil {
				t.Fatal(err)
			}
			seen := hello
			if c.opens {
				if inner == nil {
					t.Fatal("not opened")
				}
				seen = inner
				if inner.SNI != innerName || hello.SNI != publicName || !bytes.Equal(inner.SessionID, hello.SessionID) {
					t.Errorf("inner %q, outer %q", inner.SNI, hello.SNI)
				}
			} else if inner != nil {
				t.Fatalf("opened: %q", inner.SNI)
			}
			name, protos, ok := serverSees(c.keys, record)
			if !ok || name != seen.SNI || !slices.Equal(protos, seen.ALPN) {
				t.Errorf("crypto/tls sees %q %q, we %q %q", name, protos, seen.SNI, seen.ALPN)
			}
		})
	}
}

// The handshake agrees with what was opened, and a client with an outdated
// configuration learns ours.
func TestECHHandshake(t *testing.T) {
	keys, list := newECH(t)
	_, outdated := newECH(t)
	root := ca.Test(t)
	leaf := root.Leaf([]string{innerName, publicName}).TLS()
	handshake := func(client *tls.Config) (server, c tls.ConnectionState, err error) {
		// Not a net.Pipe: both ends write at the end, and nobody reads.
		near, far := tcpPair(t)
		s := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{leaf}, EncryptedClientHelloKeys: keys.TLS()})
		done := make(chan struct{})
		go func() { defer close(done); s.Handshake() }()
		client.RootCAs = root.Pool()
		client.EncryptedClientHelloRejectionVerify = nil
		cc := tls.Client(far, client)
		err = cc.Handshake()
		far.Close()
		<-done
		return s.ConnectionState(), cc.ConnectionState(), err
	}
	server, client, err := handshake(echClient(list))
	if err != nil || !server.ECHAccepted || !client.ECHAccepted || server.ServerName != innerName {
		t.Errorf("%v %t %t %q", err, server.ECHAccepted, client.ECHAccepted, server.ServerName)
	}
	_, _, err = handshake(echClient(outdated))
	rejected, ok := errors.AsType[*tls.ECHRejectionError](err)
	if !ok || !bytes.Equal(rejected.RetryConfigList, list) {
		t.Errorf("%v, want our configurations for another try", err)
	}
}

func tcpPair(t *testing.T) (near, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return near, far
}

func TestLoadECHRefuses(t *testing.T) {
	text, _, err := NewECH(publicName)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := NewECH(publicName)
	if err != nil {
		t.Fatal(err)
	}
	key, config, _ := bytes.Cut(text, []byte("-----BEGIN ECHCONFIG"))
	config = append([]byte("-----BEGIN ECHCONFIG"), config...)
	otherKey, _, _ := bytes.Cut(other, []byte("-----BEGIN ECHCONFIG"))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaDER, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(typ string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}) }
	draft := []byte{0, 6, 0xfe, 0x0a, 0, 2, 1, 2}
	kyber := []byte{0, 9, 0xfe, 0x0d, 0, 5, 1, 0xff, 0xff, 0, 0}
	for _, c := range []struct {
		name, want string
		text       [][]byte
	}{
		{"nothing", "no PEM block", nil},
		{"no configuration", "no PEM block", [][]byte{key}},
		{"no key", "no private key fits configuration", [][]byte{config}},
		{"another key", "no private key fits configuration", [][]byte{config, otherKey}},
		{"a key too many", "private key 2 fits no configuration", [][]byte{text, otherKey}},
		{"a certificate", `a PEM block "CERTIFICATE"`, [][]byte{block("CERTIFICATE", nil)}},
		{"not PKCS #8", "private key", [][]byte{block(pemPrivateKey, []byte("x"))}},
		{"an RSA key", "X25519 or P-256 is needed", [][]byte{block(pemPrivateKey, rsaDER)}},
		{"an empty list", "cannot be read", [][]byte{block(pemECHConfig, []byte{0, 0})}},
		{"a cut list", "cannot be read", [][]byte{block(pemECHConfig, []byte{0, 9, 0xfe, 0x0d, 0, 5})}},
		{"an old draft alone", "no PEM block", [][]byte{block(pemECHConfig, draft)}},
		{"an unknown KEM", "asks for KEM 0xffff", [][]byte{block(pemECHConfig, kyber)}},
	} {
		if _, err := LoadECH(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// Halves in two files, and one file named twice.
	if k := loadECH(t, config, key, text); len(k.TLS()) != 1 || !k.TLS()[0].SendAsRetry {
		t.Errorf("%d keys", len(k.TLS()))
	}
}

// withECH gives outer with another body of encrypted_client_hello, as a record and parsed.
func withECH(t testing.TB, outer *wire.Hello, body func(b *cryptobyte.Builder)) (record []byte, h *wire.Hello) {
	t.Helper()
	s := outerExtensions(outer)
	head := outer.Raw[4 : len(outer.Raw)-len(s)-2]
	var msg cryptobyte.Builder
	msg.AddUint8(1)
	msg.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddBytes(head)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for !s.Empty() {
				before := []byte(s)
				var typ uint16
				var ext cryptobyte.String
				if !s.ReadUint16(&typ) || !s.ReadUint16LengthPrefixed(&ext) {
					t.Fatal("bad outer hello")
				}
				if typ != extECH {
					b.AddBytes(before[:len(before)-len(s)])
					continue
				}
				b.AddUint16(extECH)
				b.AddUint16LengthPrefixed(body)
			}
		})
	})
	raw, err := msg.Bytes()
	if err != nil {
		t.Skip(err)
	}
	if h, err = wire.ParseHello(raw); err != nil {
		t.Fatal(err)
	}
	for rest := raw; len(rest) > 0; {
		n := min(len(rest), 16<<10)
		record = append(record, 22, 3, 1, byte(n>>8), byte(n))
		record = append(record, rest[:n]...)
		rest = rest[n:]
	}
	return record, h
}

// seal puts an encoded inner hello of any content into outer, as a client would
// that holds the configuration.
func seal(t testing.TB, k *ECHKeys, outer *wire.Hello, encoded []byte) (record []byte, h *wire.Hello) {
	t.Helper()
	c := k.configs[0]
	enc, sender, err := hpke.NewSender(c.key.PublicKey(), hpke.HKDFSHA256(), hpke.AES128GCM(), append([]byte("tls ech\x00"), c.raw...))
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, len(encoded)+16)
	body := func(b *cryptobyte.Builder) {
		b.AddUint8(echOuter)
		b.AddUint16(kdfHKDFSHA256)
		b.AddUint16(aeadAES128GCM)
		b.AddUint8(c.id)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(enc) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(payload) })
	}
	_, zeroed := withECH(t, outer, body)
	if payload, err = sender.Seal(zeroed.Raw[4:], encoded); err != nil {
		t.Fatal(err)
	}
	return withECH(t, outer, body)
}

// plainInner gives the encoded inner hello that a client of crypto/tls has sent.
func plainInner(t testing.TB, k *ECHKeys, outer *wire.Hello) []byte {
	t.Helper()
	ext, ok := parseECHExtension(outer.ECH)
	if !ok {
		t.Fatal("no ECH")
	}
	encoded, ok := k.configs[0].decrypt(outer, ext)
	if !ok {
		t.Fatal("not decrypted")
	}
	return bytes.Clone(encoded)
}

// FuzzOpenECHInner has a client that knows our configuration and encrypts what it
// likes: we must read of it what crypto/tls reads, or refuse it.
func FuzzOpenECHInner(f *testing.F) {
	k, list := newECH(f)
	_, outer := firstFlight(f, echClient(list))
	good := plainInner(f, k, outer)
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte{})
	f.Add(append(bytes.Clone(good), 0, 0, 1))
	if at := bytes.Index(good, []byte{0xfd, 0x00}); at > 0 {
		twice := bytes.Clone(good)
		binary.BigEndian.PutUint16(twice[at+5:], extECH)
		f.Add(twice)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		if len(encoded) > 60_000 {
			return
		}
		record, h := seal(t, k, outer, encoded)
		compare(t, k, record, h, true)
	})
}

// FuzzOpenECHExtension has a client that sends any extension at all.
func FuzzOpenECHExtension(f *testing.F) {
	k, list := newECH(f)
	_, outer := firstFlight(f, echClient(list))
	f.Add([]byte{echInner})
	f.Add([]byte{echInner, 0})
	f.Add([]byte{2})
	f.Add(outer.ECH)
	f.Add(outer.ECH[:9])
	f.Add(append([]byte{echOuter, 0, 1, 0, 1, k.configs[0].id, 0, 32}, make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 60_000 || len(body) == 0 {
			return
		}
		record, h := withECH(t, outer, func(b *cryptobyte.Builder) { b.AddBytes(body) })
		compare(t, k, record, h, false)
	})
}

func compare(t *testing.T, k *ECHKeys, record []byte, h *wire.Hello, sealed bool) {
	inner, err := k.Open(h)
	name, protos, ok := serverSees(k, record)
	switch {
	case err != nil || !ok:
		// We may refuse more, and leave the refusal to crypto/tls; never may a name
		// that we saw be one that it did not.
		if sealed && err == nil && inner == nil {
			t.Errorf("sealed for us, refused by crypto/tls, and not even opened")
		}
	case inner == nil && (sealed || name != strings.ToLower(h.SNI)):
		t.Errorf("crypto/tls opens it and sees %q, we do not", name)
	case inner != nil && (strings.ToLower(strings.TrimSuffix(name, ".")) != inner.SNI || !slices.Equal(protos, inner.ALPN)):
		t.Errorf("crypto/tls sees %q %q, we %q %q", name, protos, inner.SNI, inner.ALPN)
	}
}

func BenchmarkOpenECH(b *testing.B) {
	k, list := newECH(b)
	_, hello := firstFlight(b, echClient(list))
	for b.Loop() {
		if inner, err := k.Open(hello); inner == nil || err != nil {
			b.Fatal(err)
		}
	}
}
