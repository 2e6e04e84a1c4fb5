package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// mostBuffered is what the program may hold for a connection one of whose ends does
// not read, in kB, stacks and what the collector has not come to included. Where they
// are few, what belongs to none of them weighs more.
var mostBuffered = pick(160, 64)

// resident is the program's memory in kB: half of the time more, half of it less,
// since what good connections leave behind comes and goes.
func resident(t testing.TB, p *testnet.Program) int {
	t.Helper()
	var all []int
	for range pick(5, 50) {
		all = append(all, status(t, p, "VmRSS"))
		time.Sleep(100 * time.Millisecond)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// wantHeld fails where memory has grown by more than that for each of n connections.
func wantHeld(t testing.TB, p *testnet.Program, before, n int) {
	t.Helper()
	grown := resident(t, p) - before
	t.Logf("%d connections have %d kB, %.1f each", n, grown, float64(grown)/float64(n))
	if grown > n*mostBuffered {
		t.Errorf("that is more than %d kB each", mostBuffered)
	}
}

// F-03: a server's process is stopped while clients send to it, and goes on later:
// what is on its way waits in the kernel and with the clients, and all of it arrives.
func TestFaultServerStopped(t *testing.T) {
	conns, lasts := pick(16, 64), pick(500*time.Millisecond, 30*time.Second)
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			addr, process := startAnswerer(t, s, p.out)
			w := &way{site: s, in: p.in, out: p.out}
			w.Program = testnet.StartIn(t, testnet.ForUse(t), w.args(addr)...)
			all := make([]*pourer, conns)
			for i := range all {
				all[i] = newPourer(t, w, uint64(i))
			}
			before := resident(t, w.Program)
			if err := process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			for _, p := range all {
				p.start()
			}
			waitStalled(t, all)
			time.Sleep(lasts) // the fault's own time
			wantHeld(t, w.Program, before, conns)
			if err := process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			for _, p := range all {
				p.ending.Store(true)
			}
			for _, p := range all {
				p.stop(t)
			}
			for _, r := range w.Flows(conns) {
				wantRecord(t, r, "ok", "")
			}
		})
	}
}

// pourer sends to an echo without end, and reads what comes back.
type pourer struct {
	*peer
	seed      uint64
	ending    atomic.Bool
	wrote     atomic.Int64
	sent, got hash.Hash
	both      sync.WaitGroup
	errs      [2]error // writing, reading
}

func newPourer(t testing.TB, w *way, seed uint64) *pourer {
	t.Helper()
	p := &pourer{peer: w.dial(t, tls.VersionTLS13), seed: seed, sent: sha256.New(), got: sha256.New()}
	p.bare.SetDeadline(time.Now().Add(2*testnet.Patience + pick(0, time.Minute)))
	if err := p.handshake(); err != nil {
		t.Fatal(err)
	}
	if err := echoed(p, []byte("are you there?")); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pourer) start() {
	p.both.Go(func() { _, p.errs[1] = io.Copy(p.got, p) })
	p.both.Go(func() {
		for b := bytesOf(p.seed, 32<<10); !p.ending.Load(); {
			n, err := p.Write(b)
			p.sent.Write(b[:n])
			p.wrote.Add(int64(n))
			if err != nil {
				p.errs[0] = err
				return
			}
		}
		p.errs[0] = p.finish()
	})
}

// waitStalled waits until none of them gets rid of anything more.
func waitStalled(t testing.TB, all []*pourer) {
	t.Helper()
	total := func() (n int64) {
		for _, p := range all {
			n += p.wrote.Load()
		}
		return n
	}
	was, still := int64(0), 0
	eventually(t, "the clients to be held up", func() bool {
		now := total()
		if still++; now != was {
			was, still = now, 0
		}
		return still >= 15
	})
	t.Logf("held up after %.1f MiB each", float64(was)/float64(len(all))/(1<<20))
}

// stop ends it, and wants all that was sent to have come back.
func (p *pourer) stop(t testing.TB) {
	t.Helper()
	p.ending.Store(true)
	p.both.Wait()
	if err := errors.Join(p.errs[:]...); err != nil {
		t.Errorf("connection %d: %v", p.seed, err)
	}
	if string(p.sent.Sum(nil)) != string(p.got.Sum(nil)) {
		t.Errorf("connection %d: other bytes came back than the %d that were sent", p.seed, p.wrote.Load())
	}
}

// pourOrEcho pours without end to who begins with a 'p', and echoes to others.
func pourOrEcho(c net.Conn) {
	b := make([]byte, 32<<10)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	if b[0] != 'p' {
		if _, err := c.Write(b[:n]); err == nil {
			io.Copy(c, struct{ io.Reader }{c})
		}
		return
	}
	for err == nil {
		_, err = c.Write(b)
	}
}

// F-04: clients that read next to nothing of what is poured at them.
func TestFaultSlowReaders(t *testing.T) {
	readers, lasts := pick(50, 500), pick(time.Second, 30*time.Second)
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var served atomic.Int32
			to := serving(t, func(c *net.TCPConn) {
				c.SetDeadline(time.Now().Add(testnet.Patience + 2*lasts))
				if !p.out {
					served.Add(1)
					pourOrEcho(c)
					served.Add(-1)
					return
				}
				conn := tls.Server(c, s.serverConfig(tls.VersionTLS13))
				if conn.Handshake() == nil {
					served.Add(1)
					pourOrEcho(conn)
					served.Add(-1)
				}
				conn.Close()
			})
			w := &way{site: s, in: p.in, out: p.out}
			w.Program = testnet.StartIn(t, testnet.ForUse(t), w.args(to, "--timeouts-peek", "1m", "--timeouts-handshake", "1m")...)
			var cfg *tls.Config
			if p.in {
				cfg = s.clientConfig(tls.VersionTLS13)
			}
			good := startProber(t, w.Addr(""), cfg)
			eventually(t, "some good connections", func() bool { return good.served() >= 10 })
			var slow []*peer
			for range readers {
				c := w.near(slowly(t, w.Addr("")), tls.VersionTLS13)
				if err := c.handshake(); err != nil {
					t.Fatal(err)
				}
				c.bare.SetDeadline(time.Now().Add(2*testnet.Patience + 2*lasts))
				slow = append(slow, c)
			}
			eventually(t, "all connections to stand", func() bool { return int(served.Load()) >= readers })
			before := resident(t, w.Program)
			over := make(chan struct{})
			var reading sync.WaitGroup
			for _, c := range slow {
				if _, err := io.WriteString(c, "p"); err != nil {
					t.Fatal(err)
				}
				reading.Go(func() { sip(c.bare, over) })
			}
			time.Sleep(lasts) // the fault's own time
			wantHeld(t, w.Program, before, readers)
			good.wantAll(t)
			close(over)
			reading.Wait()
		})
	}
}

func (p *prober) served() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.took)
}

// slowly connects with a receive buffer that holds next to nothing.
func slowly(t testing.TB, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: testnet.Patience, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }); e != nil {
			return e
		}
		return err
	}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// sip takes a KiB a second.
func sip(c net.Conn, over <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for b := make([]byte, 1<<10); ; {
		select {
		case <-tick.C:
		case <-over:
			return
		}
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// cpuTime is what the program has spent.
func cpuTime(t testing.TB, p *testnet.Program) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond // proc_pid_stat(5)
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var user, system int
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * tick
}

// F-07: four hundred clients, and descriptors for a hundred. Those that come too late
// wait and cost nothing, and once there is room all is as before. So it is where the
// file lets in more flows than there are descriptors for.
func TestFaultDescriptorsExhausted(t *testing.T) {
	const clients = 400
	s := newSite(t)
	for _, row := range []struct{ name, limits string }{{"by default", ""}, {"more let in than there are", "limits: {flows: 10000}"}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			file := write(t, "sallyport.yaml", fmt.Sprintf(`%s
listeners:
  - {from: "tls://127.0.0.1:0", cert: %q, key: %q, to: "tcp://%s", timeouts: {peek: 1m, handshake: 1m}}
`, row.limits, s.cert, s.key, echoAddr(t)))
			few := func(cmd *exec.Cmd) {
				testnet.ForUse(t)(cmd)
				cmd.Args = append([]string{"sh", "-c", `ulimit -n 256 && exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
				cmd.Path = tool(t, "sh")
			}
			p := testnet.StartIn(t, few, "run", "-c", file)
			cfg := s.clientConfig(tls.VersionTLS13)
			var conns []net.Conn
			var shaking sync.WaitGroup
			for range clients {
				c := dial(t, p.Addr(""))
				conns = append(conns, c)
				shaking.Go(func() { tls.Client(c, cfg).Handshake() })
			}
			was := -1
			eventually(t, "no more to be let in", func() bool {
				now := descriptors(t, p)
				same := now == was && now > 100
				was = now
				return same
			})
			began, spent := time.Now(), cpuTime(t, p)
			time.Sleep(pick(time.Second, 10*time.Second)) // over which it is measured
			share := float64(cpuTime(t, p)-spent) / float64(time.Since(began))
			t.Logf("%d descriptors; full, it takes %.0f %% of a core", was, 100*share)
			if share > 0.2 {
				t.Error("it spins")
			}
			for _, c := range conns {
				c.Close()
			}
			shaking.Wait()
			began = time.Now()
			if err := probeOnce(p.Addr(""), cfg); err != nil {
				t.Errorf("once there is room: %v", err)
			}
			took := time.Since(began)
			t.Logf("served again %v after there was room", took)
			if took > pick(testnet.Patience, time.Second) {
				t.Error("that is late")
			}
			good := startProber(t, p.Addr(""), cfg)
			eventually(t, "good connections", func() bool { return good.served() >= 20 })
			good.wantAll(t)
		})
	}
}

// F-09: connections that do nothing, thousands of them, take little and stay.
func TestFaultIdleConnections(t *testing.T) {
	t.Parallel()
	const workers = 8
	conns, lasts, most := pick(500, 9000), pick(time.Second, time.Minute), 64.0 // kB each
	s := newSite(t)
	addr, _ := startAnswerer(t, s, true)
	w := &way{site: s, in: true, out: true}
	w.Program = testnet.StartIn(t, testnet.ForUse(t), w.args(addr)...)
	open := func(n int) []*pourer {
		all := make([]*pourer, n)
		var opening sync.WaitGroup
		for k := range workers {
			opening.Go(func() {
				for i := k; i < n; i += workers {
					all[i] = newPourer(t, w, uint64(i))
				}
			})
		}
		opening.Wait()
		return all
	}
	open(20) // what is made once
	before := resident(t, w.Program)
	all := open(conns)
	waitResting(t, w.Program, 2*(conns+20))
	time.Sleep(lasts)
	each := float64(status(t, w.Program, "VmRSS")-before) / float64(conns)
	t.Logf("%d connections are idle, at %.1f kB each", conns, each)
	if each > most {
		t.Errorf("that is more than %.0f", most)
	}
	for i, c := range all {
		c.bare.SetDeadline(time.Now().Add(testnet.Patience))
		if err := echoed(c, []byte("still there?")); err != nil {
			t.Fatalf("connection %d of %d: %v", i, conns, err)
		}
	}
	if n := strings.Count(w.Stderr(), `"msg":"flow"`); n > 0 {
		t.Errorf("%d have ended", n)
	}
}
