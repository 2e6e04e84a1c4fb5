package observe

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"time"
)

// NewLogger writes to w as format, text or json, says, what level takes then.
func NewLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Queue stands between a log and who takes it, so that a full disk or a reader that
// is stuck holds up no flow: lines beyond its bound are lost, counted, and told of
// once somebody takes lines again. It is an [io.Writer] of whole lines.
type Queue struct {
	w    io.Writer
	lost func(n uint64) []byte // the line that says so

	mu      sync.Mutex
	lines   []byte
	missing uint64 // lost, and not told of yet
	all     uint64 // lost since the start
	closed  bool
	torn    bool          // the last line went in part; of run alone
	more    chan struct{} // has room for one: something has come, or the end
	done    chan struct{}
}

const (
	queueBytes = 1 << 20 // some 2,000 records
	queueIdle  = 64 << 10
)

// NewQueue writes to w from a goroutine of its own, until Close. A line about lost
// ones is as format says.
func NewQueue(w io.Writer, format string) *Queue {
	q := &Queue{w: w, more: make(chan struct{}, 1), done: make(chan struct{})}
	q.lost = func(n uint64) []byte {
		var line bytes.Buffer
		NewLogger(&line, format, slog.LevelWarn).Warn("lines of the log were lost: nobody took them", "lines", n)
		return line.Bytes()
	}
	go q.run()
	return q
}

// Write implements [io.Writer]; it never waits and never fails.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	if q.closed || len(q.lines)+len(line) > queueBytes {
		q.missing++
		q.all++
	} else {
		q.lines = append(q.lines, line...)
	}
	q.mu.Unlock()
	q.wake()
	return len(line), nil
}

func (q *Queue) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// Lost is how many lines were lost since the start.
func (q *Queue) Lost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all
}

// Close writes what is left, for as long as within. The queue takes no more lines.
func (q *Queue) Close(within time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-q.done:
	case <-t.C:
	}
}

// run is the one that writes, and the only one that waits for who takes lines.
func (q *Queue) run() {
	defer close(q.done)
	var batch []byte // swapped with lines, so that two buffers do
	for range q.more {
		q.mu.Lock()
		batch, q.lines = q.lines, batch[:0]
		if cap(q.lines) > queueIdle && len(batch) < queueIdle {
			q.lines = nil
		}
		missing, closed := q.missing, q.closed
		q.missing = 0
		q.mu.Unlock()
		if gone := q.put(batch); gone > 0 {
			q.mu.Lock()
			q.missing += gone
			q.all += gone
			q.mu.Unlock()
		}
		if missing > 0 && q.put(q.lost(missing)) > 0 {
			q.mu.Lock()
			q.missing += missing // to be told of later
			q.mu.Unlock()
		}
		if closed {
			return
		}
	}
}

// put writes lines and gives how many of them did not go.
func (q *Queue) put(lines []byte) uint64 {
	if len(lines) == 0 {
		return 0
	}
	if q.torn {
		if _, err := q.w.Write([]byte{'\n'}); err != nil {
			return uint64(bytes.Count(lines, []byte{'\n'}))
		}
	}
	n, err := q.w.Write(lines)
	q.torn = n > 0 && lines[n-1] != '\n'
	if err == nil {
		return 0
	}
	return uint64(bytes.Count(lines[n:], []byte{'\n'}))
}
