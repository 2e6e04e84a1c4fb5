package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/internal/ca"
)

// A must-staple certificate that will never have a staple: its owner hears of it once,
// with its names, and clients get another one where there is one.
func TestMustStapleWithoutStaple(t *testing.T) {
	for _, c := range []struct {
		name, from, staple string
		opts               []ca.Option
		want               string // "" is nothing
	}{
		{"off", "tls", "off", []ca.Option{ca.OCSPAt("http://ocsp.test/")}, "`staple` is off here"},
		{"no responder", "tls", "on", nil, "it names no OCSP responder"},
		{"https", "tls", "on", []ca.Option{ca.OCSPAt("https://ocsp.test/")}, "https://ocsp.test/\" is no http:// responder"},
		{"DTLS", "dtls", "on", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			root := ca.Test(t)
			must := root.Leaf([]string{"a.test"}, append(c.opts, ca.MustStaple())...)
			plain := root.Leaf([]string{"a.test"}, ca.SharedRSA())
			for stem, l := range map[string]*ca.Leaf{"must": must, "plain": plain} {
				if _, _, err := l.Write(dir, stem); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(dir, "f.yaml")
			text := fmt.Sprintf("listeners:\n- from: %s://127.0.0.1:0\n  cert: [must.pem, plain.pem]\n  staple: %s\n  to: tcp://127.0.0.1:1\n  routes: [{match: {sni: a.test}}, {}]\n", c.from, c.staple)
			if c.from == "dtls" {
				text = strings.Replace(text, "tcp://", "udp://", 1)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := config.Load(file, config.Options{Env: func(string) string { return "" }})
			if err != nil {
				t.Fatal(err)
			}
			b, err := newBuilder(f, Options{Env: func(string) string { return "" }})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.program.Close() })
			l, err := b.listener(&f.Listeners[0])
			if err != nil {
				t.Fatal(err)
			}
			b.program.Listeners = append(b.program.Listeners, l)
			errs := b.program.Errors
			if c.want == "" {
				if len(errs) > 0 {
					t.Errorf("cries %q", errs)
				}
				return
			}
			if len(errs) != 1 || !strings.Contains(errs[0], c.want) || !strings.Contains(errs[0], fmt.Sprintf("(serial %x)", must.Cert.SerialNumber)) {
				t.Errorf("got %q, want one with %q", errs, c.want)
			}
			for _, s := range b.stores {
				got, err := s.Credential(t.Context(), &credential.Request{ServerName: "a.test"})
				if err != nil || !got.Chain[0].Equal(plain.Cert) {
					t.Errorf("the must-staple one is served: %v", err)
				}
			}
		})
	}
}
