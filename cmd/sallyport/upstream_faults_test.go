package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// flapper is a backend that comes and goes at one address.
type flapper struct {
	name, addr string
	mu         sync.Mutex
	l          net.Listener
	answers    sync.WaitGroup
}

func newFlapper(t testing.TB, name string) *flapper {
	t.Helper()
	f := &flapper{name: name, addr: freeAddr(t)}
	f.up(t)
	t.Cleanup(func() { f.down(); f.answers.Wait() })
	return f
}

func (f *flapper) up(t testing.TB) {
	t.Helper()
	// A process that another test begins has a copy of the old socket until it runs.
	l, err := net.Listen("tcp", f.addr)
	for by := time.Now().Add(testnet.Patience); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(by); l, err = net.Listen("tcp", f.addr) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Error(err)
		return
	}
	f.mu.Lock()
	f.l = l
	f.mu.Unlock()
	f.answers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.answers.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(testnet.Patience))
				r := bufio.NewReader(c)
				if line, err := r.ReadString('\n'); err == nil {
					fmt.Fprintf(c, "%s got %s", f.name, line)
					c.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, r)
				}
			})
		}
	})
}

func (f *flapper) down() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.l != nil {
		f.l.Close()
		f.l = nil
	}
}

// F-06: a server comes and goes each 200 ms. Beside another one no client notices.
func TestFaultServersFlapping(t *testing.T) {
	t.Parallel()
	f := newFlapper(t, "a")
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+f.addr, "tcp://"+backend(t, "b"))
	var over atomic.Bool
	var flapping sync.WaitGroup
	flapping.Go(func() {
		for range pick(8, 150) {
			time.Sleep(200 * time.Millisecond)
			f.down()
			time.Sleep(200 * time.Millisecond)
			f.up(t)
		}
		over.Store(true)
	})
	asked := 0
	for ; !over.Load(); asked++ {
		// What the kernel had accepted for a listener that closes is reset: those
		// were with the server already.
		if _, err := ask(p.Addr(""), "hello"); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the other server was up all the time: %v", err)
		}
	}
	flapping.Wait()
	if n := strings.Count(p.Stderr(), `"reason":"no_server_up"`) + strings.Count(p.Stderr(), `"reason":"dial_`); n > 0 {
		t.Errorf("%d of %d connections found no server", n, asked)
	}
	wantBack(t, p, "a")
}

// wantBack wants the server to have connections again within a second.
func wantBack(t testing.TB, p *testnet.Program, name string) {
	t.Helper()
	start := time.Now()
	for {
		answer, err := ask(p.Addr(""), "hello")
		if err == nil && strings.HasPrefix(answer, name+" ") {
			return
		}
		if time.Since(start) > time.Second {
			t.Fatalf("a second after %s is back it has no connection (last: %q, %v)", name, answer, err)
		}
	}
}

// F-06, alone, without and with a check: errors only while it is down.
func TestFaultServerComesBack(t *testing.T) {
	for name, args := range map[string][]string{
		"unchecked": nil,
		"checked":   {"--to-check", "tcp", "--to-check-every", "100ms", "--to-check-rise", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFlapper(t, "a")
			p := start(t, append([]string{"proxy", "tcp://127.0.0.1:0", "tcp://" + f.addr}, args...)...)
			for i := range 3 {
				if _, err := ask(p.Addr(""), "hello"); err != nil {
					t.Fatalf("it is up: %v", err)
				}
				f.down()
				if args == nil {
					if _, err := ask(p.Addr(""), "hello"); err == nil {
						t.Fatal("an answer of nobody")
					}
				} else {
					p.Logged("server down", i+1)
				}
				f.up(t)
				wantBack(t, p, "a")
			}
		})
	}
}

// A server that takes connections and says nothing fails its check in bounded time,
// and gets no connection then.
func TestCheckThatHangs(t *testing.T) {
	t.Parallel()
	var silent atomic.Int32
	hangs := serving(t, func(c *net.TCPConn) { silent.Add(1); io.Copy(io.Discard, c) })
	answers := serving(t, func(c *net.TCPConn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && line == "PING\n" {
			io.WriteString(c, "+PO")
			io.WriteString(c, "NG\n")
		} else {
			fmt.Fprintf(c, "b got %s", line)
		}
	})
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    to:
      addr: ["tcp://%s", "tcp://%s"]
      check: {send: "PING\n", expect: PONG, every: 100ms, timeout: 200ms, fall: 2}
`, hangs, answers))
	down := p.Logged("server down", 1)
	if down.Text("server") != "tcp://"+hangs || !strings.Contains(down.Text("err"), "no answer within 200ms") {
		t.Errorf("it says %v", down)
	}
	wantCount(t, who(t, p.Addr(""), 6), "b:6")
	if strings.Count(p.Stderr(), `"msg":"flow"`) > 6 {
		t.Error("checks have records, as if they were connections")
	}
}

// A check by handshake goes by the certificate, as connections do.
func TestCheckVerifies(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	good, bad := s.tlsEcho(t), other.tlsEcho(t)
	own := other.tlsEcho(t)
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    to:
      addr: ["tls://%s", "tls://%s", {addr: "tls://%s", ca: %s}]
      ca: %s
      retry: 0
      check: {kind: tls, every: 100ms, fall: 1}
`, good, bad, own, other.anchors, s.anchors))
	down := p.Logged("server down", 1)
	if down.Text("server") != "tls://"+bad || !strings.Contains(down.Text("err"), "handshake") {
		t.Errorf("it says %v", down)
	}
	// The third has a CA of its own, and is as good as the first.
	for range 6 {
		c, err := net.Dial("tcp", p.Addr(""))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(bound))
		if err := echoed(c, []byte("are you there?")); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if n := strings.Count(p.Stderr(), "server down"); n != 1 {
		t.Errorf("%d servers are down", n)
	}
}

// tlsEcho is an echo server under the site's certificate.
func (s *site) tlsEcho(t testing.TB) string {
	return serving(t, func(c *net.TCPConn) {
		conn := tls.Server(c, s.serverConfig(tls.VersionTLS13))
		io.Copy(conn, conn)
		conn.Close()
	})
}

// A name is followed to where it goes, and where it stops resolving the last good
// address is kept.
func TestServersNameMoves(t *testing.T) {
	t.Parallel()
	old := backend(t, "old")
	port := portOf(t, old)
	serveAt(t, "127.0.0.2:"+port, "moved")
	z := startDNS(t, map[string]string{"app.test.": "127.0.0.1", "gone.test.": "127.0.0.1"}, nil)
	p := runFile(t, fmt.Sprintf(`
resolver: {addr: "udp://%s"}
listeners:
  - {name: app, from: "tcp://127.0.0.1:0", to: "tcp://app.test:%s"}
  - {name: gone, from: "tcp://127.0.0.1:0", to: "tcp://gone.test:%s"}
`, z.addr, port, port))
	p.WaitListeners(2)
	mustAsk(t, p.Addr("app"), "hello", "old")
	mustAsk(t, p.Addr("gone"), "hello", "old")
	z.mu.Lock()
	z.has["app.test."] = "127.0.0.2"
	delete(z.has, "gone.test.")
	z.mu.Unlock()
	if said := p.Logged("does not resolve any more", 1); said.Text("name") != "gone.test" || !strings.Contains(said.Text("err"), "no such host") {
		t.Errorf("it says %v", said)
	}
	mustAsk(t, p.Addr("gone"), "hello", "old")
	eventually(t, "the new address", func() bool { a, err := ask(p.Addr("app"), "hello"); return err == nil && strings.HasPrefix(a, "moved") })
}

// serveAt is backend at an address of the test's choice.
func serveAt(t testing.TB, addr, name string) {
	t.Helper()
	f := &flapper{name: name, addr: addr}
	f.up(t)
	t.Cleanup(func() { f.down(); f.answers.Wait() })
}

// What is known of servers outlives a reload: which one is down, and how many
// connections each has, those that rest too.
func TestReloadKeepsServers(t *testing.T) {
	t.Parallel()
	hold := func(name string) string {
		return serving(t, func(c *net.TCPConn) {
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				fmt.Fprintf(c, "%s got %s", name, line)
				io.Copy(io.Discard, c)
			}
		})
	}
	file := write(t, "sallyport.yaml", fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    to:
      addr: ["tcp://%s", "tcp://%s", "tcp://%s"]
      balance: least
      check: {every: 100ms, fall: 1}
`, hold("a"), hold("b"), boundPort(t)))
	p := testnet.Start(t, "run", "-c", file)
	p.Logged("server down", 1)
	var mu sync.Mutex
	held := map[string][]net.Conn{}
	more := func(n int) {
		t.Helper()
		for range n {
			c, err := net.Dial("tcp", p.Addr(""))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(bound))
			fmt.Fprintln(c, "hello")
			answer, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			held[answer[:1]] = append(held[answer[:1]], c)
			mu.Unlock()
		}
	}
	want := func(a, b int) {
		t.Helper()
		if len(held["a"]) != a || len(held["b"]) != b {
			t.Errorf("a has %d connections and b %d, want %d and %d", len(held["a"]), len(held["b"]), a, b)
		}
	}
	more(6)
	want(3, 3)
	waitResting(t, p, 12)
	for _, c := range held["a"] {
		c.Close()
	}
	held["a"] = nil
	p.Flows(3)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, changed := range []string{string(text), strings.Replace(string(text), "fall: 1", "fall: 2", 1)} {
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Signal(syscall.SIGHUP)
		p.Logged("reloaded", i+1)
		if i == 0 {
			more(3)
			want(3, 3) // all to a, which has none
		}
	}
	if n := strings.Count(p.Stderr(), "server down"); n != 1 {
		t.Errorf("the server that is down was found to be down %d times", n)
	}
}

// An association stays with its server, and one whose server ICMP says is gone
// counts against it.
func TestServersOfDatagrams(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		var b [1500]byte
		for {
			n, from, err := pc.ReadFrom(b[:])
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(b[:n], from)
		}
	}()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p := start(t, "proxy", "udp://127.0.0.1:0", "udp://"+gone.LocalAddr().String(), "udp://"+pc.LocalAddr().String())
	one := func(times int) bool {
		c, err := net.Dial("udp", p.Addr(""))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range times {
			c.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if echoed(c, []byte("ping")) != nil {
				return false
			}
		}
		return true
	}
	eventually(t, "the server that is gone to be left out", func() bool { one(1); return strings.Contains(p.Stderr(), "server down") })
	if down := p.Logged("server down", 1); down.Text("server") != "udp://"+gone.LocalAddr().String() {
		t.Errorf("it says %v", down)
	}
	eventually(t, "an association that stays", func() bool { return one(10) })
}

// A check of datagrams makes the handshake too.
func TestCheckByDTLS(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", c.site, "--psk", c.psk, "--client-auth", "none")
	gone := freeAddr(t)
	p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+gone, "dtls://"+far.Addr(""), "--to-ca", c.anchors, "--to-name", "coap.test",
		"--to-check", "dtls", "--to-check-every", "200ms", "--to-check-fall", "1")
	if down := p.Logged("server down", 1); down.Text("server") != "dtls://"+gone {
		t.Errorf("it says %v", down)
	}
	for range 4 {
		u := dialUDP(t, p.Addr(""))
		u.SetDeadline(time.Now().Add(bound))
		if err := echoed(u, []byte("ping")); err != nil {
			t.Error(err)
		}
	}
}
