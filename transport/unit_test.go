package transport

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/testnet"
)

func eachKind(t *testing.T, f func(t *testing.T, w Where)) {
	t.Run("tcp", func(t *testing.T) { f(t, Where{Host: "127.0.0.1"}) })
	t.Run("unix", func(t *testing.T) { f(t, Where{Unix: filepath.Join(t.TempDir(), "s")}) })
}

func TestReadUnitLosesNothing(t *testing.T) {
	for _, chunk := range []int{1, 2, 7, 1000, 16 << 10, 300_000} {
		for _, size := range []int{1, 100, 16 << 10} {
			if chunk*200 < size {
				continue
			}
			t.Run(strconv.Itoa(chunk)+"into"+strconv.Itoa(size), func(t *testing.T) {
				eachKind(t, func(t *testing.T, w Where) { readAll(t, w, chunk, size) })
			})
		}
	}
}

func readAll(t *testing.T, w Where, chunk, size int) {
	s, c, _ := pair(t, w)
	total := min(chunk*3000, 1<<20)
	if size == 1 {
		total = min(total, 20_000)
	}
	sent := make([]byte, total)
	rand.Read(sent)
	go func() {
		for p := sent; len(p) > 0; p = p[min(chunk, len(p)):] {
			if _, err := c.Write(p[:min(chunk, len(p))]); err != nil {
				t.Error(err)
				return
			}
		}
		c.CloseWrite()
	}()
	s.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, size)
	var got bytes.Buffer
	for {
		leases := 0
		unit, err := flow.Units(s).ReadUnit(func() []byte { leases++; return buf })
		if leases > 1 {
			t.Fatalf("leased %d times", leases)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(unit) == 0 || &unit[0] != &buf[0] {
			t.Fatalf("a unit of %d bytes that is not the leased buffer's", len(unit))
		}
		got.Write(unit)
	}
	if sha256.Sum256(got.Bytes()) != sha256.Sum256(sent) {
		t.Errorf("got %d bytes of %d, or other ones", got.Len(), total)
	}
}

// Each byte is an edge of its own: a lost wake-up hangs.
func TestReadUnitPingPong(t *testing.T) {
	eachKind(t, func(t *testing.T, w Where) {
		s, c, _ := pair(t, w)
		deadline := time.Now().Add(time.Minute)
		s.SetDeadline(deadline)
		c.SetDeadline(deadline)
		echo := func(c flow.Conn) error {
			buf := make([]byte, 8)
			for {
				unit, err := flow.Units(c).ReadUnit(func() []byte { return buf })
				if err != nil {
					return err
				}
				if _, err := c.Write(unit); err != nil {
					return err
				}
			}
		}
		done := make(chan error, 1)
		go func() { done <- echo(s) }()
		buf := make([]byte, 8)
		for i := range 20_000 {
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			unit, err := flow.Units(c).ReadUnit(func() []byte { return buf })
			if err != nil || len(unit) != 1 || unit[0] != byte(i) {
				t.Fatalf("round %d: %x %v", i, unit, err)
			}
		}
		c.CloseWrite()
		if err := <-done; err != io.EOF {
			t.Error(err)
		}
	})
}

func TestReadUnitHoldsNothingWhileItWaits(t *testing.T) {
	eachKind(t, func(t *testing.T, w Where) {
		s, c, _ := pair(t, w)
		var leased atomic.Int32
		got := make(chan []byte)
		for range 20 {
			go func() {
				unit, err := flow.Units(s).ReadUnit(func() []byte { leased.Add(1); return make([]byte, 4) })
				if err != nil {
					t.Error(err)
				}
				got <- unit
			}()
			time.Sleep(2 * time.Millisecond)
			if n := leased.Load(); n != 0 {
				t.Fatalf("%d buffers leased with nothing to read", n)
			}
			// As much as the buffer holds, after which it must not guess that there is more.
			c.Write([]byte("full"))
			if unit := <-got; string(unit) != "full" || leased.Swap(0) != 1 {
				t.Fatalf("%q", unit)
			}
		}
	})
}

func TestReadUnitKeepsDeadlines(t *testing.T) {
	eachKind(t, func(t *testing.T, w Where) {
		s, c, _ := pair(t, w)
		lease := func() []byte { return make([]byte, 100) }
		timesOut := func() {
			t.Helper()
			_, err := flow.Units(s).ReadUnit(lease)
			var ne net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
				t.Fatalf("%v", err)
			}
			if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "read" {
				t.Fatalf("%#v", err)
			}
		}
		for i := range 200 {
			s.SetReadDeadline(time.Now().Add(time.Duration(i%10) * 100 * time.Microsecond))
			timesOut()
		}
		// Moved while waiting, both ways.
		s.SetReadDeadline(time.Now().Add(time.Hour))
		time.AfterFunc(5*time.Millisecond, func() { s.SetReadDeadline(time.Now()) })
		timesOut()
		s.SetReadDeadline(time.Time{})
		c.Write([]byte("x"))
		if unit, err := flow.Units(s).ReadUnit(lease); string(unit) != "x" || err != nil {
			t.Fatalf("%q %v", unit, err)
		}
		// Bytes that are there do not outrun a deadline that has passed: as in package net.
		c.Write([]byte("y"))
		time.Sleep(time.Millisecond)
		s.SetReadDeadline(time.Now().Add(-time.Second))
		timesOut()
		s.SetReadDeadline(time.Time{})
		if unit, err := flow.Units(s).ReadUnit(lease); string(unit) != "y" || err != nil {
			t.Fatalf("%q %v", unit, err)
		}
		time.AfterFunc(5*time.Millisecond, func() { s.Close() })
		if _, err := flow.Units(s).ReadUnit(lease); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("%v", err)
		}
	})
}

// Read and ReadUnit take turns: what one leaves the other finds.
func TestReadUnitBesideRead(t *testing.T) {
	s, c, _ := pair(t, Where{Host: "127.0.0.1"})
	go func() {
		for range 5000 {
			c.Write([]byte("abcdefg"))
		}
		c.CloseWrite()
	}()
	s.SetReadDeadline(time.Now().Add(time.Minute))
	buf, total := make([]byte, 5), 0
	for i := 0; ; i++ {
		var n int
		var err error
		if i%3 == 0 {
			n, err = s.Read(buf)
		} else {
			var unit []byte
			unit, err = flow.Units(s).ReadUnit(func() []byte { return buf })
			n = len(unit)
		}
		total += n
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total != 35_000 {
		t.Error(total)
	}
}

// BenchmarkUnits moves bytes that are always there already, where ReadUnit has
// one poll(2) more than Read.
func BenchmarkUnits(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 10} {
		for name, read := range map[string]func(c flow.Conn, p []byte) (int, error){
			"read": func(c flow.Conn, p []byte) (int, error) { return c.Read(p) },
			"unit": func(c flow.Conn, p []byte) (int, error) {
				unit, err := flow.Units(c).ReadUnit(func() []byte { return p })
				return len(unit), err
			},
		} {
			b.Run(name+"/"+strconv.Itoa(size), func(b *testing.B) {
				s, c, _ := pair(b, Where{Host: "127.0.0.1"})
				go func() {
					p := make([]byte, 256<<10)
					for {
						if _, err := c.Write(p); err != nil {
							return
						}
					}
				}()
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					for n := 0; n < size; {
						m, err := read(s, p[n:])
						if err != nil {
							b.Fatal(err)
						}
						n += m
					}
				}
				c.Close()
				s.Close()
			})
		}
	}
}

func TestWriteUnitKeepsOnlyWhatIsLeft(t *testing.T) {
	eachKind(t, func(t *testing.T, w Where) {
		s, c, _ := pair(t, w)
		testnet.WantUnitsTaken(t, s.(*conn), c)
	})
	eachKind(t, func(t *testing.T, w Where) {
		s, _, _ := pair(t, w)
		wrote := make(chan error, 1)
		go func() {
			for {
				if _, err := s.Write(make([]byte, 64<<10)); err != nil {
					wrote <- err
					return
				}
			}
		}()
		s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		err := <-wrote
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "write" || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past the deadline: %v", err)
		}
		s.Close()
		if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
