package build

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"
)

// When a name is ready, step by step: seconds, and what a look-up finds then.
func TestRecordsReady(t *testing.T) {
	t.Parallel()
	lacks := func(ttl int) found { return found{count: true, ttl: time.Duration(ttl) * time.Second} }
	has := func(ttl int) found { f := lacks(ttl); f.passes = true; return f }
	fails, none := found{err: errors.New("SERVFAIL")}, found{ttl: time.Minute}
	type step struct {
		at    int
		saw   found
		ready bool
		next  int // when to ask again
	}
	for name, steps := range map[string][]step{
		"there from the start":           {{0, has(60), false, 60}, {59, has(60), false, 60}, {60, has(60), true, 120}},
		"published later":                {{0, lacks(60), false, 60}, {60, has(60), false, 120}, {120, has(60), true, 180}},
		"with a shorter TTL":             {{0, lacks(600), false, 600}, {600, has(5), false, 605}, {1199, has(5), false, 1200}, {1200, has(5), true, 1205}},
		"shortened before":               {{0, lacks(600), false, 600}, {100, lacks(5), false, 105}, {105, has(5), false, 110}, {699, has(5), false, 700}, {700, has(5), true, 705}},
		"with a longer TTL":              {{0, lacks(5), false, 5}, {5, has(60), false, 65}, {65, has(60), true, 125}},
		"taken away again":               {{0, has(60), false, 60}, {60, lacks(60), false, 120}, {120, has(60), false, 180}, {180, has(60), true, 240}},
		"no records":                     {{0, none, true, 60}},
		"records where there were none":  {{0, none, true, 60}, {60, has(10), false, 70}, {120, has(10), true, 130}},
		"no answer":                      {{0, fails, false, 30}, {30, fails, false, 60}, {60, none, true, 120}},
		"no answer in between":           {{0, has(60), false, 60}, {60, fails, false, 90}, {90, has(60), true, 150}},
		"a TTL of nothing, and of a day": {{0, lacks(0), false, 1}, {1, lacks(86400), false, 3601}},
	} {
		begin := time.Unix(0, 0)
		r := new(records)
		for _, s := range steps {
			now := begin.Add(time.Duration(s.at) * time.Second)
			r.saw(s.saw, now)
			if ready, next := r.ready(now), int(r.due.Sub(begin).Seconds()); ready != s.ready || next != s.next {
				t.Errorf("%s, second %d: ready %t, asked again at %d, want %t and %d", name, s.at, ready, next, s.ready, s.next)
			}
		}
	}
}

func TestHoldDeadline(t *testing.T) {
	t.Parallel()
	begin := time.Unix(0, 0)
	for life, want := range map[time.Duration]time.Duration{90 * 24 * time.Hour: 89 * 24 * time.Hour, 10 * time.Hour: 9 * time.Hour} {
		if got := deadline(&x509.Certificate{NotBefore: begin, NotAfter: begin.Add(life)}); got.Sub(begin) != want {
			t.Errorf("of %s: after %s, want %s", life, got.Sub(begin), want)
		}
	}
}
