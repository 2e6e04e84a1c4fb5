package main

import (
	"context"
	"log/slog"
	"time"

	"sallyport/transport"
)

// dropsEvery is how often at most it is said what a listener of datagrams drops:
// no record is made of what belongs to no association.
const dropsEvery = time.Minute

// sayDrops says what counters have counted of drops, each dropsEvery and at the
// end, where there were any.
func sayDrops(ctx context.Context, log *slog.Logger, listener func() string, counters *transport.PacketCounters) {
	tick := time.NewTicker(dropsEvery)
	defer tick.Stop()
	var before transport.PacketSnapshot
	for over := false; !over; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			over = true
		}
		now := counters.Snapshot()
		if said := drops(before, now); len(said) > 0 {
			log.Info("datagrams dropped", append([]any{"listener", listener()}, said...)...)
		}
		before = now
	}
}

// drops are those counters that tell of datagrams lost, with what was added since.
func drops(before, now transport.PacketSnapshot) (said []any) {
	for i := range now {
		k := transport.PacketCount(i)
		if n := now[i] - before[i]; n > 0 && k.Drop() {
			said = append(said, k.String(), n)
		}
	}
	return said
}
