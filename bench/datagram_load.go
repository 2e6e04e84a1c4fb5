package main

import (
	"bytes"
	"context"

	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/pion/dtls/v3"
	dtlselliptic "github.com/pion/dtls/v3/pkg/crypto/elliptic"
)

// serveDatagrams answers each datagram with itself, in a process of its own.
func serveDatagrams() {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = c.SetReadBuffer(4 << 20) // what it does not get it does without
	fmt.Println(c.LocalAddr())
	go endWithBench()
	p := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(p)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(p[:n], from) // what is lost the client counts
	}
}

// association is a client's, in DTLS or in the clear.
type association struct {
	net.Conn
	socket net.Conn // below it
	buf    []byte
	number byte
}

// sources is how many addresses the clients come from: proxies bound what one
// may have.
const sources = 16

func (b *bench) associate(p *proxy, i int) (*association, error) {
	to, err := net.ResolveUDPAddr("udp4", p.addr)
	if err != nil {
		return nil, err
	}
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%sources))}
	if p.job.pattern == "udp" {
		c, err := net.DialUDP("udp4", from, to)
		if err != nil {
			return nil, err
		}
		return &association{Conn: c, socket: c, buf: make([]byte, 2048)}, nil
	}
	socket, err := net.ListenUDP("udp4", from)
	if err != nil {
		return nil, err
	}
	c, err := dtls.ClientWithOptions(socket, to,
		dtls.WithRootCAs(b.pool), dtls.WithServerName(benchName),
		dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
		// X25519 is what all choose; OpenSSL wants the leaf's curve in the list.
		dtls.WithEllipticCurves(dtlselliptic.X25519, dtlselliptic.P256))
	if err != nil {
		closing(socket)
		return nil, err
	}
	a := &association{Conn: c, socket: socket, buf: make([]byte, 2048)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *association) close() {
	closing(a.Conn)
	closing(a.socket)
}

// bounce sends a datagram until it comes back, and says how many were lost on the
// way.
func (a *association) bounce(size int) (lost int, err error) {
	a.number++
	p := bytes.Repeat([]byte{a.number}, size)
	for ; lost < 5; lost++ {
		if _, err := a.Write(p); err != nil {
			return lost, err
		}
		if err := a.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return lost, err
		}
		for {
			n, err := a.Read(a.buf)
			if err == nil && bytes.Equal(a.buf[:n], p) {
				return lost, nil
			}
			if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
				break
			}
			if err != nil {
				return lost, err
			}
			// An answer to what had been given up.
		}
	}
	return lost, fmt.Errorf("no answer to %d datagrams", lost)
}
