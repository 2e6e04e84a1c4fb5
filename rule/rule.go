package rule

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

// Bounds on an expression, which is the operator's own.
const (
	maxText   = 4096
	maxNodes  = 256
	maxMemory = 10_000 // elements of the lists and maps that it makes
	maxLoops  = 2      // in each other
	maxSums   = 4      // of texts each may be twice as long as those before, by `let`
)

// builtins are those of expr that cost no more than their arguments and make no list.
var builtins = strings.Fields("all any none one count len lower upper trim hasPrefix hasSuffix indexOf duration abs min max")

// expression is one that is right.
type expression struct {
	text    string
	program *vm.Program
	asks    []string // words of its language that stand in it
}

// Error is what is wrong with an expression.
type Error struct {
	Offset int // in bytes
	Msg    string
	Hint   string
}

func (e *Error) Error() string { return e.Msg }

// language is what an expression can ask of.
type language struct {
	of     any // the zero struct whose fields are the words
	hint   string
	absent func(word string) (msg, hint string) // words that it lacks for a reason; else empty
}

// compile makes an expression, which must be true or false.
func compile(text string, in language) (expression, error) {
	if strings.TrimSpace(text) == "" {
		return expression{}, &Error{Msg: "an empty expression"}
	}
	if len(text) > maxText {
		return expression{}, &Error{Msg: fmt.Sprintf("an expression of %d bytes; at most %d are taken", len(text), maxText)}
	}
	l := &limits{words: words(in.of)}
	options := []expr.Option{expr.Env(in.of), expr.AsBool(), expr.MaxNodes(maxNodes), expr.DisableAllBuiltins(), expr.Patch(l)}
	for _, b := range builtins {
		options = append(options, expr.EnableBuiltin(b))
	}
	for _, f := range functions {
		options = append(options, expr.Function(f.name, f.call, f.kind))
	}
	program, err := expr.Compile(text, options...)
	if l.err != nil { // what the compiler says of the same is less clear
		return expression{}, l.at(text)
	}
	if err != nil {
		return expression{}, in.explain(text, err)
	}
	return expression{text, program, l.asks}, nil
}

func (e *expression) String() string { return e.text }

// holds says whether the expression is true of env. What fails is not true.
func (e *expression) holds(env any) (is bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			is, err = false, fmt.Errorf("evaluating `if`: %v", p)
		}
	}()
	out, err := (&vm.VM{MemoryBudget: maxMemory}).Run(e.program, env)
	if err != nil {
		return false, fmt.Errorf("evaluating `if`: %w", brief(err))
	}
	is, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("`if` gave %T, neither true nor false", out)
	}
	return is, nil
}

// brief is an error of expr without the lines that show where.
func brief(err error) error {
	if f := (*file.Error)(nil); errors.As(err, &f) {
		return errors.New(f.Message)
	}
	return err
}

func (in language) explain(text string, err error) error {
	f := (*file.Error)(nil)
	if !errors.As(err, &f) {
		return &Error{Msg: err.Error(), Hint: in.hint}
	}
	e := &Error{Offset: offset(text, f.From), Msg: sentence(f.Message), Hint: in.hint}
	if word, ok := strings.CutPrefix(e.Msg, "unknown name "); ok && in.absent != nil {
		if msg, hint := in.absent(word); msg != "" {
			e.Msg, e.Hint = msg, hint
		}
	}
	return e
}

// words are those of the fields of a struct, in their order.
func words(of any) []string {
	var list []string
	for f := range reflect.TypeOf(of).Fields() {
		list = append(list, f.Tag.Get("expr"))
	}
	return list
}

// offset of a rune, in bytes.
func offset(text string, runes int) int {
	n := 0
	for i := range text {
		if n == runes {
			return i
		}
		n++
	}
	return len(text)
}

// sentence is expr's message as ours begin and on one line.
func sentence(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 1 && unicode.IsUpper(r[0]) && !unicode.IsUpper(r[1]) {
		r[0] = unicode.ToLower(r[0])
		return string(r)
	}
	return s
}

// limits looks at each part of an expression before it is compiled.
type limits struct {
	words []string
	asks  []string
	sums  int
	err   *Error
	from  int // in runes
}

func (l *limits) at(text string) error {
	l.err.Offset = offset(text, l.from)
	return l.err
}

func (l *limits) fail(n ast.Node, format string, args ...any) {
	if l.err == nil {
		l.err, l.from = &Error{Msg: fmt.Sprintf(format, args...)}, n.Location().From
	}
}

// Visit is called for the parts before their whole.
func (l *limits) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		l.ask(n.Value)
	case *ast.PredicateNode:
		if depth(n) > maxLoops {
			l.fail(n, "more than %d loops in each other", maxLoops)
		}
	case *ast.BuiltinNode:
		if !slices.Contains(builtins, n.Name) { // expr lets those with loops pass
			l.fail(n, "no %s here: an expression only asks, with %s", n.Name, strings.Join(builtins, ", "))
		}
	case *ast.BinaryNode:
		_, literal := n.Right.(*ast.StringNode)
		if n.Operator == "matches" && !literal {
			l.fail(n.Right, "matches takes its regular expression as a text in quotes: not one that a stranger sends")
		}
		if n.Operator == "+" {
			l.sum(n)
		}
		if n.Operator == ".." {
			l.fail(n, "no ranges: there is nothing here to number")
		}
	case *ast.CallNode:
		l.call(n)
	}
}

// ask notes a word of the language, of which $env is all.
func (l *limits) ask(word string) {
	switch {
	case word == "$env":
		l.asks = l.words
	case slices.Contains(l.words, word) && !slices.Contains(l.asks, word):
		l.asks = append(l.asks, word)
	}
}

func (l *limits) sum(n *ast.BinaryNode) {
	if l.sums++; l.sums > maxSums {
		l.fail(n, "more than %d times +: texts would grow without bound", maxSums)
	}
}

func (l *limits) call(n *ast.CallNode) {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return
	}
	for _, f := range functions {
		if f.name != id.Value || len(n.Arguments) == 0 {
			continue
		}
		last := n.Arguments[len(n.Arguments)-1]
		s, literal := last.(*ast.StringNode)
		if !literal {
			l.fail(last, "%s takes %s as a text in quotes", f.name, f.takes)
			return
		}
		if err := f.check(s.Value); err != nil {
			l.fail(last, "%v", err)
		}
	}
}

// depth counts the loops in each other from n on.
func depth(n *ast.PredicateNode) int {
	d := &deepest{}
	ast.Walk(&n.Node, d)
	return d.depth + 1
}

type deepest struct{ depth int }

func (d *deepest) Visit(node *ast.Node) {
	if p, ok := (*node).(*ast.PredicateNode); ok {
		d.depth = max(d.depth, depth(p))
	}
}
