package secure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/credential"
	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/name"
	"sallyport/verify"
)

// Resumption, by what lies between the two connections.
func TestResumption(t *testing.T) {
	for _, c := range []struct {
		name   string
		mutual bool // with a client certificate
		change func(s *site)
		want   bool
	}{
		{"the same route", false, func(*site) {}, true},
		{"a server built anew, as by a reload", false, func(s *site) {}, true},
		{"another route", false, func(s *site) { s.server.Route = "other" }, false},
		{"another trust", false, func(s *site) { s.server.Trust = TrustHash([]byte("other")) }, false},
		{"tickets off", false, func(s *site) { s.server.Params.Tickets = false }, false},
		{"two days later", false, func(s *site) { s.later(48 * time.Hour) }, true},
		{"three days later", false, func(s *site) { s.later(72 * time.Hour) }, false},
		{"a secret of another process", false, func(s *site) { s.server.Tickets = NewTickets(*s.now.Load()) }, false},
		{"client certificates", true, func(*site) {}, true},
		{"client certificates, optional", true, func(s *site) { s.server.Auth = AuthOptional }, true},
		{"an access rule that no longer takes the client", true, func(s *site) {
			rule, _ := name.Parse("other.test")
			s.asking(AuthOptional, verify.Allow([]verify.Rule{{DNS: rule}}))
			s.client.Credential = nil // so that the full handshake can be told from a refusal
			s.server.Named = false
		}, false},
	} {
		for _, version := range []uint16{0x0303, 0x0304} {
			s := newSite(t)
			s.server.Max = version
			if c.mutual {
				s.asking(AuthRequire)
				s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth()))
			}
			first := NewClient(s.client).(*client)
			if p := s.goodWith(NewServer(s.server), first); p.inbound.Inbound[0].Resumed {
				t.Fatal("the first connection resumed")
			}
			c.change(s)
			// The same cache, with what the change made of the client.
			again := NewClient(s.client).(*client)
			again.base.ClientSessionCache = first.base.ClientSessionCache
			if c.mutual && s.client.Credential == nil {
				ours, err := first.shown(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				again.base.ClientSessionCache = keyed{first.base.ClientSessionCache, ours}
			}
			p := s.goodWith(NewServer(s.server), again)
			if got := p.inbound.Inbound[0].Resumed; got != c.want || p.outbound.Outbound[0].Resumed != got {
				t.Errorf("%s, %#04x: resumed is %t, want %t", c.name, version, got, c.want)
			}
			if c.mutual && c.want && (p.inbound.Inbound[0].Peer == nil || p.inbound.Inbound[0].Peer.Names[0] != "c.test") {
				t.Errorf("%s, %#04x: the client of a resumed session is %+v", c.name, version, p.inbound.Inbound[0].Peer)
			}
		}
	}
}

// renewed is a source that gives another certificate from one time to the next.
type renewed struct{ credential.Source }

// Who we were is not taken up again in the name of who we are: not after a new
// certificate of ours, not where there is none any more. The old one's return would be.
func TestResumptionIsOfOneCertificate(t *testing.T) {
	for _, version := range []uint16{0x0303, 0x0304} {
		s := newSite(t)
		s.server.Max = version
		s.asking(AuthOptional)
		old, young := s.own(s.ca.Leaf([]string{"old.test"}, ca.ClientAuth())), s.own(s.ca.Leaf([]string{"young.test"}, ca.ClientAuth()))
		source := &renewed{old}
		s.client.Credential = source
		server, client := NewServer(s.server), NewClient(s.client)
		for _, step := range []struct {
			source  credential.Source
			resumed bool
			name    string
		}{{old, false, "old.test"}, {old, true, "old.test"}, {young, false, "young.test"}, {young, true, "young.test"}, {old, true, "old.test"}} {
			source.Source = step.source
			p := s.goodWith(server, client)
			if in := p.inbound.Inbound[0]; in.Resumed != step.resumed || p.outbound.Outbound[0].Resumed != step.resumed || in.Peer.Names[0] != step.name {
				t.Errorf("%#04x: resumed is %t as %q, want %t as %q", version, in.Resumed, in.Peer.Names, step.resumed, step.name)
			}
		}
		source.Source = credential.Static(nil)
		if p := s.shake(server, client); reasonOf(p.clientErr) != flow.NoCredential {
			t.Errorf("%#04x: without a certificate: %v, %v", version, p.clientErr, p.serverErr)
		}
	}
}

func (s *site) later(d time.Duration) {
	now := s.now.Load().Add(d)
	s.now.Store(&now)
}

// A ticket does not outlive the certificate that it was made with.
func TestResumptionVerifiesTheChainAgain(t *testing.T) {
	for _, version := range []uint16{0x0303, 0x0304} {
		s := newSite(t)
		s.server.Max = version
		s.asking(AuthRequire)
		s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}, ca.ClientAuth(), ca.Validity(time.Hour)))
		s.server.Credential = s.own(s.ca.Leaf([]string{"a.test"}, ca.Validity(240*time.Hour)))
		server, client := NewServer(s.server), NewClient(s.client)
		s.goodWith(server, client)
		s.later(2 * time.Hour)
		p := s.shake(server, client)
		if reasonOf(p.serverErr) != flow.ClientCertExpired {
			t.Errorf("%#04x: got %v", version, p.serverErr)
		}
	}
}

func TestTicketSecretOutlivesTheProcess(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	keys := func(at time.Time) [][32]byte {
		t.Helper()
		tickets, warnings, err := LoadTickets(dir, at)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%q, %v", warnings, err)
		}
		_, keys, err := tickets.keys("r", [32]byte{}, at)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	today := keys(now)
	if again := keys(now); len(again) != 3 || again[0] != today[0] {
		t.Errorf("a restart changed the keys")
	}
	if tomorrow := keys(now.Add(24 * time.Hour)); tomorrow[1] != today[0] || tomorrow[0] == today[0] {
		t.Errorf("a day later today's key is not the second")
	}
	file := filepath.Join(dir, "tickets.secret")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, bad := range []string{"", "rubbish", "sallyport-tickets 1 99999999 " + strings.Repeat("00", 32), "sallyport-tickets 1 1 00"} {
		os.WriteFile(file, []byte(bad), 0o600)
		if _, warnings, err := LoadTickets(dir, now); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], file) {
			t.Errorf("%q: %q, %v", bad, warnings, err)
		}
		if b, _ := os.ReadFile(file); string(b) == bad {
			t.Errorf("%q was not replaced", bad)
		}
	}
}

// What is kept must not give yesterday's keys back.
func TestTicketSecretForgets(t *testing.T) {
	now := time.Now()
	tickets := NewTickets(now)
	_, before, _ := tickets.keys("r", [32]byte{}, now)
	tickets.keys("r", [32]byte{}, now.Add(72*time.Hour))
	_, after, _ := tickets.keys("r", [32]byte{}, now) // the clock goes back
	for _, k := range after {
		if k == before[0] {
			t.Error("an old key came back")
		}
	}
}
