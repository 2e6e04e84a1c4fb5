package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/internal/ca"
	"sallyport/internal/testca"
	"sallyport/internal/testnet"
)

// presentDTLS is a DTLS server that shows one of many chains, by the name that its
// client sends, and sends back what it is told. told counts that.
type presentDTLS struct {
	mu       sync.Mutex
	certs    map[string]*tls.Certificate
	told     map[string]int
	sessions map[string]dtls.Session
}

func (s *presentDTLS) Set(id []byte, session dtls.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[string(id)] = session
	return nil
}

func (s *presentDTLS) Get(id []byte) (dtls.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[string(id)], nil
}

func (s *presentDTLS) Del(id []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, string(id))
	return nil
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
	l, err := dtls.ListenWithOptions("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, dtls.WithGetCertificate(s.certificate), dtls.WithSessionStore(s))
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

// datagramRow is one chain before the program, in both modes.
type datagramRow struct {
	presentation
	exact   bool
	callers []string // addresses, in the order of the flows
}

// isOf says whether a record is of this row and caller; a port may be others' later.
func (row *datagramRow) isOf(from string) func(testnet.Record) bool {
	return func(r testnet.Record) bool {
		return r.Text("client") == from && (r.Text("listener") == row.sni || r.Text("sni") == row.sni)
	}
}

// Every chain of the table, shown by a DTLS server: the verdict, its reason, and no
// datagram to one that was refused, in both modes, on a first and a resumed connection.
func TestInterceptionOfDatagramServers(t *testing.T) {
	server := &presentDTLS{certs: map[string]*tls.Certificate{}, told: map[string]int{}, sessions: map[string]dtls.Session{}}
	addr, dir, site := server.listen(t), t.TempDir(), ca.Test(t)
	certs, keys := []string{}, []string{}
	serves := func(l *ca.Leaf) {
		cert, key := site.Files(l)
		certs, keys = append(certs, cert), append(keys, key)
	}
	serves(site.Leaf([]string{"*.row.test"}))
	var list []*datagramRow
	var encrypt, bridge strings.Builder
	for i, p := range presentations(testca.Cases()) {
		if p.bridge {
			continue
		}
		m := p.Make(t, time.Now())
		if m.Own != nil {
			serves(m.Own)
		}
		shown, row := m.TLS(), &datagramRow{presentation: p, exact: exact(m)}
		server.certs[p.sni] = &shown
		anchors := filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(anchors, m.AnchorsPEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		handshake := "30s"
		if !row.exact { // some of them end by it alone
			handshake = "3s"
		}
		to := fmt.Sprintf("timeouts: {handshake: %s}, to: {addr: \"dtls://%s\", name: %q, sni: %q, ca: %q, profile: %s}", handshake, addr, m.Name, p.sni, anchors, p.profile)
		fmt.Fprintf(&encrypt, "- {from: \"udp://127.0.0.1:0\", name: %q, %s}\n", p.sni, to)
		fmt.Fprintf(&bridge, "  - {match: {sni: %q}, %s}\n", p.sni, to)
		list = append(list, row)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf("listeners:\n- from: dtls://127.0.0.1:0\n  name: bridge\n  cert: [%s]\n  key: [%s]\n  routes:\n%s%s", strings.Join(certs, ", "), strings.Join(keys, ", "), &bridge, &encrypt)))
	p.WaitListeners(1 + len(list))
	t.Run("all", func(t *testing.T) {
		for _, row := range list {
			t.Run(fmt.Sprintf("%s, %s", row.Name(), row.profile), func(t *testing.T) {
				t.Parallel()
				for n := range 4 {
					if row.bridge = n >= 2; row.bridge && !row.exact {
						break // the same once more, and as slowly
					}
					row.datagram(t, p, site.Pool())
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
		for n, from := range row.callers {
			r := p.Flow(row.sni, row.isOf(from))
			note, got := row.Notes[row.profile], r.Text("out_notes")
			if r.Text("out_version") != "DTLS 1.2" || r["out_resumed"] != (n%2 == 1) || (note == "") != (got == "") || !strings.Contains(got, note) {
				t.Errorf("%s, %s, flow %d: the record is %v, want the note %q", row.Name(), row.profile, n+1, r, note)
			}
		}
	}
}

// datagram sends one and waits for the answer or the record.
func (row *datagramRow) datagram(t *testing.T, p *testnet.Program, roots *x509.CertPool) {
	t.Helper()
	var c net.Conn
	if row.bridge {
		to, err := net.ResolveUDPAddr("udp", p.Addr("bridge"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := dtls.DialWithOptions("udp", to, dtls.WithServerName(row.sni), dtls.WithRootCAs(roots))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		d.SetDeadline(time.Now().Add(testnet.Patience))
		c = d
	} else {
		c = dialUDP(t, p.Addr(row.sni))
	}
	_, port, _ := net.SplitHostPort(c.LocalAddr().String()) // the engine's socket is bound to no address
	from := net.JoinHostPort("127.0.0.1", port)
	if want := row.Want.Of(row.profile); want != "" {
		c.Write([]byte(row.sni)) // in a bridge its handshake may have failed by now
		r := p.Flow("of "+from, row.isOf(from))
		if r.Text("stage") != "outbound" || r.Text("fault") != "server" || row.exact && r.Text("reason") != want {
			t.Errorf("the record is %v, want %s", r, want)
		}
		return
	}
	row.callers = append(row.callers, from)
	mustEcho(t, c, []byte(row.sni))
}
