package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sallyport/flow"
)

// Check asks a server whether it is up.
type Check struct {
	Dial    flow.Dialer
	Layers  []flow.Layer // a handshake, with all that it verifies, and what precedes it
	Send    []byte       // then sent
	Expect  []byte       // then waited for, among the first maxAnswer bytes or in one datagram
	Every   time.Duration
	Timeout time.Duration // for all of it
}

const (
	maxAnswer = 16 << 10

	// A server that flows have found to be down is asked so often, that a flow
	// which comes a second after it is back finds it.
	rescueEvery = 400 * time.Millisecond
	// rescueTimeout bounds one such question.
	rescueTimeout = 2 * time.Second
	// retryAfter is for a server of datagrams, which nobody can ask.
	retryAfter = time.Second
)

// By is c for another server, which d dials. That of nil is nil.
func (c *Check) By(d flow.Dialer) *Check {
	if c == nil {
		return nil
	}
	other := *c
	other.Dial = d
	return &other
}

// ask asks once, in bounded time.
func (c *Check) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	f := &flow.Flow{Start: time.Now()}
	bare, err := c.Dial.Dial(ctx, f)
	if err != nil {
		return err
	}
	defer bare.Close()
	// What blocks in a read or a write is ended with the program, too.
	defer context.AfterFunc(ctx, func() { bare.SetDeadline(time.Unix(1, 0)) })()
	f.Origin.Transport = bare.Transport()
	conn := bare
	for _, l := range c.Layers {
		if conn, err = l.Wrap(ctx, f, conn); err != nil {
			return fmt.Errorf("the check's handshake: %w", err)
		}
	}
	defer conn.Close()
	if err := c.talk(conn); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("the check: no answer within %s", c.Timeout)
		}
		return err
	}
	return nil
}

// talk sends and waits for what is expected. One datagram is one answer, a
// stream's may come in parts.
func (c *Check) talk(conn flow.Conn) error {
	if len(c.Send) > 0 {
		if _, err := conn.Write(c.Send); err != nil {
			return fmt.Errorf("the check: sending: %w", err)
		}
	}
	if len(c.Expect) == 0 && (conn.Transport() == flow.Stream || len(c.Send) == 0) {
		return nil
	}
	answer := make([]byte, 0, maxAnswer)
	room := make([]byte, maxAnswer)
	for {
		n, err := conn.Read(room[:maxAnswer-len(answer)])
		answer = append(answer, room[:n]...)
		switch {
		case n > 0 && bytes.Contains(answer, c.Expect), err == nil && len(c.Expect) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the check: the answer does not have %q: %s", c.Expect, excerpt(answer))
		case err != nil:
			return fmt.Errorf("the check: waiting for an answer: %w", err)
		case conn.Transport() == flow.Datagram:
			return fmt.Errorf("the check: the answer does not have %q: %s", c.Expect, excerpt(answer))
		case len(answer) == maxAnswer:
			return fmt.Errorf("the check: %q is not among the first %d bytes of the answer", c.Expect, maxAnswer)
		}
	}
}

// excerpt is the beginning of what a server said.
func excerpt(p []byte) string {
	const most = 64
	if len(p) == 0 {
		return "it is empty"
	}
	return fmt.Sprintf("it begins with %q", p[:min(len(p), most)])
}

// watch asks the server at intervals until ctx ends.
func (s *Server) watch(ctx context.Context, c *Check) {
	// Not all of them, and not all routes' servers, at once.
	if !sleep(ctx, time.Duration(float64(min(c.Every, time.Second))*random())) {
		return
	}
	for {
		err := c.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.fail(time.Now(), err)
		default:
			s.pass(time.Now())
		}
		if !sleep(ctx, jittered(c.Every)) {
			return
		}
	}
}

// rescue asks those servers that flows have found to be down, until ctx ends.
func (s *Set) rescue(ctx context.Context) {
	var (
		mu      sync.Mutex
		busy    = map[*Server]bool{}
		rescues sync.WaitGroup
	)
	defer rescues.Wait()
	for {
		for server, spec := range s.asked() {
			if spec.Check != nil || spec.Alone || !server.isDown() {
				continue
			}
			mu.Lock()
			if !busy[server] {
				busy[server] = true
				rescues.Go(func() {
					server.rescue(ctx, spec.Probe)
					mu.Lock()
					delete(busy, server)
					mu.Unlock()
					server.tell() // it may be down again already
				})
			}
			mu.Unlock()
		}
		select {
		case <-s.fell:
		case <-ctx.Done():
			return
		}
	}
}

// rescue asks the server until it is up.
func (s *Server) rescue(ctx context.Context, probe *Check) {
	if probe == nil {
		if sleep(ctx, jittered(retryAfter)) {
			s.retry(time.Now())
		}
		return
	}
	for sleep(ctx, jittered(rescueEvery)) {
		if err := probe.ask(ctx); err == nil {
			s.pass(time.Now())
			return
		}
	}
}

// Probe gives the check for a server that has none: that it takes a connection, and
// what the caller adds to that.
func Probe(d flow.Dialer) *Check { return &Check{Dial: d, Timeout: rescueTimeout} }

// sleep says whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jittered is d, give or take a tenth: proxies that were started together must not
// ask together for ever.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*random()))
}

// random is from 0 to 1, the latter excluded.
func random() float64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return float64(binary.BigEndian.Uint64(b[:])>>11) / (1 << 53)
}
