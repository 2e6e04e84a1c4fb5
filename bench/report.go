package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// report is the table as Markdown.
func report(results []result) string {
	var s strings.Builder
	fmt.Fprint(&s, "| row | unit |")
	for _, p := range peers {
		fmt.Fprintf(&s, " %s |", p.name)
	}
	fmt.Fprint(&s, " ratio | goal | bound |\n|---|---|"+strings.Repeat("---|", len(peers))+"---|---|---|\n")
	for _, r := range results {
		for i, name := range r.names {
			r.line(&s, i, name)
		}
	}
	return s.String()
}

func (r *result) line(s *strings.Builder, i int, name string) {
	title, unit, goal, bound := r.row.name, r.row.unit, "–", "–"
	if i > 0 {
		title, unit = "", name
	} else {
		if r.row.goal > 0 {
			goal = fmt.Sprintf("%.2f", r.row.goal)
		}
		if r.bound > 0 {
			bound = fmt.Sprintf("%.3g", r.bound)
		}
	}
	fmt.Fprintf(s, "| %s | %s |", title, unit)
	own, best := 0.0, math.NaN()
	higher := strings.Contains(name, "/s") || strings.Contains(name, "second")
	for _, p := range peers {
		values := r.all[p.name]
		if values == nil {
			fmt.Fprint(s, " – |")
			continue
		}
		low, mid, high := spread(values[i])
		fmt.Fprintf(s, " %.3g (%.3g–%.3g) |", mid, low, high)
		switch {
		case p.name == "sallyport":
			own = mid
		case math.IsNaN(best) || higher && mid > best || !higher && mid < best:
			best = mid
		}
	}
	ratio := "–"
	if own > 0 && best > 0 {
		ratio = fmt.Sprintf("%.2f", own/best)
	}
	fmt.Fprintf(s, " %s | %s | %s |\n", ratio, goal, bound)
}

func spread(v []float64) (low, mid, high float64) {
	s := slices.Sorted(slices.Values(v))
	return s[0], s[len(s)/2], s[len(s)-1]
}
