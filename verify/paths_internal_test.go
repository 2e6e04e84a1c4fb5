package verify

import (
	"crypto/x509"
	"testing"
	"time"
)

func TestPathsAreBounded(t *testing.T) {
	var s paths
	found := [][]*x509.Certificate{{{NotAfter: time.Unix(100, 0)}}}
	for i := range 5 * maxPaths {
		k := pathKey{chain: [32]byte{byte(i), byte(i >> 8)}}
		s.keep(k, found)
		if s.at(k, time.Unix(50, 0)) == nil {
			t.Fatal("what was just kept is gone")
		}
		if len(s.known) > maxPaths {
			t.Fatalf("%d are kept", len(s.known))
		}
	}
	k := pathKey{}
	s.keep(k, found)
	if s.at(k, time.Unix(101, 0)) != nil || s.at(k, time.Unix(50, 0)) != nil {
		t.Error("a path outlived its certificates")
	}
}
