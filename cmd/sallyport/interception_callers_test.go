package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// packetCount sends each datagram back, and counts them by what they say.
type packetCount struct {
	mu   sync.Mutex
	told map[string]int
}

func (s *packetCount) listen(t *testing.T) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.told[string(b[:n])]++
			s.mu.Unlock()
			l.WriteTo(b[:n], from)
		}
	}()
	return l.LocalAddr().String()
}

func (s *packetCount) of(said string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told[said]
}

// Every chain of the table, shown by a DTLS client, twice: the verdict, and no
// datagram of one that was refused to the server. The engine resumes no session in
// which a certificate was asked for.
func TestInterceptionOfDatagramClients(t *testing.T) {
	t.Parallel()
	dir, site, server := t.TempDir(), ca.Test(t), &packetCount{told: map[string]int{}}
	cert, key := site.Files(site.Leaf([]string{"*.row.test"}))
	var list []*caller
	var routes strings.Builder
	for i, p := range presentations(clientCases()) {
		if p.bridge {
			continue
		}
		c := &caller{presentation: p, made: p.Make(t, time.Now())}
		anchors := filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(anchors, c.made.AnchorsPEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		handshake := "10s"
		if !exact(c.made) {
			handshake = "3s"
		}
		fmt.Fprintf(&routes, "  - {match: {sni: %q}, client: {ca: %q, profile: %s}, allow: all, timeouts: {handshake: %s}}\n", p.sni, anchors, p.profile, handshake)
		list = append(list, c)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf("listeners:\n- from: dtls://127.0.0.1:0\n  cert: %s\n  key: %s\n  to: udp://%s\n  routes:\n%s",
		cert, key, server.listen(t), &routes)))
	to, err := net.ResolveUDPAddr("udp", p.Addr(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		t.Run(fmt.Sprintf("%s, %s", c.Name(), c.profile), func(t *testing.T) {
			t.Parallel()
			shown := c.made.TLS()
			for n := range 2 {
				if n > 0 && !exact(c.made) {
					break // the same once more, and as slowly
				}
				d, err := dtls.DialWithOptions("udp", to, dtls.WithServerName(c.sni), dtls.WithRootCAs(site.Pool()),
					dtls.WithGetClientCertificate(func(*dtls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close() })
				d.SetDeadline(time.Now().Add(testnet.Patience))
				c.send(t, p, d)
				if got, want := server.of(c.sni), (n+1)*map[bool]int{true: 1}[c.Want.Of(c.profile) == ""]; got != want {
					t.Errorf("the server was told %d times, want %d", got, want)
				}
			}
		})
	}
}

// send makes the handshake, sends one datagram, and judges the record.
func (c *caller) send(t *testing.T, p *testnet.Program, d *dtls.Conn) {
	t.Helper()
	want := c.Want.Of(c.profile)
	ctx, cancel := context.WithTimeout(t.Context(), testnet.Patience)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if d.HandshakeContext(ctx) == nil && want != "" {
			d.Write([]byte(c.sni))
		}
	}()
	if want == "" {
		<-ended
		mustEcho(t, d, []byte(c.sni))
		d.Close()
	} else {
		defer func() { cancel(); <-ended; d.Close() }() // it may not hear that it was refused
	}
	_, port, _ := net.SplitHostPort(d.LocalAddr().String())
	r := p.Flow("of port "+port, func(r testnet.Record) bool { return r.Text("client") == "127.0.0.1:"+port && r.Text("sni") == c.sni })
	if want == "" {
		if note, got := c.Notes[c.profile], r.Text("in_notes"); r.Text("stage") == "inbound" || r["in_resumed"] != false || (note == "") != (got == "") || !strings.Contains(got, note) {
			t.Errorf("the record is %v, want the note %q", r, note)
		}
		return
	}
	known := []string{"client_cert_unknown_ca", "client_cert_expired", "client_cert_rejected"}
	if !exact(c.made) || c.ByHandshake() { // the engine looks at the handshake's signature first
		known = append(known, "client_handshake_failed", "client_handshake_timeout", "client_gone")
	}
	if !slices.Contains(known, r.Text("reason")) || r.Text("stage") != "inbound" || r.Text("fault") != "client" {
		t.Errorf("the record is %v", r)
	}
}
