package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/ca"
)

// refusals gives a file in which each route asks for something.
func refusals(t *testing.T, s *site, to string) string {
	t.Helper()
	text := fmt.Sprintf(`
defaults: {cert: %s, key: %s, to: "tcp://%s"}
listeners:
- from: tls://127.0.0.1:0
  name: named
  routes:
  - match: {sni: a.test}
  - match: {sni: modern.test}
    tls: modern
  - match: {sni: h2.test}
    alpn: [h2]
  - match: {sni: mtls.test}
    client: {ca: %[4]s}
    allow: [{dns: "*.good.test"}]
  - match: {sni: optional.test}
    client: {ca: %[4]s, auth: optional}
    allow: all
  - match: {sni: from.test}
    client: {from: 192.0.2.0/24}
- from: tls://127.0.0.1:0
  name: elsewhere
  routes:
  - match: {client: 192.0.2.0/24}
`, s.cert, s.key, to, s.anchors)
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// showing has the client show l whatever authorities the server names.
func showing(l *ca.Leaf) func(*tls.Config) {
	cert := l.TLS()
	return func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
}

func only(version uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }
}

// Each refusal is one alert, after it nothing but the end of the stream, and one
// record; and the next client is served.
func TestRefusals(t *testing.T) {
	s := newSite(t)
	w := &way{site: s, in: true}
	w.Program = start(t, "run", "-c", refusals(t, s, serving(t, echo)))
	w.WaitListeners(2)
	stranger := ca.Test(t).Leaf([]string{"x.good.test"})
	expired := s.root.Leaf([]string{"x.good.test"}, ca.Expired())
	other := s.root.Leaf([]string{"x.bad.test"})
	serverOnly := s.root.Leaf([]string{"x.good.test"}, ca.ServerAuth())
	good := showing(s.root.Leaf([]string{"x.good.test"}))
	good12 := func(c *tls.Config) { good(c); only(tls.VersionTLS12)(c) }
	protos := func(list ...string) func(*tls.Config) { return func(c *tls.Config) { c.NextProtos = list } }
	v10, v12, v13 := only(tls.VersionTLS10), only(tls.VersionTLS12), only(tls.VersionTLS13)
	for _, row := range []struct {
		name, sni     string
		bad           []func(*tls.Config)
		alerts        []int
		reason, stage string
		good          func(*tls.Config) // besides the name; nil is nothing else, for another name
	}{
		{"unknown name", "x.test", nil, []int{112}, "unrecognized_name", "decide", nil},
		{"no name", "", nil, []int{112}, "unrecognized_name", "decide", nil},
		{"TLS 1.0", "a.test", []func(*tls.Config){v10}, []int{70}, "version_unsupported", "inbound", v12},
		{"TLS 1.1", "a.test", []func(*tls.Config){only(tls.VersionTLS11)}, []int{70}, "version_unsupported", "inbound", v12},
		{"TLS 1.2 where 1.3 is the floor", "modern.test", []func(*tls.Config){v12}, []int{70}, "version_unsupported", "inbound", v13},
		{"no protocol in common", "h2.test", []func(*tls.Config){protos("http/1.1", "spdy")}, []int{120}, "no_application_protocol", "inbound", protos("http/1.1", "h2")},
		{"no cipher in common", "a.test", []func(*tls.Config){v12, func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA} }}, []int{40}, "no_shared_cipher", "inbound", v12},
		{"certificate of another CA, 1.3", "mtls.test", []func(*tls.Config){showing(stranger), v13}, []int{48}, "client_cert_unknown_ca", "inbound", good},
		{"certificate of another CA, 1.2", "mtls.test", []func(*tls.Config){showing(stranger), v12}, []int{48}, "client_cert_unknown_ca", "inbound", good12},
		{"certificate of another CA, where none would do", "optional.test", []func(*tls.Config){showing(stranger)}, []int{48}, "client_cert_unknown_ca", "inbound", v13},
		{"expired certificate, 1.3", "mtls.test", []func(*tls.Config){showing(expired), v13}, []int{45}, "client_cert_expired", "inbound", good},
		{"expired certificate, 1.2", "mtls.test", []func(*tls.Config){showing(expired), v12}, []int{45}, "client_cert_expired", "inbound", good12},
		{"no certificate, 1.3", "mtls.test", []func(*tls.Config){v13}, []int{116}, "client_cert_missing", "inbound", good},
		{"no certificate, 1.2", "mtls.test", []func(*tls.Config){v12}, []int{42, 40}, "client_cert_missing", "inbound", good12},
		{"certificate not allowed, 1.3", "mtls.test", []func(*tls.Config){showing(other), v13}, []int{42}, "client_not_allowed", "inbound", good},
		{"certificate not allowed, 1.2", "mtls.test", []func(*tls.Config){showing(other), v12}, []int{42}, "client_not_allowed", "inbound", good12},
		{"certificate for servers alone", "mtls.test", []func(*tls.Config){showing(serverOnly), v13}, []int{42}, "client_cert_rejected", "inbound", good},
		{"address not listed", "from.test", nil, []int{49}, "address_refused", "decide", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			client := w.knock(t, "named", row.sni, row.bad...)
			how := client.told()
			var alert int
			if fmt.Sscanf(how, "alert %d", &alert); !slices.Contains(row.alerts, alert) {
				t.Errorf("the client saw %s, want one of the alerts %d", how, row.alerts)
			}
			client.wantNothingMore(t)
			client.close()
			r := w.record(client)
			wantRecord(t, r, row.reason, row.stage)
			if r.Text("fault") != "client" || r.Text("sni") != row.sni {
				t.Errorf("the record is %v", r)
			}

			sni := row.sni
			if row.good == nil {
				sni, row.good = "a.test", v13
			}
			w.wantServed(t, w.knock(t, "named", sni, row.good))
		})
	}
	t.Run("no route", func(t *testing.T) {
		client := w.knock(t, "elsewhere", "a.test")
		if how := client.told(); how != "alert 49" {
			t.Errorf("the client saw %s", how)
		}
		client.wantNothingMore(t)
		client.close()
		wantRecord(t, w.record(client), "no_route", "decide")
	})
}

// knock is a client of the listener of that name that has made no handshake.
func (w *way) knock(t *testing.T, listener, sni string, change ...func(*tls.Config)) *peer {
	t.Helper()
	cfg := w.clientConfig(tls.VersionTLS13)
	// Names are refused or not by the route; the certificate is not the matter.
	cfg.ServerName, cfg.InsecureSkipVerify = sni, true
	for _, f := range change {
		f(cfg)
	}
	return tlsPeer(dial(t, w.Addr(listener)), tls.Client, cfg)
}

// wantServed fails where an echoing server behind the program is not reached.
func (w *way) wantServed(t *testing.T, client *peer) {
	t.Helper()
	if err := client.handshake(); err != nil {
		t.Fatalf("a good client: %v", err)
	}
	line := "are you there?\n"
	client.Write([]byte(line))
	client.finish()
	client.wantRest(t, "good client", []byte(line), finished)
	wantRecord(t, w.record(client), "ok", "")
}

// A record that does not decrypt: one alert to whoever sent it, no close_notify
// behind it, and a reset for the other end.
func TestRefusalOfABrokenRecord(t *testing.T) {
	w := startWay(t, newSite(t), true, true)
	broken := append([]byte{23, 3, 3, 0, 64}, bytesOf(1, 64)...)
	for _, version := range bothVersions {
		for _, byClient := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, by client %t", tls.VersionName(version), byClient), func(t *testing.T) {
				client, server := w.pair(t, version)
				swap(t, client, server, []byte("ping"))
				swap(t, server, client, []byte("pong"))
				breaks, other, reason := server, client, "server_protocol_error"
				if byClient {
					breaks, other, reason = client, server, "client_protocol_error"
				}
				breaks.bare.Write(broken)
				if _, how := breaks.rest(); how != "alert 20" {
					t.Errorf("who sent it saw %s", how)
				}
				if more, _ := io.ReadAll(breaks.bare); len(more) > 0 {
					t.Errorf("after the alert came % x", more)
				}
				other.wantRest(t, "other end", nil, wasReset)
				wantRecord(t, w.record(client), reason, "relay")
			})
		}
	}
}

// A ticket from a route that lets everybody pass opens none that asks for a
// certificate.
func TestRefusalOfATicketFromAnotherRoute(t *testing.T) {
	s := newSite(t)
	w := &way{site: s, in: true}
	w.Program = start(t, "run", "-c", refusals(t, s, serving(t, echo)))
	w.WaitListeners(2)
	cache := &oneSession{}
	w.wantServed(t, w.knock(t, "named", "optional.test", func(c *tls.Config) { c.ClientSessionCache = cache }))
	if cache.state == nil {
		t.Fatal("no ticket came")
	}
	for _, v := range bothVersions {
		client := w.knock(t, "named", "mtls.test", only(v), func(c *tls.Config) { c.ClientSessionCache = cache })
		if how := client.told(); !strings.HasPrefix(how, "alert") {
			t.Errorf("the client saw %s", how)
		}
		client.close()
		wantRecord(t, w.record(client), "client_cert_missing", "inbound")
	}
}

// oneSession offers the one session that it has to whatever server.
type oneSession struct{ state *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.state, o.state != nil }
func (o *oneSession) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		o.state = s
	}
}
