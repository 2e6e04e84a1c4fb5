package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// slicer passes connections on to addr in segments of one byte.
func slicer(t testing.TB, addr string) string {
	t.Helper()
	l := listen(t)
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	slice := func(to, from *net.TCPConn) {
		var b [4 << 10]byte
		for {
			n, err := from.Read(b[:])
			for i := range n {
				if _, err := to.Write(b[i : i+1]); err != nil {
					return
				}
			}
			if err != nil {
				to.CloseWrite()
				return
			}
		}
	}
	running.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(bound))
				far, err := net.DialTimeout("tcp", addr, bound)
				if err != nil {
					return
				}
				defer far.Close()
				far.SetDeadline(time.Now().Add(bound))
				// Segments are not joined: package net sets TCP_NODELAY.
				var both sync.WaitGroup
				both.Go(func() { slice(far.(*net.TCPConn), c) })
				both.Go(func() { slice(c, far.(*net.TCPConn)) })
				both.Wait()
			})
		}
	})
	return l.Addr().String()
}

// F-02: what comes in segments of one byte arrives whole.
func TestFaultOneByteSegments(t *testing.T) {
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := &way{site: s, in: p.in, out: p.out, server: listen(t)}
			w.Program = start(t, w.args(slicer(t, w.server.Addr().String()))...)
			w.addr = slicer(t, w.Addr(""))
			for _, version := range bothVersions {
				client, server := w.pair(t, version)
				up, down := bytesOf(1, 6000), bytesOf(2, 7000)
				go func() { client.Write(up); client.finish() }()
				go func() { server.Write(down); server.finish() }()
				var both sync.WaitGroup
				both.Go(func() { server.wantRest(t, "server", up, finished) })
				both.Go(func() { client.wantRest(t, "client", down, finished) })
				both.Wait()
				wantRecord(t, w.Flow("of these sizes", func(r testnet.Record) bool { return r.Num("up") == 6000 && r.Num("down") == 7000 }), "ok", "")
			}
		})
	}
}

// told makes a handshake, reads to the end, and gives how that was.
func (p *peer) told() string {
	if err := p.handshake(); err != nil {
		return p.ending(err)
	}
	_, how := p.rest()
	return how
}

// boundPort is an address that refuses connections for as long as the test runs.
func boundPort(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	a := local.(*syscall.SockaddrInet4)
	return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String()
}

// serving has each connection to a new server played by f, whose errors nobody asks for.
func serving(t testing.TB, f func(c *net.TCPConn)) string {
	t.Helper()
	l := listen(t)
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(bound))
				f(c)
			})
		}
	})
	return l.Addr().String()
}

func echo(c *net.TCPConn) { io.Copy(c, struct{ io.Reader }{c}); c.CloseWrite() }

// F-05: a server that cannot be reached, or speaks no TLS. A client that has its
// TLS already, or speaks none, is told by a reset; one whose handshake waits for
// the server by an alert.
func TestFaultServers(t *testing.T) {
	s := newSite(t)
	silent := func(c *net.TCPConn) { io.Copy(io.Discard, c) }
	rubbish := func(c *net.TCPConn) { io.WriteString(c, "220 mail.test ESMTP\r\n"); io.Copy(io.Discard, c) }
	leaves := func(c *net.TCPConn) { io.ReadFull(c, make([]byte, recordHead)) }
	for _, row := range []struct {
		name          string
		to            func(testing.TB) string
		flags         []string
		reason, stage string
		took          time.Duration // 0 is at once
		onlyTLS       bool          // the server must be one that should speak TLS
	}{
		{"refuses", boundPort, nil, "dial_refused", "dial", 0, false},
		{"no such name", func(testing.TB) string { return "nowhere.invalid:443" }, nil, "name_not_resolved", "dial", 0, false},
		{"silent", func(t testing.TB) string { return serving(t, silent) }, []string{"--timeouts-handshake", "2s"}, "server_handshake_timeout", "outbound", 2 * time.Second, true},
		{"rubbish", func(t testing.TB) string { return serving(t, rubbish) }, nil, "server_not_tls", "outbound", 0, true},
		{"leaves", func(t testing.TB) string { return serving(t, leaves) }, nil, "server_gone", "outbound", 0, true},
	} {
		for _, p := range patterns {
			if row.onlyTLS && !p.out {
				continue
			}
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				w := &way{site: s, in: p.in, out: p.out}
				w.Program = start(t, w.args(row.to(t), row.flags...)...)
				before := descriptors(t, w.Program)
				began := time.Now()
				want := wasReset
				if p.in && p.out {
					want = "alert 80"
				}
				// A client that speaks no TLS can be told before connect(2) returns.
				c, err := net.DialTimeout("tcp", w.Addr(""), bound)
				how := (&peer{}).ending(err)
				if err == nil {
					client := w.near(c, tls.VersionTLS13)
					how = client.told()
					if want == "alert 80" {
						client.wantNothingMore(t)
					}
					client.close()
				}
				if how != want {
					t.Errorf("the client saw %s, want %s", how, want)
				}
				wantTook(t, time.Since(began), row.took)
				wantRecord(t, w.Flows(1)[0], row.reason, row.stage)
				wantDescriptors(t, w.Program, before)
			})
		}
	}
}

// wantTook holds a time against a timeout, give or take a tenth; 0 is no timeout.
func wantTook(t testing.TB, took, want time.Duration) {
	t.Helper()
	if want > 0 && (took < want-want/10 || took > want+want/10) {
		t.Errorf("it took %v, want %v give or take a tenth", took, want)
	}
}

// F-05, the black hole: in a network namespace of its own the program's SYNs are
// dropped. Its listeners are unix sockets, which stand outside of namespaces.
func TestFaultBlackHole(t *testing.T) {
	s := newSite(t)
	const port = "9"
	rules := `ip link set lo up && nft -f - <<E && exec "$@"
table inet hole { chain in { type filter hook input priority 0; tcp dport ` + port + ` drop; }; }
E`
	inHole := func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Args = append([]string{"unshare", "-rn", "sh", "-c", rules, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.Err = exec.LookPath("unshare")
	}
	trial := exec.Command("true")
	if inHole(trial); trial.Err != nil {
		t.Fatal(trial.Err)
	}
	if out, err := trial.CombinedOutput(); err != nil {
		t.Fatalf("no network namespace to be had here: %v: %s", err, out)
	}
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "s")
			w := &way{site: s, in: p.in, out: p.out}
			args := w.args("127.0.0.1:"+port, "--timeouts-dial", "2s")
			args[1] = carrier(w.in) + "unix:" + path
			w.Program = testnet.StartIn(t, inHole, args...)
			w.addr = "unix:" + path
			before := descriptors(t, w.Program)
			began := time.Now()
			client := w.dial(t, tls.VersionTLS13)
			// A unix socket knows no reset.
			want := map[string]string{"offload": cutOff, "encrypt": finished, "bridge": "alert 80"}[p.name]
			if how := client.told(); how != want {
				t.Errorf("the client saw %s, want %s", how, want)
			}
			wantTook(t, time.Since(began), 2*time.Second)
			client.close()
			wantRecord(t, w.Flows(1)[0], "dial_timeout", "dial")
			wantDescriptors(t, w.Program, before)
		})
	}
}

// F-25: the states in which a client resets. Each play gives the server's end
// where there is one by then, and what it sends while the reset comes.
var clientResets = []struct {
	name          string
	play          func(t *testing.T, w *way) (client, server *peer)
	stream        bool // the server sends all the while
	reason, stage string
}{
	{"before the hello", func(t *testing.T, w *way) (*peer, *peer) {
		return plainPeer(dial(t, w.Addr(""))), nil
	}, false, "client_gone", "peek"},

	{"within the hello", func(t *testing.T, w *way) (*peer, *peer) {
		c := plainPeer(dial(t, w.Addr("")))
		c.Write(recorded(t, w.clientConfig(tls.VersionTLS13))[:100])
		return c, nil
	}, false, "client_gone", "peek"},

	{"within the handshake", func(t *testing.T, w *way) (*peer, *peer) {
		c := plainPeer(dial(t, w.Addr("")))
		c.Write(recorded(t, w.clientConfig(tls.VersionTLS13)))
		var server *peer
		if w.out {
			var err error
			if server, err = w.accept(tls.VersionTLS13); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(c, make([]byte, recordHead)); err != nil {
			t.Fatal(err)
		}
		return c, server
	}, false, "client_gone", "inbound"},

	{"after the handshake", func(t *testing.T, w *way) (*peer, *peer) {
		return w.pair(t, tls.VersionTLS13)
	}, false, "client_reset", "relay"},

	{"within an upload", func(t *testing.T, w *way) (*peer, *peer) {
		client, server := w.pair(t, tls.VersionTLS13)
		swap(t, client, server, bytesOf(1, 100_000))
		client.Write(bytesOf(2, 5000))
		return client, server
	}, false, "client_reset", "relay"},

	{"within a download", func(t *testing.T, w *way) (*peer, *peer) {
		client, server := w.pair(t, tls.VersionTLS13)
		swap(t, server, client, bytesOf(1, 100_000))
		return client, server
	}, true, "client_reset", "relay"},

	{"after its end, the server sending", func(t *testing.T, w *way) (*peer, *peer) {
		client, server := w.pair(t, tls.VersionTLS13)
		client.finish()
		server.wantRest(t, "server", nil, finished)
		return client, server
	}, true, "client_reset", "relay"},
}

func TestFaultClientResets(t *testing.T) {
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := startWay(t, s, p.in, p.out)
			before, threads := descriptors(t, w.Program), status(t, w.Program, "Threads")
			for _, row := range clientResets {
				if row.stage != "relay" && !p.in {
					continue
				}
				t.Run(row.name, func(t *testing.T) {
					client, server := row.play(t, w)
					began := time.Now()
					client.reset()
					if server != nil {
						how := ""
						if row.stream {
							how = server.stream()
						} else {
							_, how = server.rest()
						}
						if row.stage == "relay" && how != wasReset {
							t.Errorf("the server saw %s", how)
						}
						if took := time.Since(began); took > time.Second {
							t.Errorf("the server was told after %v", took)
						}
						server.close()
					}
					wantRecord(t, w.record(client), row.reason, row.stage)
					wantDescriptors(t, w.Program, before)
				})
			}
			// The runtime keeps threads once made, but not one a connection.
			if now := status(t, w.Program, "Threads"); now > threads+8 {
				t.Errorf("%d threads, %d were", now, threads)
			}
		})
	}
}

// One end has finished and the other says nothing: both are told when
// timeouts.linger has passed, and that it was no proper end.
func TestFaultSilenceAfterAnEnd(t *testing.T) {
	s := newSite(t)
	for _, p := range patterns {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/client first %t", p.name, clientFirst), func(t *testing.T) {
				t.Parallel()
				w := startWay(t, s, p.in, p.out, "--timeouts-linger", "2s")
				before := descriptors(t, w.Program)
				client, server := w.pair(t, tls.VersionTLS13)
				first, second := server, client
				if clientFirst {
					first, second = client, server
				}
				began := time.Now()
				first.finish()
				second.wantRest(t, "second", nil, finished)
				first.wantRest(t, "first", nil, wasReset)
				wantTook(t, time.Since(began), 2*time.Second)
				wantRecord(t, w.record(client), "linger_timeout", "relay")
				client.close()
				server.close()
				wantDescriptors(t, w.Program, before)
			})
		}
	}
}

// A reset while bytes move the other way: the write that meets it takes the error
// from the socket, and what reads from there must not mistake it for an end.
func TestFaultResetsAreNoEnds(t *testing.T) {
	const rounds = 30
	s := newSite(t)
	for _, p := range append(patterns[:len(patterns):len(patterns)], struct {
		name    string
		in, out bool
	}{"plain", false, false}) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := startWay(t, s, p.in, p.out)
			for n := range rounds {
				client, server := w.pair(t, bothVersions[n%2])
				breaks, other, reason := client, server, "client_reset"
				if n/2%2 == 1 {
					breaks, other, reason = server, client, "server_reset"
				}
				var writing sync.WaitGroup
				writing.Go(func() { other.stream() })
				io.CopyN(io.Discard, breaks, int64(n)*10_000)
				breaks.reset()
				// The other end too may be told of the reset in its write alone,
				// and then a plain one cannot know.
				if _, how := other.rest(); how == finished && other.sock != nil {
					t.Errorf("round %d: the other end saw %s", n, how)
				}
				other.close()
				writing.Wait()
				wantRecord(t, w.record(client), reason, "relay")
			}
		})
	}
}

// stream writes until it cannot, and says how that was.
func (p *peer) stream() string {
	for {
		if _, err := p.Write(make([]byte, 32<<10)); err != nil {
			return p.ending(err)
		}
	}
}
