package config

import (
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// Key is one word of the file, for help, manual and completion.
type Key struct {
	Path    string // to.tls.min; below the listener or route where In says so
	In      string // file, listener or route
	Doc     string
	Default string
	Type    string   // NAME, FILE, CIDR, DURATION, on|off, ..., map
	Values  []string // where only some words are taken
	List    bool
	Flag    string // without dashes; empty where it has none
	Group   string // of Groups

	sets  string // the path that the flag sets: a short form sets its map's main key
	field *field
	rule  bool // one of the rules of allow
}

// Groups are the headings under which help shows flags, in their order.
var Groups = []struct{ Name, Doc string }{
	{"clients", "What clients see"},
	{"access", "Who may pass"},
	{"server", "The server (--to-...)"},
	{"flow", "What becomes of a connection"},
	{"process", "The process"},
	{"unsafe", "Dangerous; each is announced at start"},
}

// Keys lists every key in the order of the documentation.
func Keys() []Key {
	var w keyWalk
	for _, f := range fileSchema.fields {
		if f.key == "listeners" {
			continue
		}
		w.walk(f, "", "file")
	}
	for _, f := range listenerSchema.fields {
		in := "route"
		if routeSchema.field(f.key) == nil {
			in = "listener"
		}
		w.walk(f, "", in)
	}
	return w.keys
}

type keyWalk struct{ keys []Key }

func (w *keyWalk) walk(f *field, prefix, in string) {
	k := Key{
		Path: prefix + f.key, In: in, Doc: f.doc, Default: f.def, Type: f.kind(), Values: enums[f.typ.Name()],
		List: f.list, field: f, sets: prefix + f.key,
	}
	k.Group = groupOf(k)
	top, _, _ := strings.Cut(k.Path, ".")
	switch {
	case in != "file" && (top == "from" || top == "match" || top == "routes" || k.Path == "to" || k.Path == "to.addr"):
	case top == "include" || top == "defaults" || in == "file" && top == "limits":
	case f.sub != nil && f.sub.main == "":
	default:
		k.Flag = flagName(k.Path)
	}
	if f.sub != nil && f.sub.main != "" {
		main := f.sub.field(f.sub.main)
		k.sets += "." + f.sub.main
		k.Type, k.Values, k.Default = main.kind(), enums[main.typ.Name()], main.def
		k.field = main
	}
	w.keys = append(w.keys, k)
	switch {
	case k.Path == "allow":
		for _, r := range ruleSchema.fields {
			path := "allow." + r.key
			w.keys = append(w.keys, Key{
				Path: path, In: in, Doc: r.doc, Type: r.kind(), List: true,
				Flag: flagName(path), Group: k.Group, sets: path, field: r, rule: true,
			})
		}
	case f.sub != nil && f.sub != routeSchema && f.sub != defaultsSchema:
		for _, sub := range f.sub.fields {
			w.walk(sub, k.Path+".", in)
		}
	}
}

func groupOf(k Key) string {
	top, _, _ := strings.Cut(k.Path, ".")
	switch top {
	case "unsafe":
		return "unsafe"
	case "to":
		return "server"
	case "client", "allow", "limits", "proxy_protocol", "proxy_trust":
		return "access"
	case "cert", "key", "psk", "alpn", "tls", "ech", "staple", "tlsa":
		return "clients"
	case "action", "timeouts", "match", "routes", "from":
		return "flow"
	}
	return "process"
}

// kind names what a field takes, as help and manual show it.
func (f *field) kind() string {
	if words := enums[f.typ.Name()]; words != nil {
		return strings.Join(words, "|")
	}
	switch reflect.Zero(f.typ).Interface().(type) {
	case Switch, *bool:
		return "on|off"
	case time.Duration:
		return "DURATION"
	case Version:
		return "VERSION"
	case Count:
		return "NUMBER"
	case Memory:
		return "SIZE"
	case Bits4, Bits6:
		return "BITS"
	case MTU:
		return "BYTES"
	case Number:
		return "NUMBER"
	case Part:
		return "SHARE"
	case Address:
		return "ADDR"
	case netip.Prefix:
		return "CIDR"
	case Name:
		return "NAME"
	case ALPN:
		return "PROTOCOLS|mirror"
	case Allow:
		return "all"
	case ClockOffset:
		return "DURATION|@FILE"
	}
	if f.typ.Kind() != reflect.String {
		return "map"
	}
	switch f.as {
	case "file", "key":
		return "FILE"
	case "source":
		return "FILE|URL"
	case "anchor":
		return "FILE|system"
	case "pin":
		return "PIN"
	case "cipher":
		return "CIPHERS"
	case "group":
		return "GROUPS"
	case "dns", "host", "sni", "label":
		return "NAME"
	case "uri":
		return "URI"
	case "user":
		return "USER[:GROUP]"
	case "prefix":
		return "CIDR"
	case "rule", "choice":
		return "EXPR"
	}
	return "TEXT"
}
