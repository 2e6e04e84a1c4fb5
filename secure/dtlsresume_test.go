package secure

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/internal/testnet"
	"sallyport/verify"
)

// Resumption, by what lies between two handshakes.
func TestDTLSResumption(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(s *site)
		change func(s *site)
		want   bool
	}{
		{"the same route", nil, nil, true},
		{"with a key", func(s *site) { s.psk() }, nil, true},
		{"with a key that is another now", func(s *site) { s.psk() }, func(s *site) {
			s.server.PSK, s.client.PSK = keys{"device": "another key, 16+"}, keys{"device": "another key, 16+"}
		}, false},
		{"with a key that only the server has changed", func(s *site) { s.psk() }, func(s *site) {
			s.server.PSK = keys{"other": deviceKey}
			s.client.PSK = keys{"other": deviceKey}
			s.client.Identity = "other"
		}, false},
		{"another route", nil, func(s *site) { s.server.Route = "other" }, false},
		{"another trust", nil, func(s *site) { s.server.Trust = TrustHash([]byte("other")) }, false},
		{"off at the server", nil, func(s *site) { s.server.Params.Tickets = false }, false},
		{"off at the client", nil, func(s *site) { s.client.Params.Tickets = false }, false},
		{"another name", nil, func(s *site) { s.client.SNI = "" }, false},
		{"most of a day later", nil, func(s *site) { s.later(23 * time.Hour) }, true},
		{"a day later", nil, func(s *site) { s.later(24 * time.Hour) }, false},
		{"a store of another process", nil, func(s *site) { s.server.Sessions = NewSessions(s.server.Now) }, false},
		{"another suite", nil, func(s *site) { s.server.Suites = []uint16{uint16(dtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)} }, false},
		{"client certificates, required by now", nil, func(s *site) {
			s.asking(AuthRequire)
			s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
		}, false},
		{"a certificate of ours that nobody asks for", func(s *site) {
			s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
		}, nil, true},
		{"a certificate of ours that is another now", func(s *site) {
			s.client.Credential = s.own(s.ca.Leaf([]string{"old.test"}, ca.ClientAuth()))
		}, func(s *site) {
			s.client.Credential = s.own(s.ca.Leaf([]string{"young.test"}, ca.ClientAuth()))
		}, false},
		// The engine keeps none where a certificate was asked for, nor where none came.
		{"client certificates, optional and none", func(s *site) { s.asking(AuthOptional) }, nil, false},
		{"client certificates", func(s *site) {
			s.asking(AuthRequire)
			s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
		}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.server.Sessions = NewSessions(s.server.Now)
			if c.before != nil {
				c.before(s)
			}
			inner := new(forwarded)
			l := listenDTLS(t, inner)
			inner.set(NewDTLSServer(s.server))
			first := NewDTLSClient(s.client).(*dtlsClient)
			client := dialDTLS(t, l.at(), first)
			server := l.next()
			talkDTLS(t, server, client)
			if server.session(t).Resumed || client.session(t).Resumed {
				t.Fatal("the first handshake resumed")
			}
			if c.change != nil {
				c.change(s)
			}
			inner.set(NewDTLSServer(s.server)) // anew, as by a reload
			again := NewDTLSClient(s.client).(*dtlsClient)
			again.store = first.store
			client = dialDTLS(t, l.at(), again)
			before := server
			server = l.next()
			talkDTLS(t, server, client)
			if got := server.session(t).Resumed; got != c.want || client.session(t).Resumed != got {
				t.Errorf("resumed is %t and %t, want %t", got, client.session(t).Resumed, c.want)
			}
			if server.session(t).PSK != client.session(t).PSK || server.session(t).PSK != s.client.Identity {
				t.Errorf("recorded identities %q and %q", server.session(t).PSK, client.session(t).PSK)
			}
			if c.want && (server.session(t).Suite != before.session(t).Suite || server.session(t).Group != 0) {
				t.Errorf("a resumed session in suite %#x and group %d", server.session(t).Suite, server.session(t).Group)
			}
			if peer := client.session(t).Peer; s.client.PSK == nil && (peer == nil || peer.Names[0] != "a.test") {
				t.Errorf("the server is recorded as %+v", peer)
			}
		})
	}
}

// forwarded is whatever layer was set last.
type forwarded struct {
	mu sync.Mutex
	to flow.Layer
}

func (f *forwarded) set(l flow.Layer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = l
}

func (f *forwarded) Wrap(ctx context.Context, fl *flow.Flow, c flow.Conn) (flow.Conn, error) {
	f.mu.Lock()
	l := f.to
	f.mu.Unlock()
	return l.Wrap(ctx, fl, c)
}

// A session does not outlive the certificate that it was made with, nor a change of
// whom we trust.
func TestDTLSResumptionVerifiesTheServerAgain(t *testing.T) {
	for name, change := range map[string]func(s *site, c *dtlsClient){
		"expired": func(s *site, _ *dtlsClient) { s.later(2 * time.Hour) },
		"another anchor": func(s *site, c *dtlsClient) {
			c.Verify = verify.With(verify.PKIX{Anchors: s.anchors(ca.Test(s.t)), From: "to.ca", Profile: verify.Private})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.server.Credential = s.own(s.ca.Leaf([]string{"a.test"}, ca.Validity(time.Hour)))
			l, layer := listenDTLS(t, NewDTLSServer(s.server)), NewDTLSClient(s.client)
			client := dialDTLS(t, l.at(), layer)
			talkDTLS(t, l.next(), client)
			change(s, layer.(*dtlsClient))
			client = dialDTLS(t, l.at(), layer)
			if got := reasonOf(client.err); got != flow.CertExpired && got != flow.CertUnknownCA {
				t.Errorf("got %v", client.err)
			}
		})
	}
}

// With connection IDs a session is not taken up again: the engine would send with
// an ID that was not agreed on.
func TestDTLSResumptionWithConnectionIDs(t *testing.T) {
	s := newSite(t)
	s.server.CID, s.client.CID = true, true
	l, layer := listenDTLS(t, NewDTLSServer(s.server)), NewDTLSClient(s.client)
	for range 2 {
		client := dialDTLS(t, l.at(), layer)
		server := l.next()
		talkDTLS(t, server, client)
		if server.session(t).Resumed {
			t.Error("resumed")
		}
	}
}

// The engine as a client and as a server, which resumes by ID as well.
func TestDTLSResumptionWithPion(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		s := newSite(t)
		l := listenDTLS(t, NewDTLSServer(s.server))
		store := &resumable{store: NewSessions(time.Now)}
		for i := range 2 {
			p, err := pionClient(t, l.at(), dtls.WithSessionStore(store))
			server := l.next()
			if err != nil || server.session(t).Resumed != (i > 0) {
				t.Fatalf("handshake %d: %v, %+v", i, err, server.err)
			}
			p.Write([]byte("x"))
			server.hears(t, "x")
		}
	})
	t.Run("server", func(t *testing.T) {
		s := newSite(t)
		leaf, err := new(certificates).get(t.Context(), s.server.Credential, nil)
		if err != nil {
			t.Fatal(err)
		}
		to := pionServer(t, dtls.WithCertificates(*leaf), dtls.WithSessionStore(&resumable{store: NewSessions(time.Now)}))
		layer := NewDTLSClient(s.client)
		for i := range 2 {
			client := dialDTLS(t, to, layer)
			if client.session(t).Resumed != (i > 0) {
				t.Fatalf("handshake %d: resumed is %t", i, client.session(t).Resumed)
			}
			client.says(t, "x")
			client.hears(t, "x")
		}
	})
}

// The flight that ends an abbreviated handshake is ours. Where it gets lost the
// server begins its own once more, and we end it once more.
func TestDTLSLastFlightOfResumptionIsLost(t *testing.T) {
	s := newSite(t)
	l, layer := listenDTLS(t, NewDTLSServer(s.server)), NewDTLSClient(s.client)
	r := testnet.Relay(t, l.at(), testnet.Weather{})
	before := dialDTLS(t, r.Addr(), layer)
	talkDTLS(t, l.next(), before)
	const losses = 2
	var lost atomic.Int32
	r.Through(func(client int, w testnet.Way, _ int, p []byte) [][]byte {
		if client == 1 && w == testnet.ToServer && p[0] == typeChangeCipherSpec && lost.Load() < losses {
			lost.Add(1)
			return nil
		}
		return [][]byte{p}
	})
	client := dialDTLS(t, r.Addr(), layer)
	server := l.next()
	if client.err != nil || server.err != nil || !client.session(t).Resumed || !server.session(t).Resumed {
		t.Fatalf("server %v, client %v", server.err, client.err)
	}
	if n := lost.Load(); n != losses {
		t.Errorf("%d flights were lost, want %d", n, losses)
	}
	talkDTLS(t, server, client)
}
