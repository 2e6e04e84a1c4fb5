package secure

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/transport"
	"sallyport/wire"
)

var suites13 = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

// openssl is a running openssl, or another tool, typed at and read from.
type openssl struct {
	t   *testing.T
	in  io.WriteCloser
	mu  sync.Mutex
	out bytes.Buffer
}

func runOpenSSL(t *testing.T, args ...string) *openssl {
	t.Helper()
	return runTool(t, "openssl", args...)
}

func runTool(t *testing.T, name string, args ...string) *openssl {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	// What it says of key updates it keeps back when nobody watches.
	cmd := exec.CommandContext(ctx, "stdbuf", append([]string{"-o0", path}, args...)...)
	o := &openssl{t: t}
	if o.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			o.mu.Lock()
			o.out.WriteString(line)
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { o.in.Close(); cancel(); <-done; cmd.Wait() })
	return o
}

func (o *openssl) said() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.String()
}

// hear waits until openssl has said s, and gives all it has said.
func (o *openssl) hear(s string) string {
	o.t.Helper()
	return o.hearTimes(1, s)
}

func (o *openssl) hearTimes(n int, s string) string {
	o.t.Helper()
	for range 1000 {
		if said := o.said(); strings.Count(said, s) >= n {
			return said
		}
		time.Sleep(10 * time.Millisecond)
	}
	o.t.Fatalf("it does not say %q but:\n%s", s, o.said())
	return ""
}

func (o *openssl) write(s string) {
	o.t.Helper()
	if _, err := io.WriteString(o.in, s); err != nil {
		o.t.Fatal(err)
	}
}

// talk has both sides write around key updates of openssl's: k asks for none, K
// for ours. It says done after each, and takes only one command a read.
func (o *openssl) talk(c flow.Conn, done string) {
	o.t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	read := func(want string) {
		o.t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
			o.t.Fatalf("read %q, %v, want %q", b, err, want)
		}
	}
	o.write("one\n")
	read("one\n")
	for i, command := range []string{"k", "K", "K"} {
		o.write(command + "\n")
		o.hearTimes(i+1, done)
		o.write("after " + command + "\n")
		read("after " + command + "\n")
		line := "ours after " + command + strings.Repeat(".", 30_000) + "\n"
		if _, err := io.WriteString(c, line); err != nil {
			o.t.Fatal(err)
		}
		o.hear("ours after " + command)
	}
	if _, err := io.WriteString(c, "the last\n"); err != nil {
		o.t.Fatal(err)
	}
	o.hear("the last\n")
}

func TestOpenSSLClient(t *testing.T) {
	for _, suite := range suites13 {
		t.Run(suite, func(t *testing.T) {
			s := newSite(t)
			ctx := context.Background()
			l, err := transport.Listen(ctx, "l", transport.Where{Host: "127.0.0.1"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			o := runOpenSSL(t, "s_client", "-connect", l.Addr().String(), "-servername", "a.test", "-tls1_3", "-ciphersuites", suite)
			f, bare, err := l.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer bare.Close()
			c, err := NewServer(s.server).Wrap(ctx, f, s.peek(f, bare))
			if err != nil {
				t.Fatal(err)
			}
			if !isOurs(c) {
				t.Fatalf("%T", c)
			}
			o.hear("Verify return code")
			o.talk(c, "KEYUPDATE")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			o.hear("closed")
		})
	}
}

func TestOpenSSLServer(t *testing.T) {
	for _, suite := range suites13 {
		t.Run(suite, func(t *testing.T) {
			s := newSite(t)
			dir := t.TempDir()
			leaf := s.ca.Leaf([]string{"a.test"})
			cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
			for file, pem := range map[string][]byte{cert: leaf.CertPEM(), key: leaf.KeyPEM()} {
				if err := os.WriteFile(file, pem, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := runOpenSSL(t, "s_server", "-accept", "127.0.0.1:0", "-cert", cert, "-key", key, "-tls1_3", "-ciphersuites", suite)
			_, rest, _ := strings.Cut(o.hear("ACCEPT 127.0.0.1:"), "ACCEPT ")
			for !strings.Contains(rest, "\n") {
				_, rest, _ = strings.Cut(o.said(), "ACCEPT ")
			}
			addr := netip.MustParseAddrPort(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
			client := NewClient(s.client)
			for i := range 2 {
				f := &flow.Flow{Hello: &wire.Hello{}}
				d := transport.Dialer{Where: transport.Where{Host: addr.Addr().String(), Port: addr.Port()}, Timeout: time.Second}
				bare, err := d.Dial(context.Background(), f)
				if err != nil {
					t.Fatal(err)
				}
				defer bare.Close()
				c, err := client.Wrap(context.Background(), f, bare)
				if err != nil {
					t.Fatal(err)
				}
				if !isOurs(c) || f.Outbound[0].Resumed != (i > 0) {
					t.Errorf("connection %d: %T, resumed %t", i, c, f.Outbound[0].Resumed)
				}
				if i == 0 {
					o.talk(c, "SSL_do_handshake")
				} else {
					io.WriteString(c, "resumed\n")
					o.hear("resumed\n")
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
