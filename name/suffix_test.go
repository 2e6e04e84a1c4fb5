package name

import (
	"testing"
)

func TestIsPublicSuffix(t *testing.T) {
	for s, want := range map[string]bool{
		"com": true, "co.uk": true, "test": true, "xn--p1ai": true,
		"example.com": false, "example.co.uk": false, "github.io": false, "a.test": false, "": false,
	} {
		if got := IsPublicSuffix(s); got != want {
			t.Errorf("%q: %t, want %t", s, got, want)
		}
	}
}
