package config

import (
	"net/netip"
	"reflect"
	"strings"
)

// schema is what a map may hold, read off a struct of types.go. The file, the
// flags, the JSON Schema and the help are all made from it.
type schema struct {
	word   string // the struct's name in small letters
	fields []*field
	main   string // the key that a short form sets
}

type field struct {
	key, doc, def, as string
	owner             reflect.Type // the struct that has it; nil for keys that leave no trace in the tree
	index             int
	typ               reflect.Type // of one item where list
	list              bool
	sub               *schema // where typ is a struct of ours
}

// loadKeys are the words of a file that say how to read it and are gone once
// it is read.
type loadKeys struct {
	Include  []string `key:"include" doc:"files that hold more listeners: patterns like conf.d/*.yaml, relative to this file" as:"file"`
	Defaults struct{} `key:"defaults" doc:"any key of a listener or route but from, match and routes, for all listeners"`
}

var (
	routeSchema = func() *schema {
		s := structSchema(reflect.TypeFor[Route]())
		s.field("to").sub = toSchema
		return s
	}()
	listenerSchema = func() *schema {
		s := structSchema(reflect.TypeFor[Listener]())
		s.field("routes").sub = routeSchema
		s.fields = append(s.fields, routeSchema.fields...)
		return s
	}()
	defaultsSchema = func() *schema {
		s := &schema{word: "defaults"}
		for _, f := range listenerSchema.fields {
			if f.key != "from" && f.key != "match" && f.key != "routes" {
				s.fields = append(s.fields, f)
			}
		}
		return s
	}()
	fileSchema = func() *schema {
		s := structSchema(reflect.TypeFor[File]())
		for _, f := range structSchema(reflect.TypeFor[loadKeys]()).fields {
			f.owner = nil
			if f.key == "defaults" {
				f.sub = defaultsSchema
			}
			s.fields = append(s.fields, f)
		}
		s.field("listeners").sub = listenerSchema
		return s
	}()
	includeSchema = &schema{word: "include", fields: []*field{fileSchema.field("listeners")}}
	ruleSchema    = structSchema(reflect.TypeFor[Rule]())
)

func structSchema(t reflect.Type) *schema {
	s := &schema{word: strings.ToLower(t.Name())}
	for i := range t.NumField() {
		sf := t.Field(i)
		key := sf.Tag.Get("key")
		if key == "" {
			continue
		}
		f := &field{
			key: key, doc: sf.Tag.Get("doc"), def: sf.Tag.Get("default"), as: sf.Tag.Get("as"),
			owner: t, index: i, typ: sf.Type,
		}
		if f.typ.Kind() == reflect.Slice {
			f.list, f.typ = true, f.typ.Elem()
		}
		if f.typ.Kind() == reflect.Struct && !leaf(f.typ) {
			f.sub = structSchema(f.typ)
		}
		if sf.Tag.Get("main") != "" {
			s.main = key
		}
		s.fields = append(s.fields, f)
	}
	return s
}

// leaf names the structs that are one value in the file, and those whose
// schema is more than their own fields.
func leaf(t reflect.Type) bool {
	switch reflect.Zero(t).Interface().(type) {
	case Address, ALPN, Allow, ClockOffset, Name, netip.Prefix, Route, Listener:
		return true
	}
	return false
}

func (s *schema) field(key string) *field {
	for _, f := range s.fields {
		if f.key == key {
			return f
		}
	}
	return nil
}

func (s *schema) keys() []string {
	out := make([]string, len(s.fields))
	for i, f := range s.fields {
		out[i] = f.key
	}
	return out
}

// flagName is the path of a key with dots and underscores as dashes.
func flagName(path string) string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(path)
}
