package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	random "math/rand/v2"
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
)

// tool finds a program that the tests talk to. A missing one is a failure: a
// skip would pass for a proof.
func tool(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/sbin/", "/usr/lib/postgresql/*/bin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Fatalf("%s is not installed; make test installs what the tests talk to", name)
	return ""
}

// execute runs a peer's program to its end, within bounded time, and gives all
// that it said.
func execute(t testing.TB, stdin string, name string, args ...string) (string, error) {
	t.Helper()
	return executeCmd(t, strings.NewReader(stdin), exec.Command(tool(t, name), args...))
}

// mustExecute is execute for what has to succeed.
func mustExecute(t testing.TB, stdin string, name string, args ...string) string {
	t.Helper()
	out, err := execute(t, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func executeCmd(t testing.TB, stdin io.Reader, cmd *exec.Cmd) (string, error) {
	t.Helper()
	var out output
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	err := finish(t, cmd)
	return out.String(), err
}

// finish runs cmd and fails the test where it does not end in time.
func finish(t testing.TB, cmd *exec.Cmd) error {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	cmd.WaitDelay = time.Second
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * testnet.Patience):
		cmd.Process.Kill()
		<-done
		t.Fatalf("%s did not end\n%v", cmd, cmd.Stdout)
		return nil
	}
}

// output gathers what a program says while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// daemon is a peer's server, running.
type daemon struct {
	addr, port string
	out        *output
	stdin      io.WriteCloser
	stop       func() // ends it before its test
}

// startDaemon runs a server that listens at 127.0.0.1 and the port that it is
// given, waits until it accepts, and ends it with the test. A port that another
// process takes in between is tried again with the next one.
func startDaemon(t testing.TB, end os.Signal, make func(port string) *exec.Cmd) *daemon {
	t.Helper()
	var said string
	for range 3 {
		d := &daemon{addr: freeAddr(t), out: &output{}}
		_, d.port, _ = net.SplitHostPort(d.addr)
		cmd := make(d.port)
		if cmd.Stdout == nil {
			cmd.Stdout = d.out
		}
		cmd.Stderr = d.out
		if d.runs(t, cmd, end) {
			return d
		}
		said = d.out.String()
	}
	t.Fatalf("the server does not start:\n%s", said)
	return nil
}

func (d *daemon) runs(t testing.TB, cmd *exec.Cmd, end os.Signal) bool {
	t.Helper()
	if cmd.Stdin == nil {
		// A pipe that stays open: servers that read it take its end for theirs.
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		d.stdin = in
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	cmd.WaitDelay = time.Second
	go func() { cmd.Wait(); close(done) }()
	d.stop = func() {
		cmd.Process.Signal(end)
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			<-done
		}
	}
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), d.out)
		}
	})
	return d.accepts(t, done)
}

// accepts waits until something accepts, and is not fooled by a stranger at the
// same port: the process then ends by itself.
func (d *daemon) accepts(t testing.TB, done <-chan struct{}) bool {
	t.Helper()
	limit := time.After(testnet.Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return false
		case <-limit: // gnutls-serv goes on where one of its two addresses is taken
			return false
		case <-tick.C:
		}
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			continue
		}
		c.Close()
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
}

// freeAddrs are those that some test has been given.
var freeAddrs sync.Map

// freeAddr is free for TCP and UDP, and below the ports that the kernel gives to whoever
// dials: another test's connection must not take it before the server does.
func freeAddr(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+random.IntN(20000))
		if _, given := freeAddrs.LoadOrStore(addr, true); given { // to a test whose server may just be down
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err != nil {
			continue
		}
		l.Close()
		var u net.PacketConn
		if u, err = net.ListenPacket("udp", addr); err == nil {
			u.Close()
			return addr
		}
	}
	t.Fatal(err)
	return ""
}

func portOf(t testing.TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// eventually waits for what no message announces.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(testnet.Patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// backend is a plain server that answers the first line, be it HTTP or not, with
// its own name and that line, and then ends. To the word patient it waits for the
// client's end first.
func backend(t testing.TB, name string) string {
	t.Helper()
	return serveEach(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == patient {
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				return
			}
		}
		if method, _, _ := strings.Cut(line, " "); method == "GET" {
			for h := line; strings.TrimSpace(h) != "" && err == nil; {
				h, err = r.ReadString('\n')
			}
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n")
		}
		fmt.Fprintf(c, "%s got %s\n", name, strings.TrimSpace(line))
		c.CloseWrite()
		io.Copy(io.Discard, r)
	})
}

const patient = "patient"

// serveEach accepts until the test's end, and gives its address.
func serveEach(t testing.TB, each func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var flows sync.WaitGroup
	t.Cleanup(flows.Wait)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			flows.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(2 * testnet.Patience))
				each(c.(*net.TCPConn))
			})
		}
	}()
	return l.Addr().String()
}

// ask sends one line over a plain connection, ends that direction once the
// answer's first line is here, and gives all of the answer.
func ask(addr, line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testnet.Patience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testnet.Patience))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	first, err := r.ReadString('\n')
	if err != nil {
		return first, err
	}
	c.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(r)
	return first + string(rest), err
}

// mustAsk wants an answer that holds a text.
func mustAsk(t testing.TB, addr, line, want string) {
	t.Helper()
	if got, err := ask(addr, line); err != nil || !strings.Contains(got, want) {
		t.Fatalf("asked %q, got %q, %v; want %q", line, got, err, want)
	}
}

// runFile starts the program with a file of that text.
func runFile(t testing.TB, text string) *testnet.Program {
	t.Helper()
	p := testnet.Start(t, "run", "-c", write(t, "sallyport.yaml", text))
	p.WaitListeners(strings.Count(text, "- from:"))
	return p
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// bulk is more than any buffer on the way holds; nothing compresses it.
var bulk = sync.OnceValue(func() []byte {
	b := make([]byte, 64<<20)
	rand.Read(b)
	return b
})

func sum(p []byte) string {
	h := sha256.Sum256(p)
	return hex.EncodeToString(h[:])
}

// swapBulk sends bulk on c and meanwhile takes as much, and gives the sum of what came.
func swapBulk(c io.ReadWriter) (string, error) {
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(bulk())
		wrote <- err
	}()
	h := sha256.New()
	_, err := io.CopyN(h, c, int64(len(bulk())))
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, <-wrote)
}

// asUser has cmd run as that user where the test runs as root, since some servers
// refuse root, and gives it the folders.
func asUser(t testing.TB, user string, cmd *exec.Cmd, dirs ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		return cmd
	}
	uid, gid := idsOf(t, user)
	for _, d := range dirs {
		if err := os.Chown(d, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
		// The folders above are the test's own, and closed to others.
		for up := filepath.Dir(d); strings.HasPrefix(up, os.TempDir()+"/"); up = filepath.Dir(up) {
			if err := os.Chmod(up, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	cmd.Dir = "/"
	return cmd
}
