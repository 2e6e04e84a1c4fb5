package testnet

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The keys of a program are found by its arguments and by the file that these name:
// else no log would be looked into.
func TestKeyLines(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const certificate = "-----BEGIN CERTIFICATE-----\nthis is known to everybody\n-----END CERTIFICATE-----\n"
	pem := func(line string) string {
		return certificate + "-----BEGIN PRIVATE KEY-----\n" + line + "\nshort\n-----END PRIVATE KEY-----\n"
	}
	one, two := put("one.pem", pem("the first key's only line")), put("two.key", pem("the second key's only line"))
	file := put("sallyport.yaml", "listeners:\n  - {from: 'tls://:1', key: ["+two+"], to: x}\n")
	want := []string{"the first key's only line", "the second key's only line"}
	if got := keyLines([]string{"run", "-c", file, "--key", one}); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("%q", got)
	}
}
