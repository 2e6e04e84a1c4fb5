package config

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxSize  = 4 << 20
	maxDepth = 64
	// The parser is quadratic in the keys of one map; no map of ours has as many.
	maxKeys = 256
)

// readYAML gives the tree of one YAML document, nil for an empty one.
func readYAML(name string, src []byte, r *report) *node {
	if !utf8.Valid(src) {
		r.add(Pos{File: name}, "", "not UTF-8")
		return nil
	}
	if len(src) > maxSize {
		r.add(Pos{File: name}, "", "larger than 4 MiB")
		return nil
	}
	tokens := lexer.Tokenize(string(src))
	if pos, msg := bounds(tokens); msg != "" {
		r.add(at(name, pos), "", "%s", msg)
		return nil
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		syntax(name, err, r)
		return nil
	}
	var doc *ast.DocumentNode
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.DirectiveType {
			continue
		}
		if doc != nil {
			second := d.Body.GetToken()
			if d.Start != nil {
				second = d.Start
			}
			r.add(at(name, second.Position), "put everything into the first one", "a second YAML document in one file")
			return nil
		}
		doc = d
	}
	if doc == nil {
		return nil
	}
	y := &yamlReader{name, r}
	return y.node(doc.Body, 0)
}

func at(name string, p *token.Position) Pos {
	if p == nil {
		return Pos{File: name}
	}
	return Pos{File: name, Line: p.Line, Col: p.Column}
}

// syntax takes the parser's error apart: its own rendering has colours and
// line breaks of another kind than ours.
func syntax(name string, err error, r *report) {
	var e interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &e) || e.GetToken() == nil {
		r.add(Pos{File: name}, "", "not YAML: %s", err)
		return
	}
	msg, hint := e.GetMessage(), ""
	switch {
	case strings.Contains(msg, "reserved character"), strings.Contains(msg, "mapping value is not allowed"):
		hint = `a text with a special character of YAML (@ ` + "`" + ` or a colon and a space) needs quotes: "..."`
	case strings.Contains(msg, "tab character"), strings.Contains(msg, "cannot start any token"):
		hint = "YAML is indented with spaces"
	}
	r.add(at(name, e.GetToken().Position), hint, "%s", msg)
}

// bounds refuses, before the parser sees them, documents on which it would
// take more than linear time or stack.
func bounds(tokens token.Tokens) (*token.Position, string) {
	type level struct{ col, keys int }
	var block, flow []level
	for _, t := range tokens {
		col := t.Position.Column
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow = append(flow, level{})
		case token.SequenceEndType, token.MappingEndType:
			if len(flow) > 0 {
				flow = flow[:len(flow)-1]
			}
		case token.SequenceEntryType, token.MappingValueType:
			key := t.Type == token.MappingValueType
			if len(flow) > 0 {
				if key {
					flow[len(flow)-1].keys++
				}
				break
			}
			if key && t.Prev != nil {
				col = t.Prev.Position.Column
			}
			for len(block) > 0 && block[len(block)-1].col > col {
				block = block[:len(block)-1]
			}
			if len(block) == 0 || block[len(block)-1].col < col {
				block = append(block, level{col: col})
			}
			if key {
				block[len(block)-1].keys++
			}
		case token.DocumentHeaderType, token.DocumentEndType:
			block, flow = nil, nil
		}
		if len(block)+len(flow) > maxDepth {
			return t.Position, "nested more than 64 deep"
		}
		for _, l := range [][]level{block, flow} {
			if len(l) > 0 && l[len(l)-1].keys > maxKeys {
				return t.Position, "more than 256 keys in one map"
			}
		}
	}
	return nil, ""
}

type yamlReader struct {
	name string
	r    *report
}

func (y *yamlReader) node(n ast.Node, depth int) *node {
	pos := at(y.name, n.GetToken().Position)
	if depth > maxDepth {
		y.r.add(pos, "", "nested more than 64 deep")
		return &node{pos: pos, kind: broken}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return y.mapping(n.Values, pos, depth)
	case *ast.MappingValueNode:
		return y.mapping([]*ast.MappingValueNode{n}, pos, depth)
	case *ast.SequenceNode:
		out := &node{pos: pos, kind: list}
		for _, v := range n.Values {
			out.list = append(out.list, y.node(v, depth+1))
		}
		return out
	case *ast.LiteralNode:
		return &node{pos: pos, kind: scalar, text: n.Value.Value}
	case *ast.NullNode:
		return &node{pos: pos, kind: null}
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return &node{pos: pos, kind: scalar, text: n.GetToken().Value}
	case *ast.AliasNode:
		hint := ""
		if text := strings.Trim(n.String(), " "); strings.HasPrefix(text, "*") {
			hint = `a pattern that begins with * needs quotes: "` + printable(text) + `"`
		}
		y.r.add(pos, hint, "anchors and aliases of YAML are not taken")
	case *ast.AnchorNode:
		y.r.add(pos, "what several routes share stands at their listener, what several listeners share in `defaults`", "anchors and aliases of YAML are not taken")
	case *ast.TagNode:
		y.r.add(pos, "", "tags of YAML are not taken")
	default:
		y.r.add(pos, "", "not a value, a list or a map")
	}
	return &node{pos: pos, kind: broken}
}

func (y *yamlReader) mapping(values []*ast.MappingValueNode, pos Pos, depth int) *node {
	out := &node{pos: pos, kind: mapping}
	for i, v := range values {
		key := v.Key.GetToken()
		kpos := at(y.name, key.Position)
		if i == 0 {
			out.pos = kpos // the parser's own is that of the first colon
		}
		switch v.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		default:
			y.r.add(kpos, "", "a key is a plain word")
			continue
		}
		if out.entry(key.Value) != nil {
			y.r.add(kpos, "", "`%s` stands here twice", printable(key.Value))
			continue
		}
		out.entries = append(out.entries, &entry{key.Value, kpos, y.node(v.Value, depth+1)})
	}
	return out
}
