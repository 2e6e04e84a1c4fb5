package config

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// decoder fills the structs of types.go from nodes. What a file and what
// flags say goes through the same code, so they cannot differ.
type decoder struct{ *report }

// check brings n into the long form that merging needs and reports whatever
// is wrong with a key or with a value by itself, wherever it may be inherited.
func (d *decoder) check(n *node, s *schema) *node {
	switch {
	case n.kind == broken:
		return &node{pos: n.pos, kind: mapping}
	case n.kind != mapping && s.main != "" && n.kind != null:
		n = &node{pos: n.pos, kind: mapping, entries: []*entry{{s.main, n.pos, n}}}
	case n.kind != mapping:
		d.add(n.pos, "known here: "+strings.Join(s.keys(), ", "), "here stands a map, not %s", n.kind)
		return &node{pos: n.pos, kind: mapping}
	}
	out := &node{pos: n.pos, kind: mapping}
	for _, e := range n.entries {
		f := s.field(e.key)
		if f == nil {
			msg, hint := unknown(s, e.key)
			d.add(e.pos, hint, "%s", msg)
			continue
		}
		if v := d.checkField(e, f); v != nil {
			out.entries = append(out.entries, &entry{e.key, e.pos, v})
		}
	}
	return out
}

func (d *decoder) checkField(e *entry, f *field) *node {
	switch {
	case e.val.kind == broken:
		return nil
	case e.val.kind == null:
		hint := ""
		if f.list {
			hint = "none at all is written []"
		}
		d.add(e.pos, hint, "`%s` has no value", e.key)
		return nil
	case !f.list && f.sub != nil:
		return d.check(e.val, f.sub)
	case f.as == "to":
		return d.checkServers(e, f)
	}
	n := e.val
	rule := f.typ == reflect.TypeFor[Allow]() && n.kind == mapping // else two levels' rules would merge into one
	if f.list && n.kind != list || rule {
		n = &node{pos: n.pos, kind: list, list: []*node{n}}
	}
	if f.sub != nil {
		out := &node{pos: n.pos, kind: list}
		for _, item := range n.list {
			out.list = append(out.list, d.check(item, f.sub))
		}
		return out
	}
	d.value(n, f, reflect.New(f.whole()).Elem())
	return n
}

func (f *field) whole() reflect.Type {
	if f.list {
		return reflect.SliceOf(f.typ)
	}
	return f.typ
}

// fill decodes the keys of n that belong to v's own type, and defaults.
func (d *decoder) fill(n *node, s *schema, v reflect.Value) {
	if pos := v.FieldByName("Pos"); n != nil && pos.IsValid() {
		pos.Set(reflect.ValueOf(n.pos))
	}
	for _, f := range s.fields {
		if f.owner != v.Type() || f.list && f.sub != nil {
			continue // lists of maps are the loader's: they inherit
		}
		val := n.get(f.key)
		switch {
		case f.sub != nil:
			d.fill(val, f.sub, v.Field(f.index))
		case val != nil:
			d.value(val, f, v.Field(f.index))
		case f.def != "":
			d.value(&node{kind: scalar, text: f.def}, f, v.Field(f.index))
		}
	}
}

// value decodes what is not a map.
func (d *decoder) value(n *node, f *field, v reflect.Value) {
	if !f.list {
		d.one(n, f, v)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.list)))
	for _, item := range n.list {
		one := reflect.New(f.typ).Elem()
		if d.one(item, f, one) {
			v.Set(reflect.Append(v, one))
		}
	}
}

// one decodes a single value and reports whether it is right.
func (d *decoder) one(n *node, f *field, v reflect.Value) bool {
	switch p := v.Addr().Interface().(type) {
	case *Allow:
		return d.allow(n, p)
	case *ALPN:
		return d.alpn(n, p)
	case *Address:
		if f.as == "to" && n.kind == list && len(n.list) > 0 {
			n = n.list[0] // the rules see to the servers one by one
		}
		if f.as == "to" && n.get("addr") != nil {
			n = n.get("addr")
		}
	}
	if n.kind == broken {
		return false
	}
	if n.kind != scalar {
		d.add(n.pos, "", "`%s` takes one value here, not %s", f.key, n.kind)
		return false
	}
	if err := d.text(n, f, v); err != nil {
		d.fail(n.pos, err)
		return false
	}
	return true
}

func (d *decoder) text(n *node, f *field, v reflect.Value) (err error) {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p, err = d.resolve(n, f.as), checkString(f.as, n.text)
	case *Switch:
		*p, err = parseSwitch(n.text)
	case **bool:
		var on Switch
		on, err = parseSwitch(n.text)
		b := bool(on)
		*p = &b
	case *time.Duration:
		*p, err = ParseDuration(n.text)
		if err == nil && *p < 0 {
			err = complain("", "`%s` is less than nothing", n.text)
		}
	case *Version:
		*p, err = parseVersion(n.text)
	case *MTU:
		*p, err = parseMTU(n.text)
	case *Number:
		*p, err = parseNumber(n.text, f.as)
	case *Count:
		*p, err = parseCount(n.text)
	case *Memory:
		*p, err = parseMemory(n.text)
	case *Bits4:
		var bits int
		bits, err = parseBits(n.text, 32)
		*p = Bits4(bits)
	case *Bits6:
		var bits int
		bits, err = parseBits(n.text, 128)
		*p = Bits6(bits)
	case *Part:
		*p, err = parseShare(n.text)
	case *Name:
		*p, err = parseName(n.text)
	case *netip.Prefix:
		*p, err = parsePrefix(n.text)
	case *ClockOffset:
		*p, err = parseClock(n.text)
		p.File = beside(n.pos, p.File)
	case *Address:
		*p, err = parseAddress(n.text, f.as)
		if !strings.HasPrefix(p.Unix, "@") {
			p.Unix = beside(n.pos, p.Unix)
		}
	default:
		word := n.text
		if on, ok := switches[word]; ok && !bool(on) && slices.Contains(enums[v.Type().Name()], "off") {
			word = "off" // as false and none are wherever off is a value
		}
		err = parseEnum(v.Type().Name(), word)
		v.SetString(strings.TrimPrefix(word, "off"))
	}
	return err
}

func (d *decoder) alpn(n *node, p *ALPN) bool {
	items := []*node{n}
	if n.kind == list {
		items = n.list
	} else if n.kind == scalar && n.text == "mirror" {
		p.Mirror = true
		return true
	}
	ok := true
	for _, item := range items {
		if item.kind != scalar {
			d.add(item.pos, "", "`alpn` takes protocols or mirror, not %s", item.kind)
			ok = false
			continue
		}
		err := checkProtocol(item.text)
		switch {
		case item.text == "mirror":
			err = complain("", "`mirror` stands alone")
		case slices.Contains(p.Protos, item.text):
			err = complain("", "`%s` stands here twice", printable(item.text))
		}
		if err != nil {
			d.fail(item.pos, err)
			ok = false
		}
		p.Protos = append(p.Protos, item.text)
	}
	return ok
}

func (d *decoder) allow(n *node, p *Allow) bool {
	if n.kind == scalar {
		if n.text != "all" {
			hint := "allow: all, or rules like [{dns: client.example}]"
			if n.pos.Flag != "" {
				hint = "--allow all, or rules like --allow-dns client.example"
			}
			d.add(n.pos, hint, "`%s` is neither all nor a rule", printable(n.text))
			return false
		}
		p.Set, p.All = true, true
		return true
	}
	items := []*node{n}
	if n.kind == list {
		items = n.list
	}
	found := len(d.errs)
	for _, item := range items {
		if item.kind == scalar && item.text == "all" {
			d.add(item.pos, "", "`all` stands alone: allow: all")
			continue
		}
		item = d.check(item, ruleSchema)
		if len(item.entries) == 0 && len(d.errs) == found {
			d.add(item.pos, "whoever has a certificate of `client.ca`: allow: all", "a rule that asks for nothing")
		}
		var r Rule
		d.fill(item, ruleSchema, reflect.ValueOf(&r).Elem())
		p.Set, p.Rules = true, append(p.Rules, r)
	}
	return len(d.errs) == found
}

// resolve makes a file's name independent of where the process runs: it is
// relative to the file that names it.
func (d *decoder) resolve(n *node, as string) string {
	switch {
	case as != "file" && as != "key" && as != "anchor" && as != "source", as == "anchor" && n.text == "system", as == "source" && strings.Contains(n.text, "://"):
		return n.text
	case strings.HasPrefix(n.text, "env:"), strings.HasPrefix(n.text, "cred:"):
		return n.text
	}
	return beside(n.pos, n.text)
}

func beside(pos Pos, file string) string {
	if file == "" || pos.File == "" || filepath.IsAbs(file) {
		return file
	}
	dir := filepath.Dir(pos.File)
	if dir == "." {
		return file
	}
	return strings.TrimSuffix(dir, "/") + "/" + file // not cleaned: x/../y is not y where x is a symlink
}
