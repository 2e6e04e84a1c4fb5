package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// client dials through a proxy.
type client struct {
	addr     string
	tls      *tls.Config   // nil: plain
	patience time.Duration // with a connection; 0 is for ever
}

func (c *client) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", c.addr, c.patience)
	if err != nil {
		return nil, err
	}
	if c.patience > 0 {
		_ = conn.SetDeadline(time.Now().Add(c.patience)) // on an open socket it does not fail
	}
	if c.tls == nil {
		return conn, nil
	}
	t := tls.Client(conn, c.tls)
	if err := t.Handshake(); err != nil {
		closing(conn)
		return nil, err
	}
	return t, nil
}

// ask sends a word and reads the answer of n bytes.
func ask(c net.Conn, head uint64, n int64) error {
	if _, err := c.Write(word(head)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, n); err != nil {
		return err
	}
	return nil
}

// together runs n pieces of work on some workers and gives the first error.
func together(workers, n int, work func(i int) error) error {
	var wg sync.WaitGroup
	next, errs := make(chan int), make(chan error, workers)
	for range workers {
		wg.Go(func() {
			for i := range next {
				if err := work(i); err != nil {
					errs <- err
					for range next {
					}
					return
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// handshakes makes n connections with one request each.
func handshakes(c *client, n int) error {
	return together(8, n, func(int) error {
		conn, err := c.dial()
		if err != nil {
			return err
		}
		defer closing(conn)
		return ask(conn, 64, 64)
	})
}

func download(c *client, bytes int64) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer closing(conn)
	return ask(conn, uint64(bytes), bytes)
}

func upload(c *client, bytes int64) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer closing(conn)
	if _, err := conn.Write(word(uint64(bytes) | takeBit)); err != nil {
		return err
	}
	if err := send(conn, bytes); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// echo bounces 1 KiB on each of conns connections, and gives how long each
// round took.
func echo(c *client, conns, rounds int) ([]time.Duration, error) {
	took := make([][]time.Duration, conns)
	err := together(conns, conns, func(i int) error {
		conn, err := c.dial()
		if err != nil {
			return err
		}
		defer closing(conn)
		if _, err := conn.Write(word(echoWord)); err != nil {
			return err
		}
		p := make([]byte, 1024)
		for range rounds {
			start := time.Now()
			if _, err := conn.Write(p); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, p); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(start))
		}
		return nil
	})
	all := slices.Concat(took...)
	slices.Sort(all)
	return all, err
}

// idle opens n connections, moves bytes down each, and leaves them open.
func idle(c *client, n int, bytes int64) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	err := together(16, n, func(i int) error {
		conn, err := c.dial()
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		conns[i] = conn
		if err := ask(conn, uint64(bytes), bytes); err != nil {
			return err
		}
		return uploadOn(conn, bytes)
	})
	return conns, err
}

func uploadOn(conn net.Conn, bytes int64) error {
	if _, err := conn.Write(word(uint64(bytes) | takeBit)); err != nil {
		return err
	}
	if err := send(conn, bytes); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}
