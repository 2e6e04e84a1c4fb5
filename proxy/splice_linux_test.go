package proxy

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	deadline := time.Now().Add(time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	return a, b
}

// spliced gives the two outer ends of client -> (src, dst) -> server, and what
// Splice returned.
func spliced(t testing.TB, moved func(int)) (client, src, dst, server *net.TCPConn, done chan error) {
	client, src = tcpPair(t)
	dst, server = tcpPair(t)
	done = make(chan error, 1)
	go func() { done <- Splice(dst, src, moved) }()
	return client, src, dst, server, done
}

func openFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestSpliceMovesAll(t *testing.T) {
	const total = 64 << 20
	var moved atomic.Int64
	client, _, dst, server, done := spliced(t, func(n int) { moved.Add(int64(n)) })
	sum := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		if n, err := io.CopyN(io.MultiWriter(client, h), rand.Reader, total); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		client.CloseWrite()
		sum <- [32]byte(h.Sum(nil))
	}()
	go func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
		dst.CloseWrite()
		close(done)
	}()
	h := sha256.New()
	n, err := io.Copy(h, server)
	if err != nil || n != total || [32]byte(h.Sum(nil)) != <-sum || moved.Load() != total {
		t.Errorf("%d bytes, %d told, or other ones: %v", n, moved.Load(), err)
	}
	<-done
}

func TestSpliceByteAtATime(t *testing.T) {
	client, _, _, server, done := spliced(t, func(int) {})
	buf := make([]byte, 1)
	for i := range 5000 {
		if _, err := client.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, buf); err != nil || buf[0] != byte(i) {
			t.Fatalf("byte %d: %x %v", i, buf, err)
		}
	}
	client.CloseWrite()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// The end is the caller's to pass on; the connections stay.
	if _, err := client.Write([]byte{1}); !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

func TestSpliceHalfClose(t *testing.T) {
	client, src := tcpPair(t)
	dst, server := tcpPair(t)
	ends := make(chan error, 2)
	one := func(dst, src *net.TCPConn) {
		err := Splice(dst, src, func(int) {})
		dst.CloseWrite()
		ends <- err
	}
	go one(dst, src)
	go one(src, dst)
	client.Write([]byte("question"))
	client.CloseWrite()
	if got, err := io.ReadAll(server); string(got) != "question" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	server.Write(make([]byte, 100_000))
	server.CloseWrite()
	if got, err := io.ReadAll(client); len(got) != 100_000 || err != nil {
		t.Fatalf("%d bytes of the tail: %v", len(got), err)
	}
	for range 2 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
}

func TestSpliceSaysWhichSideFailed(t *testing.T) {
	check := func(err error, side Side, is error) {
		t.Helper()
		e, ok := errors.AsType[*SideError](err)
		if !ok || e.Side != side || !errors.Is(err, is) {
			t.Errorf("%+v, want side %d, %v", e, side, is)
		}
	}
	client, _, _, _, done := spliced(t, func(int) {})
	client.Write([]byte("x"))
	client.SetLinger(0)
	client.Close()
	check(<-done, Reading, syscall.ECONNRESET)

	client, _, _, server, done := spliced(t, func(int) {})
	server.SetLinger(0)
	server.Close()
	go func(client *net.TCPConn) {
		for {
			if _, err := client.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}(client)
	err := <-done
	if errors.Is(err, syscall.EPIPE) {
		check(err, Writing, syscall.EPIPE)
	} else {
		check(err, Writing, syscall.ECONNRESET)
	}

	_, src, _, _, done := spliced(t, func(int) {})
	time.Sleep(5 * time.Millisecond)
	src.SetReadDeadline(time.Now())
	check(<-done, Reading, os.ErrDeadlineExceeded)

	_, src, _, _, done = spliced(t, func(int) {})
	time.Sleep(5 * time.Millisecond)
	src.Close()
	check(<-done, Reading, net.ErrClosed)

	client, _, dst, _, done := spliced(t, func(int) {})
	go io.Copy(client, rand.Reader)
	time.Sleep(20 * time.Millisecond)
	dst.SetWriteDeadline(time.Now())
	check(<-done, Writing, os.ErrDeadlineExceeded)
}

func TestSpliceWaitsForASlowReader(t *testing.T) {
	var moved atomic.Int64
	client, src := tcpPair(t)
	dst, server := tcpPair(t)
	for _, c := range []*net.TCPConn{client, src, dst, server} {
		c.SetReadBuffer(128 << 10)
		c.SetWriteBuffer(128 << 10)
	}
	done := make(chan error, 1)
	go func() { done <- Splice(dst, src, func(n int) { moved.Add(int64(n)) }) }()
	var written atomic.Int64
	const total = 16 << 20
	go func() {
		p := make([]byte, 4096)
		for written.Load() < total {
			n, err := client.Write(p)
			written.Add(int64(n))
			if err != nil {
				t.Error(err)
				return
			}
		}
		client.CloseWrite()
	}()
	time.Sleep(200 * time.Millisecond)
	if held := written.Load(); held > 4<<20 {
		t.Errorf("the sender could write %d bytes that nobody read", held)
	}
	n, err := io.CopyN(io.Discard, server, total)
	if err != nil || n != total {
		t.Errorf("%d bytes: %v", n, err)
	}
	if err := <-done; err != nil || moved.Load() != total {
		t.Errorf("%d bytes: %v", moved.Load(), err)
	}
}

func TestSpliceHoldsNoPipeWhileIdle(t *testing.T) {
	drainPipes()
	before := openFDs(t)
	const flows = 50
	var clients [flows]*net.TCPConn
	var ends [flows]chan error
	for i := range flows {
		var server *net.TCPConn
		clients[i], _, _, server, ends[i] = spliced(t, func(int) {})
		clients[i].Write([]byte("x"))
		if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range flows {
		clients[i].CloseWrite()
		if err := <-ends[i]; err != nil {
			t.Error(err)
		}
	}
	// One after the other they need one pipe, or few where one was late to give it back.
	if n := len(pipes); n == 0 || n > flows/2 {
		t.Errorf("%d pipes for flows of which one moves bytes at a time", n)
	}
	drainPipes()
	if more := openFDs(t) - before; more != 4*flows {
		t.Errorf("%d descriptors more, but %d sockets", more, 4*flows)
	}
}

func drainPipes() {
	for len(pipes) > 0 {
		(<-pipes).close()
	}
}

func BenchmarkSplice(b *testing.B) {
	client, _, _, server, _ := spliced(b, func(int) {})
	go func() {
		p := make([]byte, 1<<20)
		for {
			if _, err := client.Write(p); err != nil {
				return
			}
		}
	}()
	b.SetBytes(1 << 20)
	p := make([]byte, 1<<20)
	for b.Loop() {
		if _, err := io.ReadFull(server, p); err != nil {
			b.Fatal(err)
		}
	}
}
