package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The median never rots; the maximum does. Past these a function has become two,
// a file a room of its own.
const (
	maxFunction = 80
	maxFile     = 500
	maxTestFile = 800
)

// exceptions to the rules below, each with its reason: room.name for a variable,
// room/file for a length, room/file:function for a function, room for a use of
// tls.Config.
var exceptions = map[string]string{
	"transport.handedOver": "the sockets of sd_listen_fds(3) come once a process, by its environment",
	"proxy.pipes":          "empty pipes hold nothing of any flow",
	"proxy.pipesInUse":     "counts them",
	"tool/demo":            "checks itself as a client, through a certificate of its own",
}

// pure are the rooms that do no I/O and keep no clock: what they say depends on
// their arguments alone, which is what makes them easy to test and to fuzz.
var pure = []string{"wire", "name", "rule", "flow", "route", "verify", "dane", "ct", "revoke"}

type source struct {
	room, name string
	test       bool
	lines      int
	fset       *token.FileSet
	file       *ast.File
}

func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	for _, p := range packages(t) {
		for i, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			s := &source{room: p.room(), name: name, test: i >= len(p.GoFiles), lines: bytes.Count(text, []byte("\n")), fset: token.NewFileSet()}
			if s.file, err = parser.ParseFile(s.fset, filepath.Join(p.room(), name), text, parser.ParseComments); err != nil {
				t.Error(err)
				continue
			}
			all = append(all, s)
		}
	}
	return all
}

func (s *source) at(n ast.Node) token.Position { return s.fset.Position(n.Pos()) }

func TestLengths(t *testing.T) {
	for _, s := range sources(t) {
		limit := maxFile
		if s.test {
			limit = maxTestFile
		}
		if path := s.room + "/" + s.name; s.lines > limit && exceptions[path] == "" {
			t.Errorf("%s has %d lines, %d at most", path, s.lines, limit)
		}
		if s.test {
			// A table of cases may be as long as it must.
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.fset.Position(f.End()).Line - s.at(f).Line + 1
			if lines > maxFunction && exceptions[s.room+"/"+s.name+":"+f.Name.Name] == "" {
				t.Errorf("%s: %s has %d lines, %d at most", s.at(f), f.Name.Name, lines, maxFunction)
			}
		}
	}
}

// An init runs because somebody imports the package, in an order that nobody
// sees; a registry that it fills cannot be read in one place.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function", s.at(f))
			}
		}
	}
}

// State of a package is shared by all that ever use it: two engines in one
// process, two tests side by side. Errors and tables that never change are none.
func TestNoGlobalState(t *testing.T) {
	byRoom := map[string][]*source{}
	for _, s := range sources(t) {
		if !s.test && !testOnlyRoom(s.room) {
			byRoom[s.room] = append(byRoom[s.room], s)
		}
	}
	for room, files := range byRoom {
		globals := map[string]bool{}
		for _, s := range files {
			for _, d := range s.file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					checkGlobal(t, s, spec.(*ast.ValueSpec), globals)
				}
			}
		}
		for _, s := range files {
			ast.Inspect(s.file, func(n ast.Node) bool {
				for _, e := range written(n) {
					id := root(e)
					// Obj is nil for what another file of the package declares.
					if id != nil && globals[id.Name] && (id.Obj == nil || isGlobal(s, id.Obj)) && exceptions[room+"."+id.Name] == "" {
						t.Errorf("%s: writes to the package's variable %s", s.at(n), id.Name)
					}
				}
				return true
			})
		}
	}
}

func checkGlobal(t *testing.T, s *source, spec *ast.ValueSpec, globals map[string]bool) {
	for i, name := range spec.Names {
		globals[name.Name] = name.Name != "_"
		if name.Name == "_" || exceptions[s.room+"."+name.Name] != "" {
			continue
		}
		switch {
		case len(spec.Values) == 0 && !isPool(spec.Type):
			t.Errorf("%s: the variable %s begins empty, so something fills it", s.at(name), name.Name)
		case i < len(spec.Values) && stateful(spec.Values[i]):
			t.Errorf("%s: the variable %s is made to be changed", s.at(name), name.Name)
		}
	}
}

// stateful says whether a value is one that exists to change: a channel, a map or
// slice made empty, something of sync.
func stateful(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok && (id.Name == "make" || id.Name == "new") {
			return true
		}
		return stateful(e.Fun)
	case *ast.UnaryExpr:
		return stateful(e.X)
	case *ast.CompositeLit:
		return e.Type != nil && stateful(e.Type)
	case *ast.IndexExpr:
		return stateful(e.X)
	case *ast.SelectorExpr:
		id, ok := e.X.(*ast.Ident)
		// What stands in a sync.Pool is empty, and of no flow.
		return ok && (id.Name == "sync" && e.Sel.Name != "Pool" || id.Name == "atomic")
	}
	return false
}

func isPool(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Pool"
}

func written(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
			return n.Args[:1]
		}
	}
	return nil
}

func root(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.IndexExpr:
		return root(e.X)
	case *ast.SelectorExpr:
		return root(e.X)
	case *ast.StarExpr:
		return root(e.X)
	}
	return nil
}

//lint:ignore SA1019 one file at a time is all that this resolves
func isGlobal(s *source, o *ast.Object) bool {
	return s.file.Scope.Lookup(o.Name) == o
}

// imported gives the name by which a file knows a package, or "".
func (s *source) imported(path string) string {
	for _, i := range s.file.Imports {
		if strings.Trim(i.Path.Value, `"`) != path {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:]
	}
	return ""
}

// uses calls f for each mention of pkg.name.
func (s *source) uses(path, name string, f func(ast.Node)) {
	pkg := s.imported(path)
	if pkg == "" {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == pkg && id.Obj == nil {
				f(n)
			}
		}
		return true
	})
}

// A tls.Config has over thirty fields and callbacks that overrule each other.
// secure wraps it once; who else holds one can undo what was decided there.
func TestOnlySecureHoldsTLSConfig(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.room == "secure" || testOnlyRoom(s.room) || exceptions[s.room] != "" {
			continue
		}
		s.uses("crypto/tls", "Config", func(n ast.Node) { t.Errorf("%s: a tls.Config outside of secure", s.at(n)) })
	}
}

func testOnlyRoom(room string) bool {
	_, ok := testOnly[room]
	return ok
}

func TestPureRoomsKeepNoClock(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(pure, s.room) {
			continue
		}
		for _, name := range []string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "AfterFunc"} {
			s.uses("time", name, func(n ast.Node) { t.Errorf("%s: time.%s in a room that keeps no clock", s.at(n), name) })
		}
	}
}

// A context in a struct outlives the call that it is of (go.dev/blog/context-and-structs).
func TestNoContextInStructs(t *testing.T) {
	for _, s := range sources(t) {
		pkg := s.imported("context")
		if s.test || pkg == "" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			st, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range st.Fields.List {
				if sel, ok := field.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
					if id, ok := sel.X.(*ast.Ident); ok && id.Name == pkg {
						t.Errorf("%s: a context in a struct", s.at(field))
					}
				}
			}
			return true
		})
	}
}
