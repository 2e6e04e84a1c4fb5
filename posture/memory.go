package posture

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// TidyUp gives back, each time a burst is over, the memory that it has left: the
// collector would leave that for two minutes where nothing is allocated, and its
// scavenger takes as long again. It ends with ctx.
func TidyUp(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	var t tidier
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if t.due(sample[0].Value.Uint64(), sample[1].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

const (
	tidyEvery = time.Second
	tidyQuiet = 256 << 10 // bytes allocated in that time that are still silence
	tidyLeast = 4 << 20   // bytes allocated since the last time that are worth a collection
)

// tidier knows how much had been allocated when it was last asked, and when it
// last said yes.
type tidier struct{ asked, tidied uint64 }

// due says whether it is time, from what has been allocated ever and what the
// last collection found alive. The collection that follows costs in proportion to
// what is alive, so a quarter of that must have come since.
func (t *tidier) due(allocs, live uint64) bool {
	quiet := allocs-t.asked <= tidyQuiet
	t.asked = allocs
	if !quiet || allocs-t.tidied < max(tidyLeast, live/4) {
		return false
	}
	t.tidied = allocs
	return true
}
