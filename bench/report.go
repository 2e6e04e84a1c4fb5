package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// reports are the tables as Markdown: that of streams, that of datagrams, that of
// verifiers.
func reports(results []result) string {
	var streams, datagrams []result
	verifiers := ""
	for _, r := range results {
		if r.row.among != nil {
			if len(r.peers) > 0 {
				verifiers = verifierHeading() + verifierReport(r)
			}
		} else if (job{pattern: r.row.pattern}).datagrams() {
			datagrams = append(datagrams, r)
		} else {
			streams = append(streams, r)
		}
	}
	text := ""
	if len(streams) > 0 {
		text = report(streams)
	}
	if len(datagrams) > 0 {
		text += datagramHeading() + report(datagrams)
	}
	return text + verifiers
}

// report is a table, with a column for each proxy that has a figure in it.
func report(results []result) string {
	var s strings.Builder
	var present []peer
	for _, p := range peers {
		if slices.ContainsFunc(results, func(r result) bool { return r.all[p.name] != nil }) {
			present = append(present, p)
		}
	}
	fmt.Fprint(&s, "| row | unit |")
	for _, p := range present {
		fmt.Fprintf(&s, " %s |", p.name)
	}
	fmt.Fprint(&s, " ratio | goal | bound |\n|---|---|"+strings.Repeat("---|", len(present))+"---|---|---|\n")
	for _, r := range results {
		for i, name := range r.names {
			r.line(&s, present, i, name)
		}
	}
	return s.String()
}

func (r *result) line(s *strings.Builder, peers []peer, i int, name string) {
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

func datagramHeading() string {
	return fmt.Sprintf(`
## Datagrams

Each client has one datagram in flight, and the next one goes out when the answer is there: small enough for the buffers of the kernel.
What was lost all the same is counted, and sent again after a second. A datagram there and back passes the proxy twice; a handshake has one
of 64 bytes behind it, and its end. The clients of DTLS are pion's, from %d addresses, with one suite (ECDHE-ECDSA-AES128-GCM-SHA256) and X25519.

socat is OPENSSL-DTLS-SERVER with fork: a process for each association, and no cookie, so that its handshakes have a round trip less, and
each spoofed hello starts a process; which is why it is not flooded here. Of clients that come together it loses hellos between one
listening socket and the next, as the handshakes a second show: they come four at a time.

The flood is %d hellos of OpenSSL's client, each from an address of its own, %d every %v. It is sent twice: alone, for its CPU, and while
%d clients make their handshakes and then have %d datagrams of 200 bytes there and back each. Those served are the ones that got all of them.

`, sources, spoofedHellos, floodBurst, floodEvery, floodClients, floodTalk)
}
