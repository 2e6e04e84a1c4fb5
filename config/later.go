package config

import (
	"slices"
	"strings"
)

const notBuilt = "is not built in this version"

// later are the words that are settled but not built, by the map they stand
// in: whoever writes one has read the documentation of a newer version.
var later = map[string]string{
	"file":     "storage ticket_secret filters taps",
	"listener": "users " + laterRoute,
	"defaults": "users " + laterRoute,
	"route":    laterRoute,
	"match":    "dest port ja4 list server",
	"client":   "dane",
	"to":       "starttls source via",
	"unsafe":   "open_proxy",
}

const (
	laterRoute = "starttls acme mint filters taps"
)

func isLater(word, key string) bool {
	return slices.Contains(strings.Fields(later[word]), key)
}

var (
	laterCarriers = strings.Fields("connect connect+tls socks5 socks5+tls tproxy tproxy+udp redirect")
	laterKeys     = []string{"pkcs11:", "tpm:", "signer://", "vault:"}
)

// unknown says what may have been meant by a key that s does not have.
func unknown(s *schema, key string) (msg, hint string) {
	shown := "`" + printable(key) + "`"
	if isLater(s.word, key) {
		return shown + " " + notBuilt, ""
	}
	msg = "unknown key " + shown
	if strings.Contains(key, "://") {
		return msg, `an address among { } and [ ] needs quotes: "tcp://10.0.0.1:8080"`
	}
	if s.word == "to" && key != "reach" && serverSchema.field(key) != nil {
		return shown + " stands with an address", `addr: [{addr: "tcp://10.0.0.1:8080", ` + key + ": ...}]"
	}
	if s == routeSchema && listenerSchema.field(key) != nil {
		return shown + " stands at the listener, not in a route", ""
	}
	if s.word == "defaults" && listenerSchema.field(key) != nil {
		return shown + " cannot stand in `defaults`", ""
	}
	if s.word == "include" && fileSchema.field(key) != nil {
		return "an included file holds only `listeners`, not " + shown, ""
	}
	if places := elsewhere(s, key, false); len(places) > 0 {
		return msg + " here", "it belongs " + strings.Join(places, " or ")
	}
	if near := nearest(key, s.keys()); near != "" {
		return msg + "; did you mean `" + near + "`?", ""
	}
	if len(elsewhere(s, key, true)) > 0 {
		return shown + " " + notBuilt, ""
	}
	if len(s.fields) <= 12 {
		return msg, "known here: " + strings.Join(s.keys(), ", ")
	}
	return msg, ""
}

// elsewhere finds the places that have key or, with soon, will have it.
func elsewhere(s *schema, key string, soon bool) []string {
	has := func(in *schema) bool {
		return !soon && in.field(key) != nil || soon && isLater(in.word, key)
	}
	var out []string
	within := func(in *schema) {
		for _, f := range in.fields {
			if place := "in `" + f.key + "`"; f.sub != nil && !f.list && f.sub != defaultsSchema && has(f.sub) && !slices.Contains(out, place) {
				out = append(out, place)
			}
		}
	}
	if s == fileSchema && has(listenerSchema) {
		return []string{"in a listener or in `defaults`"}
	}
	// Two maps have the same name, at the top and in a route.
	switch process, route := fileSchema.field("unsafe").sub, routeSchema.field("unsafe").sub; {
	case s == process && has(route):
		return []string{"in the `unsafe` of a listener or route"}
	case s == route && has(process):
		return []string{"in the `unsafe` at the top of the file"}
	}
	within(s)
	if s != listenerSchema && s != routeSchema && s != defaultsSchema {
		if has(routeSchema) {
			out = append(out, "in a listener or route")
		}
		within(routeSchema)
	}
	if s != fileSchema && has(fileSchema) {
		out = append(out, "at the top of the file")
	}
	return out[:min(len(out), 3)]
}

// nearest gives the word that s was most likely meant to be, if any is near.
func nearest(s string, words []string) string {
	best, found := 1+min(2, len(s)/3), ""
	for _, w := range words {
		if d := distance(strings.ToLower(s), w); d < best {
			best, found = d, w
		}
	}
	return found
}

// distance counts the letters to insert, delete, replace or swap.
func distance(a, b string) int {
	const longest = 64 // longer than any word of ours
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
