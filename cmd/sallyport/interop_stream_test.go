package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
	"sallyport/secure"
)

// digest sums what is written to it, and says when the first bytes and all of
// bulk have come.
type digest struct {
	mu         sync.Mutex
	sum        hash.Hash
	n          int
	began, all chan struct{}
}

func newDigest() *digest {
	return &digest{sum: sha256.New(), began: make(chan struct{}), all: make(chan struct{})}
}

func (d *digest) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sum.Write(p)
	if d.n == 0 && len(p) > 0 {
		close(d.began)
	}
	before := d.n
	d.n += len(p)
	if before < len(bulk()) && d.n >= len(bulk()) {
		close(d.all)
	}
	return len(p), nil
}

func (d *digest) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return hex.EncodeToString(d.sum.Sum(nil))
}

// Both directions at once, so that neither may wait for the other.
func TestInteropLargeTransferFromClient(t *testing.T) {
	s := newStock(t)
	arrived := make(chan string, 1)
	app := serveEach(t, func(c *net.TCPConn) {
		got, err := swapBulk(c)
		arrived <- fmt.Sprint(got, err)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+app, "--cert", s.ecdsa)
	client := exec.Command(tool(t, "openssl"), "s_client", "-connect", p.Addr(""), "-quiet", "-nocommands", "-verify_quiet", "-CAfile", s.anchors)
	out, notes := newDigest(), &output{}
	client.Stdin, client.Stdout, client.Stderr = bytes.NewReader(bulk()), out, notes
	if err := finish(t, client); err != nil {
		t.Errorf("%v\n%s", err, notes)
	}
	want := sum(bulk())
	if got := <-arrived; got != want+"<nil>" {
		t.Errorf("what went up arrived as %s", got)
	}
	if out.String() != want {
		t.Errorf("%d bytes came down of %d, or others", out.n, len(bulk()))
	}
	n := float64(len(bulk()))
	wantFields(t, p.Flows(1)[0], testnet.Record{"up": n, "down": n})
}

func TestInteropLargeTransferToServer(t *testing.T) {
	s := newStock(t)
	in := newDigest()
	server := startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		cmd := exec.Command(tool(t, "openssl"), "s_server", "-accept", "127.0.0.1:"+port, "-cert", s.ecdsa, "-key", keyOf(s.ecdsa), "-quiet")
		cmd.Stdout = in
		return cmd
	})
	p := testnet.Start(t, "proxy", "tcp://127.0.0.1:0", "tls://"+server.addr, "--to-ca", s.anchors, "--to-name", "inner.x.test")
	c, err := net.Dial("tcp", p.Addr(""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * testnet.Patience))
	wrote := make(chan error, 1)
	go func() {
		// The server would send its input to whoever connected before.
		select {
		case <-in.began:
		case <-t.Context().Done():
		}
		_, err := server.stdin.Write(bulk())
		wrote <- err
	}()
	got, err := swapBulk(c)
	if err := errors.Join(err, <-wrote); err != nil || got != sum(bulk()) {
		t.Errorf("what came down is %s, %v", got, err)
	}
	select {
	case <-in.all:
	case <-time.After(testnet.Patience):
	}
	if in.String() != sum(bulk()) {
		t.Errorf("%d bytes went up of %d, or others", in.n, len(bulk()))
	}
	c.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, c)
	n := float64(len(bulk()))
	wantFields(t, p.Flows(1)[0], testnet.Record{"up": n, "down": n})
}

// s_client ends by close_notify where its input ends: the server sees a proper end.
func TestInteropInputEnds(t *testing.T) {
	s := newStock(t)
	saw := make(chan string, 4)
	app := serveEach(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		saw <- fmt.Sprintf("%q %v", all, err)
	})
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+app, "--cert", s.ecdsa)
	for i, version := range ticketVersions {
		sni := fmt.Sprintf("end-%d.x.test", i)
		out, err := execute(t, "last words", "openssl", "s_client", "-connect", p.Addr(""), "-servername", sni, version, "-no_ign_eof", "-CAfile", s.anchors)
		if err != nil {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
		if got := <-saw; got != `"last words" <nil>` {
			t.Errorf("%s: the server saw %s", version, got)
		}
		wantFields(t, bySNI(t, p, sni), testnet.Record{"up": float64(len("last words")), "down": 0.0, "reason": "ok"})
	}
}

// echDial connects with an encrypted hello, and gives the first line of the answer.
func echDial(t *testing.T, s *stock, addr, name string, configs []byte) (string, tls.ConnectionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testnet.Patience)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: s.Pool(), EncryptedClientHelloConfigList: configs, MinVersion: tls.VersionTLS13}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", tls.ConnectionState{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testnet.Patience))
	fmt.Fprintln(c, "hello")
	all, err := io.ReadAll(c)
	return string(all), c.(*tls.Conn).ConnectionState(), err
}

func TestInteropECH(t *testing.T) {
	s := newStock(t)
	text, configs, err := secure.NewECH("public.x.test")
	if err != nil {
		t.Fatal(err)
	}
	_, outdated, err := secure.NewECH("public.x.test")
	if err != nil {
		t.Fatal(err)
	}
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tls://127.0.0.1:0
    cert: %s
    ech: %s
    routes:
      - match: {sni: secret.x.test}
        to: "tcp://%s"
      - match: {sni: public.x.test}
        to: "tcp://%s"
`, s.ecdsa, write(t, "ech.pem", string(text)), backend(t, "inner"), backend(t, "outer")))
	got, cs, err := echDial(t, s, p.Addr(""), "secret.x.test", configs)
	if err != nil || !cs.ECHAccepted || !strings.Contains(got, "inner got hello") {
		t.Fatalf("%q, accepted %t, %v", got, cs.ECHAccepted, err)
	}
	r := bySNI(t, p, "secret.x.test")
	wantFields(t, r, testnet.Record{"in_ech": true, "route": "tls-0/1", "reason": "ok"})
	if !strings.HasPrefix(r.Text("ja4"), "t13d") {
		t.Errorf("JA4 %q", r.Text("ja4"))
	}

	_, _, err = echDial(t, s, p.Addr(""), "secret.x.test", outdated)
	var rejected *tls.ECHRejectionError
	if !errors.As(err, &rejected) || len(rejected.RetryConfigList) == 0 {
		t.Fatalf("an outdated configuration: %v", err)
	}
	wantFields(t, bySNI(t, p, "public.x.test"), testnet.Record{"route": "tls-0/2", "in_ech": nil, "fault": "client"})
	got, cs, err = echDial(t, s, p.Addr(""), "secret.x.test", rejected.RetryConfigList)
	if err != nil || !cs.ECHAccepted || !strings.Contains(got, "inner got hello") {
		t.Errorf("with the configuration for a retry: %q, accepted %t, %v", got, cs.ECHAccepted, err)
	}
}

// The log of session keys has what both peers have in theirs.
func TestInteropKeyLog(t *testing.T) {
	s, dir := newStock(t), t.TempDir()
	ours, client, server := filepath.Join(dir, "ours"), filepath.Join(dir, "client"), filepath.Join(dir, "server")
	inner := s.sServer(t, s.ecdsa, "-keylogfile", server)
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tls://"+inner.addr, "--cert", s.ecdsa, "--to-ca", s.anchors, "--to-name", "inner.x.test",
		"--unsafe-keylog", ours)
	p.WaitLog("unsafe.keylog: session keys are written to " + ours)
	if _, err := s.sClient(t, p.Addr(""), "k.x.test", "-keylogfile", client, "-no_ign_eof"); err != nil {
		t.Fatal(err)
	}
	p.Reason("ok")
	info, err := os.Stat(ours)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	have, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{client, server} {
		theirs, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(theirs)) {
			if strings.HasPrefix(line, "CLIENT_TRAFFIC_SECRET_0 ") {
				n++
				if !bytes.Contains(have, []byte(line)) {
					t.Errorf("%s has keys that ours has not: %s", filepath.Base(file), line)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s has no keys:\n%s", filepath.Base(file), theirs)
		}
	}
}
