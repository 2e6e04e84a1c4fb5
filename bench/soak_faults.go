package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The faults of doc/faults.md that a soak brings about at random, while the load
// goes on: a server's process that is stopped, certificates that rotate, a file that
// changes. Servers that refuse, do not answer or say nothing are there all the time.
const (
	faultEvery = 3 * time.Second // at most from one to the next
	stopLasts  = 2 * time.Second // less than a handshake with the server may take
	badTimeout = "1s"            // of connections to bad servers
)

// ground is what a soak runs on: a file with a listener for each kind of work.
type ground struct {
	b                          *bench
	file, cert                 string
	bridge, dtls               string   // addresses of listeners
	bad                        []string // those to servers that do not serve
	stopped                    *backend // that of bridge
	badServers                 []string
	sockets                    []int // that make bad servers
	silent                     net.Listener
	stops, rotations, reloaded atomic.Int64
}

// prepareGround makes the servers and the certificate; the file is written when the
// program's own address is known.
func (b *bench) prepareGround() (g *ground, err error) {
	g = &ground{b: b, file: filepath.Join(b.dir, "soak.yaml"), cert: filepath.Join(b.dir, "soak.pem")}
	if err := g.rotate(); err != nil {
		return nil, err
	}
	for _, a := range []struct {
		addr      *string
		datagrams bool
	}{{&g.bridge, false}, {&g.dtls, true}} {
		if *a.addr, err = freeAddr(a.datagrams); err != nil {
			return nil, err
		}
	}
	g.stopped = b.secure
	refuses, err := g.refusing()
	if err != nil {
		return nil, err
	}
	hole, err := g.blackHole()
	if err != nil {
		return nil, err
	}
	if g.silent, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go holdAll(g.silent)
	g.badServers = []string{"tcp://" + refuses, "tcp://" + hole, "tls://" + g.silent.Addr().String()}
	for range g.badServers {
		addr, err := freeAddr(false)
		if err != nil {
			return nil, err
		}
		g.bad = append(g.bad, addr)
	}
	return g, nil
}

func (g *ground) close() {
	for _, fd := range g.sockets {
		_ = unix.Close(fd) // they hold nothing
	}
	closing(g.silent)
}

// holdAll takes connections and says nothing until they end.
func holdAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, c) // ends with the connection
			closing(c)
		}()
	}
}

func (g *ground) socket(flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err == nil {
		g.sockets = append(g.sockets, fd)
	}
	return fd, err
}

// refusing is an address that is taken, and at which nobody listens.
func (g *ground) refusing() (string, error) {
	_, addr, err := g.bound()
	return addr.String(), err
}

func (g *ground) bound() (fd int, addr *net.TCPAddr, err error) {
	if fd, err = g.socket(0); err != nil {
		return 0, nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, err
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return 0, nil, err
	}
	in := local.(*unix.SockaddrInet4)
	return fd, &net.TCPAddr{IP: in.Addr[:], Port: in.Port}, nil
}

// blackHole is an address that answers no SYN: its queue of connections that wait to
// be accepted is full, and those left over take any room that comes free.
func (g *ground) blackHole() (string, error) {
	fd, addr, err := g.bound()
	if err != nil {
		return "", err
	}
	if err := unix.Listen(fd, 0); err != nil {
		return "", err
	}
	to := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	for range 4 {
		c, err := g.socket(unix.SOCK_NONBLOCK)
		if err != nil {
			return "", err
		}
		if err := unix.Connect(c, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return "", err
		}
	}
	return addr.String(), nil
}

// peer runs sallyport with the file.
func (g *ground) peer() peer {
	return peer{"sallyport", func(b *bench, _ string, j job) ([]string, error) {
		return []string{b.sallyport, "run", "-c", g.file}, g.write(j.listen)
	}, syscall.SIGHUP}
}

// write makes the file anew; each time the timeout of its linger is another one.
func (g *ground) write(listen string) error {
	text := fmt.Sprintf(`log: {level: error}
defaults:
  cert: %[1]s
  timeouts: {linger: %[2]ds}
listeners:
  - {name: offload, from: "tls://%[3]s", to: "tcp://%[4]s"}
  - {name: bridge, from: "tls://%[5]s", alpn: [x], to: {addr: "tls://%[6]s", ca: %[7]s, name: %[8]s}}
  - {name: dtls, from: "dtls://%[9]s", to: "udp://%[10]s"}
`, g.cert, 30+g.reloaded.Load()%10, listen, g.b.plain.addr, g.bridge, g.stopped.addr, g.b.caFile, benchName, g.dtls, g.b.datagrams.addr)
	for i, to := range g.badServers {
		trust := ""
		if to[:3] == "tls" {
			trust = fmt.Sprintf(", ca: %s, name: %s", g.b.caFile, benchName)
		}
		text += fmt.Sprintf("  - {name: bad-%d, from: \"tls://%s\", alpn: [x], to: {addr: %q%s}, timeouts: {dial: %s, handshake: %[5]s}}\n", i, g.bad[i], to, trust, badTimeout)
	}
	return replace(g.file, []byte(text))
}

// replace puts a file in another's place at once.
func replace(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// rotate puts another certificate where the one in use is.
func (g *ground) rotate() error {
	l, err := g.b.authority.Leaf([]string{benchName})
	if err != nil {
		return err
	}
	return replace(g.cert, append(l.CertPEM(), l.KeyPEM()...))
}

// stop stops the process of a server for a while.
func (g *ground) stop() error {
	process := g.stopped.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(stopLasts)
	return process.Signal(syscall.SIGCONT)
}

// faults has one of them after the other, until ctx ends.
func (g *ground) faults(ctx context.Context, p *proxy) error {
	kinds := []struct {
		count *atomic.Int64
		bring func() error
	}{
		{&g.stops, g.stop},
		{&g.rotations, g.rotate}, // the program watches
		{&g.reloaded, func() error {
			return errors.Join(g.write(p.addr), p.cmd.Process.Signal(p.peer.reload))
		}},
	}
	for {
		which, err := pickOf(len(kinds))
		wait, werr := pickOf(int(faultEvery / time.Millisecond))
		if err := errors.Join(err, werr); err != nil {
			return err
		}
		select {
		case <-time.After(time.Duration(wait) * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
		if err := kinds[which].bring(); err != nil {
			return err
		}
		kinds[which].count.Add(1)
	}
}

// pickOf is a number below n, by chance.
func pickOf(n int) (int, error) {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		return 0, err
	}
	return int(i.Int64()), nil
}
