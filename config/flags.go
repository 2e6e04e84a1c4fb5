package config

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// GroupAnnotation is under which a flag says to which of Groups it belongs.
const GroupAnnotation = "sallyport_group"

// Flags are the keys of the file as flags of a command.
type Flags struct {
	keys    []*flagValue
	resolve *flagValue
}

// flagValue gathers what was given; what it means is for the decoder, which
// reads the file as well.
type flagValue struct {
	Key
	given []string
}

func (v *flagValue) Set(s string) error {
	if v.alone() && s == "true" {
		s = "on"
	}
	v.given = append(v.given, s)
	return nil
}

// alone reports whether the flag without a value means on.
func (v *flagValue) alone() bool { return v.Key.Type == "on|off" && v.Default == "off" }

func (v *flagValue) Type() string {
	if v.alone() {
		return "bool" // pflag's help then shows no value
	}
	return v.Key.Type
}

func (v *flagValue) String() string {
	if v == nil {
		return ""
	}
	return strings.Join(v.given, ",")
}

// Every takes all keys that have a flag: those of `proxy`.
func Every(Key) bool { return true }

// OfProcess takes those few that stand above a file: those of `run`.
func OfProcess(k Key) bool { return k.In == "file" }

// OfServer takes what a connection to a server goes by: those of `probe`.
func OfServer(k Key) bool {
	top, _, _ := strings.Cut(k.Path, ".")
	return top == "to" || k.Path == "unsafe.no_verify" || k.In == "file" && top != "log"
}

// NewFlags registers the flags of the keys that which takes.
func NewFlags(fs *pflag.FlagSet, which func(Key) bool) *Flags {
	f := &Flags{}
	for _, k := range Keys() {
		if k.Flag == "" || !which(k) {
			continue
		}
		v := &flagValue{Key: k}
		f.keys = append(f.keys, v)
		f.register(fs, v)
	}
	f.resolve = &flagValue{Key: Key{
		Flag: "resolve", Type: "HOST:PORT:ADDR", List: true, Group: "process",
		Doc: "connect to ADDR where HOST and PORT are asked for, as curl's option does",
	}}
	f.register(fs, f.resolve)
	return f
}

func (f *Flags) register(fs *pflag.FlagSet, v *flagValue) {
	doc := v.Doc
	if v.Default != "" && !strings.Contains(doc, "(default") {
		doc += " (default: " + v.Default + ")"
	}
	flag := fs.VarPF(v, v.Flag, "", doc)
	if v.alone() {
		flag.NoOptDefVal = "true"
	}
	if v.sets == v.Path && strings.HasSuffix(v.Path, "tls.preset") {
		flag.Hidden = true // --tls says the same
	}
	flag.Annotations = map[string][]string{GroupAnnotation: {v.Group}}
}

// File is the configuration of `sallyport proxy FROM TO`.
func (f *Flags) File(from string, to []string, o Options) (*File, error) {
	l := newLoader(o)
	top := f.tree(l.report)
	f.listener(top, from, to)
	l.file.Resolve = f.resolves(l.report)
	top = l.check(top, fileSchema)
	if err := l.err(); err != nil {
		return nil, err
	}
	return l.tree(top)
}

// Load is the configuration of `sallyport run`: a file, with the flags of the
// process over it.
func (f *Flags) Load(path string, o Options) (*File, error) {
	r := &report{}
	over := f.tree(r)
	resolve := f.resolves(r)
	if err := r.err(); err != nil {
		return nil, err
	}
	file, err := load(path, over.without("listeners"), o)
	if err != nil {
		return nil, err
	}
	file.Resolve = resolve
	for _, v := range f.keys {
		if len(v.given) > 0 {
			file.Given = append(file.Given, v.sets)
		}
	}
	return file, nil
}

// Print writes the file that says the same.
func (f *Flags) Print(w io.Writer, from string, to []string) error {
	if _, err := f.File(from, to, Options{}); err != nil {
		return err
	}
	top := f.tree(&report{})
	f.listener(top, from, to)
	var b strings.Builder
	b.WriteString("# Relative paths are taken from the folder that this file is in.\n")
	for _, v := range f.resolve.given {
		b.WriteString("# Only on the command line: --resolve " + printable(v) + "\n")
	}
	writeYAML(&b, top, 0)
	_, err := io.WriteString(w, b.String())
	return err
}

// listener makes the one listener of what concerns no process.
func (f *Flags) listener(top *node, from string, to []string) {
	pos, end := Pos{Flag: "FROM"}, Pos{Flag: "TO"}
	lis := top.get("listeners").list[0]
	first := &node{pos: pos, kind: mapping}
	first.set("from", pos, &node{pos: pos, text: from})
	switch len(to) {
	case 0:
	case 1:
		first.set("to.addr", end, &node{pos: end, text: to[0]})
	default:
		all := &node{pos: end, kind: list}
		for _, t := range to {
			all.list = append(all.list, &node{pos: end, text: t})
		}
		first.set("to.addr", end, all)
	}
	top.get("listeners").list[0] = merge(first, lis)
}

// tree puts every flag that was given at its key's place.
func (f *Flags) tree(r *report) *node {
	top := &node{pos: Pos{Flag: "FROM"}, kind: mapping}
	lis := &node{pos: Pos{Flag: "FROM"}, kind: mapping}
	for _, v := range f.keys {
		if len(v.given) == 0 {
			continue
		}
		pos := Pos{Flag: "--" + v.Flag}
		n := v.node(pos, r)
		under := lis
		if v.In == "file" {
			under = top
		}
		if !v.rule {
			if e := under.find(v.sets); e != nil {
				r.add(pos, "", "%s says the same", e.pos)
			}
			under.set(v.sets, pos, n)
			continue
		}
		rules := under.get("allow")
		if rules == nil {
			rules = &node{pos: pos, kind: list}
			under.set("allow", pos, rules)
		} else if rules.kind != list {
			r.add(pos, "", "--allow decides already")
			continue
		}
		for _, item := range n.list {
			rule := &node{pos: pos, kind: mapping}
			rule.set(v.field.key, pos, item)
			rules.list = append(rules.list, rule)
		}
	}
	top.entries = append(top.entries, &entry{"listeners", lis.pos, &node{pos: lis.pos, kind: list, list: []*node{lis}}})
	return top
}

// node is the flag's value: of a list all that was given, else the last.
func (v *flagValue) node(pos Pos, r *report) *node {
	var texts []string
	for _, g := range v.given {
		if !utf8.ValidString(g) {
			r.add(pos, "", "not UTF-8: %s", strconv.Quote(g))
		}
		if v.field.as == "rule" { // an expression has commas of its own
			texts = append(texts, g)
		} else if v.List || v.Key.Type == "PROTOCOLS|mirror" {
			texts = append(texts, commas(g)...)
		} else {
			texts = []string{g}
		}
	}
	if !v.List && len(texts) == 1 {
		return &node{pos: pos, text: texts[0]}
	}
	n := &node{pos: pos, kind: list}
	for _, t := range texts {
		n.list = append(n.list, &node{pos: pos, text: t})
	}
	return n
}

// commas splits a list; "..." keeps a comma in an item.
func commas(s string) []string {
	c := csv.NewReader(strings.NewReader(s))
	c.LazyQuotes = true
	items, err := c.Read()
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return []string{s}
	}
	return items
}

func (f *Flags) resolves(r *report) []Resolve {
	var out []Resolve
	for _, g := range f.resolve.given {
		for _, text := range commas(g) {
			one, err := parseResolve(text)
			if err != nil {
				r.fail(Pos{Flag: "--resolve"}, err)
				continue
			}
			out = append(out, one)
		}
	}
	return out
}

func parseResolve(text string) (Resolve, error) {
	host, rest, _ := strings.Cut(text, ":")
	port, addr, _ := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	ip, ipErr := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"))
	if err != nil || n == 0 || ipErr != nil || checkHost(host) != nil {
		return Resolve{}, complain("db.example:5432:127.0.0.1", "`%s` is not HOST:PORT:ADDR", printable(text))
	}
	return Resolve{host, uint16(n), ip}, nil
}

func writeYAML(b *strings.Builder, n *node, depth int) {
	pad := strings.Repeat("  ", depth)
	for _, e := range n.entries {
		fmt.Fprintf(b, "%s%s:", pad, e.key)
		switch {
		case e.val.kind == mapping:
			b.WriteByte('\n')
			writeYAML(b, e.val, depth+1)
		case e.val.kind == list && len(e.val.list) > 0 && e.val.list[0].kind == mapping:
			b.WriteByte('\n')
			for _, item := range e.val.list {
				var sub strings.Builder
				writeYAML(&sub, item, depth+2)
				b.WriteString(pad + "  - " + strings.TrimLeft(sub.String(), " "))
			}
		case e.val.kind == list:
			items := make([]string, len(e.val.list))
			for i, item := range e.val.list {
				items[i] = quoted(item.text)
			}
			b.WriteString(" [" + strings.Join(items, ", ") + "]\n")
		default:
			b.WriteString(" " + quoted(e.val.text) + "\n")
		}
	}
}

// quoted writes a text so that YAML reads the same text back.
func quoted(s string) string {
	plain := s != ""
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || c == '/' || c == '_'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789.:+-", rune(c))) {
			plain = false
		}
	}
	if plain && !strings.HasSuffix(s, ":") && !strings.EqualFold(s, "null") {
		return s
	}
	return strconv.Quote(s)
}
