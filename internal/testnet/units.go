package testnet

import (
	"bytes"
	"crypto/rand"
	"io"
	"sync/atomic"
	"testing"
	"time"
)

// UnitWriter is flow's, of which this room knows nothing.
type UnitWriter interface {
	WriteUnit(p []byte, taken func()) (int, error)
}

// WantUnitsTaken wants w, whose bytes r reads, to need nothing of a unit any more once
// it says so, and to say so while it waits for a reader that has stopped.
func WantUnitsTaken(t *testing.T, w UnitWriter, r io.Reader) {
	t.Helper()
	const size, count = 64 << 10, 512 // more than the kernel takes
	pattern := make([]byte, size+count)
	rand.Read(pattern)
	var taken atomic.Bool // of the unit that is being written
	var returned atomic.Int32
	wrote := make(chan error, 1)
	go func() {
		unit := make([]byte, size)
		var err error
		for i := 0; i < count && err == nil; i++ {
			copy(unit, pattern[i:])
			taken.Store(false)
			_, err = w.WriteUnit(unit, func() {
				taken.Store(true)
				clear(unit)
			})
			returned.Add(1)
		}
		wrote <- err
	}()
	for still, was := 0, int32(-1); still < 10; time.Sleep(20 * time.Millisecond) {
		now := returned.Load()
		if still++; now != was || now == 0 {
			still, was = 0, now
		}
	}
	if returned.Load() == count {
		t.Fatal("the reader is waited for by nobody")
	}
	if !taken.Load() {
		t.Error("the unit is kept while the reader is waited for")
	}
	got := make([]byte, size)
	for i := range count {
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, pattern[i:][:size]) {
			t.Fatalf("unit %d is another one", i)
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
