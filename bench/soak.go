package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// A soak runs everything at once through one sallyport for a given time, and
// fails where that leaves memory, descriptors or goroutines behind, or where a
// single byte came out other than it went in.

const (
	soakSample = 2 * time.Second
	soakWarm   = time.Minute      // pools, tickets and the collector find their level
	soakSettle = 15 * time.Second // after the load: what lingers ends, the collector tidies up
)

func soakCommand(args []string) error {
	flags := flag.NewFlagSet("soak", flag.ExitOnError)
	lasts := flags.Duration("for", 30*time.Minute, "how long")
	bin := flags.String("sallyport", "bin/sallyport", "the program")
	_ = flags.Parse(args) // it exits
	dir, err := os.MkdirTemp("", "sallyport-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, sallyport: *bin}
	defer b.stopBackends()
	if err := b.prepare(); err != nil {
		return err
	}
	return b.soak(*lasts)
}

func (b *bench) soak(lasts time.Duration) error {
	want, err := b.freshGoroutines()
	if err != nil {
		return err
	}
	p, err := b.start(peers[0], job{pattern: "offload", cert: b.ecdsa, to: b.plain.addr})
	if err != nil {
		return err
	}
	defer p.stop()
	l := &load{
		full:    b.clientFor(row{client: groups(tls.X25519, tls.X25519MLKEM768)}, p),
		resumed: b.clientFor(row{client: resuming}, p),
		reload:  func() error { return p.cmd.Process.Signal(p.peer.reload) },
	}
	if err := handshakes(l.full, 8); err != nil {
		return err
	}
	w := &watch{pid: p.cmd.Process.Pid}
	rest, err := w.settle()
	if err != nil {
		return err
	}
	warm := min(soakWarm, lasts/2)
	ctx, stop := context.WithTimeout(context.Background(), lasts)
	defer stop()
	fmt.Fprintf(os.Stderr, "soaking until %s\n", time.Now().Add(lasts).Format(time.TimeOnly))
	var running sync.WaitGroup
	var failed error
	running.Go(func() {
		if failed = l.run(ctx); failed != nil {
			stop()
		}
	})
	samples, err := w.sample(ctx, warm)
	stop()
	running.Wait()
	if err := errors.Join(failed, err); err != nil {
		return fmt.Errorf("%w\n%s", err, p.log)
	}
	settled, err := w.settle()
	if err != nil {
		return err
	}
	left, err := p.goroutines()
	if err != nil {
		return err
	}
	v := verdict{rest: rest, settled: settled, samples: samples, long: lasts >= soakLong, fresh: want, left: left}
	fmt.Printf("%s, of which %v to warm up: %s\n\n%s", lasts, warm, l.String(), v.table())
	return v.err()
}

// freshGoroutines is how many goroutines a sallyport has that serves nothing any more.
func (b *bench) freshGoroutines() (int, error) {
	p, err := b.start(peers[0], job{pattern: "offload", cert: b.ecdsa, to: b.plain.addr})
	if err != nil {
		return 0, err
	}
	defer p.stop()
	c := b.clientFor(row{client: groups(tls.X25519)}, p)
	if err := handshakes(c, 8); err != nil {
		return 0, err
	}
	time.Sleep(soakSettle)
	return p.goroutines()
}

// goroutines ends the program so that it shows them, which is the one way to have
// them from outside.
func (p *proxy) goroutines() (int, error) {
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return 0, err
	}
	_ = p.cmd.Wait() // it tells of the signal
	n := countGoroutines(p.log.String())
	if n == 0 {
		return 0, fmt.Errorf("SIGQUIT showed no goroutines:\n%s", p.log)
	}
	return n, nil
}
