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

func TestLargeChainsAreNotKept(t *testing.T) {
	p := &Presented{}
	for range maxPathBytes / 4096 {
		p.Chain = append(p.Chain, &x509.Certificate{Raw: make([]byte, 4096)})
	}
	if _, keeps := keyOf(p); !keeps {
		t.Error("one of an honest size is not kept")
	}
	p.Chain = append(p.Chain, &x509.Certificate{Raw: make([]byte, 1)})
	if _, keeps := keyOf(p); keeps {
		t.Error("one that is too large is kept")
	}
}
