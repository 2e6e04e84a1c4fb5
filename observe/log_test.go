package observe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/flow"
)

// stuck takes nothing until it is let go.
type stuck struct {
	free chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.Buffer.Write(p)
}

// Whoever takes no lines holds up nobody: what is too much is lost, counted, and
// said when lines are taken again.
func TestQueueLosesRatherThanWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{free: make(chan struct{})}
		q := NewQueue(w, "text")
		line := strings.Repeat("x", 1023) + "\n"
		const lines = 4 * queueBytes / 1024
		for range lines {
			io.WriteString(q, line)
		}
		lost := q.Lost()
		if lost == 0 || lost > lines-queueBytes/1024 {
			t.Errorf("%d of %d lines lost", lost, lines)
		}
		close(w.free)
		q.Close(time.Second)
		text := w.String()
		if n := strings.Count(text, line); n+int(lost) != lines {
			t.Errorf("%d lines written and %d lost, of %d", n, lost, lines)
		}
		if want := fmt.Sprintf("lines=%d\n", lost); !strings.Contains(text, "level=WARN msg=\"lines of the log were lost") || !strings.HasSuffix(text, want) {
			t.Errorf("it ends with %q", text[len(text)-200:])
		}
	})
}

// Close is bounded where nobody takes what is left.
func TestQueueClosesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{free: make(chan struct{})}
		q := NewQueue(w, "text")
		io.WriteString(q, "a line\n")
		start := time.Now()
		q.Close(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		close(w.free)
		<-q.done
	})
}

// full is a disk: writes go as far as there is room.
type full struct {
	bytes.Buffer
	room int
}

func (f *full) Write(p []byte) (int, error) {
	n, _ := f.Buffer.Write(p[:min(len(p), f.room)])
	f.room -= n
	if n < len(p) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

// A line that a full disk has cut is ended before the next one begins.
func TestQueueOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &full{room: 15}
		q := NewQueue(w, "json")
		for _, line := range []string{"the first\n", "the second\n", "the third\n"} {
			io.WriteString(q, line)
			synctest.Wait()
		}
		w.room = 1000
		io.WriteString(q, "the fourth\n")
		synctest.Wait()
		q.Close(time.Second)
		text := w.String()
		if want := "the first\nthe s\nthe fourth\n{"; !strings.HasPrefix(text, want) || !strings.Contains(text, `"lines":2}`) {
			t.Errorf("%q", text)
		}
		if q.Lost() != 2 {
			t.Errorf("%d lines lost", q.Lost())
		}
	})
}

// Of flows that ended well the share of sample has a record; of others each one.
func TestSample(t *testing.T) {
	for share, want := range map[float64][2]int{0: {0, 0}, 0.1: {950, 1050}, 0.5: {4900, 5100}, 1: {10000, 10000}} {
		var out bytes.Buffer
		r := &Records{Log: NewLogger(&out, "text", slog.LevelInfo)}
		r.Sample(share)
		for id := range uint64(10000) {
			r.End(&flow.Flow{ID: id + 1, Start: time.Now()}, nil)
		}
		if n := strings.Count(out.String(), "\n"); n < want[0] || n > want[1] {
			t.Errorf("%v: %d records", share, n)
		}
		out.Reset()
		for id := range uint64(100) {
			r.End(&flow.Flow{ID: id, Start: time.Now()}, flow.Fail(flow.IdleTimeout, "silence"))
		}
		if n := strings.Count(out.String(), "\n"); n != 100 {
			t.Errorf("%v: %d records of flows that did not end well", share, n)
		}
	}
}
