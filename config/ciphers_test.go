package config_test

import (
	"crypto/tls"
	"testing"

	"sallyport/config"
)

// The table is typed by hand so that only secure needs crypto/tls; a new Go
// may bring suites that are not in it.
func TestCipherTable(t *testing.T) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		if id, ok := config.CipherID(s.Name); !ok || id != s.ID {
			t.Errorf("%s: %#04x, %v", s.Name, id, ok)
		}
	}
	for name, id := range map[string]tls.CurveID{
		"X25519MLKEM768": tls.X25519MLKEM768, "SecP256r1MLKEM768": tls.SecP256r1MLKEM768, "SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024,
		"X25519": tls.X25519, "P-256": tls.CurveP256, "secp384r1": tls.CurveP384, "P-521": tls.CurveP521,
	} {
		if got, ok := config.GroupID(name); !ok || got != uint16(id) {
			t.Errorf("%s: %#04x, %v", name, got, ok)
		}
	}
}
