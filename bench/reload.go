package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	reloads     = 10
	reloadEvery = 200 // connections
	patience    = 5 * time.Second
)

// reloading makes new connections with one request each while p is told to read
// its files again. Those that fail are counted and named, and end nothing.
func reloading(_ *bench, p *proxy, c *client) ([]figure, error) {
	hasty := *c
	hasty.patience = patience
	var mu sync.Mutex
	var took []time.Duration
	failed := 0
	const n = (reloads + 1) * reloadEvery
	figures, err := perUnit(p, n, time.Microsecond, "per second", func() error {
		return together(8, n, func(i int) error {
			if i > 0 && i%reloadEvery == 0 {
				if err := p.cmd.Process.Signal(p.peer.reload); err != nil {
					return err
				}
			}
			start := time.Now()
			err := handshakes(&hasty, 1)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if failed++; failed == 1 {
					fmt.Fprintf(os.Stderr, "  %s: %v\n", p.peer.name, err)
				}
				return nil
			}
			took = append(took, time.Since(start))
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	// What a proxy spent on those that failed, the others cost.
	figures[0].value *= n / float64(max(n-failed, 1))
	figures = append(figures, figure{fmt.Sprintf("failed of %d", n), float64(failed)})
	slices.Sort(took)
	return append(figures, quantiles(took, 50, 99)...), nil
}

// quantiles are those of sorted times, in microseconds.
func quantiles(sorted []time.Duration, percent ...float64) []figure {
	var figures []figure
	for _, q := range percent {
		at := time.Duration(0)
		if len(sorted) > 0 {
			at = sorted[min(int(q/100*float64(len(sorted))), len(sorted)-1)]
		}
		figures = append(figures, figure{fmt.Sprintf("p%g µs", q), float64(at) / float64(time.Microsecond)})
	}
	return figures
}
