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
// single byte came out other than it went in. Faults come at random meanwhile.

const (
	soakSample   = 2 * time.Second
	soakWarm     = time.Minute      // pools, tickets and the collector find their level
	soakPatience = 20 * time.Second // of a client that is to be told something within a second
	soakSettle   = 15 * time.Second // after the load: what lingers ends, the collector tidies up
)

func soakCommand(args []string) error {
	flags := flag.NewFlagSet("soak", flag.ExitOnError)
	lasts := flags.Duration("for", 10*time.Minute, "how long")
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
	g, err := b.prepareGround()
	if err != nil {
		return err
	}
	defer g.close()
	want, err := b.freshGoroutines(g)
	if err != nil {
		return err
	}
	p, err := b.start(g.peer(), job{pattern: "offload"})
	if err != nil {
		return err
	}
	defer p.stop()
	l := b.loadOn(g, p)
	if err := l.once(); err != nil {
		return fmt.Errorf("%w\n%s", err, p.log)
	}
	if err := l.fill(); err != nil {
		return fmt.Errorf("%w\n%s", err, p.log)
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

// loadOn is the load for a program that runs on g.
func (b *bench) loadOn(g *ground, p *proxy) *load {
	at := func(addr string, r row) *client { return b.clientFor(r, &proxy{addr: addr}) }
	datagrams := &proxy{addr: g.dtls, job: job{pattern: "dtls"}}
	l := &load{
		full:      at(p.addr, row{client: groups(tls.X25519, tls.X25519MLKEM768)}),
		resumed:   at(p.addr, row{client: resuming}),
		bridge:    at(g.bridge, row{client: groups(tls.X25519)}),
		associate: func(i int) (*association, error) { return b.associate(datagrams, i) },
		faults:    func(ctx context.Context) error { return g.faults(ctx, p) },
		ground:    g,
	}
	for _, addr := range g.bad {
		c := at(addr, row{client: groups(tls.X25519)})
		c.patience = soakPatience
		l.bad = append(l.bad, c)
	}
	return l
}

// once does a little of what leaves something that lasts, which a first time may.
func (l *load) once() error {
	err := errors.Join(handshakes(l.full, 8), handshakes(l.bridge, 8), l.talk(0))
	for i := range l.bad {
		err = errors.Join(err, l.refuse(i))
	}
	return err
}

// freshGoroutines is how many goroutines a sallyport has that serves nothing any more.
func (b *bench) freshGoroutines(g *ground) (int, error) {
	p, err := b.start(g.peer(), job{pattern: "offload"})
	if err != nil {
		return 0, err
	}
	defer p.stop()
	if err := b.loadOn(g, p).once(); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, p.log)
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
