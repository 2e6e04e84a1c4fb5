package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sallyport/config"
)

const (
	readme      = "../../README.md"
	programPage = "../../doc/sallyport.1"
	filePage    = "../../doc/sallyport.yaml.5"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestManualHasEveryCommandAndFlag(t *testing.T) {
	text := readDoc(t, programPage+".md")
	commands := newRoot(nil).Commands()
	if len(commands) < 6 {
		t.Fatalf("%d commands", len(commands))
	}
	for _, c := range commands {
		if !strings.Contains(text, "\n- `"+c.Name()) {
			t.Errorf("%s.md does not say what %s does", programPage, c.CommandPath())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !regexp.MustCompile("`--" + f.Name + "[ `]").MatchString(text) {
				t.Errorf("%s.md: no --%s, of %s", programPage, f.Name, c.CommandPath())
			}
		})
	}
}

// described are the keys that the page has an item for, with the item's text.
func described(t *testing.T) map[string]string {
	t.Helper()
	_, text, ok := strings.Cut(readDoc(t, filePage+".md"), "\n## AT THE TOP\n")
	if !ok {
		t.Fatal("the page has no part AT THE TOP")
	}
	items := map[string]string{}
	where := "file"
	for _, part := range regexp.MustCompile(`(?m)^(- |#+ )`).Split(text, -1) {
		if strings.HasPrefix(part, "A LISTENER") {
			where = "listener"
		}
		if m := regexp.MustCompile("^`([a-z0-9_.]+)`: ").FindStringSubmatch(part); m != nil {
			key := m[1]
			if where != "file" {
				key = twice(key)
			}
			if items[key] != "" {
				t.Errorf("%s is described twice", key)
			}
			items[key] = strings.Join(strings.Fields(part[len(m[0]):]), " ")
		}
	}
	return items
}

// twice tells the maps of a listener or route from those that stand at the top under
// the same name.
func twice(key string) string {
	if top, _, _ := strings.Cut(key, "."); top == "unsafe" || top == "limits" {
		return "route " + key
	}
	return key
}

// refers is a text that leaves the words to another key's.
var refers = regexp.MustCompile("as (in )?`")

func TestManualHasEveryKeyWithItsDefault(t *testing.T) {
	items := described(t)
	delete(items, "listeners") // it holds the others
	keys := config.Keys()
	if len(keys) < 60 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, k := range keys {
		name := k.Path
		if k.In != "file" {
			name = twice(name)
		}
		text, ok := items[name]
		delete(items, name)
		if !ok {
			t.Errorf("%s.md does not describe %s, of a %s", filePage, k.Path, k.In)
			continue
		}
		// tls alone is its preset, which has an item of its own.
		if k.Path == "tls" || k.Path == "to.tls" {
			continue
		}
		if k.Default != "" && !strings.Contains(text, "Default: `"+k.Default+"`") {
			t.Errorf("%s.md: %s does not say its default, %s: %q", filePage, k.Path, k.Default, text)
		}
		for _, word := range k.Values {
			if !strings.Contains(text, "`"+word+"`") && !refers.MatchString(text) {
				t.Errorf("%s.md: %s does not say what %s is", filePage, k.Path, word)
			}
		}
	}
	for name := range items {
		t.Errorf("%s.md describes %s, which is no key", filePage, name)
	}
}

func TestPagesAreRendered(t *testing.T) {
	for _, page := range []string{programPage, filePage} {
		source, page := readDoc(t, page+".md"), readDoc(t, page)
		first, rest, _ := strings.Cut(page, "\n")
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(source))); !strings.HasSuffix(first, want) {
			t.Errorf("a page is not of its source any more; run `make docs` (%s)", first)
		}
		if strings.Count(rest, "\n.SH ") < 4 {
			t.Errorf("a page without parts:\n%.400s", rest)
		}
	}
	plain := strings.NewReplacer(`\&`, "", `\-`, "-", `\`, "").Replace(readDoc(t, filePage))
	for _, k := range config.Keys() {
		if !strings.Contains(plain, `fB`+k.Path+`fR`) {
			t.Errorf("%s has no %s", filePage, k.Path)
		}
	}
}

// Every line that a reader may copy is one that the program takes.
func TestExamplesOfDocsParse(t *testing.T) {
	root := newRoot(nil)
	proxy, _, err := root.Find([]string{"proxy"})
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []struct {
		name, text string
		least      int
	}{
		{readme, readDoc(t, readme), 8},
		{programPage + ".md", readDoc(t, programPage+".md"), 6},
		{"sallyport --help", regexp.MustCompile(`(?m)^  \S+ +sallyport`).ReplaceAllString(about, "  sallyport"), 4},
		{"sallyport proxy --help", proxy.Example, 3},
	} {
		found := 0
		for line := range strings.Lines(doc.text) {
			if !strings.HasPrefix(line, "  ") || strings.ContainsAny(line, "[|") {
				continue // prose, or the form of a command
			}
			args := shellWords(line)
			if len(args) < 2 || args[0] != "sallyport" || args[1] == "proxy" && !strings.Contains(args[2], "://") {
				continue
			}
			found++
			parses(t, doc.name, args[1:])
		}
		if found < doc.least {
			t.Errorf("%s: %d examples found, there should be %d", doc.name, found, doc.least)
		}
	}
}

// parses runs a command as far as it starts nothing.
func parses(t *testing.T, where string, args []string) {
	t.Helper()
	root := newRoot(nil)
	var out bytes.Buffer
	root.SetOut(&out)
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root {
		t.Errorf("%s: %q: %v", where, args, err)
		return
	}
	if cmd.Name() != "proxy" {
		if err := cmd.ParseFlags(rest); err != nil {
			t.Errorf("%s: %q: %v", where, args, err)
		}
		return
	}
	if !slices.Contains(args, "--print-config") {
		args = append(args, "--print-config")
	}
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		t.Errorf("%s: %q: %v", where, args, err)
		return
	}
	if _, err := config.Parse("printed.yaml", out.Bytes(), config.Options{}); err != nil {
		t.Errorf("%s: %q prints a file that is not taken: %v", where, args, err)
	}
}

// shellWords splits a line as a shell does where it has quotes, a remark or a
// redirection and nothing more difficult.
func shellWords(line string) []string {
	line, _, _ = strings.Cut(line, " #")
	line, _, _ = strings.Cut(line, " > ")
	words := strings.Fields(line)
	for i, w := range words {
		words[i] = strings.Trim(w, `'`)
	}
	return words
}

func TestFilesOfDocsParse(t *testing.T) {
	var files []string
	for _, m := range regexp.MustCompile("(?s)\n```yaml\n(.*?)```\n").FindAllStringSubmatch(readDoc(t, readme), -1) {
		files = append(files, m[1])
	}
	for _, block := range regexp.MustCompile(`(?m)(?:^ {4}.*\n)+`).FindAllString(readDoc(t, filePage+".md"), -1) {
		if strings.HasPrefix(block, "    listeners:") {
			files = append(files, strings.ReplaceAll("\n"+block, "\n    ", "\n"))
		}
	}
	if len(files) < 3 {
		t.Fatalf("%d files found", len(files))
	}
	for _, text := range files {
		if _, err := config.Parse("example.yaml", []byte(text), config.Options{}); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
