package posture

import "testing"

// A burst is tidied up once, when it is over; a trickle now and then.
func TestTidyUpIsDue(t *testing.T) {
	const mib = 1 << 20
	var tidy tidier
	for i, step := range []struct {
		allocs, live, goroutines uint64
		want                     bool
	}{
		{1 * mib, 1 * mib, 20, false},    // the start
		{1 * mib, 1 * mib, 20, false},    // quiet, but too little to be worth it
		{100 * mib, 20 * mib, 20, false}, // a burst
		{200 * mib, 40 * mib, 20, false}, // and more
		{200 * mib, 40 * mib, 20, true},  // over
		{200 * mib, 40 * mib, 20, false}, // once
		{201 * mib, 40 * mib, 20, false}, // little
		{209 * mib, 40 * mib, 20, false}, // more, against 40 MiB alive still little
		{209 * mib, 40 * mib, 20, false},
		{211 * mib, 40 * mib, 20, false},   // moving
		{211 * mib, 40 * mib, 20, true},    // a quarter of what is alive
		{211 * mib, 40 * mib, 9000, false}, // flows that all came before
		{211 * mib, 40 * mib, 9000, false},
		{211 * mib, 40 * mib, 8000, false}, // some rest: 8 MiB of stacks
		{211 * mib, 40 * mib, 7000, true},  // 16 MiB
		{211 * mib, 40 * mib, 7000, false},
		{211 * mib, 40 * mib, 20, true},
	} {
		if got := tidy.due(step.allocs, step.live, step.goroutines); got != step.want {
			t.Errorf("step %d: due is %t", i, got)
		}
	}
}
