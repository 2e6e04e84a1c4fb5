package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrors bounds a report: what comes after is mostly what follows from the
// first ones.
const maxErrors = 10

// Error is one thing that is wrong with a file or with the command line.
type Error struct {
	Pos  Pos
	Msg  string
	Line string // the line of the file; empty for a flag
	Hint string
}

func (e *Error) Error() string {
	var b strings.Builder
	if p := e.Pos.String(); p != "" {
		b.WriteString(p + ": ")
	}
	b.WriteString(e.Msg)
	if e.Line != "" {
		number := strconv.Itoa(e.Pos.Line)
		fmt.Fprintf(&b, "\n  %s | %s\n  %s | %s^",
			number, printable(e.Line), strings.Repeat(" ", len(number)), indent(e.Line, e.Pos.Col-1))
	}
	if e.Hint != "" {
		b.WriteString("\nhint: " + e.Hint)
	}
	return b.String()
}

// Errors are all that was found in one go.
type Errors []*Error

func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i == maxErrors {
			fmt.Fprintf(&b, "\nand %d more", len(e)-maxErrors)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
	}
	return b.String()
}

// Unwrap lets errors.As reach the single ones.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i := range e {
		out[i] = e[i]
	}
	return out
}

func (p Pos) String() string {
	switch {
	case p.Flag != "":
		return p.Flag
	case p.Line > 0:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
	return p.File
}

// word names a key as the user would write it at p: as a flag on the command
// line, as a path in a file.
func (p Pos) word(path string) string {
	if p.Flag != "" {
		switch path {
		case "from":
			return "FROM"
		case "to", "to.addr":
			return "TO"
		}
		return "--" + flagName(path)
	}
	return "`" + path + "`"
}

// complaint is an error about a value whose position its reader does not know.
type complaint struct {
	msg, hint string
	text      string // the value, where the complaint is about a part of it
	offset    int    // of that part, in bytes
}

func (c *complaint) Error() string { return c.msg }

func complain(hint, format string, args ...any) error {
	return &complaint{msg: fmt.Sprintf(format, args...), hint: hint}
}

// report gathers errors and the lines that they show.
type report struct {
	errs    Errors
	sources map[string][]string
}

func (r *report) add(pos Pos, hint, format string, args ...any) {
	const most = 100 // each further one is compared with all before
	if len(r.errs) == most {
		return
	}
	msg := fmt.Sprintf(format, args...)
	for _, e := range r.errs {
		if e.Pos == pos && e.Msg == msg {
			return // an inherited value is seen once for each heir
		}
	}
	e := &Error{Pos: pos, Msg: msg, Hint: hint}
	if lines := r.sources[pos.File]; pos.Flag == "" && pos.Line > 0 && pos.Line <= len(lines) {
		e.Line = lines[pos.Line-1]
	}
	r.errs = append(r.errs, e)
}

func (r *report) fail(pos Pos, err error) {
	if c, ok := err.(*complaint); ok {
		r.add(r.within(pos, c), c.hint, "%s", c.msg)
		return
	}
	r.add(pos, "", "%s", err.Error())
}

// within moves pos to the part of a value that c is about, where the value stands
// there as it is: plain, in quotes without escapes, or as a block.
func (r *report) within(pos Pos, c *complaint) Pos {
	lines := r.sources[pos.File]
	if pos.Flag != "" || pos.Line < 1 || pos.Line > len(lines) || pos.Col < 1 || c.text == "" {
		return pos
	}
	line := []rune(lines[pos.Line-1])
	if pos.Col > len(line) {
		return pos
	}
	before := c.text[:min(c.offset, len(c.text))]
	rest := string(line[pos.Col-1:])
	if rest[0] == '|' || rest[0] == '>' {
		return r.inBlock(pos, c.text, before)
	}
	quote := 0
	if rest[0] == '"' || rest[0] == '\'' {
		rest, quote = rest[1:], 1
	}
	if strings.HasPrefix(rest, c.text) && before != "" {
		pos.Col += quote + utf8.RuneCountInString(before)
	}
	return pos
}

// inBlock finds the line of a literal block that before ends in.
func (r *report) inBlock(pos Pos, text, before string) Pos {
	n := strings.Count(before, "\n")
	lines := r.sources[pos.File]
	at := pos.Line + n // counted from 0: the block begins below its mark
	if at >= len(lines) {
		return pos
	}
	want := strings.Split(text, "\n")[n]
	indent := strings.Index(lines[at], want)
	if indent < 0 || strings.TrimSpace(lines[at][:indent]) != "" {
		return pos
	}
	pos.Line = at + 1
	pos.Col = indent + 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return pos
}

func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return r.errs
}

// source keeps the lines of a file for the errors about it.
func (r *report) source(name string, src []byte) {
	if r.sources == nil {
		r.sources = map[string][]string{}
	}
	lines := strings.Split(string(src), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	r.sources[name] = lines
}

// printable keeps a file's bytes from steering the terminal that shows them.
func printable(line string) string {
	const most = 240
	out := strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, line)
	out = withoutSecrets(out)
	if r := []rune(out); len(r) > most {
		return string(r[:most]) + "..."
	}
	return out
}

// withoutSecrets puts stars for what may be a password in an address, and for a key
// that stands where its file should: errors go into logs. The columns stay.
func withoutSecrets(line string) string {
	stars := func(s string) string { return strings.Repeat("*", len([]rune(s))) }
	const begin = "-----BEGIN "
	if before, key, ok := strings.Cut(line, begin); ok {
		return before + begin + stars(key)
	}
	line = inBase64.ReplaceAllStringFunc(line, stars)
	out, done := "", 0
	for _, at := range userinfo.FindAllStringSubmatchIndex(line, -1) {
		from, to := at[2], at[3]
		out, done = out+line[done:from]+stars(line[from:to]), to
	}
	return out + line[done:]
}

// inBase64 finds what may be a key, in DER (which begins with a SEQUENCE) or in PEM.
var inBase64 = regexp.MustCompile(`(?:M[A-Za-z]|LS0tLS1CRUdJTi)[A-Za-z0-9+/]{60,}=*`)

// userinfo finds what stands behind USER: up to the last @ of a word: whoever writes a
// password into an address does not always escape what is in it.
var userinfo = regexp.MustCompile(`(?:[a-zA-Z][a-zA-Z0-9+.-]*://)?[^\s:/@]*:(/?[^\s/]\S*|/)@`)

// indent is as wide as the first n characters of line, tabs included.
func indent(line string, n int) string {
	out := make([]rune, 0, max(n, 0))
	for _, r := range line {
		if len(out) >= n {
			break
		}
		if r != '\t' {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
