package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// F-26: a connection ends when nothing has moved for timeouts.idle, and after
// timeouts.total whatever moves; both ends are told that it was no proper end.
func TestFaultIdleAndTotal(t *testing.T) {
	s := newSite(t)
	const limit = 2 * time.Second
	for _, row := range []struct {
		name, flag, reason string
		moves              bool
	}{
		{"idle", "--timeouts-idle", "idle_timeout", false},
		{"total", "--timeouts-total", "total_timeout", true},
	} {
		for _, p := range patterns {
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				w := startWay(t, s, p.in, p.out, row.flag, limit.String())
				before := descriptors(t, w.Program)
				client, server := w.pair(t, tls.VersionTLS13)
				swap(t, client, server, []byte("ping"))
				if row.moves {
					for err := error(nil); err == nil; time.Sleep(50 * time.Millisecond) {
						_, err = client.Write([]byte("x"))
					}
					server.close()
				} else {
					server.wantRest(t, "server", nil, wasReset)
					client.wantRest(t, "client", nil, wasReset)
				}
				client.close()
				r := w.record(client)
				wantRecord(t, r, row.reason, "relay")
				wantTimely(t, r.Num("ms"), limit)
				wantDescriptors(t, w.Program, before)
			})
		}
	}
}

// lonely is a network namespace with a server in it that echoes, at an address which
// is not a loopback's.
type lonely struct {
	addr string
	pid  int
}

func newLonely(t *testing.T) *lonely {
	t.Helper()
	const ip = "10.9.9.9"
	addr, process := startAnswererIn(t, func(cmd *exec.Cmd) {
		inside(t, cmd, "unshare", "-rn", "sh", "-c", `ip link set lo up && ip addr add `+ip+`/32 dev lo && exec "$@"`, "sh")
	}, ip+":0")
	return &lonely{addr, process.Pid}
}

// enter has cmd run in the namespace.
func (l *lonely) enter(t *testing.T, cmd *exec.Cmd) {
	inside(t, cmd, "nsenter", "-t", fmt.Sprint(l.pid), "-U", "-n", "--preserve-credentials")
}

// inside has cmd run by another program, which those words begin.
func inside(t *testing.T, cmd *exec.Cmd, words ...string) {
	t.Helper()
	path := cmd.Path
	cmd.Path = tool(t, words[0])
	cmd.Args = append(append(words, path), cmd.Args[1:]...)
}

// drop has all packets from and to the server be lost.
func (l *lonely) drop(t *testing.T) {
	t.Helper()
	_, port, _ := net.SplitHostPort(l.addr)
	cmd := exec.Command("nft", "-f", "-")
	l.enter(t, cmd)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("table inet gone { chain in { type filter hook input priority 0; tcp dport %[1]s drop; tcp sport %[1]s drop; }; }\n", port))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

// F-26: what stands between forgets a connection, or a host is gone, and no packet
// says so. Silence is ended by timeouts.idle, and by keep-alive where that is longer
// (make faults: it takes two minutes).
func TestFaultSilentDrop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	limit, idle, reason := 2*time.Second, "2s", "idle_timeout"
	if inFull() {
		limit, idle, reason = 2*time.Minute, "1h", "server_unreachable"
	}
	ns := newLonely(t)
	path := filepath.Join(t.TempDir(), "s")
	w := &way{site: s, in: true, addr: "unix:" + path}
	args := w.args(ns.addr, "--timeouts-idle", idle)
	args[1] = "tls://unix:" + path
	w.Program = testnet.StartIn(t, func(cmd *exec.Cmd) { promptly(cmd); ns.enter(t, cmd) }, args...)
	client := w.dial(t, tls.VersionTLS13)
	client.bare.SetDeadline(time.Now().Add(limit + testnet.Patience))
	if err := echoed(client, []byte("are you there?")); err != nil {
		t.Fatal(err)
	}
	ns.drop(t)
	if _, how := client.rest(); how != cutOff { // a unix socket knows no reset
		t.Errorf("the client saw %s", how)
	}
	r := w.Flows(1)[0]
	wantRecord(t, r, reason, "relay")
	wantTimely(t, r.Num("ms"), limit)
}

// F-17: transfers under way when SIGTERM comes are finished, also where SIGHUP comes
// while they are.
func TestFaultDrainsTransfers(t *testing.T) {
	const transfers, size = 20, 1 << 20
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			to, _ := startAnswerer(t, s, p.out)
			w := &way{site: s, in: p.in, out: p.out}
			w.Program = start(t, w.args(to)...)
			half := make(chan struct{})
			var begun, all sync.WaitGroup
			for i := range transfers {
				c := newPourer(t, w, uint64(i))
				begun.Add(1)
				all.Go(func() {
					what := bytesOf(uint64(i), size)
					var sending sync.WaitGroup
					sending.Go(func() {
						io.Copy(c, strings.NewReader(string(what[:size/2])))
						begun.Done()
						<-half
						io.Copy(c, strings.NewReader(string(what[size/2:])))
						c.finish()
					})
					c.wantRest(t, "client", what, finished)
					sending.Wait()
				})
			}
			begun.Wait()
			w.Signal(syscall.SIGTERM)
			w.WaitLog("ending: no new connections")
			wantClosed(t, w)
			w.Signal(syscall.SIGHUP)
			close(half)
			all.Wait()
			if code := w.Wait(); code != 0 {
				t.Errorf("the exit code is %d", code)
			}
			for _, r := range w.Flows(transfers) {
				wantRecord(t, r, "ok", "")
			}
		})
	}
}

// starve lets a process run for a fifth of the time, as a CPU quota of 20 % does, in
// periods of the kernel's own length (CONFIG_CFS_BANDWIDTH: 100 ms).
func starve(t testing.TB, p *testnet.Program) (feed func()) {
	t.Helper()
	process, err := os.FindProcess(p.Pid())
	if err != nil {
		t.Fatal(err)
	}
	enough := make(chan struct{})
	var starving sync.WaitGroup
	starving.Go(func() {
		for {
			process.Signal(syscall.SIGSTOP)
			time.Sleep(80 * time.Millisecond)
			process.Signal(syscall.SIGCONT)
			select {
			case <-enough:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	feed = sync.OnceFunc(func() { close(enough); starving.Wait() })
	t.Cleanup(feed)
	return feed
}

// F-29: with a fifth of a CPU's time clients wait longer and are served all the same:
// no timeout comes before its time. Where more come than there is CPU for, those that
// have waited longest are shed.
func TestFaultCPUStarved(t *testing.T) {
	t.Parallel()
	lasts := pick(2*time.Second, 30*time.Second)
	s := newSite(t)
	w := &way{site: s, in: true}
	w.Program = testnet.StartIn(t, testnet.ForUse(t), w.args(echoAddr(t), "--limits-handshakes", "50", "--timeouts-peek", "15s", "--timeouts-handshake", "15s")...)
	long := startPumps(t, 10, w.Addr(""), s.clientConfig(tls.VersionTLS13))
	feed := starve(t, w.Program)
	good := startProber(t, w.Addr(""), s.clientConfig(tls.VersionTLS13))
	time.Sleep(lasts) // the fault's own time
	good.wantAll(t)
	long.goOn(t)

	// Hellos that go no further take all places that there are.
	hello := recorded(t, s.clientConfig(tls.VersionTLS13))
	for range 200 {
		c := from(t, "127.0.0.66", w.Addr(""))
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
	}
	limited(t, w.Program, "handshakes")
	w.Reason("handshake_shed")
	if err := probeOnce(w.Addr(""), s.clientConfig(tls.VersionTLS13)); err != nil {
		t.Errorf("while the flood is on: %v", err)
	}
	long.goOn(t)
	long.end()
	feed()
	if log := w.Stderr(); strings.Contains(log, "_timeout") {
		t.Error("a timeout came before its time")
	}
}
