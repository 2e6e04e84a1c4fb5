package transport

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newQueue() *queue {
	q := &queue{}
	q.some.L = &q.mu
	return q
}

// The queue against the simplest one that keeps the same bounds.
func TestQueueIsBoundedAndInOrder(t *testing.T) {
	l := PacketLimits{Queue: 6, QueueBytes: 80 << 10, QueueAll: 100 << 10}
	r := rand.New(rand.NewPCG(7, 7))
	var pool packetPool
	var all atomic.Int64
	queues := [3]*queue{newQueue(), newQueue(), newQueue()}
	var want [3][][]byte
	held := func(i int) (n int) {
		for _, p := range want[i] {
			n += room(len(p))
		}
		return n
	}
	for range 20_000 {
		i := r.IntN(3)
		if r.IntN(5) < 3 {
			p := bytes.Repeat([]byte{byte(r.Int())}, []int{0, 1, 2 << 10, 2<<10 + 1, 20 << 10, 60 << 10}[r.IntN(6)])
			size := room(len(p))
			fits := len(want[i]) < 6 && (len(want[i]) == 0 || held(i)+size <= 80<<10 && held(0)+held(1)+held(2)+size <= 100<<10)
			d := pool.get(p, netip.AddrPort{})
			if got := queues[i].put(d, &l, &all); got != fits {
				t.Fatalf("%d bytes beside %d of %d datagrams: taken %v", len(p), held(i), len(want[i]), got)
			}
			if fits {
				want[i] = append(want[i], p)
			} else {
				pool.put(d)
			}
		} else if len(want[i]) > 0 {
			d, err := queues[i].take(&all)
			if err != nil || !bytes.Equal(d.data[:d.n], want[i][0]) {
				t.Fatalf("%d bytes, %v; want %d", d.n, err, len(want[i][0]))
			}
			pool.put(d)
			want[i] = want[i][1:]
		}
		if got := int(all.Load()); got != held(0)+held(1)+held(2) {
			t.Fatalf("%d bytes in all, want %d", got, held(0)+held(1)+held(2))
		}
	}
	n := 0
	for i, q := range queues {
		for d := q.close(net.ErrClosed, &all); d != nil; d = d.next {
			n++
		}
		n -= len(want[i])
		if q.put(pool.get(nil, netip.AddrPort{}), &l, &all) || q.close(os.ErrClosed, &all) != nil {
			t.Error("a closed queue takes and gives something")
		}
		if _, err := q.take(&all); err != net.ErrClosed {
			t.Error(err)
		}
	}
	if n != 0 || all.Load() != 0 {
		t.Errorf("%d datagrams and %d bytes are lost sight of", n, all.Load())
	}
}

// room is how many bytes of memory a datagram takes.
func room(n int) int {
	switch {
	case n <= 2<<10:
		return 2 << 10
	case n <= 20<<10:
		return 20 << 10
	}
	return 64 << 10
}

// A datagram stays what it was while others come and go through the same pool.
func TestPacketPool(t *testing.T) {
	var pool packetPool
	from := netip.MustParseAddrPort("192.0.2.1:5684")
	for _, size := range []int{0, 1, 2 << 10, 2<<10 + 1, 20 << 10, 20<<10 + 1, maxPayload} {
		p := bytes.Repeat([]byte{1}, size)
		d := pool.get(p, from)
		clear(p)
		if d.n != size || len(d.data) != room(size) || d.from != from || d.next != nil || bytes.Count(d.data[:d.n], []byte{1}) != size {
			t.Errorf("%d bytes: %d in %d of %v", size, d.n, len(d.data), d.from)
		}
		d.next = d
		pool.put(d)
		if again := pool.get([]byte{2}, netip.AddrPort{}); again.next != nil || again.n != 1 || again.from.IsValid() {
			t.Errorf("something of the datagram before is left: %+v", again)
		}
	}
}

func TestQueueKeepsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(), PacketLimits{}.withDefaults()
		var pool packetPool
		var all atomic.Int64
		put := func() { q.put(pool.get([]byte("x"), netip.AddrPort{}), &l, &all) }
		start := time.Now()
		timesOut := func(after time.Duration) {
			t.Helper()
			if d, err := q.take(&all); d != nil || err != os.ErrDeadlineExceeded || time.Since(start) != after {
				t.Fatalf("%v, %v after %v, want a timeout after %v", d, err, time.Since(start), after)
			}
		}
		gives := func(after time.Duration) {
			t.Helper()
			if d, err := q.take(&all); d == nil || err != nil || time.Since(start) != after {
				t.Fatalf("%v, %v after %v, want a datagram after %v", d, err, time.Since(start), after)
			}
		}
		q.setDeadline(start.Add(time.Second))
		timesOut(time.Second)
		timesOut(time.Second) // and it stays so
		// What is there does not outrun a deadline that has passed: as in package net.
		put()
		timesOut(time.Second)
		q.setDeadline(time.Time{})
		gives(time.Second)

		// One moved while somebody waits, later and nearer, and one lifted.
		q.setDeadline(start.Add(10 * time.Second))
		time.AfterFunc(time.Second, func() { q.setDeadline(start.Add(20 * time.Second)) })
		timesOut(20 * time.Second)
		q.setDeadline(start.Add(time.Hour))
		time.AfterFunc(time.Second, func() { q.setDeadline(start.Add(30 * time.Second)) })
		timesOut(30 * time.Second)
		q.setDeadline(start.Add(40 * time.Second))
		time.AfterFunc(time.Second, func() { q.setDeadline(time.Time{}) })
		time.AfterFunc(20*time.Second, put)
		gives(50 * time.Second)
		q.setDeadline(start)
		timesOut(50 * time.Second)
		q.setDeadline(start.Add(60 * time.Second))
		time.AfterFunc(time.Second, put)
		gives(51 * time.Second)
		timesOut(60 * time.Second)

		q.setDeadline(start.Add(time.Hour))
		time.AfterFunc(time.Second, func() { q.close(net.ErrClosed, &all) })
		if _, err := q.take(&all); err != net.ErrClosed || time.Since(start) != 61*time.Second {
			t.Error(err)
		}
		q.setDeadline(start)
		if _, err := q.take(&all); err != net.ErrClosed {
			t.Errorf("%v: a deadline is not the end of what has ended", err)
		}
	})
}

// Each of the things that end a wait calls f, once, and nothing else does.
func TestQueueWhenReadable(t *testing.T) {
	for name, c := range map[string]struct {
		before, act func(q *queue, put func())
		want        time.Duration // after which it is called
	}{
		"a datagram":                 {nil, func(_ *queue, put func()) { put() }, 0},
		"one that was there":         {func(_ *queue, put func()) { put() }, func(*queue, func()) {}, 0},
		"the end":                    {nil, func(q *queue, _ func()) { q.close(net.ErrClosed, new(atomic.Int64)) }, 0},
		"an end before":              {func(q *queue, _ func()) { q.close(net.ErrClosed, new(atomic.Int64)) }, func(*queue, func()) {}, 0},
		"a deadline that has passed": {nil, func(q *queue, _ func()) { q.setDeadline(time.Unix(1, 0)) }, 0},
		"one that passes":            {nil, func(q *queue, _ func()) { q.setDeadline(time.Now().Add(time.Minute)) }, time.Minute},
		"one set before":             {func(q *queue, _ func()) { q.setDeadline(time.Now().Add(time.Minute)) }, func(*queue, func()) {}, time.Minute},
		"one that is lifted":         {func(q *queue, _ func()) { q.setDeadline(time.Now().Add(time.Minute)) }, func(q *queue, _ func()) { q.setDeadline(time.Time{}) }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, l := newQueue(), PacketLimits{}.withDefaults()
				var pool packetPool
				var all atomic.Int64
				put := func() { q.put(pool.get([]byte("x"), netip.AddrPort{}), &l, &all) }
				if c.before != nil {
					c.before(q, put)
				}
				start, calls, after := time.Now(), 0, time.Duration(-1)
				q.whenReadable(func() { calls++; after = time.Since(start) })
				c.act(q, put)
				time.Sleep(time.Hour)
				synctest.Wait()
				if after != c.want {
					t.Errorf("called after %v, want %v", after, c.want)
				}
				put()
				put()
				q.close(os.ErrClosed, &all)
				synctest.Wait()
				if calls != 1 {
					t.Errorf("called %d times", calls)
				}
			})
		})
	}
}

// A lost wake-up hangs: many readers, a writer that waits for nobody.
func TestQueueWakes(t *testing.T) {
	q, l := newQueue(), PacketLimits{Queue: 4, QueueBytes: 1 << 20, QueueAll: 1 << 20}
	var pool packetPool
	var all, taken atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				d, err := q.take(&all)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Error(err)
					}
					return
				}
				taken.Add(1)
				pool.put(d)
			}
		})
	}
	var put int64
	for i := range 20_000 {
		d := pool.get([]byte(strconv.Itoa(i)), netip.AddrPort{})
		if q.put(d, &l, &all) {
			put++
		} else {
			pool.put(d)
		}
	}
	await(t, "all that was put is taken", func() bool { return taken.Load() == put })
	for d := q.close(net.ErrClosed, &all); d != nil; d = d.next {
		t.Error("something was left")
	}
	readers.Wait()
	if all.Load() != 0 {
		t.Error(all.Load())
	}
}

// What one association does not read is not what another waits for.
func TestQueueFullDropsOnlyItsOwn(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets, Limits: PacketLimits{Queue: 4}})
		slow, quick := d.caller(), d.caller()
		slow.send([]byte("0"))
		_, s := d.accept()
		for i := 1; i < 20; i++ {
			slow.send([]byte(strconv.Itoa(i)))
		}
		await(t, "what is too much is dropped", func() bool { return d.count(PacketsQueueFull) == 16 })
		quick.send([]byte("a"))
		_, q := d.accept()
		wantRead(t, q, "a")
		for i := range 50 {
			quick.send([]byte(strconv.Itoa(i)))
			wantRead(t, q, strconv.Itoa(i))
			wantWrite(t, q, "got "+strconv.Itoa(i))
			quick.wantHear("got " + strconv.Itoa(i))
		}
		for i := range 4 {
			wantRead(t, s, strconv.Itoa(i))
		}
		slow.send([]byte("anew"))
		wantRead(t, s, "anew")
		d.wantCounts(map[PacketCount]uint64{PacketsBegun: 2, PacketsQueueFull: 16})
	})
}

// Where all queues together have no room, each association may have one datagram
// all the same.
func TestQueueAll(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets, Limits: PacketLimits{QueueAll: 6 << 10}})
		hog, modest := d.caller(), d.caller()
		hog.send([]byte("0"))
		_, h := d.accept()
		for range 5 {
			hog.send([]byte("hog's"))
		}
		await(t, "the hog has its share", func() bool { return d.count(PacketsQueueFull) == 3 })
		modest.send([]byte("first"))
		_, m := d.accept()
		modest.send([]byte("second"))
		await(t, "a second one is dropped", func() bool { return d.count(PacketsQueueFull) == 4 })
		wantRead(t, m, "first")
		modest.send([]byte("third"))
		wantRead(t, m, "third")
		wantRead(t, h, "0")
		wantRead(t, h, "hog's")
		wantRead(t, h, "hog's")
		modest.send([]byte("fourth"), []byte("fifth"))
		wantRead(t, m, "fourth")
		wantRead(t, m, "fifth")
	})
}
