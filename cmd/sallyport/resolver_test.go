package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"sallyport/dane"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
)

// What DNS said outlives a reload, unless another one is to be asked.
func TestDNSAnswersOutliveReload(t *testing.T) {
	t.Parallel()
	s := newDANESite(t, "self")
	s.publish(t, "a.example.test", "self", s.record(t, "self", 3, 1, dane.SHA256))
	d := testdns.Start(t, s.records)
	text := func(resolver string) string {
		return fmt.Sprintf("resolver: {addr: \"udp://%s\"%s}\nlisteners:\n- from: \"tcp://127.0.0.1:0\"\n  to: {addr: \"tls://%s\", name: a.example.test, dane: require}\n",
			d.Resolver, resolver, s.servers["self"])
	}
	file := write(t, "sallyport.yaml", text(""))
	p := start(t, "run", "-c", file)
	p.WaitListeners(1)
	mustAsk(t, p.Addr(""), "level", "level")
	d.Kill()
	reload := func(resolver string, n int) {
		if err := os.WriteFile(file, []byte(text(resolver)), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Signal(syscall.SIGHUP)
		p.LoggedAs("reloaded by a signal", n, func(l testnet.Record) bool { return l.Text("msg") == "reloaded" && l.Text("cause") == bySignal })
	}
	reload("", 1)
	mustAsk(t, p.Addr(""), "level", "level")
	reload(", trusted: on", 2)
	if got, err := ask(p.Addr(""), "level"); err == nil {
		t.Errorf("by what was found with other settings: %q", got)
	}
	p.Reason("dane_lookup")
}

// A connection to unbound carries many questions (RFC 7858, section 3.4); where it is
// closed, another one does, and no look-up fails.
func TestDNSOverTLSKeepsConnections(t *testing.T) {
	t.Parallel()
	s := newDANESite(t, "self")
	names := []string{"a", "b", "c", "d"}
	for _, n := range names {
		s.publish(t, n+".example.test", "self", s.record(t, "self", 3, 1, dane.SHA256))
	}
	d := testdns.Start(t, s.records, testdns.Over(s.ecdsa, keyOf(s.ecdsa)))
	front := &countingRelay{to: d.TLS}
	file := fmt.Sprintf("resolver: {addr: \"tls://%s\"}\nlisteners:\n", serveEach(t, front.pass))
	for _, n := range names {
		file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s, to: {addr: \"tls://%s\", name: %s.example.test, dane: require}}\n", n, s.servers["self"], n)
	}
	file = write(t, "sallyport.yaml", file)
	p := testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+s.anchors)
	}, "run", "-c", file)
	p.WaitListeners(len(names))
	for i, n := range names {
		if i == 3 {
			front.hangUp()
		}
		mustAsk(t, p.Addr(n), "level", "level")
		if got, want := front.count(), 1+i/3; got != want {
			t.Errorf("after %s: %d connections, want %d", n, got, want)
		}
	}
	front.hangUp()
}

// countingRelay passes connections on.
type countingRelay struct {
	to    string
	mu    sync.Mutex
	conns []net.Conn
}

func (r *countingRelay) pass(c *net.TCPConn) {
	up, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.conns = append(r.conns, c, up)
	r.mu.Unlock()
	go func() {
		io.Copy(c, up)
		c.Close()
	}()
	io.Copy(up, c)
	up.Close()
}

func (r *countingRelay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns) / 2
}

func (r *countingRelay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
}
