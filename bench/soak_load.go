package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	soakSwap  = 8 << 20 // bytes, there and back
	soakIdle  = 400     // connections that do nothing
	soakTurn  = 20      // of them replaced at a time
	soakEchos = 200     // rounds of one connection
	soakTalk  = 20      // datagrams of one association

	soakSessions = 20_000 // that are kept of DTLS, at most
)

// load is all kinds of work at once, and how much of each was done.
type load struct {
	full, resumed, bridge *client
	bad                   []*client // whose servers do not serve
	associate             func(i int) (*association, error)
	faults                func(context.Context) error
	ground                *ground

	handshakes, resumptions, swaps, echoes, aborted, idled, refused, talks, lost atomic.Int64
}

func (l *load) String() string {
	return fmt.Sprintf("%d full handshakes, %d with a ticket, %.1f GiB there and back, %d echoes, %d aborted, %d idle connections replaced, %d DTLS associations (%d datagrams lost); "+
		"%d connections to servers that refuse, do not answer or say nothing, a server stopped %d times, %d certificates, %d reloads",
		l.handshakes.Load(), l.resumptions.Load(), float64(l.swaps.Load())*soakSwap/(1<<30), l.echoes.Load(), l.aborted.Load(), l.idled.Load(), l.talks.Load(), l.lost.Load(),
		l.refused.Load(), l.ground.stops.Load(), l.ground.rotations.Load(), l.ground.reloaded.Load())
}

// run works until ctx ends, and gives the first error that is none of the load's
// own making.
func (l *load) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	for _, kind := range []struct {
		workers int
		work    func(turn int) error
	}{
		{8, l.handshake}, {4, l.resume}, {2, l.swap(l.full)}, {2, l.swap(l.bridge)}, {4, l.echo}, {2, l.abort}, {2, l.talk}, {3, l.refuse},
	} {
		for range kind.workers {
			workers.Go(func() {
				for turn := 0; ctx.Err() == nil; turn++ {
					if err := kind.work(turn); err != nil {
						stop(err)
					}
				}
			})
		}
	}
	for _, alone := range []func(context.Context) error{l.idle, l.faults} {
		workers.Go(func() {
			if err := alone(ctx); err != nil {
				stop(err)
			}
		})
	}
	workers.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (l *load) handshake(int) error {
	defer l.handshakes.Add(1)
	return handshakes(l.full, 1)
}

func (l *load) resume(int) error {
	defer l.resumptions.Add(1)
	return handshakes(l.resumed, 1)
}

// swap sends random bytes, takes them back at the same time, and compares hashes.
func (l *load) swap(c *client) func(int) error {
	return func(int) error {
		if err := swapOnce(c); err != nil {
			return err
		}
		l.swaps.Add(1)
		return nil
	}
}

func swapOnce(c *client) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer closing(conn)
	sent, got := sha256.New(), sha256.New()
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(word(echoWord))
		if err == nil {
			_, err = io.CopyN(io.MultiWriter(conn, sent), rand.Reader, soakSwap)
		}
		wrote <- err
	}()
	_, err = io.CopyN(got, conn, soakSwap)
	if err != nil {
		closing(conn) // so that who writes ends too
	}
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("of %d bytes others came back than were sent", soakSwap)
	}
	return nil
}

// fill makes as many DTLS sessions as are kept, so that what comes later displaces
// some: else their memory would grow for hours, and look like a leak.
func (l *load) fill() error {
	return together(8, soakSessions, func(i int) error {
		a, err := l.associate(i)
		if err != nil {
			return fmt.Errorf("a DTLS handshake: %w", err)
		}
		a.close()
		return nil
	})
}

// talk bounces datagrams over an association of its own.
func (l *load) talk(turn int) error {
	a, err := l.associate(turn)
	if err != nil {
		return fmt.Errorf("a DTLS handshake: %w", err)
	}
	defer a.close()
	for range soakTalk {
		lost, err := a.bounce(200)
		if err != nil {
			return err
		}
		l.lost.Add(int64(lost))
	}
	l.talks.Add(1)
	return nil
}

// refuse wants a client to be told, in time, that there is no server.
func (l *load) refuse(turn int) error {
	conn, err := l.bad[turn%len(l.bad)].dial()
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		closing(conn)
	}
	if late := net.Error(nil); err == nil || errors.As(err, &late) && late.Timeout() {
		return fmt.Errorf("a client whose server does not serve, at %s, was not told: %v", l.bad[turn%len(l.bad)].addr, err)
	}
	l.refused.Add(1)
	return nil
}

func (l *load) echo(int) error {
	conn, err := l.full.dial()
	if err != nil {
		return err
	}
	defer closing(conn)
	if _, err := conn.Write(word(echoWord)); err != nil {
		return err
	}
	p, q := make([]byte, 1024), make([]byte, 1024)
	for range soakEchos {
		_, _ = rand.Read(p) // it never fails
		if _, err := conn.Write(p); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, q); err != nil {
			return err
		}
		if !bytes.Equal(p, q) {
			return errors.New("an echo came back changed")
		}
		l.echoes.Add(1)
	}
	return nil
}

// idle keeps connections that have said something once, replaces some each second,
// and wants those that go to answer still.
func (l *load) idle(ctx context.Context) error {
	conns := make([]net.Conn, soakIdle)
	defer func() {
		for _, c := range conns {
			if c != nil {
				closing(c)
			}
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	turn := conns // all of them at first
	for next := 0; ; next = (next + soakTurn) % soakIdle {
		for i, old := range turn {
			if old != nil {
				if err := ask(old, 64, 64); err != nil {
					return fmt.Errorf("on a connection that was idle: %w", err)
				}
				closing(old)
				l.idled.Add(1)
			}
			turn[i] = nil
			fresh, err := l.full.dial()
			if err != nil {
				return err
			}
			turn[i] = fresh
			if err := ask(fresh, 1024, 1024); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		turn = conns[next : next+soakTurn]
	}
}

// abort leaves by a reset, each turn at another point, and without close_notify.
func (l *load) abort(turn int) error {
	raw, err := net.Dial("tcp", l.full.addr)
	if err != nil {
		return err
	}
	tcp := raw.(*net.TCPConn)
	defer closing(tcp)
	defer l.aborted.Add(1)
	conn := tls.Client(tcp, l.full.tls)
	points := []func() error{
		func() error { return nil }, // before anything was said
		func() error { // within the hello: the head of a record of 512 bytes
			_, err := tcp.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252})
			return err
		},
		func() error { // the server's flight has come, and nobody reads it
			_, err := tls.Client(deaf{tcp}, l.full.tls).Write(nil)
			if errors.Is(err, errDeaf) {
				return nil
			}
			return err
		},
		conn.Handshake,
		func() error { return ask(conn, 64<<20, 1<<20) }, // while bytes come down
		func() error { // while bytes go up
			if _, err := conn.Write(word(64<<20 | takeBit)); err != nil {
				return err
			}
			return send(conn, 1<<20)
		},
		func() error { // a FIN alone, while bytes come down
			err := ask(conn, 64<<20, 1<<20)
			return errors.Join(err, tcp.CloseWrite())
		},
	}
	if err := points[turn%len(points)](); err != nil {
		return fmt.Errorf("before aborting at point %d: %w", turn%len(points), err)
	}
	return tcp.SetLinger(0)
}

var errDeaf = errors.New("nobody reads")

// deaf sends and waits for the first answer, which it does not pass on.
type deaf struct{ net.Conn }

func (d deaf) Read([]byte) (int, error) {
	if _, err := d.Conn.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	return 0, errDeaf
}
