package posture

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// TidyStart gives back what the start has left, where that is worth a collection:
// reading ten thousand certificates leaves a third of all memory as garbage.
func TidyStart() {
	allocs := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	if metrics.Read(allocs); allocs[0].Value.Uint64() >= tidyStart {
		debug.FreeOSMemory()
	}
}

// TidyUp gives back, each time a burst is over, the memory that it has left: the
// collector would leave that for two minutes where nothing is allocated, and its
// scavenger takes as long again. It ends with ctx.
func TidyUp(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	var t tidier
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if t.due(sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

const (
	tidyEvery = time.Second
	tidyQuiet = 256 << 10 // bytes allocated in that time that are still silence
	tidyLeast = 4 << 20   // bytes that may have come free since the last time and are worth a collection
	tidyStart = 8 << 20   // bytes that a start with a few certificates does not allocate
	tidyStack = 8 << 10   // bytes that a goroutine which has ended has left, at least
)

// tidier knows how much had been allocated when it was last asked, and when it
// last said yes; and the most goroutines that it has seen since.
type tidier struct{ asked, tidied, goroutines uint64 }

// due says whether it is time, from what has been allocated ever, what the last
// collection found alive and how many goroutines there are. The collection that
// follows costs in proportion to what is alive, so a quarter of that must have
// come since.
func (t *tidier) due(allocs, live, goroutines uint64) bool {
	quiet := allocs-t.asked <= tidyQuiet
	t.asked = allocs
	t.goroutines = max(t.goroutines, goroutines)
	free := allocs - t.tidied + tidyStack*(t.goroutines-goroutines)
	if !quiet || free < max(tidyLeast, live/4) {
		return false
	}
	t.tidied, t.goroutines = allocs, goroutines
	return true
}
