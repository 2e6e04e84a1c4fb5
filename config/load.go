package config

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"sallyport/wait"
)

// Options are what a configuration takes from around it.
type Options struct {
	Env func(string) string // os.Getenv; nil is an empty environment

	// Seen is told of each file that is read, and of each pattern of `include`,
	// also where that fails; nil: nobody is.
	Seen func(path string)
}

// Load reads a file and those it includes.
func Load(path string, o Options) (*File, error) {
	return load(path, nil, o)
}

// Parse reads a file that is in memory already; filename is where it would
// stand, for errors, for `include` and for relative paths.
func Parse(filename string, src []byte, o Options) (*File, error) {
	return parse(filename, src, nil, o)
}

func load(path string, over *node, o Options) (*File, error) {
	o.seen(path)
	src, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, src, over, o)
}

func (o Options) seen(path string) {
	if o.Seen != nil {
		o.Seen(path)
	}
}

func readFile(path string) ([]byte, error) {
	src, err := wait.AtMost(wait.Time, func(givenUp func() bool) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if givenUp() {
			return nil, nil
		}
		return io.ReadAll(io.LimitReader(f, maxSize+1)) // its size says nothing of a pipe
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Error{Pos: Pos{File: path}, Msg: wait.Hangs}
	case err != nil:
		return nil, fileError(path, err)
	}
	return src, nil
}

func fileError(path string, err error) error {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return &Error{Pos: Pos{File: path}, Msg: err.Error()}
}

func parse(filename string, src []byte, over *node, o Options) (*File, error) {
	l := newLoader(o)
	l.run = true
	l.source(filename, src)
	top := readYAML(filename, src, l.report)
	if err := l.err(); err != nil {
		return nil, err
	}
	if top == nil {
		l.add(Pos{File: filename}, "the shortest useful one:\n"+shortest, "an empty file")
		return nil, l.err()
	}
	top = l.check(top, fileSchema)
	if over != nil {
		top = merge(top, l.check(over, fileSchema))
	}
	return l.tree(top)
}

const shortest = `  listeners:
    - from: tls://:443
      cert: site.pem
      key: site.key
      to: tcp://127.0.0.1:8080`

// loader goes from nodes to the finished tree.
type loader struct {
	decoder
	env  func(string) string
	run  bool // a file is read, and not the flags of one listener
	seen func(string)
	file *File
}

func newLoader(o Options) *loader {
	l := &loader{decoder: decoder{&report{}}, env: o.Env, seen: o.seen, file: &File{}}
	if l.env == nil {
		l.env = func(string) string { return "" }
	}
	return l
}

// tree decodes a checked document and applies the rules that span keys.
func (l *loader) tree(top *node) (*File, error) {
	var listeners []*node
	if n := top.get("listeners"); n != nil {
		listeners = n.list
	}
	listeners = append(listeners, l.include(top)...)
	if err := l.err(); err != nil {
		return nil, err // what would be said of half a tree misleads
	}
	l.fill(top, fileSchema, reflect.ValueOf(l.file).Elem())
	if len(listeners) == 0 {
		l.add(top.pos, "the shortest useful file:\n"+shortest, "no `listeners`")
	}
	l.process(top)
	for _, own := range listeners {
		l.listener(own, top.get("defaults"))
	}
	l.names()
	l.clashes()
	if err := l.err(); err != nil {
		return nil, err
	}
	return l.file, nil
}

// include gives the listeners of the files that top names.
func (l *loader) include(top *node) []*node {
	n := top.get("include")
	if n == nil {
		return nil
	}
	var out []*node
	seen := map[string]bool{}
	for _, item := range n.list {
		pattern := beside(item.pos, item.text)
		l.seen(pattern)
		files, err := filepath.Glob(pattern)
		if err != nil {
			l.add(item.pos, "", "`%s` is no pattern for files: %s", printable(item.text), err)
			continue
		}
		if len(files) == 0 {
			l.add(item.pos, "", "no file matches %s", printable(pattern))
		}
		for _, file := range files {
			if !seen[file] {
				out = append(out, l.included(file, item.pos)...)
			}
			seen[file] = true
		}
	}
	return out
}

func (l *loader) included(file string, by Pos) []*node {
	src, err := readFile(file)
	if err != nil {
		var e *Error
		errors.As(err, &e)
		l.add(by, "", "include: %s", e.Error())
		return nil
	}
	l.source(file, src)
	n := readYAML(file, src, l.report)
	if n == nil {
		return nil // empty: a folder may hold files that are all comments
	}
	if list := l.check(n, includeSchema).get("listeners"); list != nil {
		return list.list
	}
	return nil
}

// listenerOnly are the keys that routes do not inherit.
var listenerOnly = []string{"from", "name", "ech", "proxy_protocol", "proxy_trust", "limits", "routes"}

// listener inherits from `defaults` and passes on to routes.
func (l *loader) listener(own, defaults *node) {
	all := merge(defaults, own)
	lis := Listener{}
	l.fill(all, listenerSchema, reflect.ValueOf(&lis).Elem())
	if own.entry("from") == nil {
		l.add(own.pos, "from: tls://:443", "a listener without `from`")
		return
	}
	shared := all.without(listenerOnly...)
	var whole Route
	l.fill(shared, routeSchema, reflect.ValueOf(&whole).Elem())
	lis.Peek = whole.Timeouts.Peek
	one := func(route, own *node) {
		lis.Routes = append(lis.Routes, l.servers(&lis, route, own))
	}
	routes := own.get("routes")
	switch {
	case routes == nil:
		one(shared, own)
	case len(routes.list) == 0:
		l.add(routes.pos, "", "`routes` is empty: nobody would get through")
	default:
		outer := own.without(listenerOnly...)
		for _, r := range routes.list {
			one(merge(shared, r), saidWith(outer, r))
		}
	}
	(&ruling{loader: l, lis: &lis, all: all, said: own}).applyListener()
	l.file.Listeners = append(l.file.Listeners, lis)
}

// saidWith is what counts as said by route itself: keys that the listener
// writes beside the very `action` or address that makes them meaningless are
// a mistake there, and not meant for another route.
func saidWith(outer, route *node) *node {
	action := route.get("action")
	if action == nil && outer.entry("action") != nil {
		return merge(outer, route)
	}
	if action != nil && action.text != string(Terminate) || route.find("to.addr") != nil || outer.find("to.addr") == nil {
		return route
	}
	said := route.without("to")
	said.entries = append(said.entries, &entry{"to", route.pos, merge(outer.get("to"), route.get("to"))})
	return said
}

// names gives every listener one of its own.
func (l *loader) names() {
	taken := map[string]Pos{}
	for i := range l.file.Listeners {
		lis := &l.file.Listeners[i]
		if lis.Name == "" {
			continue
		}
		if at, ok := taken[lis.Name]; ok {
			l.add(lis.Pos, "", "the name `%s` is taken by the listener at %s", lis.Name, at)
		}
		taken[lis.Name] = lis.Pos
	}
	for i := range l.file.Listeners {
		lis := &l.file.Listeners[i]
		if lis.Name == "" {
			base := defaultName(lis.From)
			lis.Name = base
			for n := 2; taken[lis.Name] != (Pos{}); n++ {
				lis.Name = base + "-" + strconv.Itoa(n)
			}
			taken[lis.Name] = lis.Pos
		}
		for j := range lis.Routes {
			lis.Routes[j].Name = lis.Name
			if len(lis.Routes) > 1 {
				lis.Routes[j].Name += "/" + strconv.Itoa(j+1)
			}
		}
	}
}

func defaultName(from Address) string {
	switch {
	case from.Unix != "":
		return from.Carrier + "-" + strings.Map(wordly, filepath.Base(from.Unix))
	case from.Systemd != "":
		return from.Carrier + "-" + strings.Map(wordly, from.Systemd)
	}
	return from.Carrier + "-" + strconv.Itoa(int(from.Port))
}

func wordly(r rune) rune {
	if r <= ' ' || r == 0x7f {
		return '_'
	}
	return r
}

// clashes refuses what bind would refuse later, with both places named.
func (l *loader) clashes() {
	seen := map[string]Pos{}
	for _, lis := range l.file.Listeners {
		where := lis.From.plain() + "://" + lis.From.where()
		if lis.From.Unix == "" && lis.From.Systemd == "" && lis.From.Port == 0 {
			continue
		}
		if at, ok := seen[where]; ok {
			l.add(lis.Pos, "one listener with `routes` serves many names on one address", "%s is listened on already, at %s", lis.From.where(), at)
			continue
		}
		seen[where] = lis.Pos
	}
}
