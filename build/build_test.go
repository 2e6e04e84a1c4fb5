package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/config"
	"sallyport/internal/ca"
)

// site writes certificates and a file, and builds it.
func site(t *testing.T, yaml string) (*Program, error) {
	t.Helper()
	dir := t.TempDir()
	authority := ca.Test(t)
	if _, _, err := authority.Leaf([]string{"a.test"}).Write(dir, "site"); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Write(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "f.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(file, config.Options{Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(f, Options{Env: func(string) string { return "" }})
	if err == nil {
		t.Cleanup(func() { p.Close() })
	}
	return p, err
}

func TestRoutesThatNoClientReaches(t *testing.T) {
	_, err := site(t, `
listeners:
  - from: tls://127.0.0.1:0
    cert: site.pem
    to: tcp://127.0.0.1:1
    routes:
      - match: {sni: "**.test"}
      - match: {sni: a.test}
`)
	if err == nil || !strings.Contains(err.Error(), "no client can reach") {
		t.Errorf("got %v", err)
	}
}

// Routes that share certificates and anchors share what was made of them.
func TestRoutesShareWhatTheyRead(t *testing.T) {
	p, err := site(t, `
listeners:
  - from: tls://127.0.0.1:0
    cert: site.pem
    client: {ca: ca.pem}
    allow: all
    to: {addr: "tls://127.0.0.1:1", name: a.test, ca: ca.pem}
    routes:
      - match: {sni: a.test}
      - match: {sni: b.test}
        action: splice
        to: tcp://127.0.0.1:2
      - {}
`)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, l := range p.Listeners[0].Lines {
		texts = append(texts, l.Text+" | "+l.Inbound+" | "+l.Outbound+" | "+l.Clients)
	}
	want := []string{
		"bridge   tls://127.0.0.1:0 -> tls://127.0.0.1:1 | TLS 1.2 to TLS 1.3 | TLS 1.2 to TLS 1.3 | ",
		"pass-through tls://127.0.0.1:0 -> tcp://127.0.0.1:2 |  |  | ",
		"bridge   tls://127.0.0.1:0 -> tls://127.0.0.1:1 | TLS 1.2 to TLS 1.3 | TLS 1.2 to TLS 1.3 | ",
	}
	for i, w := range want {
		if i >= len(texts) || !strings.HasPrefix(texts[i], w) {
			t.Errorf("line %d of\n%s\nis not %q", i, strings.Join(texts, "\n"), w)
		}
	}
}

func TestNothingIsBoundUntilAllIsGood(t *testing.T) {
	p, err := site(t, `
listeners:
  - {from: "tls://127.0.0.1:0", cert: site.pem, to: "tcp://127.0.0.1:1"}
  - {from: "tls://192.0.2.1:1", cert: site.pem, to: "tcp://127.0.0.1:1"}
`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Listeners[0].Socket != nil {
		t.Error("New opened a socket")
	}
	if _, err := p.Bind(t.Context(), nil); err == nil {
		t.Error("an address of nobody's was bound")
	}
	if _, _, err := p.Listeners[0].Acceptor.Accept(t.Context()); err == nil {
		t.Error("the first listener stayed open")
	}
}

// The clock is read again from its file, and a bad file leaves the last offset.
func TestClockOffset(t *testing.T) {
	file := filepath.Join(t.TempDir(), "offset")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("24h\n")
	c := &fileClock{file: file}
	near := func(want time.Duration) {
		t.Helper()
		c.last = time.Time{}
		if got := time.Until(c.now()); (got - want).Abs() > time.Minute {
			t.Errorf("the clock is off by %v, want %v", got, want)
		}
	}
	near(24 * time.Hour)
	write("-7d")
	near(-7 * 24 * time.Hour)
	write("soon")
	near(-7 * 24 * time.Hour)
	if _, err := clock(config.ClockOffset{File: file}); err == nil {
		t.Error("a bad offset passed at start")
	}
}
