package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// Ten thousand connections come, say something and go, through one program that
// begins TLS and one that ends it; then both are as they were after two thousand.
func TestLeak(t *testing.T) {
	const warm, all, workers = 2000, 10_000, 64
	const mayGrow = 16 << 10 // kB
	s, fast := newSite(t), testnet.ForUse(t)
	far := &way{site: s, in: true}
	far.Program = testnet.StartIn(t, fast, far.args(serving(t, echo), "--tls-groups", "X25519")...)
	near := &way{site: s, out: true}
	// Resumption is cheapest in TLS 1.2, and this is not about key exchange.
	near.Program = testnet.StartIn(t, fast, near.args(far.Addr(""), "--to-tls-max", "1.2")...)
	visit := func(n int) {
		var next atomic.Int64
		var running sync.WaitGroup
		for range workers {
			running.Go(func() {
				for next.Add(1) <= int64(n) && !t.Failed() {
					if err := near.visit(tls.VersionTLS13); err != nil {
						t.Error(err)
					}
				}
			})
		}
		running.Wait()
	}
	type state struct{ files, rss, threads int }
	both := []*way{near, far}
	look := func() (now [2]state) {
		for i, w := range both {
			now[i] = state{descriptors(t, w.Program), status(t, w.Program, "VmRSS"), status(t, w.Program, "Threads")}
		}
		return now
	}
	before := look()
	visit(warm)
	early := look()
	visit(all - warm)
	late := look()
	for i, w := range both {
		wantDescriptors(t, w.Program, before[i].files)
		t.Logf("%+v after %d connections, %+v after %d", late[i], all, early[i], warm)
		if late[i].rss > early[i].rss+mayGrow || late[i].threads > early[i].threads+8 {
			t.Error("it has grown")
		}
		wantPromptEnd(t, w.Program)
	}
}

// visit has one line echoed.
func (w *way) visit(version uint16) error {
	c, err := net.DialTimeout("tcp", w.Addr(""), bound)
	if err != nil {
		return err
	}
	client := w.near(c, version)
	defer client.close()
	if err := client.handshake(); err != nil {
		return fmt.Errorf("the handshake: %w", err)
	}
	line := "are you there?\n"
	if _, err := io.WriteString(client, line); err != nil {
		return err
	}
	if err := client.finish(); err != nil {
		return err
	}
	if got, how := client.rest(); string(got) != line || how != finished {
		return fmt.Errorf("got %q, then %s", got, how)
	}
	return nil
}

// wantPromptEnd fails where SIGTERM does not end p within a second.
func wantPromptEnd(t *testing.T, p *testnet.Program) {
	t.Helper()
	began := time.Now()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to end", took)
	}
}

func TestFaultTerminatedWithNothingOpen(t *testing.T) {
	w := &way{site: newSite(t), in: true}
	w.Program = start(t, w.args(serving(t, echo))...)
	if err := w.visit(tls.VersionTLS13); err != nil {
		t.Fatal(err)
	}
	w.Flows(1)
	wantPromptEnd(t, w.Program)
}

// SIGTERM takes no new connections and lets the open ones finish, for as long as
// timeouts.drain says or until it comes again.
func TestFaultTerminatedWithAFlowOpen(t *testing.T) {
	s := newSite(t)
	for _, row := range []struct {
		name          string
		flags         []string
		play          func(t *testing.T, w *way, client, server *peer)
		ending        string // that the server sees
		reason, stage string
		took          time.Duration // from the signal; 0 is at once
	}{
		{"it finishes", nil, func(t *testing.T, w *way, client, server *peer) {
			swap(t, client, server, bytesOf(1, 100_000))
			swap(t, server, client, bytesOf(2, 100_000))
			server.finish()
			client.finish()
		}, finished, "ok", "", 0},
		{"it does not", []string{"--timeouts-drain", "2s"}, func(*testing.T, *way, *peer, *peer) {}, wasReset, "drained", "relay", 2 * time.Second},
		{"the signal comes again", nil, func(t *testing.T, w *way, client, server *peer) {
			w.Signal(syscall.SIGTERM)
		}, wasReset, "drained", "relay", 0},
	} {
		for _, p := range patterns {
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				w := startWay(t, s, p.in, p.out, row.flags...)
				client, server := w.pair(t, tls.VersionTLS13)
				swap(t, client, server, []byte("ping"))
				began := time.Now()
				w.Signal(syscall.SIGTERM)
				w.WaitLog("ending: no new connections")
				wantClosed(t, w)
				row.play(t, w, client, server)
				client.wantRest(t, "client", nil, row.ending)
				server.wantRest(t, "server", nil, row.ending)
				if code := w.Wait(); code != 0 {
					t.Errorf("the exit code is %d", code)
				}
				wantTook(t, time.Since(began), row.took)
				if took := time.Since(began); row.took == 0 && took > time.Second {
					t.Errorf("it took %v to end", took)
				}
				wantRecord(t, w.record(client), row.reason, row.stage)
			})
		}
	}
}

// wantClosed waits until nobody listens: the log says so a moment before. To dial
// would make a flow if that moment were met, so the address is taken instead.
func wantClosed(t *testing.T, w *way) {
	t.Helper()
	eventually(t, "the listener to close", func() bool {
		l, err := net.Listen("tcp", w.Addr(""))
		if err == nil {
			l.Close()
		}
		return err == nil
	})
}
