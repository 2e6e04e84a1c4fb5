package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/internal/testca"
	"sallyport/internal/testnet"
)

// presentDTLS is a DTLS server that shows one of many chains, by the name that its
// client sends, and sends back what it is told. told counts that.
type presentDTLS struct {
	mu    sync.Mutex
	certs map[string]*tls.Certificate
	told  map[string]int
}

func (s *presentDTLS) certificate(h *dtls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.certs[h.ServerName]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("nothing to show to %q", h.ServerName)
}

func (s *presentDTLS) listen(t *testing.T) string {
	t.Helper()
	l, err := dtls.ListenWithOptions("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, dtls.WithGetCertificate(s.certificate))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for t.Context().Err() == nil {
			if c, err := l.Accept(); err == nil {
				go s.serve(c.(*dtls.Conn))
			}
		}
	}()
	return l.Addr().String()
}

func (s *presentDTLS) serve(c *dtls.Conn) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testnet.Patience)
	defer cancel()
	if c.HandshakeContext(ctx) != nil {
		return
	}
	b := make([]byte, 2048)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.told[string(b[:n])]++
	s.mu.Unlock()
	c.Write(b[:n])
	c.Read(b) // until the association ends
}

// exact says whether the engine gets as far as the chain: it looks at the
// handshake's signature first, and takes no long messages.
func exact(m *testca.Made) bool {
	size := 0
	for _, der := range m.Chain {
		size += len(der)
	}
	switch k := m.Key.(type) {
	case *ecdsa.PrivateKey:
		return size < 16<<10 && k.Curve.Params().BitSize >= 256 && k.Curve.Params().BitSize <= 384
	case *rsa.PrivateKey:
		return size < 16<<10 && k.N.BitLen() >= 2048
	case ed25519.PrivateKey:
		return size < 16<<10
	}
	return false
}

// Every chain of the table, shown by a DTLS server: the verdict, its reason, and no
// datagram to one that was refused, twice.
func TestInterceptionOfDatagramServers(t *testing.T) {
	server := &presentDTLS{certs: map[string]*tls.Certificate{}, told: map[string]int{}}
	addr, dir := server.listen(t), t.TempDir()
	var list []presentation
	exactly := map[string]bool{}
	var text strings.Builder
	for i, p := range presentations(testca.Cases()) {
		if p.bridge {
			continue
		}
		m := p.Make(t, time.Now())
		cert := m.TLS()
		server.certs[p.sni], exactly[p.sni] = &cert, exact(m)
		anchors := filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(anchors, m.AnchorsPEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		handshake := "10s"
		if !exactly[p.sni] { // some of them end by it alone
			handshake = "3s"
		}
		fmt.Fprintf(&text, "- {from: \"udp://127.0.0.1:0\", name: %q, timeouts: {handshake: %s}, to: {addr: \"dtls://%s\", name: %q, sni: %q, ca: %q, profile: %s}}\n",
			p.sni, handshake, addr, m.Name, p.sni, anchors, p.profile)
		list = append(list, p)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", "listeners:\n"+text.String()))
	p.WaitListeners(len(list))
	t.Run("all", func(t *testing.T) {
		for _, row := range list {
			t.Run(fmt.Sprintf("%s, %s", row.Name(), row.profile), func(t *testing.T) {
				t.Parallel()
				for n := range 2 {
					row.datagram(t, p, exactly[row.sni])
					server.mu.Lock()
					told := server.told[row.sni]
					server.mu.Unlock()
					if want := (n + 1) * map[bool]int{true: 1}[row.Want.Of(row.profile) == ""]; told != want {
						t.Errorf("the server was told %d times, want %d", told, want)
					}
				}
			})
		}
	})
	endAtOnce(p) // the associations that are open get their records
	p.Wait()
	for _, row := range list {
		if row.Want.Of(row.profile) != "" {
			continue
		}
		r := p.Flow(row.sni, func(r testnet.Record) bool { return r.Text("listener") == row.sni })
		if note, got := row.Notes[row.profile], r.Text("out_notes"); r.Text("out_version") != "DTLS 1.2" || (note == "") != (got == "") || !strings.Contains(got, note) {
			t.Errorf("%s, %s: the record is %v, want the note %q", row.Name(), row.profile, r, note)
		}
	}
}

// datagram sends one and waits for the answer or the record.
func (row *presentation) datagram(t *testing.T, p *testnet.Program, exactly bool) {
	t.Helper()
	c := dialUDP(t, p.Addr(row.sni))
	if want := row.Want.Of(row.profile); want != "" {
		c.Write([]byte(row.sni))
		from := c.LocalAddr().String()
		r := p.Flow("of "+from, func(r testnet.Record) bool { return r.Text("client") == from && r.Text("listener") == row.sni })
		if r.Text("stage") != "outbound" || r.Text("fault") != "server" || exactly && r.Text("reason") != want {
			t.Errorf("the record is %v, want %s", r, want)
		}
		return
	}
	mustEcho(t, c, []byte(row.sni))
}
