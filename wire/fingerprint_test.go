package wire

import (
	"testing"
)

// The two examples of JA3's own description.
func TestJA3(t *testing.T) {
	for _, c := range []struct {
		msg        []byte
		text, hash string
	}{
		{
			message(VersionTLS10, []uint16{47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4},
				[]ext{sni("a"), numbers(extSupportedGroups, 23, 24, 25), {extECPointFormats, []byte{1, 0}}}),
			"769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0", "ada70206e40642a3e4461f35503241d5",
		},
		{
			message(VersionTLS10, []uint16{4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99}, nil),
			"769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6",
		},
		{
			message(VersionTLS12, []uint16{0x0a0a, 0x1301}, []ext{{0xdada, nil}, numbers(extSupportedGroups, 0xfafa, 29), {0x2a2a, nil}}),
			"771,4865,10,29,", "",
		},
	} {
		h, err := ParseHello(c.msg)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.ja3(); got != c.text {
			t.Errorf("text %s, want %s", got, c.text)
		}
		if got := h.JA3(); c.hash != "" && got != c.hash {
			t.Errorf("%s: %s, want %s", c.text, got, c.hash)
		}
	}
}

// The example of JA4's description, a Chrome of 2023.
func TestJA4(t *testing.T) {
	chrome := message(VersionTLS12, []uint16{0x6a6a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		[]ext{
			{0xdada, nil}, sni("a.example"), {0x0033, nil}, numbers(extSignatureAlgs, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
			{0x0023, nil}, {extECPointFormats, []byte{1, 0}}, {0xff01, nil}, numbers(extSupportedGroups, 0x3a3a, 0x1d, 0x17, 0x18), {0x001b, nil},
			{0x4469, nil}, {0x0012, nil}, {0x002d, nil}, alpn("h2", "http/1.1"), {0x0005, nil}, versions(0x0a0a, VersionTLS13, VersionTLS12),
			{0x0017, nil}, {0x1a1a, []byte{0}}, {0x0015, nil},
		})
	h, err := ParseHello(chrome)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := h.JA4(), "t13d1516h2_8daaf6152771_e5627efa2ab1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	a, b, c := h.ja4()
	if want := "t13d1516h2 002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9 0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601"; a+" "+b+" "+c != want {
		t.Errorf("%s %s %s", a, b, c)
	}
}

func TestJA4Parts(t *testing.T) {
	many := make([]ext, 120)
	for i := range many {
		many[i].typ = uint16(0x100 + i)
	}
	for _, c := range []struct {
		msg     []byte
		a, b, c string
	}{
		{message(VersionTLS10, []uint16{5, 4}, nil), "t10i020000", "0004,0005", ""},
		{message(VersionSSL30, []uint16{0x0a0a}, nil), "ts3i000000", "", ""},
		{hello(sni("a"), alpn("h2")), "t12d0202h2", "1301,c02b", ""},
		{hello(many...), "t12i029900", "1301,c02b", ""},
		{hello(numbers(extSignatureAlgs, 0x0a0a, 0x0804, 0x0403)), "t12i020100", "1301,c02b", "000d_0804,0403"},
		{hello(versions(0x7f1c)), "t00i020100", "1301,c02b", "002b"},
	} {
		h, err := ParseHello(c.msg)
		if err != nil {
			t.Fatal(err)
		}
		a, b, last := h.ja4()
		if a != c.a || b != c.b || len(c.c) > 0 && last != c.c {
			t.Errorf("%s %s %s, want %s %s %s", a, b, last, c.a, c.b, c.c)
		}
	}
	h, _ := ParseHello(message(VersionTLS10, []uint16{0x0a0a}, []ext{sni("a")}))
	if got := h.JA4(); got != "t10d000100_000000000000_000000000000" {
		t.Error(got)
	}
}

func TestJA4ALPN(t *testing.T) {
	for proto, want := range map[string]string{
		"h2": "h2", "http/1.1": "h1", "a": "aa", "xyz": "xz",
		"\xab": "ab", "\xab\xcd": "ad", "0\xab": "3b", "01\xab": "3b", "\xab1": "a1", "0\xab\xcd1": "01", "-": "2d", "\x0a\x0a": "0a",
	} {
		if got := ja4ALPN([]string{proto, "h2"}); got != want {
			t.Errorf("%q: %s, want %s", proto, got, want)
		}
	}
}

func BenchmarkFingerprints(b *testing.B) {
	h := &Hello{Version: VersionTLS12}
	for i := range uint16(18) {
		h.CipherSuites, h.Extensions, h.Schemes = append(h.CipherSuites, 0xc000+i), append(h.Extensions, i), append(h.Schemes, 0x0400+i)
	}
	for b.Loop() {
		h.JA3()
		h.JA4()
	}
}
