package dane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// maxKept bounds what names of strangers can have us keep.
const maxKept = 1024

// cache remembers answers and failures, and has one caller ask where several want
// to know the same.
type cache struct {
	now func() time.Time

	mu     sync.Mutex
	known  map[question]*result
	flight map[question]*flight
}

type result struct {
	answer *Answer
	err    error
	holds
}

// holds is how long what was found is good for. A clock that is set back does not make
// it good for longer.
type holds struct{ from, until time.Time }

func (h holds) at(now time.Time) bool { return !now.Before(h.from) && now.Before(h.until) }

// flight is a look-up under way. Whether it was given up is known once done is closed.
type flight struct {
	done    chan struct{}
	result  result
	givenUp bool // by who made it, whose time was over; another one has to
}

func (c *cache) get(ctx context.Context, q question, find func() (*Answer, time.Duration, error)) (*Answer, error) {
	for {
		c.mu.Lock()
		if k, ok := c.known[q]; ok && k.at(c.now()) {
			c.mu.Unlock()
			return k.answer, k.err
		}
		f, ok := c.flight[q]
		if !ok {
			break
		}
		c.mu.Unlock()
		select {
		case <-f.done:
			if !f.givenUp {
				return f.result.answer, f.result.err
			}
		case <-ctx.Done():
			return nil, failure(q, gaveUp(ctx))
		}
	}
	f := &flight{done: make(chan struct{}), givenUp: true}
	if c.flight == nil {
		c.flight = make(map[question]*flight)
	}
	c.flight[q] = f
	c.mu.Unlock()

	defer func() { // also where find panics
		c.mu.Lock()
		delete(c.flight, q)
		if !f.givenUp {
			c.keep(q, &f.result)
		}
		c.mu.Unlock()
		close(f.done)
	}()
	a, ttl, err := find()
	now := c.now()
	f.result = result{a, err, holds{now, now.Add(ttl)}}
	f.givenUp = err != nil && ctx.Err() != nil
	return a, err
}

// gaveUp is why who asked has not waited any longer.
func gaveUp(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer in time (%w)", ctx.Err())
	}
	return ctx.Err()
}

// keep makes room by what is over, else by whatever comes first.
func (c *cache) keep(q question, k *result) {
	if c.known == nil {
		c.known = make(map[question]*result)
	}
	if len(c.known) >= maxKept {
		now := c.now()
		for name, old := range c.known {
			if !old.at(now) {
				delete(c.known, name)
			}
		}
	}
	for name := range c.known {
		if len(c.known) < maxKept {
			break
		}
		delete(c.known, name)
	}
	c.known[q] = k
}
