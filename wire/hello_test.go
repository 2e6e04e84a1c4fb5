package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

// captured gives what clients sent first, by the name of the file.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/hello/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured hellos: %v", err)
	}
	all := make(map[string][]byte)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				digits.WriteString(strings.TrimSpace(line))
			}
		}
		b, err := hex.DecodeString(digits.String())
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".hex")] = b
	}
	return all
}

func TestCaptured(t *testing.T) {
	all4 := []uint16{VersionTLS13, VersionTLS12, VersionTLS11, VersionTLS10}
	tls13 := []uint16{VersionTLS13, VersionTLS12}
	old := []uint16{VersionTLS12, VersionTLS11, VersionTLS10}
	want := map[string]struct {
		sni      string
		versions []uint16
		alpn     []string
		group    uint16 // the first
		last     uint16 // extension
	}{
		"curl":            {"a.example", all4, []string{"h2", "http/1.1"}, 29, 21},
		"curl-ip":         {"", all4, []string{"h2", "http/1.1"}, 29, 21},
		"gnutls":          {"a.example", all4, []string{"h2"}, 23, 0},
		"gnutls-tls10":    {"", []uint16{VersionTLS10}, nil, 23, 0},
		"go-default":      {"a.example", tls13, []string{"h2"}, 4588, 0},
		"go-tls12":        {"", []uint16{VersionTLS12}, nil, 29, 0},
		"node":            {"a.example", tls13, []string{"h2"}, 29, 51},
		"openssl-default": {"mixed.case.example", all4, nil, 29, 51},
		"openssl-psk":     {"a.example", []uint16{VersionTLS13}, nil, 29, extPreSharedKey},
		"openssl-split":   {"a.example", all4, slices.Repeat([]string{"abcdefghijklmnopqrstuvwxyz"}, 60), 29, 51},
		"openssl-tls10":   {"", []uint16{VersionTLS10}, nil, 29, 23},
		"openssl-tls12":   {"a_b.example", old, nil, 29, 13},
		"openssl-tls13":   {"a.example", []uint16{VersionTLS13}, []string{"h2", "http/1.1"}, 29, 51},
		"wget":            {"localhost", all4, nil, 23, 0},
	}
	all := captured(t)
	for name, b := range all {
		w, ok := want[name]
		if !ok {
			t.Errorf("%s: nobody says what is in it", name)
			continue
		}
		h, err := new(HelloReader).Feed(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if h.SNI != w.sni || !slices.Equal(h.Versions, w.versions) || !slices.Equal(h.ALPN, w.alpn) || h.Groups[0] != w.group || (w.last != 0 && h.Extensions[len(h.Extensions)-1] != w.last) {
			t.Errorf("%s: SNI %q, versions %x, ALPN %q, groups %d, extensions %d", name, h.SNI, h.Versions, h.ALPN, h.Groups, h.Extensions)
		}
		if len(h.CipherSuites) == 0 || h.Random == [32]byte{} {
			t.Errorf("%s: no cipher suites or no random", name)
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d files, %d expectations", len(all), len(want))
	}
}

// ext is one extension of a hello made here.
type ext struct {
	typ  uint16
	body []byte
}

// message makes a ClientHello; nil extensions leave the whole block out.
func message(version uint16, suites []uint16, exts []ext) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typeClientHello)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(version)
		b.AddBytes(bytes.Repeat([]byte{7}, 32))
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("session")) })
		b.AddUint16LengthPrefixed(add16(suites))
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) })
		if exts == nil {
			return
		}
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, e := range exts {
				b.AddUint16(e.typ)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.body) })
			}
		})
	})
	return b.BytesOrPanic()
}

func add16(list []uint16) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		for _, v := range list {
			b.AddUint16(v)
		}
	}
}

func hello(exts ...ext) []byte { return message(VersionTLS12, []uint16{0x1301, 0xc02b}, exts) }

func sni(names ...string) ext {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddUint8(0)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(n)) })
		}
	})
	return ext{extServerName, b.BytesOrPanic()}
}

func alpn(names ...string) ext {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(n)) })
		}
	})
	return ext{extALPN, b.BytesOrPanic()}
}

func numbers(typ uint16, list ...uint16) ext {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(add16(list))
	return ext{typ, b.BytesOrPanic()}
}

func versions(list ...uint16) ext {
	var b cryptobyte.Builder
	b.AddUint8LengthPrefixed(add16(list))
	return ext{extSupportedVersions, b.BytesOrPanic()}
}

func TestParseHello(t *testing.T) {
	msg := message(VersionTLS12, []uint16{0x2a2a, 0x1301, 0x00ff}, []ext{
		{0x1a1a, nil}, sni("WWW.Example"), alpn("h2", "http/1.1", "\x0a\x0a"), numbers(extSupportedGroups, 0x3a3a, 29), {extECPointFormats, []byte{2, 0, 1}},
		numbers(extSignatureAlgs, 0x0403, 0x0804), versions(0x4a4a, VersionTLS13, VersionTLS12), {extECH, []byte{0, 1, 2}}, {0xfafa, []byte{0}},
	})
	h, err := ParseHello(msg)
	if err != nil {
		t.Fatal(err)
	}
	want := &Hello{
		Version: VersionTLS12, Versions: []uint16{VersionTLS13, VersionTLS12}, Random: [32]byte(bytes.Repeat([]byte{7}, 32)),
		SessionID: []byte("session"), CipherSuites: []uint16{0x2a2a, 0x1301, 0x00ff}, SNI: "www.example", ALPN: []string{"h2", "http/1.1", "\x0a\x0a"},
		Groups: []uint16{0x3a3a, 29}, Points: []uint8{0, 1}, Schemes: []uint16{0x0403, 0x0804},
		Extensions: []uint16{0x1a1a, 0, 16, 10, 11, 13, 43, 0xfe0d, 0xfafa}, ECH: []byte{0, 1, 2}, Raw: msg,
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("got %+v\nwant %+v", h, want)
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		msg  []byte
		want []uint16
	}{
		{message(VersionTLS12, []uint16{1}, nil), []uint16{VersionTLS12, VersionTLS11, VersionTLS10}},
		{message(VersionTLS11, []uint16{1}, []ext{}), []uint16{VersionTLS11, VersionTLS10}},
		{message(VersionTLS10, []uint16{1}, nil), []uint16{VersionTLS10}},
		{message(VersionSSL30, []uint16{1}, nil), []uint16{VersionSSL30}},
		{message(0x0200, []uint16{1}, nil), nil},
		{message(VersionTLS13, []uint16{1}, nil), []uint16{VersionTLS12, VersionTLS11, VersionTLS10}},
		{hello(versions(VersionTLS13)), []uint16{VersionTLS13}},
		{hello(versions(0x0a0a)), []uint16{}},
		{hello(versions(0x0305, VersionTLS13)), []uint16{0x0305, VersionTLS13}},
	} {
		h, err := ParseHello(c.msg)
		if err != nil {
			t.Errorf("%x: %v", c.msg, err)
		} else if !slices.Equal(h.Versions, c.want) {
			t.Errorf("%x: versions %x, want %x", c.msg, h.Versions, c.want)
		}
	}
}

func TestServerName(t *testing.T) {
	long := strings.Repeat("a.", 126) + "b"
	for in, want := range map[string]string{
		"a.example": "a.example", "A_b.Example": "a_b.example", "localhost": "localhost", "-a.b-": "-a.b-", long: long,
		"10.0.0.1": "10.0.0.1", "2001:DB8::1": "2001:db8::1", "::1": "::1",
		"a.example.": "", ".": "", ".a": "", "a..b": "", "a b": "", "a\x00.b": "", "*.b": "", "b\u00fccher.example": "", "a:443": "", "[::1]": "", "fe80::1%eth0": "", "a/b": "",
		long + "c": "", strings.Repeat("a", 64): "", "": "",
	} {
		h, err := ParseHello(hello(sni(in)))
		if want == "" && isMalformed(err) {
			continue
		}
		if err != nil || h.SNI != want {
			t.Errorf("%q: %+v, %v; want %q", in, h, err, want)
		}
	}
	other := ext{extServerName, []byte{0, 9, 1, 0, 1, 'x', 0, 0, 2, 'a', 'b'}} // an entry of type 1, then ab
	if h, err := ParseHello(hello(other)); err != nil || h.SNI != "ab" {
		t.Errorf("entry of another type: %+v, %v", h, err)
	}
}

func isMalformed(err error) bool {
	var m *MalformedError
	return errors.As(err, &m)
}

func TestParseHelloRefuses(t *testing.T) {
	good := hello(sni("a.example"))
	noSuites := message(VersionTLS12, nil, nil)
	patch := func(b []byte, at int, v byte) []byte { b = bytes.Clone(b); b[at] = v; return b }
	for what, msg := range map[string][]byte{
		"nothing":                                {},
		"a header alone":                         {1, 0, 0, 0},
		"a length past the end":                  good[:len(good)-1],
		"trailing bytes":                         append(bytes.Clone(good), 0),
		"a ServerHello":                          patch(good, 0, 2),
		"a session id of 33 (RFC 8446 4.1.2)":    patch(patch(good, 38, 33), 3, good[3]),
		"no cipher suites":                       noSuites,
		"two host names (RFC 6066 3)":            hello(sni("a", "b")),
		"an empty list of names (RFC 6066 3)":    hello(sni()),
		"bytes behind the list of names":         hello(ext{extServerName, append(sni("a").body, 0)}),
		"a name cut off":                         hello(ext{extServerName, []byte{0, 4, 0, 0, 2, 'a'}}),
		"an empty server_name":                   hello(ext{extServerName, nil}),
		"server_name twice (RFC 8446 4.2)":       hello(sni("a"), sni("a")),
		"an unknown extension twice":             hello(ext{0x5555, nil}, ext{0x5555, nil}),
		"an empty protocol (RFC 7301 3.1)":       hello(alpn("h2", "")),
		"no protocols (RFC 7301 3.1)":            hello(alpn()),
		"bytes behind the protocols":             hello(ext{extALPN, append(alpn("h2").body, 0)}),
		"no groups (RFC 8446 4.2.7)":             hello(numbers(extSupportedGroups)),
		"an odd list of groups":                  hello(ext{extSupportedGroups, []byte{0, 3, 0, 29, 0}}),
		"no signature schemes (RFC 8446 4.2.3)":  hello(numbers(extSignatureAlgs)),
		"no versions (RFC 8446 4.2.1)":           hello(versions()),
		"an odd list of versions":                hello(ext{extSupportedVersions, []byte{1, 3}}),
		"bytes behind the versions":              hello(ext{extSupportedVersions, []byte{2, 3, 4, 0}}),
		"no point formats (RFC 8422 5.1.2)":      hello(ext{extECPointFormats, []byte{0}}),
		"an empty ECH":                           hello(ext{extECH, nil}),
		"pre_shared_key first (RFC 8446 4.2.11)": hello(ext{extPreSharedKey, []byte{0}}, sni("a")),
	} {
		if h, err := ParseHello(msg); !isMalformed(err) || h != nil {
			t.Errorf("%s: %+v, %v", what, h, err)
		}
	}
	// Every cut of the body, with a length that fits again, is an error or a hello without extensions.
	for n := range len(good) - 4 {
		msg := patch(good[:4+n], 3, byte(n))
		if h, err := ParseHello(msg); !isMalformed(err) && (err != nil || len(h.Extensions) != 0) {
			t.Errorf("cut at %d: %+v, %v", n, h, err)
		}
	}
}

func TestVersionName(t *testing.T) {
	for v, want := range map[uint16]string{VersionTLS13: "TLS 1.3", VersionSSL30: "SSL 3.0", 0xfefd: "DTLS 1.2", 0x7f1c: "0x7f1c"} {
		if got := VersionName(v); got != want {
			t.Errorf("%#x: %s", v, got)
		}
	}
}
