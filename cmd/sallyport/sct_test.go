package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
)

// SCTs in a file reach clients, by the word of Go and of openssl, as soon as the file
// is there, changed or gone; one that is damaged leaves those before it.
func TestSCTsFromFiles(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	leaf := s.Leaf([]string{"face.x.test"})
	dir := t.TempDir()
	cert, _, err := leaf.Write(dir, "site")
	if err != nil {
		t.Fatal(err)
	}
	sct := func(by *ca.Log) []byte {
		t.Helper()
		b, err := by.SCT(time.Now().Add(-day), leaf.Cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, b := sct(l.a), sct(l.b)
	file := filepath.Join(dir, "site.sct")
	known := write(t, "logs.cnf", "enabled_logs =\n") // to openssl
	p := runFile(t, fmt.Sprintf(`
listeners:
- from: tls://127.0.0.1:0
  name: file
  cert: %s
  to: tcp://%[3]s
- from: tls://127.0.0.1:0
  name: folder
  cert: %[2]s
  to: tcp://%[3]s
`, cert, dir, serveEach(t, echo)))
	shows := func(want ...[]byte) {
		t.Helper()
		for _, listener := range []string{"file", "folder"} {
			eventually(t, fmt.Sprintf("%d SCTs of the %s", len(want), listener), func() bool {
				c, err := tls.Dial("tcp", p.Addr(listener), &tls.Config{RootCAs: s.Pool(), ServerName: "face.x.test", CurvePreferences: quick})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				return reflect.DeepEqual(c.ConnectionState().SignedCertificateTimestamps, want)
			})
			for _, version := range []string{"-tls1_2", "-tls1_3"} {
				out, _ := execute(t, "Q\n", "openssl", "s_client", "-connect", p.Addr(listener), "-servername", "face.x.test", "-CAfile", s.anchors, "-ct", "-ctlogfile", known, version)
				if !strings.Contains(out, fmt.Sprintf("SCTs present (%d)", len(want))) {
					t.Errorf("openssl %s of the %s, want %d SCTs:\n%s", version, listener, len(want), out)
				}
			}
		}
	}
	shows()
	swapIn(t, file, ca.SCTList(a, b))
	shows(a, b)
	swapIn(t, file, ca.SCTList(b))
	shows(b)
	swapIn(t, file, []byte("\x00\x05\x00\x03on"))
	if said := p.Logged("not reloaded, what ran before goes on", 1); said.Text("cause") != byFiles || !strings.Contains(said.Text("err"), file+": is no list of SCTs") {
		t.Errorf("it says %v", said)
	}
	shows(b)
	swapIn(t, file, ca.SCTList(a))
	shows(a)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	shows()
}
