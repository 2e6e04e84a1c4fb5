package posture

import "testing"

// A burst is tidied up once, when it is over; a trickle now and then.
func TestTidyUpIsDue(t *testing.T) {
	const mib = 1 << 20
	var tidy tidier
	for i, step := range []struct {
		allocs, live uint64
		want         bool
	}{
		{1 * mib, 1 * mib, false},    // the start
		{1 * mib, 1 * mib, false},    // quiet, but too little to be worth it
		{100 * mib, 20 * mib, false}, // a burst
		{200 * mib, 40 * mib, false}, // and more
		{200 * mib, 40 * mib, true},  // over
		{200 * mib, 40 * mib, false}, // once
		{201 * mib, 40 * mib, false}, // little
		{209 * mib, 40 * mib, false}, // more, against 40 MiB alive still little
		{209 * mib, 40 * mib, false},
		{211 * mib, 40 * mib, false}, // moving
		{211 * mib, 40 * mib, true},  // a quarter of what is alive
	} {
		if got := tidy.due(step.allocs, step.live); got != step.want {
			t.Errorf("step %d: due is %t", i, got)
		}
	}
}
