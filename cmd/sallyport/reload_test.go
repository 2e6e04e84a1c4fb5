package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/config"
	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// reloader is the program with what its files say, changed as it runs.
type reloader struct {
	*testnet.Program
	*site
	file, echo string
	reloads    int
}

// startReloader runs a file of that text, in which CERT, KEY and ECHO stand for
// those of the site and for an echo server.
func startReloader(t *testing.T, text string) *reloader {
	t.Helper()
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, text)
	r.Program = start(t, "run", "-c", r.file)
	r.WaitListeners(strings.Count(text, "- from:"))
	return r
}

func (r *reloader) write(t testing.TB, text string) {
	t.Helper()
	text = strings.NewReplacer("CERT", r.cert, "KEY", r.key, "ECHO", "tcp://"+r.echo).Replace(text)
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload has the program read everything again, and gives what it says of that.
func (r *reloader) reload() testnet.Record {
	r.reloads++
	r.Signal(syscall.SIGHUP)
	return r.LoggedAs("reloaded by a signal", r.reloads, func(l testnet.Record) bool { return l.Text("cause") == bySignal })
}

func (r *reloader) mustReload(t testing.TB, text string) testnet.Record {
	t.Helper()
	r.write(t, text)
	said := r.reload()
	if said.Text("msg") != "reloaded" {
		t.Fatalf("it says %v", said)
	}
	return said
}

// mustKeep reloads what is wrong, and wants to be told of it in those words; it gives
// all of them.
func (r *reloader) mustKeep(t testing.TB, words ...string) string {
	t.Helper()
	said := r.reload()
	if said.Text("msg") != "not reloaded, what ran before goes on" || said.Text("level") != "ERROR" {
		t.Errorf("it says %v", said)
	}
	for _, w := range words {
		if !strings.Contains(said.Text("err"), w) {
			t.Errorf("it does not say %q: %v", w, said)
		}
	}
	return said.Text("err")
}

// rotate puts another leaf where the site's is.
func (s *site) rotate(t testing.TB) {
	t.Helper()
	s.leaf = s.root.Leaf([]string{"a.test", "b.test", "127.0.0.1"})
	for file, text := range map[string][]byte{s.cert: s.leaf.CertPEM(), s.key: s.leaf.KeyPEM()} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// knock has a line echoed over a connection of its own.
func (s *site) knock(addr string, cfg *tls.Config) (tls.ConnectionState, error) {
	d := net.Dialer{Timeout: bound}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	c.SetDeadline(time.Now().Add(bound))
	t := tls.Client(c, cfg)
	defer t.Close()
	err = echoed(t, []byte("are you there?"))
	return t.ConnectionState(), err
}

// echoed has p come back.
func echoed(c io.ReadWriter, p []byte) error {
	if _, err := c.Write(p); err != nil {
		return err
	}
	got := make([]byte, len(p))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, p) {
		return errors.New("other bytes came back")
	}
	return nil
}

// pumps are connections on which bytes go there and back until they are ended.
type pumps struct {
	rounds []atomic.Int64
	ending atomic.Bool
	all    sync.WaitGroup
}

// pace is the pause after each round, for each of the pumps: many leave room for
// what else a test does.
const pace = 100 * time.Microsecond

func startPumps(t *testing.T, n int, addr string, cfg *tls.Config) *pumps {
	t.Helper()
	p := &pumps{rounds: make([]atomic.Int64, n)}
	for i := range n {
		c := tls.Client(dial(t, addr), cfg)
		c.SetDeadline(time.Now().Add(2 * testnet.Patience))
		p.all.Go(func() {
			defer c.Close()
			for seed := uint64(i) << 16; !p.ending.Load(); seed++ {
				if err := echoed(c, bytesOf(seed, 4<<10)); err != nil {
					t.Errorf("pump %d, after %d rounds: %v", i, p.rounds[i].Load(), err)
					return
				}
				p.rounds[i].Add(1)
				time.Sleep(time.Duration(n) * pace)
			}
		})
	}
	t.Cleanup(p.end)
	return p
}

// goOn waits until each has made another round.
func (p *pumps) goOn(t *testing.T) {
	t.Helper()
	was := make([]int64, len(p.rounds))
	for i := range was {
		was[i] = p.rounds[i].Load()
	}
	eventually(t, "each pump to go on", func() bool {
		for i := range was {
			if p.rounds[i].Load() == was[i] {
				return t.Failed()
			}
		}
		return true
	})
}

func (p *pumps) end() {
	p.ending.Store(true)
	p.all.Wait()
}

const oneListener = `
listeners:
  - {from: "tls://127.0.0.1:0", name: a, cert: CERT, key: KEY, to: "ECHO"}
`

// F-14: twenty certificates one after the other, four of them broken, while ten
// connections pump.
func TestFaultCertificatesRotate(t *testing.T) {
	r := startReloader(t, oneListener)
	p := startPumps(t, 10, r.Addr("a"), r.clientConfig(tls.VersionTLS13))
	for i := range 20 {
		if i%5 == 2 {
			good, err := os.ReadFile(r.cert)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(r.cert, good[:len(good)/2], 0o600); err != nil {
				t.Fatal(err)
			}
			r.mustKeep(t, r.cert)
		} else {
			r.rotate(t)
			if said := r.reload(); said.Text("msg") != "reloaded" {
				t.Fatalf("it says %v", said)
			}
		}
		cs, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13))
		if err != nil || !cs.PeerCertificates[0].Equal(r.leaf.Cert) {
			t.Errorf("rotation %d: a new connection does not get the leaf it should (%v)", i, err)
		}
		p.goOn(t)
	}
}

// The command line is read again as well.
func TestReloadOfACommandLine(t *testing.T) {
	s := newSite(t)
	r := &reloader{site: s, Program: start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+serveEach(t, echo), "--cert", s.cert, "--key", s.key)}
	s.rotate(t)
	if said := r.reload(); said.Text("kept") != "tls-0" {
		t.Errorf("it says %v", said)
	}
	cs, err := s.knock(r.Addr(""), s.clientConfig(tls.VersionTLS13))
	if err != nil || !cs.PeerCertificates[0].Equal(s.leaf.Cert) {
		t.Errorf("a new connection does not get the new leaf (%v)", err)
	}
}

// F-15: connections come all the time and two hundred stay, while the file changes
// fifty times: its routes, and whether there is a second listener.
func TestFaultReloadUnderLoad(t *testing.T) {
	const two = oneListener + `  - {from: "tls://127.0.0.1:0", name: b, cert: CERT, key: KEY, to: "ECHO"}
`
	const routes = `
listeners:
  - from: tls://127.0.0.1:0
    name: a
    cert: CERT
    key: KEY
    to: ECHO
    routes: [{match: {sni: a.test}, timeouts: {idle: 1m}}, {}]
`
	r := startReloader(t, oneListener)
	addr, cfg := r.Addr("a"), r.clientConfig(tls.VersionTLS13)
	long := startPumps(t, 200, addr, cfg)
	var visits atomic.Int64
	var ending atomic.Bool
	var callers sync.WaitGroup
	end := func() { ending.Store(true); callers.Wait() }
	t.Cleanup(end)
	for range 4 {
		callers.Go(func() {
			for !ending.Load() {
				if _, err := r.knock(addr, cfg); err != nil {
					t.Errorf("after %d connections: %v", visits.Load(), err)
					return
				}
				visits.Add(1)
			}
		})
	}
	texts := []string{two, routes, oneListener, two + "log: {level: debug}\n"}
	for i := range 50 {
		was := visits.Load()
		r.mustReload(t, texts[i%len(texts)])
		eventually(t, "new connections", func() bool { return visits.Load() > was+4 || t.Failed() })
	}
	long.goOn(t)
	end()
	long.end()
	t.Logf("%d connections", visits.Load())
}

func TestReloadOfListeners(t *testing.T) {
	fixed, other := freeAddr(t), freeAddr(t)
	r := startReloader(t, oneListener+fmt.Sprintf(`  - {from: "tcp://%s", name: fixed, to: "ECHO"}
  - {from: "tls://127.0.0.1:0", name: goes, cert: CERT, key: KEY, to: "ECHO"}
`, fixed))
	plain := func() {
		t.Helper()
		p := plainPeer(dial(t, fixed))
		defer p.close()
		if err := echoed(p, []byte("are you there?")); err != nil {
			t.Error(err)
		}
	}
	plain() // the pipe that it leaves is kept
	r.Flows(1)
	before := descriptors(t, r.Program)
	cfg := r.clientConfig(tls.VersionTLS13)
	addr, gone := r.Addr("a"), r.Addr("goes")
	running := startPumps(t, 2, gone, cfg)
	running.goOn(t)
	said := r.mustReload(t, oneListener+fmt.Sprintf(`  - {from: "tls://%s", name: renamed, cert: CERT, key: KEY, to: "ECHO"}
  - {from: "tls://%s", name: comes, cert: CERT, key: KEY, to: "ECHO"}
`, fixed, other))
	if said.Text("added") != "comes" || said.Text("removed") != "goes" || said.Text("kept") != "a,renamed" {
		t.Errorf("it says %v", said)
	}
	for _, a := range []string{addr, fixed, other} {
		if _, err := r.knock(a, cfg); err != nil {
			t.Errorf("%s does not answer: %v", a, err)
		}
	}
	if _, err := r.knock(gone, cfg); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where a listener was, there is %v", err)
	}
	running.goOn(t)
	running.end()
	r.Flow("by the listener's new name", func(f testnet.Record) bool {
		return f.Text("listener") == "renamed" && f.Text("pattern") == "offload"
	})
	if r.Addr("comes") != other {
		t.Errorf("the new listener said that it listens on %s", r.Addr("comes"))
	}
	// An old address may be taken by others, and come back.
	l, err := net.Listen("tcp", gone)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r.mustReload(t, oneListener+fmt.Sprintf(`  - {from: "tcp://%s", to: "ECHO"}
  - {from: "tls://%s", name: goes, cert: CERT, key: KEY, to: "ECHO"}
`, fixed, gone))
	if _, err := r.knock(gone, cfg); err != nil {
		t.Errorf("the listener that came back does not answer: %v", err)
	}
	if _, err := net.DialTimeout("tcp", other, bound); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where a listener was, there is %v", err)
	}
	plain()
	wantDescriptors(t, r.Program, before)
	for _, f := range r.Flows(8) {
		wantRecord(t, f, "ok", "")
	}
}

// What is wrong anywhere leaves everything as it was.
func TestReloadOfABadFile(t *testing.T) {
	r := startReloader(t, oneListener)
	before := descriptors(t, r.Program)
	taken, free := listen(t).Addr().String(), freeAddr(t)
	_, port, _ := net.SplitHostPort(free)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, bad := range []struct {
		text  string
		words []string
	}{
		{"listeners: [", []string{r.file}},
		{oneListener + "nonsense: 1\n", []string{r.file + ":4:1", "nonsense"}},
		{strings.ReplaceAll(oneListener, "CERT", missing), []string{missing}},
		// The first one can be bound, and is not kept.
		{oneListener + fmt.Sprintf("  - {from: 'tcp://%s', to: ECHO}\n  - {from: 'tcp://%s', to: ECHO}\n", free, taken), []string{taken, "another process listens"}},
	} {
		r.write(t, bad.text)
		r.mustKeep(t, bad.words...)
		if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
			t.Errorf("after %q: %v", bad.text, err)
		}
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.mustKeep(t, r.file, "no such file")
	wantDescriptors(t, r.Program, before)

	r.mustReload(t, oneListener+fmt.Sprintf("  - {from: 'tcp://%s', name: narrow, to: ECHO}\n", free))
	r.write(t, oneListener+fmt.Sprintf("  - {from: 'tcp://:%s', to: ECHO, client: {from: 127.0.0.1}}\n", port))
	r.mustKeep(t, ":"+port, "overlaps", "narrow", "restart")
}

// Sessions outlive a reload where nothing has changed about who may pass, also
// without a state_dir.
func TestReloadKeepsSessions(t *testing.T) {
	s := newSite(t)
	client, other := s.root.Leaf([]string{"client.test"}), ca.Test(t)
	ours := s.root.File()
	further, err := other.Write(filepath.Dir(ours), "other") // where the sandbox lets files be read
	if err != nil {
		t.Fatal(err)
	}
	text := func(anchors string) string {
		return oneListener[:len(oneListener)-2] + fmt.Sprintf(", client: {ca: [%s]}, allow: [{dns: client.test}]}\n", anchors)
	}
	r := &reloader{site: s, file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, text(ours))
	r.Program = start(t, "run", "-c", r.file)
	for _, version := range bothVersions {
		cfg := s.clientConfig(version)
		cfg.Certificates = []tls.Certificate{client.TLS()}
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		resumed := func() bool {
			t.Helper()
			cs, err := r.knock(r.Addr("a"), cfg)
			if err != nil {
				t.Fatal(err)
			}
			return cs.DidResume
		}
		r.mustReload(t, text(ours))
		if resumed() || !resumed() {
			t.Fatal("no resumption without a reload")
		}
		r.rotate(t)
		r.mustReload(t, "# a line more, and another certificate\n"+text(ours))
		if !resumed() {
			t.Errorf("%s: a reload has ended sessions", tls.VersionName(version))
		}
		r.mustReload(t, text(ours+", "+further))
		if resumed() {
			t.Errorf("%s: a session went on under other anchors", tls.VersionName(version))
		}
	}
}

// Signals that come faster than reloads are done: the last file counts.
func TestReloadsInQuickSuccession(t *testing.T) {
	r := startReloader(t, oneListener)
	for range 10 {
		r.rotate(t)
		r.Signal(syscall.SIGHUP)
	}
	eventually(t, "the last certificate", func() bool {
		cs, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13))
		return err == nil && cs.PeerCertificates[0].Equal(r.leaf.Cert)
	})
}

// A process that ends does not begin again, nor does it wait for a file that comes
// slowly.
func TestReloadWhileEnding(t *testing.T) {
	r := startReloader(t, oneListener)
	late := freeAddr(t)
	p := startPumps(t, 1, r.Addr("a"), r.clientConfig(tls.VersionTLS13))
	p.goOn(t) // one that still waits to be accepted is reset when the listener closes
	if err := errors.Join(os.Remove(r.file), syscall.Mkfifo(r.file, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.Signal(syscall.SIGHUP)
	slow, err := os.OpenFile(r.file, os.O_WRONLY, 0) // once the program reads
	if err != nil {
		t.Fatal(err)
	}
	r.Signal(syscall.SIGTERM)
	r.WaitLog("ending: no new connections")
	fmt.Fprintf(slow, "listeners: [{from: 'tcp://%s', to: 'tcp://%s'}]\n", late, r.echo)
	slow.Close()
	r.Signal(syscall.SIGHUP)
	p.goOn(t)
	for _, addr := range []string{r.Addr("a"), late} {
		if _, err := net.DialTimeout("tcp", addr, bound); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s listens: %v", addr, err)
		}
	}
	p.end()
	if code := r.Wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
	if strings.Contains(r.Stderr(), "reloaded") {
		t.Error("it says that it reloaded, or did not")
	}
}

func TestReloadSaysWhatItCannotChange(t *testing.T) {
	r := startReloader(t, oneListener)
	r.mustReload(t, oneListener+"state_dir: "+t.TempDir()+"\nlog: {level: debug}\n")
	r.Logged("state_dir needs a restart; it stays none", 1)
	if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Fatal(err)
	}
	r.WaitLog("accepted") // which is said at debug alone
	old, now := &config.File{Log: config.Log{Format: config.FormatText}}, &config.File{Log: config.Log{Format: config.FormatJSON}}
	if said := needsRestart(stays(old), stays(now)); len(said) != 1 || said[0] != "log.format needs a restart; it stays text" {
		t.Errorf("it says %q", said)
	}
}
