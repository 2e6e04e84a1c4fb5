// Command man renders the manual from Markdown to roff:
//
//	man doc/sallyport.1.md doc/sallyport.yaml.5.md
//
// Each page goes beside its source, without the .md. The first line of a page
// bears the hash of the source that it was made from.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

func main() {
	for _, source := range os.Args[1:] {
		if err := render(source); err != nil {
			fmt.Fprintf(os.Stderr, "man: %s: %s\n", source, err)
			os.Exit(1)
		}
	}
}

// title is the first line of a page: # sallyport(1)
var title = regexp.MustCompile(`^# ([\w.]+)\((\d)\)\n`)

func render(source string) error {
	target, ok := strings.CutSuffix(source, ".md")
	if !ok {
		return fmt.Errorf("no Markdown")
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	m := title.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("does not begin with a line like # sallyport(1)")
	}
	// No date: a page would differ each day it is made.
	head := fmt.Sprintf("%% %q %q \"\" \"sallyport\" \"Sallyport's manual\"\n", strings.ToUpper(string(m[1])), m[2])
	roff := md2man.Render(append([]byte(head), text[len(m[0]):]...))
	var page bytes.Buffer
	fmt.Fprintf(&page, ".\\\" Made by `make docs` from the source with SHA-256 %x\n", sha256.Sum256(text))
	page.Write(bytes.TrimSpace(roff))
	page.WriteByte('\n')
	return os.WriteFile(target, page.Bytes(), 0o644)
}
