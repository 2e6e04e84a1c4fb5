package transport

import (
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// heap is what is in use once all garbage is gone, pools and finalizers included.
func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// drained counts what comes back, until the socket is closed.
func (s *spoofer) drained() (n, bytes *atomic.Int64, wait func()) {
	n, bytes = new(atomic.Int64), new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 64<<10)
		for {
			size, err := s.Read(p)
			if err != nil {
				return
			}
			n.Add(1)
			bytes.Add(int64(size))
		}
	}()
	return n, bytes, func() { s.Close(); <-done }
}

// DT-01 in the mass: 20,000 hellos of as many clients leave nothing behind, and
// not a byte more is sent than came.
func TestHellosOfManyLeaveNothing(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		const all = 20_000
		d := listenDTLS(t, sockets, PacketLimits{})
		s := d.spoofer()
		answers, bytes, wait := s.drained()
		flood := func(from, to int) {
			for n := from; n < to; n++ {
				hello := greeting(uint64(n))
				if n%2 == 1 {
					hello = again(t, hello, greeting(uint64(n))[:cookieSize]) // with a cookie of nobody
				}
				s.must(n, hello)
				if len(d.a.backlog) != 0 {
					t.Fatal("something has begun")
				}
			}
		}
		flood(0, all/10)
		before := heap()
		flood(all/10, all)
		await(t, "all hellos are answered", func() bool { return d.count(PacketsVerifySent)+d.count(PacketsVerifyUnsent) == all })
		if grown := heap() - before; grown > 256<<10 {
			t.Errorf("%d bytes are kept of %d hellos", grown, all-all/10)
		}
		wantNothingKept(t, d)
		d.wantLive(0, 0)
		d.wantCounts(map[PacketCount]uint64{PacketsVerifySent: d.count(PacketsVerifySent), PacketsVerifyUnsent: d.count(PacketsVerifyUnsent), PacketsBadCookie: all / 2})
		wait()
		size := int64(len(greeting(0)))
		if n := answers.Load(); n == 0 || n > all || bytes.Load() > size*n {
			t.Errorf("%d answers of %d bytes to %d hellos of %d each", n, bytes.Load(), all, size)
		}
	})
}

// F-31: while strangers flood the listener with all that a stranger can send,
// clients begin, talk and are understood, and what is kept stays within its bounds.
func TestFlood(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		s := d.spoofer()
		_, _, wait := s.drained()
		live := d.caller().begun(greeting(1 << 32))
		var flood, serve sync.WaitGroup
		var over atomic.Bool
		flood.Go(func() {
			for n := range 20_000 {
				if err := s.send(n, anything(n)); err != nil {
					t.Error(err)
					break
				}
			}
			over.Store(true)
		})
		serve.Go(func() { echoAll(d) })
		clients := 0
		for ; clients < 20 || !over.Load(); clients++ {
			if !exchanges(t, d, uint64(clients)) {
				t.Fatalf("client %d gets no answer", clients)
			}
			d.a.waiting.mu.Lock()
			held := len(d.a.waiting.list)
			d.a.waiting.mu.Unlock()
			if all, _ := d.a.Live(); all > clients+2 || held > d.a.limits.HalfOpen {
				t.Fatalf("%d associations of %d clients, %d half open", all, clients+1, held)
			}
		}
		flood.Wait()
		await(t, "only those are there that began", func() bool { all, _ := d.a.Live(); return all == 1 })
		wantWrite(t, live, "alive")
		d.a.Close()
		serve.Wait()
		wait()
	})
}

// anything is what a stranger may send.
func anything(n int) []byte {
	hello := greeting(uint64(n))
	switch n % 8 {
	case 0:
		return helloPart(0, 0, hello[25:], 0, 20)
	case 1:
		return helloPart(0, 0, make([]byte, 5000), 1000, 2000)
	case 2:
		return sealed("nobody's")
	case 3:
		return withCID("12345678", "nobody's")
	case 4:
		return hello[:rand.IntN(len(hello))]
	}
	return hello
}

// echoAll serves as a layer would that finishes each handshake, until the listener closes.
func echoAll(d *demux) {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		_, c, err := d.a.Accept(d.Context())
		if err != nil {
			return
		}
		work.Go(func() {
			s := c.(*packetConn)
			defer s.Close()
			for {
				p, err := read(s)
				if err != nil {
					return
				}
				s.Established()
				if _, err := s.Write(p); err != nil || string(p) == string(sealed("bye")) {
					return
				}
			}
		})
	}
}

// exchanges is a client that says each thing again until it is answered: a flood
// may take the listener's socket from it now and then.
func exchanges(t *testing.T, d *demux, n uint64) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(d.addr("127.0.0.1")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer := make([]byte, 64<<10)
	until := func(say []byte, answered func(p []byte) bool) bool {
		for by := time.Now().Add(patience); time.Now().Before(by); {
			if _, err := c.Write(say); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			for {
				n, err := c.Read(answer)
				if err != nil {
					break
				}
				if answered(answer[:n]) {
					return true
				}
			}
		}
		return false
	}
	is := func(want []byte) func(p []byte) bool { return func(p []byte) bool { return string(p) == string(want) } }
	hello, second := greeting(1<<33+n), []byte(nil)
	return until(hello, func(p []byte) bool {
		_, cookie, ok := readVerify(p)
		if ok {
			second = again(t, hello, cookie)
		}
		return ok
	}) && until(second, is(second)) && until(sealed("data"), is(sealed("data"))) && until(sealed("bye"), is(sealed("bye")))
}
