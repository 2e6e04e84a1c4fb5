package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// blackHole is an address that answers no SYN for as long as the test runs: its queue
// of connections that wait to be accepted is full, and so the kernel drops more.
func blackHole(t testing.TB) string {
	t.Helper()
	addr := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	socket := func(flags int) int {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		return fd
	}
	fd := socket(0)
	if err := syscall.Bind(fd, addr); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = local.(*syscall.SockaddrInet4)
	// More than there is room for: those left over take any room that comes free.
	for range 4 {
		if err := syscall.Connect(socket(syscall.SOCK_NONBLOCK), addr); err != nil && err != syscall.EINPROGRESS {
			t.Fatal(err)
		}
	}
	return (&net.TCPAddr{IP: addr.Addr[:], Port: addr.Port}).String()
}

// F-05, with several servers: where all of them are bad a client is told within the
// time to connect, and why; where one is good it is served; and nothing is left.
func TestFaultPools(t *testing.T) {
	s := newSite(t)
	silent := func(t testing.TB) string { return serving(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) }) }
	const dial, handshake = 2 * time.Second, time.Second
	for _, row := range []struct {
		name          string
		to            []func(testing.TB) string
		reason, stage string
		took          time.Duration // 0 is no longer than it takes to connect
	}{
		{"all refuse", []func(testing.TB) string{boundPort, boundPort}, "no_server_up", "dial", 0},
		{"black holes", []func(testing.TB) string{blackHole, blackHole}, "no_server_up", "dial", dial},
		{"a black hole, and one refuses", []func(testing.TB) string{blackHole, boundPort}, "no_server_up", "dial", 0},
		{"all silent", []func(testing.TB) string{silent, silent}, "server_handshake_timeout", "outbound", 2 * handshake}, // one after the other
		{"one is good", []func(testing.TB) string{boundPort, blackHole, s.tlsEcho}, "ok", "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			sock := filepath.Join(t.TempDir(), "m.sock")
			args := []string{"proxy", "tls://127.0.0.1:0"}
			for _, f := range row.to {
				args = append(args, "tls://"+f(t))
			}
			p := start(t, append(args, "--cert", s.cert, "--key", s.key, "--to-ca", s.anchors, "--to-name", "a.test", "--to-retry", "2",
				"--timeouts-dial", dial.String(), "--timeouts-handshake", handshake.String(), "--metrics", "unix:"+sock)...)
			goroutines := func() float64 {
				_, page := curl(t, "--unix-socket", sock, "http://x/metrics")
				return metric(t, page, "go_goroutines")
			}
			files, before := descriptors(t, p), goroutines()
			const clients = 3
			for range clients {
				err := probeOnce(p.Addr(""), s.clientConfig(tls.VersionTLS13))
				if (err == nil) != (row.reason == "ok") {
					t.Errorf("the client saw %v", err)
				}
			}
			for _, r := range p.Flows(clients) {
				wantRecord(t, r, row.reason, row.stage)
				if row.took > 0 {
					wantTimely(t, r.Num("ms"), row.took)
				}
				if most := dial + dial/10 + pick(5*time.Second, 0); r.Num("dial_ms") > float64(most/time.Millisecond) {
					t.Errorf("the client was told after %v ms", r.Num("dial_ms"))
				}
			}
			wantDescriptors(t, p, files+len(row.to)) // each is checked, now that it is known to be down
			eventually(t, fmt.Sprintf("%v goroutines, or two more", before), func() bool { return goroutines() <= before+2 })
		})
	}
}
