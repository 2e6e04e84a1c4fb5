package config

import "strings"

// node is what the file and the command line have in common: text, lists and
// maps with a position each. Nothing here knows a key.
type node struct {
	pos     Pos
	kind    kind
	text    string   // of a scalar, as written: 1.0 stays 1.0
	list    []*node  // of a list
	entries []*entry // of a map, in the order written
}

type kind uint8

const (
	scalar kind = iota
	list
	mapping
	null
	broken // reported already
)

func (k kind) String() string {
	return [...]string{"a value", "a list", "a map", "nothing", "nothing"}[k]
}

type entry struct {
	key string
	pos Pos
	val *node
}

// entry gives what stands under key, nil where nothing does.
func (n *node) entry(key string) *entry {
	if n == nil || n.kind != mapping {
		return nil
	}
	for _, e := range n.entries {
		if e.key == key {
			return e
		}
	}
	return nil
}

// find follows a path with dots.
func (n *node) find(path string) *entry {
	for {
		key, rest, more := strings.Cut(path, ".")
		e := n.entry(key)
		if e == nil || !more {
			return e
		}
		n, path = e.val, rest
	}
}

func (n *node) get(key string) *node {
	if e := n.entry(key); e != nil {
		return e.val
	}
	return nil
}

// set puts val under a path with dots and makes the maps on its way.
func (n *node) set(path string, pos Pos, val *node) {
	key, rest, more := strings.Cut(path, ".")
	e := n.entry(key)
	if e == nil {
		e = &entry{key: key, pos: pos}
		n.entries = append(n.entries, e)
	}
	if !more {
		e.val = val
		return
	}
	if e.val == nil || e.val.kind != mapping {
		e.val = &node{pos: pos, kind: mapping}
	}
	e.val.set(rest, pos, val)
}

// without gives n less some keys; n itself stays.
func (n *node) without(keys ...string) *node {
	if n == nil {
		return nil
	}
	out := &node{pos: n.pos, kind: n.kind}
next:
	for _, e := range n.entries {
		for _, k := range keys {
			if e.key == k {
				continue next
			}
		}
		out.entries = append(out.entries, e)
	}
	return out
}

// replaced are keys of which one inherited gives way to another that is named: a
// certificate brings its own key, and what gives our certificate is one thing.
var replaced = map[string]string{"key": "cert", "cert": "spiffe", "spiffe": "cert"}

// merge lays inner over outer: maps merge by key, the rest replaces.
func merge(outer, inner *node) *node {
	if outer == nil || inner == nil || outer.kind != mapping || inner.kind != mapping {
		if inner != nil {
			return inner
		}
		return outer
	}
	out := &node{pos: inner.pos, kind: mapping}
	for _, e := range outer.entries {
		if by := replaced[e.key]; by != "" && inner.entry(by) != nil && inner.entry(e.key) == nil {
			continue
		}
		if e.key == "key" && inner.entry("spiffe") != nil && inner.entry("key") == nil {
			continue
		}
		over := inner.entry(e.key)
		if over == nil {
			out.entries = append(out.entries, e)
			continue
		}
		out.entries = append(out.entries, &entry{e.key, over.pos, merge(e.val, over.val)})
	}
	for _, e := range inner.entries {
		if outer.entry(e.key) == nil {
			out.entries = append(out.entries, e)
		}
	}
	return out
}
