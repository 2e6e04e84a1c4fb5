package main

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const tail = 100_000

// The seven ways in which a flow moves and ends. Each plays both ends of a flow
// that has passed four bytes each way already.
var linear = []struct {
	name          string
	needs         string // "in" or "out" where that side must be TLS
	play          func(t *testing.T, client, server *peer)
	reason, stage string
	up, down      int // bytes besides the first; -1 is not asked
}{
	{"L1 download", "", func(t *testing.T, client, server *peer) {
		big := bytesOf(1, 8<<20)
		go func() { server.Write(big); server.finish() }()
		client.wantRest(t, "client", big, finished)
		client.finish()
		server.wantRest(t, "server", nil, finished)
	}, "ok", "", 0, 8 << 20},

	{"L1 upload", "", func(t *testing.T, client, server *peer) {
		big := bytesOf(2, 8<<20)
		go func() { client.Write(big); client.finish() }()
		server.wantRest(t, "server", big, finished)
		server.finish()
		client.wantRest(t, "client", nil, finished)
	}, "ok", "", 8 << 20, 0},

	{"L2 client ends first, then a tail from the server", "", func(t *testing.T, client, server *peer) {
		client.finish()
		server.wantRest(t, "server", nil, finished)
		last := bytesOf(3, tail)
		go func() { server.Write(last); server.finish() }()
		client.wantRest(t, "client", last, finished)
	}, "ok", "", 0, tail},

	{"L3 server ends first, then an upload from the client", "", func(t *testing.T, client, server *peer) {
		server.finish()
		client.wantRest(t, "client", nil, finished)
		last := bytesOf(4, tail)
		go func() { client.Write(last); client.finish() }()
		server.wantRest(t, "server", last, finished)
	}, "ok", "", tail, 0},

	{"L4 client cut off", "in", func(t *testing.T, client, server *peer) {
		swap(t, client, server, bytesOf(5, 1000))
		client.fin()
		server.wantRest(t, "server", nil, wasReset)
	}, "client_truncated", "relay", 1000, 0},

	{"L4 server cut off", "out", func(t *testing.T, client, server *peer) {
		swap(t, server, client, bytesOf(6, 1000))
		server.fin()
		client.wantRest(t, "client", nil, wasReset)
	}, "server_truncated", "relay", 0, 1000},

	{"L5 client resets", "", func(t *testing.T, client, server *peer) {
		client.reset()
		server.wantRest(t, "server", nil, wasReset)
	}, "client_reset", "relay", 0, 0},

	{"L6 server resets after a part", "", func(t *testing.T, client, server *peer) {
		swap(t, server, client, bytesOf(7, 50_000))
		server.reset()
		client.wantRest(t, "client", nil, wasReset)
	}, "server_reset", "relay", 0, 50_000},

	{"L6 server resets while it sends", "", func(t *testing.T, client, server *peer) {
		go func() { server.Write(bytesOf(8, 1<<20)); server.reset() }()
		if _, how := client.rest(); how != wasReset {
			t.Errorf("the client saw %s, want %s", how, wasReset)
		}
	}, "server_reset", "relay", 0, -1},

	{"L7 server ends", "", func(t *testing.T, client, server *peer) {
		server.finish()
		client.wantRest(t, "client", nil, finished)
		client.finish()
		server.wantRest(t, "server", nil, finished)
	}, "ok", "", 0, 0},
}

func TestLinearPath(t *testing.T) {
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := startWay(t, s, p.in, p.out)
			for _, version := range bothVersions {
				for _, row := range linear {
					if row.needs == "in" && !p.in || row.needs == "out" && !p.out {
						continue
					}
					t.Run(tls.VersionName(version)+"/"+row.name, func(t *testing.T) {
						client, server := w.pair(t, version)
						swap(t, client, server, []byte("ping"))
						swap(t, server, client, []byte("pong"))
						row.play(t, client, server)
						r := w.record(client)
						wantRecord(t, r, row.reason, row.stage)
						wantBytes(t, "up", r.Num("up"), row.up)
						wantBytes(t, "down", r.Num("down"), row.down)
						if r.Text("pattern") != p.name {
							t.Errorf("the pattern is %q", r.Text("pattern"))
						}
						if p.in && r.Text("in_version") != tls.VersionName(version) || p.out && r.Text("out_version") != tls.VersionName(version) {
							t.Errorf("in_version %q, out_version %q", r.Text("in_version"), r.Text("out_version"))
						}
					})
				}
			}
		})
	}
}

// wantBytes holds a count against what came after the first four bytes.
func wantBytes(t *testing.T, way string, got float64, want int) {
	t.Helper()
	if want >= 0 && int(got) != want+4 {
		t.Errorf("%s is %.0f, want %d", way, got, want+4)
	}
}

func TestLinearUnsafeTruncation(t *testing.T) {
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := startWay(t, s, p.in, p.out, "--unsafe-truncation")
			for _, version := range bothVersions {
				for _, clientFirst := range []bool{true, false} {
					client, server := w.pair(t, version)
					swap(t, client, server, []byte("ping"))
					first, second := server, client
					if clientFirst {
						first, second = client, server
					}
					first.fin()
					second.wantRest(t, "second", nil, finished)
					second.fin()
					first.wantRest(t, "first", nil, finished)
					wantRecord(t, w.record(client), "ok", "")
				}
			}
		})
	}
}

// A half-close of one end in a thousand flows whose ends write and finish in any
// order: nothing is lost and nothing hangs.
func TestLinearHalfCloses(t *testing.T) {
	const each, workers = 334, 8
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	s := newSite(t)
	for _, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			h := &halfCloses{way: startWay(t, s, p.in, p.out), seed: seed}
			var serving, clients sync.WaitGroup
			serving.Go(func() {
				for n := 0; n < each && !t.Failed(); n++ {
					c, err := accept(h.server)
					if err != nil {
						h.check(t, err)
						return
					}
					serving.Go(func() { h.check(t, h.serve(c, bothVersions[n/2%2])) })
				}
			})
			for range workers {
				clients.Go(func() {
					for n := h.next.Add(1); n <= each && !t.Failed(); n = h.next.Add(1) {
						h.check(t, h.ask(t, uint64(n)))
					}
				})
			}
			clients.Wait()
			if t.Failed() {
				h.server.Close()
			}
			if serving.Wait(); t.Failed() {
				return
			}
			for _, r := range h.Flows(each) {
				if r.Text("reason") != "ok" {
					t.Errorf("a flow ended otherwise: %v", r)
				}
			}
		})
	}
}

type halfCloses struct {
	*way
	seed uint64
	next atomic.Int64
}

func (h *halfCloses) check(t *testing.T, err error) {
	if err != nil && !t.Failed() {
		t.Error(err)
	}
}

var bothVersions = [2]uint16{tls.VersionTLS12, tls.VersionTLS13}

// plan is one flow's, made alike by both ends: what each one sends, and who
// waits for the other's end before it sends.
type plan struct {
	seed   uint64
	sizes  [2]int
	waits  [2]bool
	chunks [2]*rand.Rand
}

func (h *halfCloses) plan(n uint64) *plan {
	r := rand.New(rand.NewPCG(h.seed, n))
	p := &plan{seed: r.Uint64() >> 32, sizes: [2]int{r.IntN(48 << 10), r.IntN(48 << 10)}}
	if first := r.IntN(3); first < 2 {
		p.waits[first] = true
	}
	for i := range p.chunks {
		p.chunks[i] = rand.New(rand.NewPCG(r.Uint64(), n))
	}
	return p
}

func (h *halfCloses) ask(t *testing.T, n uint64) error {
	client := h.dial(t, bothVersions[n%2])
	defer client.close()
	if err := client.handshake(); err != nil {
		return fmt.Errorf("flow %d: the client's handshake: %w", n, err)
	}
	if _, err := client.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
		return fmt.Errorf("flow %d: %w", n, err)
	}
	return h.plan(n).play(client, 0, n)
}

func (h *halfCloses) serve(c net.Conn, version uint16) error {
	server := h.far(c, version)
	defer server.close()
	if err := server.handshake(); err != nil {
		return fmt.Errorf("a server's handshake: %w", err)
	}
	var head [8]byte
	if _, err := io.ReadFull(server, head[:]); err != nil {
		return fmt.Errorf("a server: %w", err)
	}
	n := binary.BigEndian.Uint64(head[:])
	return h.plan(n).play(server, 1, n)
}

// play is one end of a flow; me is its place in the plan.
func (p *plan) play(end *peer, me int, n uint64) error {
	theirs := make(chan error, 1)
	go func() {
		got, how := end.rest()
		if want := bytesOf(p.seed+uint64(1-me), p.sizes[1-me]); string(got) != string(want) || how != finished {
			theirs <- fmt.Errorf("flow %d: end %d got %d bytes of %d, then %s", n, me, len(got), len(want), how)
			return
		}
		theirs <- nil
	}()
	if p.waits[me] {
		if err := <-theirs; err != nil {
			return err
		}
		theirs <- nil
	}
	for mine, r := bytesOf(p.seed+uint64(me), p.sizes[me]), p.chunks[me]; len(mine) > 0; {
		k := min(1+r.IntN(9000), len(mine))
		if _, err := end.Write(mine[:k]); err != nil {
			return fmt.Errorf("flow %d: end %d: %w", n, me, err)
		}
		mine = mine[k:]
		for range r.IntN(4) {
			runtime.Gosched()
		}
	}
	if err := end.finish(); err != nil {
		return fmt.Errorf("flow %d: end %d: %w", n, me, err)
	}
	select {
	case err := <-theirs:
		return err
	case <-time.After(bound):
		return fmt.Errorf("flow %d: end %d hangs", n, me)
	}
}
