package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// Schema gives the JSON Schema of the file, for editors: made from the same
// structs as what reads it, short forms included.
func Schema() ([]byte, error) {
	s := &schemaWriter{defs: map[string]any{}}
	top := s.object(fileSchema)
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "sallyport.yaml"
	top["$defs"] = s.defs
	return json.MarshalIndent(top, "", "  ")
}

type schemaWriter struct{ defs map[string]any }

func (w *schemaWriter) object(s *schema) map[string]any {
	props := map[string]any{}
	for _, f := range s.fields {
		props[f.key] = w.property(f)
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if s == listenerSchema {
		out["required"] = []string{"from"}
	}
	if s == ruleSchema {
		out["minProperties"] = 1
	}
	return out
}

// ref writes a map once, under its struct's name.
func (w *schemaWriter) ref(s *schema) any {
	if _, ok := w.defs[s.word]; !ok {
		w.defs[s.word] = true // of no map of ours is one inside itself, but a cycle must end
		w.defs[s.word] = w.object(s)
	}
	return map[string]any{"$ref": "#/$defs/" + s.word}
}

func (w *schemaWriter) property(f *field) map[string]any {
	var one any
	switch {
	case f.sub == nil:
		one = w.leaf(f)
	case f.sub.main != "":
		main := f.sub.field(f.sub.main)
		one = anyOf(w.leaf(main), w.ref(f.sub))
	default:
		one = w.ref(f.sub)
	}
	switch {
	case f.typ == reflect.TypeFor[Address]() && f.as == "to":
		one = w.servers(f)
	case f.sub == toSchema:
		one = anyOf(w.servers(f.sub.field(f.sub.main)), w.ref(f.sub))
	case f.list:
		one = anyOf(one, map[string]any{"type": "array", "items": one})
	}
	out := map[string]any{"description": f.doc}
	for k, v := range one.(map[string]any) {
		out[k] = v
	}
	switch {
	case f.typ == reflect.TypeFor[MTU](), f.typ == reflect.TypeFor[Number](), f.typ == reflect.TypeFor[Part]():
		out["default"] = json.Number(f.def)
	case f.def != "":
		out["default"] = f.def
	}
	return out
}

// servers is one address, or a list of such and of maps.
func (w *schemaWriter) servers(addr *field) map[string]any {
	server := w.ref(serverSchema)
	return anyOf(w.leaf(addr), server, map[string]any{"type": "array", "items": anyOf(w.leaf(addr), server)})
}

func anyOf(a ...any) map[string]any { return map[string]any{"anyOf": a} }

func text(pattern string) map[string]any {
	if pattern == "" {
		return map[string]any{"type": "string"}
	}
	return map[string]any{"type": "string", "pattern": pattern}
}

func (w *schemaWriter) leaf(f *field) map[string]any {
	if words := enums[f.typ.Name()]; words != nil {
		if words[0] == "off" {
			words = append([]string{"false", "none"}, words...) // as parseSwitch takes them
			return map[string]any{"enum": append(anys(words), false)}
		}
		return map[string]any{"enum": words}
	}
	const duration = `^[-+]?([0-9.]+(ns|us|µs|ms|s|m|h|d))+$|^0$`
	switch reflect.Zero(f.typ).Interface().(type) {
	case Switch, *bool:
		return map[string]any{"enum": []any{true, false, "on", "off", "none", "true", "false"}}
	case time.Duration:
		return anyOf(map[string]any{"const": 0}, text(duration))
	case ClockOffset:
		return anyOf(map[string]any{"const": 0}, text(duration+"|^@."))
	case Version:
		return map[string]any{"enum": []any{json.Number("1.0"), 1.1, 1.2, 1.3, "1.0", "1.1", "1.2", "1.3"}}
	case Count:
		return anyOf(map[string]any{"type": "integer", "minimum": 0}, map[string]any{"enum": []any{"auto", "off", "none", false}}, text(`^[0-9]+$`))
	case Memory:
		return anyOf(map[string]any{"type": "integer", "minimum": 0}, map[string]any{"enum": []any{"auto", "off", "none", false}}, text(`^[0-9]+(KiB|MiB|GiB|KB|MB|GB)?$`))
	case Bits4:
		return anyOf(map[string]any{"type": "integer", "minimum": 1, "maximum": 32}, text(`^/?[0-9]+$`))
	case Bits6:
		return anyOf(map[string]any{"type": "integer", "minimum": 1, "maximum": 128}, text(`^/?[0-9]+$`))
	case Part:
		return map[string]any{"type": "number", "minimum": 0, "maximum": 1}
	case MTU:
		return map[string]any{"type": "integer", "minimum": leastMTU, "maximum": mostMTU}
	case Number:
		low, high, _ := strings.Cut(f.as, "..")
		return map[string]any{"type": "integer", "minimum": json.Number(low), "maximum": json.Number(high)}
	case Address:
		if f.as == "resolver" {
			return text(`^(udp|tcp|tls)://.+`)
		}
		if f.as == "workload" {
			return text(`^tcp://.+|^unix:.+`)
		}
		if f.as == "admin" || f.as == "metrics" {
			return anyOf(text(`^tcp://.+|^unix:.+|^(off|none|false)$`), map[string]any{"const": false})
		}
		if f.as == "to" || f.as == "server" {
			return text(`^(tcp|tls|udp|dtls)://.+|^unix:.+`)
		}
		return text(`^(tcp|tls|udp|dtls)://.+|^(unix|systemd):.+`)
	case netip.Prefix:
		return text(`^[0-9a-fA-F.:]+(/[0-9]+)?$`)
	case ALPN:
		return anyOf(text(""), map[string]any{"type": "array", "items": text("")})
	case Allow:
		rule := w.ref(ruleSchema)
		return anyOf(map[string]any{"const": "all"}, rule, map[string]any{"type": "array", "items": rule})
	}
	switch f.as {
	case "user":
		return anyOf(map[string]any{"type": "integer", "minimum": 0}, text(`^[^: /]+(:[^: /]+)?$`))
	case "cipher":
		var names []string
		for _, s := range allSuites() {
			names = append(names, s.openssl, s.iana)
		}
		return map[string]any{"enum": names}
	case "group":
		var names []string
		for _, g := range groups {
			names = append(names, g.names...)
		}
		return map[string]any{"enum": names}
	}
	return text("")
}

func anys(words []string) []any {
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}
