package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
)

// How the bytes are cut does not change the answer, and the message is what the
// records held.
func FuzzHelloReader(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b, []byte{1, 5, 200})
	}
	f.Add(records(hello(sni("a")), 3), []byte{2, 0, 9})
	f.Add([]byte{22, 3, 1, 0, 0}, []byte{})
	f.Fuzz(func(t *testing.T, b, steps []byte) {
		want, wantErr := new(HelloReader).Feed(b)
		var r HelloReader
		h, err := r.Feed(nil)
		for rest, i := b, 0; err == ErrMore && len(rest) > 0; i++ {
			n := 1
			if len(steps) > 0 {
				n = min(int(steps[i%len(steps)]), len(rest))
				if n == 0 && i%len(steps) == 0 {
					n = 1
				}
			}
			h, err = r.Feed(rest[:n])
			rest = rest[n:]
		}
		if !reflect.DeepEqual(h, want) || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("in one piece %v, in several %v", wantErr, err)
		}
		if wantErr != nil {
			if want != nil {
				t.Fatal("an error and a hello")
			}
			return
		}
		if !bytes.HasPrefix(stripped(b), want.Raw) {
			t.Fatal("the message is not what the records held")
		}
	})
}

// stripped is what the records hold, by the simplest means.
func stripped(b []byte) (msg []byte) {
	for len(b) >= recordHeader {
		n := min(len(b)-recordHeader, int(b[3])<<8|int(b[4]))
		msg = append(msg, b[recordHeader:recordHeader+n]...)
		b = b[recordHeader+n:]
	}
	return msg
}

// A hello that parses says what crypto/tls will say of it: the engine refuses a
// flow where the two differ after the handshake.
func FuzzParseHello(f *testing.F) {
	for _, b := range captured(f) {
		h, err := new(HelloReader).Feed(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(h.Raw)
	}
	f.Add(hello(sni("10.0.0.1"), alpn("h2")))
	f.Add(hello(ext{extServerName, []byte{0, 9, 1, 0, 1, 'x', 0, 0, 2, 'a', 'b'}}))
	f.Add(message(VersionTLS10, []uint16{0xc009}, nil))
	server := newServer(f)
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, err := ParseHello(msg)
		if err != nil {
			if !isMalformed(err) || h != nil {
				t.Fatalf("%v, %v", h, err)
			}
			return
		}
		if _, err := ParseHello(append(bytes.Clone(msg), 0)); err == nil {
			t.Fatal("a trailing byte does not matter")
		}
		if ja4 := h.JA4(); len(ja4) != 36 || len(h.JA3()) != 32 {
			t.Fatalf("fingerprint %q", ja4)
		}
		info := server(msg)
		if info == nil { // crypto/tls reads more extensions, and refuses more
			return
		}
		if strings.ToLower(info.ServerName) != h.SNI {
			t.Fatalf("SNI %q, crypto/tls has %q", h.SNI, info.ServerName)
		}
		if strings.Join(info.SupportedProtos, "\x00") != strings.Join(h.ALPN, "\x00") {
			t.Fatalf("ALPN %q, crypto/tls has %q", h.ALPN, info.SupportedProtos)
		}
	})
}

// newServer gives a function that has crypto/tls read a hello; nil where it
// refuses it.
func newServer(f *testing.F) func([]byte) *tls.ClientHelloInfo {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{{0}}, PrivateKey: key}
	return func(msg []byte) (seen *tls.ClientHelloInfo) {
		_ = tls.Server(&oneWay{r: bytes.NewReader(records(msg, maxPlaintext))}, &tls.Config{
			Certificates: []tls.Certificate{cert},
			MinVersion:   tls.VersionTLS10,
			GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
				seen = info
				return nil, errors.New("seen")
			},
		}).Handshake()
		return seen
	}
}

// oneWay is a connection that only reads.
type oneWay struct {
	net.Conn
	r io.Reader
}

func (c *oneWay) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *oneWay) Write(p []byte) (int, error) { return len(p), nil }
