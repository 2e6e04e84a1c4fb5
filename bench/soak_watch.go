package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	soakLong   = 10 * time.Minute // from here on a slope means something
	soakBlocks = 10               // that the second half is cut into
	slopeLimit = 1 << 20          // bytes an hour
	flatLeast  = 8 << 20          // bytes that memory may differ by under load
	restLeast  = 16 << 20         // and at rest: a heap that was large once stays in pieces
)

// state is what a process holds at one moment.
type state struct {
	at             time.Time
	rss            int64 // bytes
	files, threads int
}

// watch looks at a process from outside.
type watch struct{ pid int }

func (w *watch) look() (state, error) {
	s := state{at: time.Now()}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "VmRSS":
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return s, err
			}
			s.rss = kib << 10
		case "Threads":
			if s.threads, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return s, err
			}
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.pid))
	s.files = len(files)
	return s, err
}

// sample looks until ctx ends, and drops what was before the warm-up's end.
func (w *watch) sample(ctx context.Context, warm time.Duration) ([]state, error) {
	start := time.Now()
	tick := time.NewTicker(soakSample)
	defer tick.Stop()
	var all []state
	for {
		select {
		case <-ctx.Done():
			return all, nil
		case <-tick.C:
		}
		s, err := w.look()
		if err != nil {
			return nil, err
		}
		if s.at.Sub(start) >= warm {
			all = append(all, s)
		}
	}
}

// settle is the state once what lingers has ended and memory is given back.
func (w *watch) settle() (state, error) {
	time.Sleep(soakSettle)
	return w.look()
}

// countGoroutines counts those that a dump shows, but for main and for the
// runtime's own, of which the collector starts some with its first work.
func countGoroutines(dump string) int {
	n := 0
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "created by ") && !strings.HasPrefix(line, "created by runtime.") {
			n++
		}
	}
	return n
}

// verdict is what was seen.
type verdict struct {
	rest, settled state   // before the load and after it
	samples       []state // under load, after the warm-up
	long          bool
	fresh, left   int // goroutines at rest, of a program just started and of this one
}

type quantity struct {
	name string
	of   func(state) float64
}

var quantities = []quantity{
	{"RSS, MiB", func(s state) float64 { return float64(s.rss) / (1 << 20) }},
	{"descriptors", func(s state) float64 { return float64(s.files) }},
	{"threads", func(s state) float64 { return float64(s.threads) }},
}

// medians are those of each part of list, with the middle of its time.
func medians(parts int, list []state, of func(state) float64) (at []time.Time, values []float64) {
	for i := range parts {
		part := list[len(list)*i/parts : len(list)*(i+1)/parts]
		if len(part) == 0 {
			continue
		}
		var all []float64
		for _, s := range part {
			all = append(all, of(s))
		}
		_, mid, _ := spread(all)
		at, values = append(at, part[len(part)/2].at), append(values, mid)
	}
	return at, values
}

// ends are the medians of the first and the last third under load.
func (v *verdict) ends(of func(state) float64) (start, end float64) {
	_, m := medians(3, v.samples, of)
	return m[0], m[len(m)-1]
}

// slope is that of the second half an hour, and what it may be off by. Samples
// that follow each other closely are not independent, so the line goes through
// medians of blocks.
func (v *verdict) slope(of func(state) float64) (slope, off float64) {
	at, y := medians(soakBlocks, v.samples[len(v.samples)/2:], of)
	x := make([]float64, len(at))
	for i := range at {
		x[i] = at[i].Sub(at[0]).Hours()
	}
	return line(x, y)
}

// line fits one through the points, and gives its slope with twice its standard
// error.
func line(x, y []float64) (slope, off float64) {
	n := float64(len(x))
	var mx, my, sxx, sxy, rest float64
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	for i := range x {
		sxx += (x[i] - mx) * (x[i] - mx)
		sxy += (x[i] - mx) * (y[i] - my)
	}
	slope = sxy / sxx
	for i := range x {
		d := y[i] - my - slope*(x[i]-mx)
		rest += d * d
	}
	return slope, 2 * math.Sqrt(rest/(n-2)/sxx)
}

func (v *verdict) table() string {
	var s strings.Builder
	s.WriteString("| | at rest before | after the warm-up | at the end | slope an hour | at rest after |\n|---|---|---|---|---|---|\n")
	for _, q := range quantities {
		start, end := v.ends(q.of)
		slope, off := v.slope(q.of)
		fmt.Fprintf(&s, "| %s | %.1f | %.1f | %.1f | %+.1f ± %.1f | %.1f |\n", q.name, q.of(v.rest), start, end, slope, off, q.of(v.settled))
	}
	fmt.Fprintf(&s, "| goroutines | %d | | | | %d |\n", v.fresh, v.left)
	return s.String()
}

// err says what is wrong, if anything. In a short run a slope is noise, so that
// memory must only have stayed where it was.
func (v *verdict) err() error {
	var wrong []string
	rss := quantities[0].of
	start, end := v.ends(rss)
	if grown := (end - start) * (1 << 20); grown > max(flatLeast, 0.1*start*(1<<20)) {
		wrong = append(wrong, fmt.Sprintf("memory under load went from %.1f to %.1f MiB", start, end))
	}
	if slope, off := v.slope(rss); v.long && (slope-off)*(1<<20) > slopeLimit {
		wrong = append(wrong, fmt.Sprintf("memory grows by %.1f ± %.1f MiB an hour", slope, off))
	}
	if v.settled.rss > v.rest.rss+restLeast {
		wrong = append(wrong, fmt.Sprintf("memory at rest went from %.1f to %.1f MiB", rss(v.rest), rss(v.settled)))
	}
	if v.settled.files > v.rest.files {
		wrong = append(wrong, fmt.Sprintf("%d descriptors are open, %d were", v.settled.files, v.rest.files))
	}
	if v.left > v.fresh {
		wrong = append(wrong, fmt.Sprintf("%d goroutines are left, a fresh program has %d", v.left, v.fresh))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}
