package main

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/testnet"
)

// spoofer sends hellos from ever new addresses, and counts what comes back to them.
type spoofer struct {
	*net.UDPConn
	hellos         [][]byte
	to             netip.AddrPort
	sent           int // hellos
	bytes          int64
	answers, heard atomic.Int64
}

func newSpoofer(t testing.TB, to string) *spoofer {
	t.Helper()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	s := &spoofer{UDPConn: c, to: netip.MustParseAddrPort(to)}
	files, err := filepath.Glob("../../wire/testdata/dtls/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no hellos, %v", err)
	}
	for _, file := range files {
		s.hellos = append(s.hellos, captured(t, filepath.Base(file)))
	}
	return s
}

// helloRandom is where a ClientHello in one record has its random.
const helloRandom = 13 + 12 + 2

// send sends the next hello, with a random of its own, from an address of its own
// in 127.0.0.0/8, which begins above those that the test's real clients have.
func (s *spoofer) send() error {
	n := uint32(s.sent)
	hello := s.hellos[s.sent%len(s.hellos)]
	binary.BigEndian.PutUint32(hello[helloRandom+4:], n)
	from := [4]byte{127, byte(2 + n>>16), byte(n >> 8), byte(n)}
	size, _, err := s.WriteMsgUDPAddrPort(hello, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from}), s.to)
	s.sent++
	s.bytes += int64(size)
	return err
}

// flood sends until enough are sent and stop is closed.
func (s *spoofer) flood(enough int, stop <-chan struct{}) error {
	for {
		if s.sent >= enough {
			select {
			case <-stop:
				return nil
			default:
			}
		}
		if err := s.send(); err != nil {
			return err
		}
	}
}

func (s *spoofer) hear() {
	p := make([]byte, 1<<16)
	for {
		n, err := s.Read(p)
		if err != nil {
			return
		}
		s.answers.Add(1)
		s.heard.Add(int64(n))
	}
}

// probing has n clients make a handshake and talk, some at once, and gives how many did.
func probing(t testing.TB, addr string, n int) int {
	t.Helper()
	var good atomic.Int64
	var work sync.WaitGroup
	free := make(chan struct{}, 10)
	for i := range n {
		free <- struct{}{}
		work.Go(func() {
			defer func() { <-free }()
			ctx, cancel := context.WithTimeout(t.Context(), testnet.Patience)
			defer cancel()
			if _, err := byDatagrams(ctx, addr, i); err != nil {
				t.Logf("probing %d: %v", i, err)
				return
			}
			good.Add(1)
		})
	}
	work.Wait()
	return int(good.Load())
}

// keepTalking talks over one association until silence is closed. Of what it asks
// some may be lost in a flood, and not all for long.
func keepTalking(t testing.TB, c net.Conn, silence <-chan struct{}) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*askEvery)
		_, err := talk(ctx, c, 0)
		cancel()
		if err != nil {
			t.Errorf("who talks already is not heard any more: %v", err)
			return
		}
		select {
		case <-silence:
			return
		case <-tick.C:
		}
	}
}

// F-31: hellos from addresses that are not their sender's, as fast as one sender
// can, cost those who are no more than they would without, and the program nothing
// that lasts.
func TestFloodOfSpoofedHellos(t *testing.T) {
	t.Parallel()
	const enough, probes = 20_000, 100
	c := newCoap(t)
	// A client's close_notify may be lost in the flood, and comes once.
	far := testnet.StartIn(t, testnet.ForUse(t), "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--cert", c.site, "--timeouts-idle", "5s")
	near := func() *testnet.Program {
		return start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+far.Addr(""), "--to-ca", c.anchors, "--to-name", "coap.test")
	}
	talker := dialUDP(t, near().Addr(""))
	mustEcho(t, talker, []byte("hello"))
	open := descriptors(t, far)
	var talking sync.WaitGroup
	silence := make(chan struct{})
	talking.Go(func() { keepTalking(t, talker, silence) })
	// What the probes alone make it take is no cost of the flood.
	warm := near()
	if n := probing(t, warm.Addr(""), probes); n != probes {
		t.Fatalf("%d of %d probes succeed without any flood", n, probes)
	}
	endAtOnce(warm)
	settled := func() bool { return descriptors(t, far) <= open }
	eventually(t, "the probes to be gone", settled)
	before := status(t, far, "VmRSS")

	s, stop, over := newSpoofer(t, far.Addr("")), make(chan struct{}), make(chan error, 1)
	go s.hear()
	begin := time.Now()
	go func() { over <- s.flood(enough, stop) }()
	client := near()
	good := probing(t, client.Addr(""), probes)
	close(stop)
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	rate := float64(s.sent) / time.Since(begin).Seconds()
	grown := status(t, far, "VmRSS") - before
	endAtOnce(client)
	eventually(t, "the probes to be gone", settled)
	close(silence)
	talking.Wait()
	records := far.Flows(probes)
	endAtOnce(far)
	far.Wait()
	t.Logf("%d hellos of %d bytes, %.0f a second; %d answers of %d bytes; %d of %d probes; %d KiB more; dropped %v",
		s.sent, s.bytes, rate, s.answers.Load(), s.heard.Load(), good, probes, grown, far.Logged("datagrams dropped", 1))
	if 100*good < 99*probes {
		t.Errorf("%d of %d probes succeed", good, probes)
	}
	if s.heard.Load() > s.bytes || s.answers.Load() == 0 {
		t.Errorf("%d bytes were sent to strangers, who sent %d", s.heard.Load(), s.bytes)
	}
	if grown >= 32<<10 {
		t.Errorf("it grew by %d KiB", grown)
	}
	for _, r := range records {
		if !strings.HasPrefix(r.Text("client"), "127.0.0.1:") {
			t.Errorf("a record of a stranger: %v", r)
		}
	}
}
