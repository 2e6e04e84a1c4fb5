package revoke

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// shelf keeps what was fetched, by key. One fetch a key is in flight; who waits for
// it holds nobody else up, and who finds something good does not wait at all.
//
//	nothing ──get──▶ in flight ──▶ kept ──half of its time──▶ kept, in flight
//	   ▲                 │          │
//	   └── a while ── failed ◀──────┘ until its end
type shelf[V any] struct {
	maxItems, maxBytes, maxFlights int
	now                            func() time.Time

	mu     sync.Mutex
	items  map[string]*item[V]
	bytes  int
	clock  uint64 // counts uses
	closed bool
	stops  map[*item[V]]context.CancelFunc // one a flight
	hosts  map[string]int                  // flights to each
	wg     sync.WaitGroup
}

// kept is what was fetched and how long it holds.
type kept[V any] struct {
	value        V
	size         int // bytes
	begins, ends time.Time
}

// at says whether it holds; a clock may have been set back.
func (k *kept[V]) at(now time.Time) bool {
	return k != nil && !now.Before(k.begins.Add(-skew)) && !now.After(k.ends)
}

// half is when it is time to ask again.
func (k *kept[V]) half() time.Time { return k.begins.Add(k.ends.Sub(k.begins) / 2) }

type item[V any] struct {
	*kept[V]               // nil: nothing that is good
	flight   chan struct{} // closed when it has landed; nil: none
	failed   error         // of the last flight
	failures int
	at       time.Time // of the last failure
	used     uint64
}

// How long a failure holds: twice as long each time.
const (
	firstPause = 30 * time.Second
	lastPause  = 10 * time.Minute
)

// perHost is the part of all flights that may be to one host, so that one which is
// slow leaves the others theirs.
const perHost = 4

// flightTime bounds one fetch, over all its places.
const flightTime = 30 * time.Second

var (
	errBusy   = errors.New("too many fetches at one time")
	errCrowd  = errors.New("too many fetches from this host at one time")
	errClosed = errors.New("ending")
)

func newShelf[V any](now func() time.Time, items, bytes, flights int) *shelf[V] {
	return &shelf[V]{
		maxItems: items, maxBytes: bytes, maxFlights: flights, now: now,
		items: map[string]*item[V]{}, stops: map[*item[V]]context.CancelFunc{}, hosts: map[string]int{},
	}
}

// load fetches; old is what there is, nil if nothing.
type load[V any] func(ctx context.Context, old *kept[V]) (*kept[V], error)

// get gives what there is of key, or waits for it until ctx ends. What has run half
// its time is fetched anew behind the caller's back. host is who is asked first.
func (s *shelf[V]) get(ctx context.Context, key, host string, l load[V]) (v V, err error) {
	now := s.now()
	s.mu.Lock()
	it := s.items[key]
	if it == nil {
		it = new(item[V])
		s.items[key] = it
	}
	s.clock++
	it.used = s.clock
	good := it.kept.at(now)
	paused := it.failed != nil && it.pausesAt(now)
	if it.flight == nil && !paused && (!good || now.After(it.half())) {
		err = s.start(host, it, l)
	}
	flight, failed := it.flight, it.failed
	if good {
		v = it.value
	}
	s.shrink(it)
	s.mu.Unlock()
	switch {
	case good:
		return v, nil
	case err != nil:
		return v, err
	case flight == nil:
		return v, failed
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return v, errSlow
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.kept.at(s.now()) {
		return it.value, nil
	}
	if it.failed == nil {
		return v, errStale
	}
	return v, it.failed
}

// pausesAt says whether it is too soon to try again. A clock that was set back
// does not make the pause longer.
func (it *item[V]) pausesAt(now time.Time) bool {
	pause := min(firstPause<<min(it.failures-1, 8), lastPause)
	since := now.Sub(it.at)
	return since >= 0 && since < pause
}

// start begins a fetch. s.mu is held.
func (s *shelf[V]) start(host string, it *item[V], l load[V]) error {
	switch {
	case s.closed:
		return errClosed
	case len(s.stops) >= s.maxFlights:
		return errBusy
	case s.hosts[host] >= s.maxFlights/perHost:
		return errCrowd
	}
	s.hosts[host]++
	// Not the caller's: whoever comes next wants it as well.
	ctx, cancel := context.WithTimeout(context.Background(), flightTime)
	s.stops[it] = cancel
	it.flight = make(chan struct{})
	old := it.kept
	s.wg.Go(func() {
		defer cancel()
		k, err := guarded(ctx, old, l)
		s.land(host, it, k, err)
	})
	return nil
}

// guarded makes a panic over a stranger's bytes an error: there is no flow whose
// own it would be.
func guarded[V any](ctx context.Context, old *kept[V], l load[V]) (k *kept[V], err error) {
	defer func() {
		if p := recover(); p != nil {
			k, err = nil, fmt.Errorf("a fault in sallyport: %v", p)
		}
	}()
	return l(ctx, old)
}

func (s *shelf[V]) land(host string, it *item[V], k *kept[V], err error) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	close(it.flight)
	it.flight = nil
	delete(s.stops, it)
	if s.hosts[host]--; s.hosts[host] == 0 {
		delete(s.hosts, host)
	}
	if err != nil {
		it.failed, it.at = err, now
		it.failures++
		return
	}
	it.failed, it.failures = nil, 0
	if it.kept != nil {
		s.bytes -= it.size
	}
	it.kept = k
	s.bytes += k.size
	s.shrink(it)
}

// shrink drops what has not been used for longest, but not spared. s.mu is held.
func (s *shelf[V]) shrink(spared *item[V]) {
	for len(s.items) > s.maxItems || s.bytes > s.maxBytes {
		var oldest string
		var found *item[V]
		for k, it := range s.items {
			if it != spared && it.flight == nil && (found == nil || it.used < found.used) {
				oldest, found = k, it
			}
		}
		if found == nil {
			return // at most one a flight too many
		}
		if found.kept != nil {
			s.bytes -= found.size
		}
		delete(s.items, oldest)
	}
}

// close ends what is in flight, and waits for it.
func (s *shelf[V]) close() {
	s.mu.Lock()
	s.closed = true
	for _, stop := range s.stops {
		stop()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
