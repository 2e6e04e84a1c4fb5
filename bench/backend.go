package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
)

// A backend speaks one word of eight bytes: how many bytes to send back, and,
// with the highest bit set, how many to take before it answers with one byte.
// Zero asks for an echo from then on. It runs in a process of its own, so that
// its CPU is nobody's.
const (
	takeBit  = 1 << 63
	echoWord = 0
)

func word(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func serveBackend(args []string) {
	if len(args) == 1 && args[0] == "udp" {
		serveDatagrams()
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(args) >= 2 {
		cert, err := tls.LoadX509KeyPair(args[0], args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if len(args) == 4 && args[2] == "stapled" {
			if cert.OCSPStaple, err = os.ReadFile(args[3]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		l = tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
			// What every peer has, so that all make the same handshake.
			CurvePreferences:       []tls.CurveID{tls.X25519},
			SessionTicketsDisabled: len(args) == 2 || args[2] != "resuming",
		})
	}
	fmt.Println(l.Addr())
	go endWithBench()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go answer(c)
	}
}

func endWithBench() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func answer(c net.Conn) {
	defer closing(c)
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		n := binary.BigEndian.Uint64(head)
		var err error
		switch {
		case n == echoWord:
			_, _ = io.Copy(c, struct{ io.Reader }{c}) // ends with the connection
			return
		case n&takeBit != 0:
			if _, err = io.CopyN(io.Discard, c, int64(n&^uint64(takeBit))); err == nil {
				_, err = c.Write([]byte{1})
			}
		default:
			err = send(c, int64(n))
		}
		if err != nil {
			return
		}
	}
}

var filler = make([]byte, 256<<10)

func send(c io.Writer, n int64) error {
	for n > 0 {
		m, err := c.Write(filler[:min(n, int64(len(filler)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// backend is one that runs.
type backend struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
}

func startBackend(args ...string) (*backend, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &backend{cmd: exec.Command(self, append([]string{"backend"}, args...)...)}
	b.cmd.Stderr = os.Stderr
	stdin, err := b.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	b.stdin = stdin
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	b.addr = strings.TrimSpace(line)
	return b, err
}

func (b *backend) stop() {
	closing(b.stdin)
	_ = b.cmd.Wait()
}
