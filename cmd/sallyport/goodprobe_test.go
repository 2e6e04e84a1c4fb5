package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// inFull says that faults are to last as long, and be as many, as doc/faults.md
// says (make faults), not as CI has time for.
func inFull() bool { return os.Getenv("SALLYPORT_FAULTS") == "full" }

// pick is ci, or full in full.
func pick[T any](ci, full T) T {
	if inFull() {
		return full
	}
	return ci
}

// wantTimely holds what the program's record says against a timeout, which must never
// pass early and be late by a tenth at most: on a busy machine by some seconds.
func wantTimely(t testing.TB, ms float64, want time.Duration) {
	t.Helper()
	took := time.Duration(ms * float64(time.Millisecond))
	if took < want-want/10 || took > want+want/10+pick(5*time.Second, 0) {
		t.Errorf("it took %v, want %v give or take a tenth", took, want)
	}
}

// prober makes a new connection each 50 ms, with a KiB there and back, while some
// fault lasts: what the fault does to those who have no part in it.
type prober struct {
	mu     sync.Mutex
	took   []time.Duration
	errs   []error
	ending chan struct{}
	all    sync.WaitGroup
}

// startProber probes what is at addr, in clear without cfg.
func startProber(t testing.TB, addr string, cfg *tls.Config) *prober {
	t.Helper()
	p := &prober{ending: make(chan struct{})}
	p.all.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			p.all.Go(func() { p.probe(addr, cfg) })
			select {
			case <-tick.C:
			case <-p.ending:
				return
			}
		}
	})
	t.Cleanup(func() { p.end() })
	return p
}

func (p *prober) probe(addr string, cfg *tls.Config) {
	began := time.Now()
	err := probeOnce(addr, cfg)
	took := time.Since(began)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("after %v: %w", took, err))
		return
	}
	p.took = append(p.took, took)
}

func probeOnce(addr string, cfg *tls.Config) error {
	c, err := net.DialTimeout("tcp", addr, testnet.Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testnet.Patience))
	if cfg != nil {
		c = tls.Client(c, cfg)
		defer c.Close() // with close_notify
	}
	return echoed(c, bytesOf(1, 1<<10))
}

// end waits for those under way.
func (p *prober) end() {
	select {
	case <-p.ending:
	default:
		close(p.ending)
	}
	p.all.Wait()
}

// wantAll fails where a probe did, and says what they took.
func (p *prober) wantAll(t testing.TB) {
	t.Helper()
	p.end()
	slices.Sort(p.took)
	n := len(p.took)
	if n == 0 || len(p.errs) > 0 {
		t.Fatalf("%d good connections, and %d that failed: %v", n, len(p.errs), errors.Join(p.errs...))
	}
	t.Logf("%d good connections, all of them served: half in %v, p99 %v", n, p.took[n/2], p.took[n*99/100])
}

// answerer is a server in a process of its own, which can be stopped: it echoes at
// ADDR, under TLS where it is given a certificate and a key.
func answerer(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: answerer ADDR [CERT KEY]")
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	if len(args) == 3 {
		cert, err := tls.LoadX509KeyPair(args[1], args[2])
		if err != nil {
			return err
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, CurvePreferences: quick})
	}
	fmt.Println(l.Addr())
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			io.Copy(c, struct{ io.Reader }{c})
			c.(interface{ CloseWrite() error }).CloseWrite()
			io.Copy(io.Discard, c)
		}()
	}
}

// startAnswerer runs one on loopback until the test ends, which speaks TLS if secure.
func startAnswerer(t testing.TB, s *site, secure bool) (addr string, process *os.Process) {
	t.Helper()
	args := []string{"127.0.0.1:0"}
	if secure {
		args = append(args, s.cert, s.key)
	}
	return startAnswererIn(t, nil, args...)
}

// startAnswererIn runs one by a command that change has changed.
func startAnswererIn(t testing.TB, change func(*exec.Cmd), args ...string) (addr string, process *os.Process) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// By the name that it is called by, this binary knows what it is to be.
	called := filepath.Join(t.TempDir(), "answerer")
	if err := os.Symlink(self, called); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(called, args...)
	cmd.Stderr = os.Stderr
	if change != nil {
		change(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), cmd.Process
}
