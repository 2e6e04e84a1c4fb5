package credential

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPSK(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.psk")
	text := "# devices\n\nmeter-1:00112233445566778899aabbccddeeff\r\n  # one more\nurn:dev:7:0011223344556677\nÿ é:00112233445566778899AABBCCDDEEFF\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, warnings, err := LoadPSK(file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := p.Key([]byte("meter-1")); !ok || len(key) != 16 || key[1] != 0x11 {
		t.Errorf("%x, %t", key, ok)
	}
	if key, ok := p.Key([]byte("urn:dev:7")); !ok || len(key) != 8 {
		t.Errorf("%x, %t", key, ok)
	}
	for _, id := range []string{"", "meter-", "meter-1 ", "# devices", "METER-1"} {
		if _, ok := p.Key([]byte(id)); ok {
			t.Errorf("%q has a key", id)
		}
	}
	if len(p.Identities()) != 3 || strings.Contains(p.String(), "meter") {
		t.Errorf("%q, %s", p.Identities(), p)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "line 5") {
		t.Errorf("warnings %q", warnings)
	}
}

func TestPSKIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "no key in it",
		"# only\n":                              "no key in it",
		"a:00112233\n\na:4455\n":                `keys.psk:3: identity "a" stands on line 1 already`,
		"a:\n":                                  `keys.psk:1: no key behind identity "a"`,
		"a\n":                                   "keys.psk:1: no colon",
		":00112233\n":                           "keys.psk:1: no identity",
		"a:0011223\n":                           "hexadecimal",
		"a:SECRETKEY\n":                         "hexadecimal",
		"a\x01:0011\n":                          "control characters",
		strings.Repeat("i", 129) + ":0011":      "129 bytes",
		"a:" + strings.Repeat("00", 65):         "longer than 64 bytes",
		"a:00112233445566778899aabbccddeeff\nb": "keys.psk:2: no colon",
	} {
		_, _, err := parsePSK("keys.psk", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("a key is shown: %v", err)
		}
	}
}

func TestPSKMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.psk")
	if err := os.WriteFile(file, []byte("a:00112233445566778899aabbccddeeff\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadPSK(file, Options{}); err == nil || !strings.Contains(err.Error(), "holds pre-shared keys and everybody can read it") {
		t.Errorf("got %v", err)
	}
	if _, warnings, err := LoadPSK(file, Options{AllowKeyMode: true}); err != nil || len(warnings) != 1 {
		t.Errorf("got %v, %q", err, warnings)
	}
	if _, _, err := LoadPSK(file+"x", Options{}); err == nil {
		t.Error("a file that is not there was read")
	}
	if p, _, err := LoadPSK("env:KEYS", Options{Env: func(string) string { return "a:00112233445566778899aabbccddeeff" }}); err != nil || len(p.Identities()) != 1 {
		t.Errorf("got %v, %v", p, err)
	}
}

func FuzzPSK(f *testing.F) {
	f.Add([]byte("a:00\n# b\nc:d:11"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, _, err := parsePSK("f", data)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if p == nil {
			return
		}
		for id, key := range p.keys {
			if id == "" || len(id) > maxIdentity || len(key) == 0 || len(key) > maxPSK {
				t.Fatalf("%q: %d bytes", id, len(key))
			}
		}
	})
}
