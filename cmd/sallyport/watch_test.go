package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// reloadedByFiles waits for the n-th time that a change of files was looked at.
func (r *reloader) reloadedByFiles(n int) testnet.Record {
	return r.LoggedAs("reloaded by files", n, func(l testnet.Record) bool { return l.Text("cause") == byFiles })
}

// swapIn puts text in the place of a file in one step.
func swapIn(t testing.TB, file string, text []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file+".new", text, 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
}

// volume is a folder of certificates as Kubernetes keeps it: files are links through
// one link, ..data, which is all that is ever replaced.
type volume struct {
	dir string
	n   int
}

func (v *volume) put(t testing.TB, leaf *ca.Leaf) {
	t.Helper()
	v.n++
	data := fmt.Sprintf("..%d", v.n)
	err := errors.Join(os.MkdirAll(filepath.Join(v.dir, data), 0o755),
		os.WriteFile(filepath.Join(v.dir, data, "tls.crt"), leaf.CertPEM(), 0o600),
		os.WriteFile(filepath.Join(v.dir, data, "tls.key"), leaf.KeyPEM(), 0o600),
		os.Symlink(data, filepath.Join(v.dir, "..new")),
		os.Rename(filepath.Join(v.dir, "..new"), filepath.Join(v.dir, "..data")))
	if v.n == 1 {
		err = errors.Join(err, os.Symlink("..data/tls.crt", filepath.Join(v.dir, "tls.crt")), os.Symlink("..data/tls.key", filepath.Join(v.dir, "tls.key")))
	}
	if err == nil && v.n > 1 {
		err = os.RemoveAll(filepath.Join(v.dir, fmt.Sprintf("..%d", v.n-1)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// F-14, without a signal: certificates are replaced in the ways of those who do it,
// while connections pump; one broken file changes nothing.
func TestFaultCertificatesAreSwapped(t *testing.T) {
	s := newSite(t)
	v := &volume{dir: t.TempDir()}
	v.put(t, s.leaf)
	r := &reloader{site: s, file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, fmt.Sprintf(`
listeners:
  - {from: "tls://127.0.0.1:0", name: files, cert: CERT, key: KEY, to: "ECHO"}
  - {from: "tls://127.0.0.1:0", name: volume, cert: %s, to: "ECHO"}
`, filepath.Join(v.dir, "tls.crt")))
	r.Program = start(t, "run", "-c", r.file)
	r.WaitListeners(2)
	pump := startPumps(t, 10, r.Addr("files"), r.clientConfig(tls.VersionTLS13))
	shows := func(listener string, leaf *ca.Leaf) time.Duration {
		t.Helper()
		began := time.Now()
		eventually(t, "the new certificate", func() bool {
			cs, err := r.knock(r.Addr(listener), r.clientConfig(tls.VersionTLS13))
			if err != nil {
				t.Fatal(err)
			}
			return cs.PeerCertificates[0].Equal(leaf.Cert)
		})
		return time.Since(began)
	}
	ways := []struct {
		listener string
		replace  func(leaf *ca.Leaf)
	}{
		{"files", func(leaf *ca.Leaf) { swapIn(t, r.key, leaf.KeyPEM()); swapIn(t, r.cert, leaf.CertPEM()) }},
		{"volume", func(leaf *ca.Leaf) { v.put(t, leaf) }},
		{"files", func(leaf *ca.Leaf) {
			if err := errors.Join(os.WriteFile(r.cert, leaf.CertPEM(), 0o600), os.WriteFile(r.key, leaf.KeyPEM(), 0o600)); err != nil {
				t.Fatal(err)
			}
		}},
	}
	worst := time.Duration(0)
	for i := range 6 {
		leaf := s.root.Leaf([]string{"a.test"})
		ways[i%3].replace(leaf)
		worst = max(worst, shows(ways[i%3].listener, leaf))
		pump.goOn(t)
		if ways[i%3].listener == "files" {
			s.leaf = leaf
		}
	}
	t.Logf("a new certificate was shown after %s at most", worst)
	good, err := os.ReadFile(r.cert)
	if err != nil {
		t.Fatal(err)
	}
	swapIn(t, r.cert, good[:len(good)/2])
	said := r.Logged("not reloaded, what ran before goes on", 1)
	if said.Text("cause") != byFiles || !strings.Contains(said.Text("err"), r.cert) {
		t.Errorf("it says %v", said)
	}
	shows("files", s.leaf)
	pump.goOn(t)
}

// A certificate that is there before its key waits for it, and is no error.
func TestCertificateBeforeItsKey(t *testing.T) {
	r := startReloader(t, oneListener)
	leaf := r.root.Leaf([]string{"a.test"})
	swapIn(t, r.cert, leaf.CertPEM())
	r.WaitLog("waiting for the other file")
	cs, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13))
	if err != nil || !cs.PeerCertificates[0].Equal(r.leaf.Cert) {
		t.Errorf("half a change has changed something (%v)", err)
	}
	swapIn(t, r.key, leaf.KeyPEM())
	if said := r.reloadedByFiles(1); said.Text("msg") != "reloaded" {
		t.Errorf("it says %v", said)
	}
	if cs, err = r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil || !cs.PeerCertificates[0].Equal(leaf.Cert) {
		t.Errorf("the pair is not shown (%v)", err)
	}
	if strings.Contains(r.Stderr(), `"level":"ERROR"`) {
		t.Error("an error was logged")
	}
}

// The file itself, those that it includes, and what they name: all are watched, also
// what could not be read, and each error is said once.
func TestFilesAreReadAgain(t *testing.T) {
	r := startReloader(t, oneListener)
	conf := filepath.Join(filepath.Dir(r.file), "conf.d")
	if err := os.Mkdir(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	n := 0
	reloaded := func(want, words string) {
		t.Helper()
		n++
		said := r.reloadedByFiles(n)
		if !strings.HasPrefix(said.Text("msg"), want) || !strings.Contains(said.Text("err")+said.Text("added"), words) {
			t.Fatalf("it says %v", said)
		}
	}
	one := filepath.Join(conf, "one.yaml")
	swapIn(t, one, []byte("listeners: [{from: 'tcp://127.0.0.1:0', name: one, to: 'tcp://"+r.echo+"'}]\n"))
	r.write(t, "include: conf.d/*.yaml\n"+oneListener)
	reloaded("reloaded", "one")
	swapIn(t, filepath.Join(conf, "two.yaml"), []byte("listeners: [{from: 'tcp://127.0.0.1:0', name: two, to: tls://127.0.0.1:1, to.ca: x}]\n"))
	reloaded("not reloaded", "two.yaml:1")
	late := filepath.Join(conf, "late.pem")
	swapIn(t, filepath.Join(conf, "two.yaml"), []byte("listeners: [{from: 'tcp://127.0.0.1:0', name: two, to: {addr: 'tls://127.0.0.1:1', ca: late.pem}}]\n"))
	reloaded("not reloaded", late)
	anchors, err := os.ReadFile(r.root.File())
	if err != nil {
		t.Fatal(err)
	}
	swapIn(t, late, anchors)
	reloaded("reloaded", "two")
	if err := os.WriteFile(filepath.Join(conf, "notes.txt"), []byte("of no concern"), 0o600); err != nil {
		t.Fatal(err)
	}
	swapIn(t, r.file, []byte("listeners: ["))
	reloaded("not reloaded", r.file)
	r.write(t, oneListener)
	reloaded("reloaded", "")
	if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
}

// A file that cannot be read to its end, here a pipe that nobody writes to, fails the
// reload, and not those after it.
func TestReloadThatHangs(t *testing.T) {
	t.Parallel()
	r := startReloader(t, oneListener)
	kept := r.cert + ".kept"
	if err := errors.Join(os.Rename(r.cert, kept), syscall.Mkfifo(r.cert, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.Signal(syscall.SIGHUP)
	said := r.LoggedAs("the reload that hangs", 1, func(l testnet.Record) bool { return strings.HasPrefix(l.Text("msg"), "not reloaded") })
	if text := said.Text("err"); !strings.Contains(text, r.cert) || !strings.Contains(text, "nobody writes to it, if it is a pipe") {
		t.Errorf("it says %q", text)
	}
	if err := os.Rename(kept, r.cert); err != nil {
		t.Fatal(err)
	}
	r.Signal(syscall.SIGHUP)
	r.LoggedAs("a reload after it", 1, func(l testnet.Record) bool { return l.Text("msg") == "reloaded" })
}
