package verify

import (
	"fmt"
	"slices"
	"sync"
)

// Note is something about an identity that passed which an operator should know.
type Note struct {
	Code Reason // what it would have been refused for
	Text string
}

func (n Note) String() string { return string(n.Code) + ": " + n.Text }

// notes are taken by checks that run side by side.
type notes struct {
	mu   sync.Mutex
	list []Note
}

const maxNotes = 8

// Note adds what code would have been a reason to refuse for, under another
// policy. More than a few of them are not kept.
func (id *Identity) Note(code Reason, format string, args ...any) {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	n := Note{code, fmt.Sprintf(format, args...)}
	if len(id.notes.list) < maxNotes && !slices.Contains(id.notes.list, n) {
		id.notes.list = append(id.notes.list, n)
	}
}

// Notes are those taken so far.
func (id *Identity) Notes() []Note {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	return slices.Clone(id.notes.list)
}
