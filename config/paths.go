package config

import (
	"reflect"
	"strings"
)

// Use says what is done with a path.
type Use int

const (
	Reads   Use = iota // a file or a folder that is read, at each reload again
	Polls              // a file that is read all the time
	Appends            // a file of ours, made where it is not there
	Keeps              // a folder of ours
	Listens            // a unix socket that we make
)

// Path is one that a file names.
type Path struct {
	Path string // or cred:NAME
	Key  string // the last word of the key that names it: cert, ca
	Use  Use
}

// Paths are all that f names, each once, in the order of the file. What is no file
// is left out: env:VAR, a URL, a key that lives elsewhere.
func (f *File) Paths() []Path {
	c := &collector{seen: map[Path]bool{}}
	c.walk(reflect.ValueOf(f).Elem(), "", "")
	return c.paths
}

type collector struct {
	paths []Path
	seen  map[Path]bool
}

func (c *collector) add(path, key string, use Use) {
	p := Path{path, key, use}
	if path == "" || c.seen[p] || strings.HasPrefix(path, "env:") || strings.Contains(path, "://") || laterKey(path) {
		return
	}
	c.seen[p] = true
	c.paths = append(c.paths, p)
}

func laterKey(location string) bool {
	for _, prefix := range laterKeys {
		if strings.HasPrefix(location, prefix) {
			return true
		}
	}
	return false
}

// walk looks at v, which stands at key and is what as says.
func (c *collector) walk(v reflect.Value, key, as string) {
	switch x := v.Interface().(type) {
	case Address:
		if x.Unix != "" && as != "to" && as != "resolver" && as != "workload" {
			c.add(x.Unix, key, Listens)
		}
		return
	case ClockOffset:
		c.add(x.File, key, Polls)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if sf := v.Type().Field(i); sf.IsExported() {
				c.walk(v.Field(i), sf.Tag.Get("key"), sf.Tag.Get("as"))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.walk(v.Index(i), key, as)
		}
	case reflect.String:
		c.text(v.String(), key, as)
	}
}

func (c *collector) text(s, key, as string) {
	switch {
	case key == "state_dir":
		c.add(s, key, Keeps)
	case key == "keylog":
		c.add(s, key, Appends)
	case as == "anchor" && s == "system":
	case as == "file", as == "key", as == "anchor", as == "source":
		c.add(s, key, Reads)
	}
}
