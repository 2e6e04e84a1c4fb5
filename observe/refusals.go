package observe

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Refusals counts the connections that a bound has kept out. They have no record:
// strangers must not be able to fill a log.
type Refusals struct {
	// Waits has the limits whose clients wait and are not refused, with what else is
	// said of each. It is set before Say.
	Waits map[string][]any

	mu    sync.Mutex
	since map[refusal]int64 // what Say has not said
}

// refusal is what was refused for; both are words of the configuration.
type refusal struct{ listener, limit string }

// sayEvery is how often at most it is said what was refused.
const sayEvery = time.Minute

// Count notes one.
func (r *Refusals) Count(listener, limit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == nil {
		r.since = map[refusal]int64{}
	}
	r.since[refusal{listener, limit}]++
}

// Say writes a line a listener and bound, the first time at once, then each minute
// in which there was any, and at the end.
func (r *Refusals) Say(ctx context.Context, log *slog.Logger) {
	quiet := time.NewTicker(time.Second)
	defer quiet.Stop()
	var said time.Time
	for {
		select {
		case now := <-quiet.C:
			if now.Sub(said) >= sayEvery && r.say(log) {
				said = now
			}
		case <-ctx.Done():
			r.say(log)
			return
		}
	}
}

func (r *Refusals) say(log *slog.Logger) bool {
	r.mu.Lock()
	since := r.since
	r.since = nil
	r.mu.Unlock()
	var all []refusal
	for k := range since {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b refusal) int { return strings.Compare(a.listener+a.limit, b.listener+b.limit) })
	for _, k := range all {
		text := "connections refused: a limit was reached"
		more, waits := r.Waits[k.limit]
		if waits {
			text = "connections wait: a limit was reached"
		}
		log.Warn(text, append([]any{"listener", k.listener, "limit", k.limit, "n", since[k]}, more...)...)
	}
	return len(all) > 0
}
