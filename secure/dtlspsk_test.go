package secure

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/internal/testnet"
	"sallyport/wire"
)

const deviceKey = "0123456789abcdef"

// psk gives both layers the key of a device.
func (s *site) psk() {
	s.server.PSK, s.client.PSK, s.client.Identity = keys{"device": deviceKey}, keys{"device": deviceKey}, "device"
}

func TestDTLSPSK(t *testing.T) {
	s := newSite(t)
	s.psk()
	s.server.Credential, s.client.Verify = nil, nil // neither is asked
	server, client := s.oursGood()
	for _, got := range []flow.Session{server.session(t), client.session(t)} {
		if got.PSK != "device" || !isPSK(got.Suite) || got.Peer != nil || len(got.Chain) != 0 {
			t.Errorf("recorded %+v", got)
		}
	}
	// Forward secrecy, where both can.
	if got := server.session(t); got.Suite != uint16(dtls.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256) || got.Group == 0 {
		t.Errorf("agreed on %s in group %d", dtls.CipherSuiteName(dtls.CipherSuiteID(got.Suite)), got.Group)
	}
}

// With neither the key nor a word from the server, which does not say whether there
// is such an identity, each side has to guess what was wrong: rightly.
func TestDTLSPSKRefused(t *testing.T) {
	var all sync.WaitGroup // most wait for what does not come
	for _, c := range []struct {
		name    string
		change  func(s *site)
		server  flow.Reason
		client  flow.Reason
		suite   dtls.CipherSuiteID
		suffice time.Duration // of the server's handshake; the client's is longer
	}{
		{"unknown identity", func(s *site) { s.client.Identity, s.client.PSK = "other", keys{"other": deviceKey} }, flow.PSKUnknown, flow.ServerTimeout, 0, time.Second},
		{"wrong key", func(s *site) { s.client.PSK = keys{"device": "another key, 16+"} }, flow.PSKMismatch, flow.ServerTimeout, 0, time.Second},
		{"unknown identity", func(s *site) { s.client.Identity, s.client.PSK = "other", keys{"other": deviceKey} }, flow.PSKUnknown, flow.ServerTimeout, dtls.TLS_PSK_WITH_AES_128_CCM_8, time.Second},
		{"wrong key", func(s *site) { s.client.PSK = keys{"device": "another key, 16+"} }, flow.PSKMismatch, flow.ServerTimeout, dtls.TLS_PSK_WITH_AES_128_CCM_8, time.Second},
		{"no key of ours", func(s *site) { s.client.Identity = "nobody" }, flow.ClientAlert, flow.NoCredential, 0, 10 * time.Second},
		{"a client that has none", func(s *site) { s.client.PSK, s.server.Credential = nil, nil }, flow.NoSharedCipher, flow.ServerAlert, 0, 10 * time.Second},
		{"a server that has none", func(s *site) { s.client.Suites = pskSuites; s.server.PSK = nil }, flow.NoSharedCipher, flow.ServerAlert, 0, 10 * time.Second},
	} {
		s := newSite(t)
		s.psk()
		s.server.Timeout, s.client.Timeout = c.suffice, 2*c.suffice
		if c.suite != 0 {
			s.client.Suites = []uint16{uint16(c.suite)}
			s.server.Suites = s.client.Suites
		}
		c.change(s)
		all.Go(func() {
			server, client := s.ours()
			if reasonOf(server.err) != c.server {
				t.Errorf("%s: the server says %v, want %s", c.name, server.err, c.server)
			}
			if reasonOf(client.err) != c.client {
				t.Errorf("%s: the client says %v, want %s", c.name, client.err, c.client)
			}
			for _, err := range []error{server.err, client.err} {
				if text := fmt.Sprint(err); strings.Contains(text, deviceKey) || strings.Contains(text, "another key, 16+") {
					t.Errorf("%s: a key is told: %v", c.name, err)
				}
			}
		})
	}
	all.Wait()
}

// A stranger cannot tell whether there is an identity: both fail alike, by silence.
func TestDTLSIdentitiesAreNotTold(t *testing.T) {
	var all sync.WaitGroup
	for _, identity := range []string{"device", "nobody"} {
		s := newSite(t)
		s.psk()
		s.server.Timeout = 500 * time.Millisecond
		s.client.Identity, s.client.PSK, s.client.Timeout = identity, keys{identity: "no key of theirs"}, time.Second
		l := listenDTLS(t, NewDTLSServer(s.server))
		r := testnet.Relay(t, l.at(), testnet.Weather{})
		r.Through(func(_ int, w testnet.Way, _ int, p []byte) [][]byte {
			if w == testnet.ToClient && p[0] == wire.TypeAlert {
				t.Errorf("%s: the client is told %x", identity, p)
			}
			return [][]byte{p}
		})
		all.Go(func() {
			client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
			if reasonOf(client.err) != flow.ServerTimeout || reasonOf(l.next().err) == flow.OK {
				t.Errorf("%s: the client learns %v", identity, client.err)
			}
		})
	}
	all.Wait()
}

// The engine itself as a peer: hints, and suites with certificates beside.
func TestDTLSPSKWithPion(t *testing.T) {
	psk := func(seen chan string) dtls.PSKCallback {
		return func(hint []byte) ([]byte, error) {
			select {
			case seen <- string(hint):
			default:
			}
			return []byte(deviceKey), nil
		}
	}
	t.Run("client", func(t *testing.T) {
		s := newSite(t)
		s.psk()
		l := listenDTLS(t, NewDTLSServer(s.server))
		p, err := pionClient(t, l.at(), dtls.WithPSK(psk(nil)), dtls.WithPSKIdentityHint([]byte("device")), dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_CCM_8))
		if err != nil {
			t.Fatalf("%v; the server: %v", err, l.next().err)
		}
		server := l.next()
		if got := server.session(t); got.PSK != "device" || got.Suite != uint16(dtls.TLS_PSK_WITH_AES_128_CCM_8) {
			t.Errorf("recorded %+v", got)
		}
		p.Write([]byte("x"))
		server.hears(t, "x")
	})
	t.Run("certificates beside keys", func(t *testing.T) {
		s := newSite(t)
		s.psk()
		l := listenDTLS(t, NewDTLSServer(s.server))
		if _, err := pionClient(t, l.at()); err != nil {
			t.Fatalf("%v; the server: %v", err, l.next().err)
		}
		if got := l.next().session(t); got.PSK != "" || isPSK(got.Suite) {
			t.Errorf("recorded %+v", got)
		}
	})
	t.Run("server with a hint", func(t *testing.T) {
		s := newSite(t)
		s.psk()
		identities := make(chan string, 1)
		to := pionServer(t, dtls.WithPSK(psk(identities)), dtls.WithPSKIdentityHint([]byte("ask for device")), dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_GCM_SHA256))
		client := dialDTLS(t, to, NewDTLSClient(s.client))
		if got := client.session(t); got.PSK != "device" {
			t.Errorf("recorded %+v", got)
		}
		client.says(t, "echo")
		client.hears(t, "echo")
		if got := <-identities; got != "device" {
			t.Errorf("the server was named %q", got)
		}
	})
}

// Of a client with a key no certificate is asked, even where others must show one.
func TestDTLSPSKBesideClientCertificates(t *testing.T) {
	s := newSite(t)
	s.psk()
	s.asking(AuthRequire)
	s.server.Named = true
	server, _ := s.oursGood()
	if got := server.session(t); got.PSK != "device" || got.Peer != nil {
		t.Errorf("recorded %+v", got)
	}
	s.client.PSK, s.client.Identity = nil, ""
	if server, _ := s.ours(); reasonOf(server.err) != flow.ClientCertMissing {
		t.Errorf("without key and certificate: %v", server.err)
	}
}

// Suites with a key alone, on a route that has a certificate as well.
func TestDTLSOnlyPSKSuites(t *testing.T) {
	s := newSite(t)
	s.psk()
	s.server.Suites = []uint16{uint16(dtls.TLS_PSK_WITH_AES_128_CCM_8)}
	s.oursGood()
	s.client.PSK = nil
	if server, client := s.ours(); reasonOf(server.err) != flow.NoSharedCipher || reasonOf(client.err) != flow.ServerAlert {
		t.Errorf("server %v, client %v", server.err, client.err)
	}
}
