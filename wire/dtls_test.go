package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

// capturedDTLS gives the datagrams of what clients sent first, by the name of the
// file: -cookie is the same client's second hello.
func capturedDTLS(t testing.TB) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/dtls/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured hellos: %v", err)
	}
	all := make(map[string][][]byte)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ = bytes.Cut(text, []byte("\n")) // how it was made
		var datagrams [][]byte
		for part := range strings.SplitSeq(string(text), "\n\n") {
			b, err := hex.DecodeString(strings.ReplaceAll(part, "\n", ""))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			datagrams = append(datagrams, b)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".hex")] = datagrams
	}
	return all
}

// assembled is the hello of these datagrams in one record.
func assembled(t testing.TB, datagrams [][]byte) []byte {
	t.Helper()
	if len(datagrams) == 1 {
		return datagrams[0]
	}
	var parts HelloFragments
	for i, d := range datagrams {
		whole, err := parts.Feed(d)
		if err == nil && i == len(datagrams)-1 {
			return whole
		}
		if err != ErrMore {
			t.Fatalf("datagram %d of %d: %v", i, len(datagrams), err)
		}
	}
	t.Fatal("parts of a hello, and they make none")
	return nil
}

func TestCapturedDTLS(t *testing.T) {
	both, old := []uint16{VersionDTLS12, VersionDTLS10}, []uint16{VersionDTLS10}
	want := map[string]struct {
		datagrams, cookie int // of the second hello
		sni               string
		versions          []uint16
		alpn              []string
		suite             uint16 // the first
		ja4               string // its first part
	}{
		"openssl":          {1, 1, "a.example", both, []string{"coap"}, 0xc02c, "dd2d2808cp"},
		"openssl-dtls10":   {1, 1, "", old, nil, 0xc00a, "dd1i230500_"},
		"openssl-psk":      {1, 1, "", both, nil, 0xc0a8, "dd2i0204"},
		"openssl-mtu":      {1, 2, "a.example", both, nil, 0xc02c, "dd2d2807"},
		"gnutls":           {1, 1, "a.example", both, []string{"coap"}, 0xc02c, "dd2d2511cp_"},
		"gnutls-mtu":       {2, 2, "a.example", both, nil, 0xc02c, "dd2d251000_"},
		"coap-openssl":     {1, 1, "127.0.0.1", both, nil, 0x00ad, ""},
		"coap-gnutls":      {1, 1, "127.0.0.1", both, nil, 0xccac, ""},
		"coap-openssl-pki": {1, 1, "localhost", both, nil, 0xc02c, ""},
		"coap-gnutls-pki":  {1, 1, "localhost", both, nil, 0xc02c, ""},
		"pion":             {1, 1, "a.example", both, []string{"coap"}, 0xc02b, ""},
		"pion-cid":         {1, 1, "a.example", both, []string{"coap"}, 0xc02b, ""},
	}
	all := capturedDTLS(t)
	if len(all) != 2*len(want) {
		t.Errorf("%d files, %d expectations of two files each", len(all), len(want))
	}
	for name, w := range want {
		first, second := all[name], all[name+"-cookie"]
		if len(first) != w.datagrams || len(second) != w.cookie {
			t.Errorf("%s: %d datagrams, then %d", name, len(first), len(second))
			continue
		}
		h, err := ParseDTLSHello(assembled(t, first))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !h.DTLS || h.SNI != w.sni || !slices.Equal(h.Versions, w.versions) || !slices.Equal(h.ALPN, w.alpn) || h.CipherSuites[0] != w.suite {
			t.Errorf("%s: SNI %q, versions %x, ALPN %q, suites %x", name, h.SNI, h.Versions, h.ALPN, h.CipherSuites)
		}
		if len(h.Cookie) != 0 || h.MessageSeq != 0 || h.Random == [32]byte{} || !strings.HasPrefix(h.JA4(), w.ja4) {
			t.Errorf("%s: cookie %x, message %d, random %x, JA4 %s", name, h.Cookie, h.MessageSeq, h.Random, h.JA4())
		}
		again, err := ParseDTLSHello(assembled(t, second))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again.MessageSeq != 1 || again.RecordSeq == 0 || hex.EncodeToString(again.Cookie) != "000102030405060708090a0b0c0d0e0f10111213" {
			t.Errorf("%s: message %d, record %d, cookie %x", name, again.MessageSeq, again.RecordSeq, again.Cookie)
		}
		again.Cookie, again.MessageSeq, again.RecordSeq, again.Raw = h.Cookie, h.MessageSeq, h.RecordSeq, h.Raw
		if !reflect.DeepEqual(again, h) {
			t.Errorf("%s: the second hello says something else:\n%+v\n%+v", name, again, h)
		}
	}
}

// record is a DTLS record made here; a nil cid makes none of type 25.
func record(typ uint8, version, epoch uint16, seq uint64, cid, body []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typ)
	b.AddUint16(version)
	b.AddUint64(uint64(epoch)<<48 | seq)
	b.AddBytes(cid)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(body) })
	return b.BytesOrPanic()
}

// piece is a handshake message's header with what a client may put behind it.
func piece(typ uint8, length int, seq uint16, offset, n int, body []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typ)
	b.AddUint24(uint32(length))
	b.AddUint16(seq)
	b.AddUint24(uint32(offset))
	b.AddUint24(uint32(n))
	b.AddBytes(body)
	return b.BytesOrPanic()
}

// dtlsBody is that of a hello, which a TLS message becomes by a cookie.
func dtlsBody(msg, cookie []byte) []byte {
	body := bytes.Clone(msg[4:])
	body[0], body[1] = VersionDTLS12>>8, VersionDTLS12&0xff
	at := 2 + 32 + 1 + int(body[34])
	return slices.Concat(body[:at], []byte{byte(len(cookie))}, cookie, body[at:])
}

// dtlsHello is a whole one in one record.
func dtlsHello(body []byte) []byte {
	return record(typeHandshake, VersionDTLS10, 0, 5, nil, piece(typeClientHello, len(body), 3, 0, len(body), body))
}

func TestReadRecord(t *testing.T) {
	cid := []byte{1, 2, 3}
	withCID := record(TypeCID, VersionDTLS12, 0x0102, 0x030405060708, cid, []byte("sealed"))
	plain := record(typeHandshake, VersionDTLS10, 0, maxSeq, nil, nil)
	r, rest, err := ReadRecord(slices.Concat(withCID, plain), len(cid))
	want := Record{Type: TypeCID, Version: VersionDTLS12, Epoch: 0x0102, Seq: 0x030405060708, CID: cid, Body: []byte("sealed"), Raw: withCID}
	if err != nil || !reflect.DeepEqual(r, want) || !bytes.Equal(rest, plain) {
		t.Errorf("%+v, %x, %v", r, rest, err)
	}
	r, rest, err = ReadRecord(plain, len(cid))
	want = Record{Type: typeHandshake, Version: VersionDTLS10, Seq: maxSeq, Body: []byte{}, Raw: plain}
	if err != nil || !reflect.DeepEqual(r, want) || len(rest) != 0 {
		t.Errorf("%+v, %x, %v", r, rest, err)
	}
	for n := range withCID {
		r, rest, err := ReadRecord(withCID[:n], len(cid))
		if !isMalformed(err) && err != ErrNotTLS || (err == ErrNotTLS) != (n < dtlsHeader) || r.Raw != nil || rest != nil {
			t.Errorf("cut at %d: %+v, %x, %v", n, r, rest, err)
		}
	}
	for what, b := range map[string][]byte{
		"TLS":                         {22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 0, 0, 0, 0, 0},
		"type 19":                     record(19, VersionDTLS12, 0, 0, nil, nil),
		"type 26":                     record(26, VersionDTLS12, 0, 0, nil, nil),
		"the unified header of 1.3":   append([]byte{0x2f, 0xfe}, make([]byte, 40)...),
		"another major version":       record(22, 0xfdff, 0, 0, nil, nil),
		"CoAP in clear":               []byte("\x44\x01\xfe\x12tokn\xb5hello-there"),
		"a header that ends too soon": plain[:dtlsHeader-1],
	} {
		if _, _, err := ReadRecord(b, 0); err != ErrNotTLS {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n, ok := range map[int]bool{maxDTLSBody: true, maxDTLSBody + 1: false} {
		if _, _, err := ReadRecord(record(23, VersionDTLS12, 1, 0, nil, make([]byte, n)), 0); (err == nil) != ok || err != nil && !isMalformed(err) {
			t.Errorf("a body of %d: %v", n, err)
		}
	}
}

func TestIsClientHello(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want bool
	}{
		{record(typeHandshake, VersionDTLS12, 0, 0, nil, []byte{typeClientHello}), true},
		{record(typeHandshake, VersionDTLS12, 0, 0, nil, nil), false},
		{record(typeHandshake, VersionDTLS12, 0, 0, nil, []byte{2}), false},
		{record(typeHandshake, VersionDTLS12, 1, 0, nil, []byte{typeClientHello}), false},
		{record(typeAlert, VersionDTLS12, 0, 0, nil, []byte{typeClientHello}), false},
	} {
		if r, _, err := ReadRecord(c.b, 0); err != nil || r.IsClientHello() != c.want {
			t.Errorf("%x: %v, %v", c.b, r.IsClientHello(), err)
		}
	}
}

func TestReadHelloHead(t *testing.T) {
	body := dtlsBody(hello(sni("a.example")), []byte("cookie"))
	b := dtlsHello(body)
	h, err := ReadHelloHead(append(bytes.Clone(b), "rubbish"...))
	if err != nil {
		t.Fatal(err)
	}
	want := HelloHead{
		MessageSeq: 3, RecordSeq: 5, Random: bytes.Repeat([]byte{7}, 32), Cookie: []byte("cookie"),
		Before: body[:42], After: body[49:57], Raw: b[dtlsHeader:], Record: b,
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
	parsed, err := ParseDTLSHello(b)
	if err != nil || !bytes.Equal(parsed.Raw, h.Raw) || parsed.MessageSeq != 3 || parsed.RecordSeq != 5 || string(parsed.Cookie) != "cookie" || parsed.SNI != "a.example" || string(parsed.SessionID) != "session" {
		t.Errorf("%+v, %v", parsed, err)
	}
}

func TestReadHelloHeadRefuses(t *testing.T) {
	body := dtlsBody(hello(sni("a.example")), nil)
	whole := piece(typeClientHello, len(body), 0, 0, len(body), body)
	in := func(msg []byte) []byte { return record(typeHandshake, VersionDTLS10, 0, 0, nil, msg) }
	large := make([]byte, MaxDTLSHello+1)
	patch := func(at int, v byte) []byte { b := bytes.Clone(body); b[at] = v; return b }
	malformedOnes := map[string][]byte{
		"no message":                    in(nil),
		"a message cut in its header":   in(whole[:handshakeHeader-1]),
		"a message cut in its body":     in(whole[:len(whole)-1]),
		"another message behind it":     in(append(bytes.Clone(whole), whole...)),
		"a HelloVerifyRequest":          in(piece(typeHelloVerifyRequest, len(body), 0, 0, len(body), body)),
		"an empty fragment":             in(piece(typeClientHello, len(body), 0, 0, 0, nil)),
		"an empty message":              in(piece(typeClientHello, 0, 0, 0, 0, nil)),
		"a fragment beyond the message": in(piece(typeClientHello, len(body)-1, 0, 0, len(body), body)),
		"an offset beyond the message":  in(piece(typeClientHello, len(body), 0, len(body), 1, []byte{0})),
		"an offset of 2^24-1":           in(piece(typeClientHello, len(body), 0, 1<<24-1, 1, []byte{0})),
		"a fragment of 2^24-1":          in(piece(typeClientHello, len(body), 0, 0, 1<<24-1, body)),
		"a session ID of 33":            dtlsHello(slices.Concat(body[:34], []byte{33}, make([]byte, 33), body[42:])),
		"a session ID past the end":     dtlsHello(append(bytes.Clone(body[:34]), 20)),
		"a cookie past the end":         dtlsHello(patch(42, 255)),
		"suites past the end":           dtlsHello(patch(43, 255)),
	}
	for _, what := range slices.Sorted(maps.Keys(malformedOnes)) {
		for name, err := range refusals(malformedOnes[what]) {
			if !isMalformed(err) {
				t.Errorf("%s: %s gives %v", what, name, err)
			}
		}
	}
	for what, c := range map[string]struct {
		b    []byte
		want error
	}{
		"a part":              {in(piece(typeClientHello, len(body), 0, 0, 10, body[:10])), ErrMore},
		"its last byte":       {in(piece(typeClientHello, len(body), 0, len(body)-1, 1, body[:1])), ErrMore},
		"a later epoch":       {record(typeHandshake, VersionDTLS12, 1, 0, nil, whole), ErrNotTLS},
		"an alert":            {record(typeAlert, VersionDTLS12, 0, 0, nil, whole), ErrNotTLS},
		"TLS":                 {records(hello(), 9999), ErrNotTLS},
		"a length of 2^24-1":  {in(piece(typeClientHello, 1<<24-1, 0, 0, 10, body[:10])), ErrTooLarge},
		"a byte too many":     {in(piece(typeClientHello, MaxDTLSHello+1, 0, 0, MaxDTLSHello+1, large)), ErrTooLarge},
		"a part of too large": {in(piece(typeClientHello, MaxDTLSHello+1, 0, 5, 1, large[:1])), ErrTooLarge},
	} {
		for name, err := range refusals(c.b) {
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %s gives %v, want %v", what, name, err, c.want)
			}
		}
	}
	// What only the whole parser looks at.
	bad := dtlsHello(append(bytes.Clone(body), 0))
	if _, err := ReadHelloHead(bad); err != nil {
		t.Error(err)
	}
	if h, err := ParseDTLSHello(bad); !isMalformed(err) || h != nil {
		t.Errorf("bytes behind the extensions: %+v, %v", h, err)
	}
	// Every cut of the body, with lengths that fit again.
	for n := 1; n < len(body); n++ {
		if h, err := ParseDTLSHello(dtlsHello(body[:n])); !isMalformed(err) && (err != nil || len(h.Extensions) != 0) {
			t.Errorf("cut at %d: %+v, %v", n, h, err)
		}
	}
}

func refusals(b []byte) map[string]error {
	_, head := ReadHelloHead(b)
	_, parse := ParseDTLSHello(b)
	return map[string]error{"ReadHelloHead": head, "ParseDTLSHello": parse}
}

// The largest hello that we take fits into one record, which we take again.
func TestLargestDTLSHello(t *testing.T) {
	room := MaxDTLSHello - len(dtlsBody(hello(ext{0x5555, nil}), nil))
	body := dtlsBody(hello(ext{0x5555, make([]byte, room)}), nil)
	if len(body) != MaxDTLSHello {
		t.Fatal(len(body))
	}
	b := dtlsHello(body)
	if len(b) != dtlsHeader+maxPlaintext {
		t.Errorf("a record of %d bytes", len(b))
	}
	h, err := ParseDTLSHello(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := h.DTLSRecord(3, 5, nil); !bytes.Equal(again, b) {
		t.Error("it comes back as something else")
	}
}

func TestDTLSRecord(t *testing.T) {
	for name, datagrams := range capturedDTLS(t) {
		b := assembled(t, datagrams)
		h, err := ParseDTLSHello(b)
		if err != nil {
			t.Fatal(err)
		}
		if again := h.DTLSRecord(h.MessageSeq, h.RecordSeq, h.Cookie); !bytes.Equal(again[3:], b[3:]) || again[1] != 0xfe || again[2] != 0xff {
			t.Errorf("%s: as it was is\n%x, not\n%x", name, again, b)
		}
		for _, cookie := range [][]byte{nil, {1}, bytes.Repeat([]byte{2}, 20), bytes.Repeat([]byte{3}, 255)} {
			sameButCookie(t, name, h, cookie)
		}
		h.Forget()
		if again := h.DTLSRecord(0, 0, nil); again != nil {
			t.Errorf("%s: %x of a hello that has forgotten", name, again)
		}
	}
	h, err := ParseHello(hello())
	if err != nil {
		t.Fatal(err)
	}
	if b := h.DTLSRecord(0, 0, nil); b != nil {
		t.Errorf("%x of a hello over TLS", b)
	}
}

// sameButCookie has h said again with another cookie, and parsed.
func sameButCookie(t *testing.T, name string, h *Hello, cookie []byte) {
	t.Helper()
	b := h.DTLSRecord(0xabcd, 0x1234_5678_9abc, cookie)
	again, err := ParseDTLSHello(b)
	if err != nil {
		t.Fatalf("%s, a cookie of %d: %v", name, len(cookie), err)
	}
	if again.MessageSeq != 0xabcd || again.RecordSeq != 0x1234_5678_9abc || !bytes.Equal(again.Cookie, cookie) || !bytes.Equal(again.Raw, b[dtlsHeader:]) {
		t.Errorf("%s: message %x, record %x, cookie %x", name, again.MessageSeq, again.RecordSeq, again.Cookie)
	}
	again.MessageSeq, again.RecordSeq, again.Cookie, again.Raw = h.MessageSeq, h.RecordSeq, h.Cookie, h.Raw
	if !reflect.DeepEqual(again, h) {
		t.Errorf("%s, a cookie of %d: it says something else:\n%+v\n%+v", name, len(cookie), again, h)
	}
}

// By the letter of RFC 6347, section 4.2.1. The clients whose second hellos are in
// testdata were answered with these bytes.
func TestHelloVerifyRequest(t *testing.T) {
	got := AppendHelloVerifyRequest([]byte("before"), 0x1122_3344_5566, 0x7788, []byte("cookie"))
	want := "before" + "\x16\xfe\xff\x00\x00\x11\x22\x33\x44\x55\x66\x00\x15" + "\x03\x00\x00\x09\x77\x88\x00\x00\x00\x00\x00\x09" + "\xfe\xff\x06cookie"
	if string(got) != want {
		t.Errorf("%x\n%x", got, want)
	}
}

// A DTLS alert in clear is a record of epoch 0 with a number that no
// HelloVerifyRequest had.
func TestDTLSAlertRecord(t *testing.T) {
	b := AlertRecord(VersionDTLS12, AlertUnrecognizedName)
	r, rest, err := ReadRecord(b, 0)
	if err != nil || len(rest) != 0 || r.Type != TypeAlert || r.Version != VersionDTLS12 || r.Epoch != 0 || r.Seq != 0xffff || !bytes.Equal(r.Body, []byte{2, 112}) {
		t.Errorf("%+v, %v", r, err)
	}
}
