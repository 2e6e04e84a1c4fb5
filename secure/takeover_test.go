package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/record"
)

func isOurs(c flow.Conn) bool { _, ours := c.(*record.Conn); return ours }

// TLS 1.3 is taken over where the route says so, and nothing else.
func TestWhatIsTakenOver(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, on := range []bool{false, true} {
			s := newSite(t)
			s.server.Max, s.server.Record, s.client.Record = version, on, on
			p := s.good()
			if want := on && version == tls.VersionTLS13; isOurs(p.server) != want || isOurs(p.client) != want {
				t.Errorf("%#04x, record %t: %T and %T", version, on, p.server, p.client)
			}
		}
	}
}

// Whatever tickets the server has sent, our counter stands where its was, and
// the client resumes: without a ticket, with one in the handshake's flight, with
// one after the client's certificate, and with one of several records.
func TestTicketsAreCounted(t *testing.T) {
	names := []string{"c.test"}
	for i := range 400 {
		names = append(names, fmt.Sprintf("a-rather-long-name-%d.test", i))
	}
	for _, c := range []struct {
		name    string
		tickets bool
		auth    Auth
		client  []string
	}{
		{"none", false, AuthNone, nil},
		{"one", true, AuthNone, nil},
		{"none, client certificate", false, AuthRequire, names[:1]},
		{"one, client certificate", true, AuthRequire, names[:1]},
		{"one, none of the client's", true, AuthOptional, nil},
		{"one of several records", true, AuthRequire, names},
	} {
		for _, ours := range []bool{false, true} { // the client's record layer
			s := newSite(t)
			s.server.Params.Tickets, s.client.Record = c.tickets, ours
			if c.auth != AuthNone {
				s.asking(c.auth)
			}
			if c.client != nil {
				s.client.Credential = s.own(s.ca.Leaf(c.client, ca.ClientAuth()))
			}
			server, client := NewServer(s.server), NewClient(s.client)
			for i := range 2 {
				p := s.goodWith(server, client)
				if !isOurs(p.server) || isOurs(p.client) != ours {
					t.Fatalf("%T and %T", p.server, p.client)
				}
				if got, want := p.outbound.Outbound[0].Resumed, c.tickets && i > 0; got != want {
					t.Errorf("%s, record %t, connection %d: resumed %t", c.name, ours, i, got)
				}
			}
		}
	}
}

// same is a source of randomness that gives every client one ClientHello.random.
type same struct{}

func (same) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 7
	}
	return len(p), nil
}

// A stranger chooses the client's random: connections which have the same at the
// same time have secrets of their own.
func TestSameRandomAtOnce(t *testing.T) {
	s := newSite(t)
	var log bytes.Buffer // crypto/tls writes to one at a time
	s.server.KeyLog = &log
	server := NewServer(s.server)
	stranger := layerFunc(func(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
		t := tls.Client(&under{Conn: c, units: flow.Units(c)}, &tls.Config{InsecureSkipVerify: true, ServerName: "a.test", Rand: same{}})
		f.Outbound = []flow.Session{{}}
		return &conn{tls: t, under: t.NetConn().(*under), role: &outbound}, t.Handshake()
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			p := s.shake(server, stranger)
			if p.serverErr != nil || p.clientErr != nil {
				t.Error(p.serverErr, p.clientErr)
				return
			}
			p.exchange(t)
		})
	}
	all.Wait()
	randoms, labels := map[string]bool{}, map[string]int{}
	for line := range strings.Lines(log.String()) {
		words := strings.Fields(line)
		labels[words[0]]++
		randoms[words[1]] = true
	}
	if len(randoms) != 1 || labels["CLIENT_TRAFFIC_SECRET_0"] != 20 || labels["SERVER_TRAFFIC_SECRET_0"] != 20 || len(labels) != 4 {
		t.Errorf("the operator's log has %d randoms and %v", len(randoms), labels)
	}
}

// What came together with the end of the handshake is not lost.
func TestDataWithFinished(t *testing.T) {
	s := newSite(t)
	server := NewServer(s.server)
	p := s.shake(server, layerFunc(func(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
		u := &under{Conn: c, units: flow.Units(c)}
		t := tls.Client(u, &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"})
		f.Outbound = []flow.Session{{}}
		_, err := u.gathered(len("early"), func() (int, error) {
			if err := u.handshakeCorked(t); err != nil {
				return 0, err
			}
			return t.Write([]byte("early"))
		})
		return &conn{tls: t, under: u, role: &outbound}, err
	}))
	if p.serverErr != nil || p.clientErr != nil {
		t.Fatal(p.serverErr, p.clientErr)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(p.server, b); err != nil || string(b) != "early" {
		t.Errorf("%q, %v", b, err)
	}
}

// handshakeCorked lets the ClientHello go, and keeps all after it for gathered.
func (u *under) handshakeCorked(t *tls.Conn) error {
	hello := make(chan struct{})
	go func() {
		defer close(hello)
		for {
			u.wmu.Lock()
			if out := u.out; len(out) > 0 {
				u.out = nil
				u.Conn.Write(out)
				u.wmu.Unlock()
				return
			}
			u.wmu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}()
	err := t.Handshake()
	<-hello
	return err
}

// After the connection was taken over crypto/tls can seal nothing more: it would
// use a nonce a second time.
func TestCryptoTLSWritesNoMore(t *testing.T) {
	s := newSite(t)
	h := &handshake{flow: &flow.Flow{}, role: &outbound, resumes: true}
	var kept *tls.Conn
	p := s.shake(NewServer(s.server), layerFunc(func(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
		cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"}
		u := h.under(c, cfg, &s.client.Common)
		kept = tls.Client(u, cfg)
		if err := h.run(kept, u, time.Second); err != nil {
			return nil, err
		}
		f.Outbound = []flow.Session{{}}
		return h.carryOn(kept, u, kept.ConnectionState(), false)
	}))
	if p.serverErr != nil || p.clientErr != nil {
		t.Fatal(p.serverErr, p.clientErr)
	}
	if _, err := kept.Write([]byte("x")); err == nil {
		t.Error("crypto/tls wrote")
	}
	// Nor when it finds a record that it refuses.
	kept.NetConn().(*under).learn(kept, append([]byte{23, 3, 3, 0, 30}, make([]byte, 30)...))
	p.exchange(t)
}
