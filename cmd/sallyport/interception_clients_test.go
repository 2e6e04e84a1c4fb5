package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testca"
	"sallyport/internal/testnet"
)

// caller is a client with one chain, before one route.
type caller struct {
	presentation
	made  *testca.Made
	cache tls.ClientSessionCache
}

// Every chain of the table, shown by a client: the verdict, and not a byte of one
// that was refused to the server, on a first, a second and a resumed connection.
func TestInterceptionOfClients(t *testing.T) {
	dir, site := t.TempDir(), ca.Test(t)
	cert, key := site.Files(site.Leaf([]string{"*.row.test"}))
	var mu sync.Mutex
	told := map[string]int{}
	addr := serveEach(t, func(c *net.TCPConn) {
		said, err := bufio.NewReader(c).ReadString('\n')
		mu.Lock()
		told[said]++
		mu.Unlock()
		if err == nil {
			io.WriteString(c, said)
		}
	})
	var callers []*caller
	var routes strings.Builder
	for i, p := range presentations(clientCases()) {
		if p.bridge {
			continue
		}
		c := &caller{presentation: p, made: p.Make(t, time.Now()), cache: tls.NewLRUClientSessionCache(0)}
		anchors := filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(anchors, c.made.AnchorsPEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&routes, "  - {match: {sni: %q}, client: {ca: %q, profile: %s}, allow: all}\n", p.sni, anchors, p.profile)
		callers = append(callers, c)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf("listeners:\n- from: tls://127.0.0.1:0\n  cert: %s\n  key: %s\n  to: tcp://%s\n  routes:\n%s",
		cert, key, addr, &routes)))
	for _, c := range callers {
		t.Run(fmt.Sprintf("%s, %s", c.Name(), c.profile), func(t *testing.T) {
			t.Parallel()
			cfg := &tls.Config{RootCAs: site.Pool(), CurvePreferences: quick, ServerName: c.sni}
			shown := c.made.TLS()
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }
			var reasons []string
			for i, step := range testca.Steps() {
				cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = step.Version, step.Version, c.cache
				if i == 0 {
					cfg.ClientSessionCache = nil
				}
				reasons = append(reasons, c.call(t, p, cfg, step))
			}
			if len(slices.Compact(slices.Clone(reasons))) != 1 {
				t.Errorf("one connection after the other: %q", reasons)
			}
			want := 0
			if c.Want.Of(c.profile) == "" {
				want = len(testca.Steps())
			}
			mu.Lock()
			defer mu.Unlock()
			if told[line(c.sni)] != want {
				t.Errorf("the server was told %d times, want %d", told[line(c.sni)], want)
			}
		})
	}
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if told[""] > 0 {
			t.Errorf("%d connections reached the server, and said nothing", told[""])
		}
	})
}

// call makes one connection and gives its reason.
func (c *caller) call(t *testing.T, p *testnet.Program, cfg *tls.Config, step testca.Step) string {
	t.Helper()
	client := tlsPeer(dial(t, p.Addr("")), tls.Client, cfg)
	answer := ""
	if _, err := io.WriteString(client, line(c.sni)); err == nil {
		answer, _ = bufio.NewReader(client).ReadString('\n')
	}
	from := client.bare.LocalAddr().String()
	client.close()
	r := p.Flow("of "+from, func(r testnet.Record) bool { return r.Text("client") == from })
	if c.Want.Of(c.profile) != "" {
		known := []string{"client_cert_unknown_ca", "client_cert_expired", "client_cert_rejected"}
		if c.ByHandshake() {
			known = []string{"client_handshake_failed"}
		}
		if answer != "" || !slices.Contains(known, r.Text("reason")) || r.Text("stage") != "inbound" || r.Text("fault") != "client" {
			t.Errorf("%s: got %q, the record is %v", step.Name, answer, r)
		}
		return r.Text("reason")
	}
	if answer != line(c.sni) || r["in_resumed"] != step.Resumed || r.Text("stage") == "inbound" {
		t.Errorf("%s: got %q, the record is %v", step.Name, answer, r)
	}
	if note, got := c.Notes[c.profile], r.Text("in_notes"); (note == "") != (got == "") || !strings.Contains(got, note) {
		t.Errorf("%s: the record notes %q, want %q", step.Name, got, note)
	}
	return "" // how the client leaves is its own affair
}

// clientCases are the rows of the table that clients can show.
func clientCases() (cases []testca.Case) {
	for _, c := range testca.Cases() {
		if c, ok := c.ForClients(); ok {
			cases = append(cases, c)
		}
	}
	return cases
}
