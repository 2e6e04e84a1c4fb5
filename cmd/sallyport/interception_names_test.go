package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
	"sallyport/secure"
)

// front is a TLS server with a certificate for each name that clients send. It notes
// the name with each line that it gets, and all that it was sent and has sent.
type front struct {
	addr  string
	certs map[string]tls.Certificate

	mu    sync.Mutex
	told  []string
	wires [][2]*bytes.Buffer // of each connection: to the server, and from it
}

func startFront(t *testing.T, certs map[string]tls.Certificate) *front {
	t.Helper()
	f := &front{certs: certs}
	cfg := &tls.Config{CurvePreferences: quick, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c, ok := certs[h.ServerName]; ok {
			return &c, nil
		}
		return nil, fmt.Errorf("nothing to show to %q", h.ServerName)
	}}
	f.addr = serveEach(t, func(c *net.TCPConn) {
		wire := [2]*bytes.Buffer{{}, {}}
		s := tls.Server(&tapped{c, wire}, cfg)
		line := make([]byte, 64)
		n, err := s.Read(line)
		if n == 0 {
			return
		}
		f.mu.Lock()
		f.told = append(f.told, s.ConnectionState().ServerName+": "+string(line[:n]))
		f.mu.Unlock()
		if err == nil {
			s.Write(line[:n])
			s.CloseWrite()
			io.Copy(io.Discard, s)
		}
		f.mu.Lock()
		f.wires = append(f.wires, wire)
		f.mu.Unlock()
	})
	return f
}

func (f *front) hears() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.told)
}

// tapped keeps what passes.
type tapped struct {
	net.Conn
	kept [2]*bytes.Buffer // read, written
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.kept[0].Write(p[:n])
	return n, err
}

func (c *tapped) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.kept[1].Write(p[:n])
	return n, err
}

// The name that a server is sent is not the one that it has to show (IC-52): it is
// judged by the route's name, whatever it was sent, be it nothing, and whatever the
// client's hello says outside of its encrypted part.
func TestInterceptionOfFronts(t *testing.T) {
	s := newStock(t)
	site := func(names ...string) tls.Certificate { return s.Leaf(names).TLS() }
	server := startFront(t, map[string]tls.Certificate{
		"":             site("good.test"),
		"front.test":   site("good.test", "front.test"),
		"another.test": site("another.test"),
	})
	pem, configs, err := secure.NewECH("public.x.test")
	if err != nil {
		t.Fatal(err)
	}
	sent := []string{"", "front.test", "another.test"} // the last is the one that must not pass
	text := fmt.Sprintf("defaults: {to: {addr: \"tls://%s\", name: good.test, ca: %q}}\nlisteners:\n", server.addr, s.anchors)
	routes := ""
	for i, sni := range sent {
		text += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: n%d, to: {sni: %q}}\n", i, sni)
		routes += fmt.Sprintf("  - {match: {sni: n%d.x.test}, to: {sni: %q}}\n", i, sni)
	}
	text += fmt.Sprintf("- from: tls://127.0.0.1:0\n  name: bridge\n  cert: %s\n  ech: %s\n  routes:\n%s  - {match: {sni: public.x.test}, to: {sni: another.test}}\n",
		s.ecdsa, write(t, "ech.pem", string(pem)), routes)
	p := start(t, "run", "-c", write(t, "sallyport.yaml", text))
	p.WaitListeners(1 + len(sent))
	var want []string
	for i, sni := range sent {
		for range 2 { // the second time the chain is known
			for _, hidden := range []bool{false, true} {
				name := fmt.Sprintf("n%d.x.test", i)
				cfg := &tls.Config{ServerName: name, RootCAs: s.Pool(), CurvePreferences: quick}
				if hidden {
					cfg.EncryptedClientHelloConfigList, cfg.MinVersion = configs, tls.VersionTLS13
				}
				answer := lineOver(tlsPeer(dial(t, p.Addr("bridge")), tls.Client, cfg))
				plain := lineOver(plainPeer(dial(t, p.Addr(fmt.Sprintf("n%d", i)))))
				if passes := sni != "another.test"; passes != (answer == secret) || passes != (plain == secret) || !passes && answer+plain != "" {
					t.Errorf("%q sent, hidden %t: the clients got %q and %q", sni, hidden, answer, plain)
				} else if passes {
					want = append(want, sni+": "+secret, sni+": "+secret)
				}
			}
		}
	}
	if got := server.hears(); !slices.Equal(got, want) {
		t.Errorf("the server heard %q, want %q", got, want)
	}
	// A client that names nobody, or nobody known, reaches none of them.
	for _, name := range []string{"", "n9.x.test"} {
		cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true, CurvePreferences: quick}
		if answer := lineOver(tlsPeer(dial(t, p.Addr("bridge")), tls.Client, cfg)); answer != "" {
			t.Errorf("a client that asks for %q got %q", name, answer)
		}
	}
	if got := server.hears(); len(got) != len(want) {
		t.Errorf("the server heard %q besides", got[len(want):])
	}
	mismatches := 0
	for _, r := range p.Flows(26) {
		if r.Text("reason") == "name_mismatch" {
			mismatches++
		}
	}
	if mismatches != 8 {
		t.Errorf("%d records of another name, want 8", mismatches)
	}
}

// lineOver sends the secret and gives what comes back, if anything does.
func lineOver(client *peer) string {
	defer client.close()
	if _, err := io.WriteString(client, secret); err != nil {
		return ""
	}
	line := make([]byte, len(secret))
	n, _ := io.ReadFull(client, line)
	return string(line[:n])
}

// A site that is not to be decrypted, beside others that are (IC-55): its client sees
// the server's own certificate, and resumes with the server; no byte is another.
func TestInterceptionOfPinnedSites(t *testing.T) {
	s, other := newStock(t), ca.Test(t)
	genuine := other.Leaf([]string{"pinned.x.test"}).TLS()
	server := startFront(t, map[string]tls.Certificate{"pinned.x.test": genuine, "good.test": s.Leaf([]string{"good.test"}).TLS()})
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf(`listeners:
- from: tls://127.0.0.1:0
  cert: %s
  routes:
  - {match: {sni: [pinned.x.test, other.x.test]}, action: splice, to: "tcp://%s"}
  - {to: {addr: "tls://%s", name: good.test, ca: %q}}
`, s.ecdsa, server.addr, server.addr, s.anchors)))
	cache := tls.NewLRUClientSessionCache(0)
	for n, resumed := range []bool{false, true, true} {
		c := &tapped{dial(t, p.Addr("")), [2]*bytes.Buffer{{}, {}}}
		client := tls.Client(c, &tls.Config{ServerName: "pinned.x.test", RootCAs: other.Pool(), CurvePreferences: quick, ClientSessionCache: cache})
		client.SetDeadline(time.Now().Add(testnet.Patience))
		io.WriteString(client, secret)
		answer, err := io.ReadAll(client)
		if err != nil || string(answer) != secret {
			t.Fatalf("connection %d: %q, %v", n, answer, err)
		}
		if st := client.ConnectionState(); !bytes.Equal(st.PeerCertificates[0].Raw, genuine.Certificate[0]) || st.DidResume != resumed {
			t.Errorf("connection %d: it is %s, resumed %t", n, st.PeerCertificates[0].Subject, st.DidResume)
		}
		client.Close()
		eventually(t, "the server's end", func() bool { server.mu.Lock(); defer server.mu.Unlock(); return len(server.wires) > n })
		if w := server.wires[n]; !bytes.Equal(w[0].Bytes(), c.kept[1].Bytes()) || !bytes.Equal(w[1].Bytes(), c.kept[0].Bytes()) {
			t.Errorf("connection %d: other bytes arrived than were sent", n)
		}
	}
	if answer := lineOver(tlsPeer(dial(t, p.Addr("")), tls.Client, &tls.Config{ServerName: "a.x.test", RootCAs: s.Pool(), CurvePreferences: quick})); answer != secret {
		t.Errorf("the site beside it: %q", answer)
	}
	for sni, pattern := range map[string]string{"pinned.x.test": "pass-through", "a.x.test": "bridge"} {
		wantFields(t, bySNI(t, p, sni), testnet.Record{"pattern": pattern})
	}
}

// The same of datagrams.
func TestInterceptionOfPinnedDatagramSites(t *testing.T) {
	s, other := newStock(t), ca.Test(t)
	genuine, good := other.Leaf([]string{"pinned.x.test"}).TLS(), s.Leaf([]string{"good.test"}).TLS()
	server := &presentDTLS{certs: map[string]*tls.Certificate{"pinned.x.test": &genuine, "good.test": &good}, told: map[string]int{}, sessions: map[string]dtls.Session{}}
	addr := server.listen(t)
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf(`listeners:
- from: dtls://127.0.0.1:0
  cert: %s
  routes:
  - {match: {sni: [pinned.x.test, other.x.test]}, action: splice, to: "udp://%s"}
  - {to: {addr: "dtls://%s", name: good.test, ca: %q}}
`, s.ecdsa, addr, addr, s.anchors)))
	to, err := net.ResolveUDPAddr("udp", p.Addr(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		root  *ca.CA
		shown []byte // nil: another's
	}{
		{"pinned.x.test", other.CA, genuine.Certificate[0]},
		{"a.x.test", s.CA, nil},
	} {
		d, err := dtls.DialWithOptions("udp", to, dtls.WithServerName(c.name), dtls.WithRootCAs(c.root.Pool()))
		if err != nil {
			t.Fatal(err)
		}
		d.SetDeadline(time.Now().Add(testnet.Patience))
		mustEcho(t, d, []byte(strings.TrimSpace(secret)))
		st, _ := d.ConnectionState()
		if genuine := bytes.Equal(st.PeerCertificates[0], c.shown); genuine != (c.shown != nil) {
			t.Errorf("%s: the genuine certificate: %t", c.name, genuine)
		}
		d.Close()
	}
	endAtOnce(p)
	p.Wait()
	for sni, pattern := range map[string]string{"pinned.x.test": "pass-through", "a.x.test": "bridge"} {
		wantFields(t, bySNI(t, p, sni), testnet.Record{"pattern": pattern})
	}
}
