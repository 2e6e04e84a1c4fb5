package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// bound is how long one connection of a test may last.
const bound = 30 * time.Second

// site is what the program is started with, and what its peers trust.
type site struct {
	root               *ca.Tester
	leaf               *ca.Leaf
	cert, key, anchors string
}

func newSite(t testing.TB) *site {
	root := ca.Test(t)
	leaf := root.Leaf([]string{"a.test", "b.test", "c.test", "127.0.0.1"})
	s := &site{root: root, leaf: leaf, anchors: root.File()}
	s.cert, s.key = root.Files(leaf)
	return s
}

// quick spares the handshakes of most tests the post-quantum half.
var quick = []tls.CurveID{tls.X25519}

func (s *site) clientConfig(version uint16) *tls.Config {
	return &tls.Config{
		RootCAs: s.root.Pool(), ServerName: "a.test", CurvePreferences: quick,
		MinVersion: tls.VersionTLS10, MaxVersion: version,
	}
}

func (s *site) serverConfig(version uint16) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{s.leaf.TLS()}, CurvePreferences: quick,
		MinVersion: tls.VersionTLS10, MaxVersion: version,
	}
}

// start runs the program. The race detector would have it sleep for a second at
// its end, for goroutines that still race.
func start(t testing.TB, args ...string) *testnet.Program {
	t.Helper()
	return testnet.StartIn(t, promptly, args...)
}

func promptly(cmd *exec.Cmd) {
	cmd.Env = append(cmd.Env, "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
}

// socket stands below crypto/tls, which gives io.EOF for close_notify and for a
// bare FIN alike, and notes which it was. It hands up no more than one record, so
// that what a peer sends after an alert can still be seen.
type socket struct {
	net.Conn
	eof  atomic.Bool
	head []byte
	left int
}

const recordHead = 5

func (s *socket) Read(p []byte) (int, error) {
	want := s.left
	if want == 0 {
		want = recordHead - len(s.head)
	}
	n, err := s.Conn.Read(p[:min(len(p), want)])
	if err == io.EOF {
		s.eof.Store(true)
	}
	if s.left > 0 {
		s.left -= n
		return n, err
	}
	if s.head = append(s.head, p[:n]...); len(s.head) == recordHead {
		s.left, s.head = int(s.head[3])<<8|int(s.head[4]), s.head[:0]
	}
	return n, err
}

// peer is one end of a connection through the program: TLS, or plain.
type peer struct {
	net.Conn // what it reads and writes
	bare     net.Conn
	sock     *socket // nil where it is plain
}

func plainPeer(c net.Conn) *peer {
	c.SetDeadline(time.Now().Add(bound))
	return &peer{Conn: c, bare: c}
}

// tlsPeer has made no handshake yet.
func tlsPeer(c net.Conn, role func(net.Conn, *tls.Config) *tls.Conn, cfg *tls.Config) *peer {
	p := plainPeer(c)
	p.sock = &socket{Conn: c}
	p.Conn = role(p.sock, cfg)
	return p
}

func (p *peer) handshake() error {
	if t, ok := p.Conn.(*tls.Conn); ok {
		return t.Handshake()
	}
	return nil
}

// finish ends what p sends, as its protocol wants it: close_notify, or FIN.
func (p *peer) finish() error { return p.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// fin ends the stream below TLS.
func (p *peer) fin() error { return p.bare.(interface{ CloseWrite() error }).CloseWrite() }

func (p *peer) reset() error {
	p.bare.(*net.TCPConn).SetLinger(0)
	return p.bare.Close()
}

// close leaves without any word of TLS.
func (p *peer) close() { p.bare.Close() }

// The ways in which a stream ends for its reader.
const (
	finished = "a proper end" // close_notify, or the FIN of a plain peer
	cutOff   = "a FIN without close_notify"
	wasReset = "a reset"
)

// ending says what err, of a read or a handshake, was: one of the above, "alert
// N", or what it says.
func (p *peer) ending(err error) string {
	var op *net.OpError
	switch {
	case err == nil:
		return "nothing"
	case errors.As(err, &op) && op.Op == "remote error" && reflect.ValueOf(op.Err).Kind() == reflect.Uint8:
		return fmt.Sprintf("alert %d", reflect.ValueOf(op.Err).Uint())
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return wasReset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if p.sock != nil && p.sock.eof.Load() {
			return cutOff
		}
		return finished
	}
	return err.Error()
}

// rest reads to the end and says how that was.
func (p *peer) rest() ([]byte, string) {
	b, err := io.ReadAll(p.Conn)
	if err == nil {
		err = io.EOF
	}
	return b, p.ending(err)
}

// wantRest fails where p does not get want and then that ending.
func (p *peer) wantRest(t testing.TB, who string, want []byte, ending string) {
	t.Helper()
	got, how := p.rest()
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("the %s got %d bytes, want %d of the same hash", who, len(got), len(want))
	}
	if how != ending {
		t.Errorf("the %s saw %s, want %s", who, how, ending)
	}
}

// wantNothingMore fails where the program says anything after what p has read, or
// does not end the connection with a FIN.
func (p *peer) wantNothingMore(t testing.TB) {
	t.Helper()
	if more, err := io.ReadAll(p.bare); err != nil || len(more) > 0 {
		t.Errorf("after the end came %d bytes (% x) and %v, want none and a FIN", len(more), more[:min(len(more), 16)], err)
	}
}

// swap has b get what a sends.
func swap(t testing.TB, a, b *peer, what []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() { _, err := a.Write(what); sent <- err }()
	got := make([]byte, len(what))
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, what) {
		t.Fatalf("swapping %d bytes: equal %t, %v", len(what), bytes.Equal(got, what), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// bytesOf gives n bytes that no two seeds share.
func bytesOf(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// listen is a server's socket that is closed with the test.
func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// accept waits no longer than bound.
func accept(l *net.TCPListener) (net.Conn, error) {
	l.SetDeadline(time.Now().Add(bound))
	return l.Accept()
}

// callers counts those of a test, each of which has an address of its own: ports
// come again, and a record would be taken for another's.
var callers atomic.Uint32

// dial connects to addr, unix:PATH or host:port, until the test ends.
func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	d, network := net.Dialer{Timeout: bound}, "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	} else {
		n := callers.Add(1)
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1+byte(n>>16), byte(n>>8), byte(n))}
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// way is the program in one pattern, between clients and a server of the test's.
type way struct {
	*testnet.Program
	*site
	in, out bool // whether that side is TLS
	server  *net.TCPListener
	addr    string // where clients connect, if not to the program itself
}

var patterns = []struct {
	name    string
	in, out bool
}{
	{"offload", true, false},
	{"encrypt", false, true},
	{"bridge", true, true},
}

func carrier(isTLS bool) string {
	if isTLS {
		return "tls://"
	}
	return "tcp://"
}

// startWay runs the pattern that in and out amount to.
func startWay(t testing.TB, s *site, in, out bool, flags ...string) *way {
	t.Helper()
	w := &way{site: s, in: in, out: out, server: listen(t)}
	w.Program = start(t, w.args(w.server.Addr().String(), flags...)...)
	return w
}

func (w *way) args(to string, flags ...string) []string {
	args := []string{"proxy", carrier(w.in) + "127.0.0.1:0", carrier(w.out) + to}
	if w.in {
		args = append(args, "--cert", w.cert, "--key", w.key)
	}
	if w.out {
		args = append(args, "--to-ca", w.anchors, "--to-name", "a.test")
	}
	return append(args, flags...)
}

// dial connects a client that has not made its handshake.
func (w *way) dial(t testing.TB, version uint16) *peer {
	t.Helper()
	addr := w.addr
	if addr == "" {
		addr = w.Addr("")
	}
	return w.near(dial(t, addr), version)
}

// near is the client's end, of a connection to the program.
func (w *way) near(c net.Conn, version uint16) *peer {
	if !w.in {
		return plainPeer(c)
	}
	return tlsPeer(c, tls.Client, w.clientConfig(version))
}

// accept gives the next connection to the server, its handshake made.
func (w *way) accept(version uint16) (*peer, error) {
	c, err := accept(w.server)
	if err != nil {
		return nil, err
	}
	p := w.far(c, version)
	return p, p.handshake()
}

// far is the server's end, of a connection to it.
func (w *way) far(c net.Conn, version uint16) *peer {
	if !w.out {
		return plainPeer(c)
	}
	return tlsPeer(c, tls.Server, w.serverConfig(version))
}

// pair connects a client to the server, through the program.
func (w *way) pair(t testing.TB, version uint16) (client, server *peer) {
	t.Helper()
	type result struct {
		p   *peer
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		p, err := w.accept(version)
		accepted <- result{p, err}
	}()
	client = w.dial(t, version)
	if err := client.handshake(); err != nil {
		t.Fatalf("the client's handshake: %v", err)
	}
	r := <-accepted
	if r.err != nil {
		t.Fatalf("the server: %v", r.err)
	}
	t.Cleanup(r.p.close)
	return client, r.p
}

// record waits for the record of client's flow.
func (w *way) record(client *peer) testnet.Record {
	addr := client.bare.LocalAddr().String()
	return w.Flow("of the client "+addr, func(r testnet.Record) bool { return r.Text("client") == addr })
}

// wantRecord fails where r is not of that end; stage is empty for a good one.
func wantRecord(t testing.TB, r testnet.Record, reason, stage string) {
	t.Helper()
	if r.Text("reason") != reason || r.Text("stage") != stage {
		t.Errorf("the record says reason %q at stage %q, want %q at %q: %v", r.Text("reason"), r.Text("stage"), reason, stage, r)
	}
}

// descriptors is how many files the program has open.
func descriptors(t testing.TB, p *testnet.Program) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// status is one number of /proc/PID/status, in kB where it is a size.
func status(t testing.TB, p *testnet.Program, key string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			var n int
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in /proc/PID/status", key)
	return 0
}

// wantDescriptors waits until the program is back at that many open files.
func wantDescriptors(t testing.TB, p *testnet.Program, want int) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); descriptors(t, p) > want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d files are open, %d were", descriptors(t, p), want)
		}
	}
}

// recorded is the ClientHello that cfg makes, in its records.
func recorded(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	var c capture
	if err := tls.Client(&c, cfg).Handshake(); !errors.Is(err, io.EOF) {
		t.Fatalf("making a ClientHello: %v", err)
	}
	return c.sent
}

// capture keeps what is sent and answers nothing.
type capture struct {
	net.Conn
	sent []byte
}

func (c *capture) Write(p []byte) (int, error) { c.sent = append(c.sent, p...); return len(p), nil }
func (c *capture) Read([]byte) (int, error)    { return 0, io.EOF }
func (c *capture) Close() error                { return nil }
