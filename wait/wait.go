// Package wait bounds what the system may take as long over as it likes.
package wait

import (
	"os"
	"sync/atomic"
	"time"
)

// Time is how long a file may take that is read whole. Who makes one by hand, and pipes
// it in, has that long.
const Time = 30 * time.Second

// AtMost gives what f does, or an [os.ErrDeadlineExceeded] after d. f then goes on by
// itself, and what it gives is lost: to open a pipe that nobody writes to, or to read
// from a network's file system that hangs, ends by no deadline. Once it has opened
// something it asks whether it was given up, so as not to take what is the next one's.
func AtMost[V any](d time.Duration, f func(givenUp func() bool) (V, error)) (v V, err error) {
	type result struct {
		v   V
		err error
	}
	var over atomic.Bool
	done := make(chan result, 1)
	go func() {
		v, err := f(over.Load)
		done <- result{v, err}
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		over.Store(true)
		return v, os.ErrDeadlineExceeded
	}
}

// Hangs says of a file that AtMost gave up why that may be.
const Hangs = "it is not read within 30 s: nobody writes to it, if it is a pipe, or its file system hangs"
