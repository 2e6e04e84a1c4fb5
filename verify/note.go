package verify

import (
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Note is something about an identity that passed which an operator should know.
type Note struct {
	Code Reason // what it would have been refused for
	Text string
}

func (n Note) String() string { return string(n.Code) + ": " + n.Text }

// notes are taken by checks that run side by side.
type notes struct {
	mu      sync.Mutex
	list    []Note
	dropped map[int]bool // paths
	staple  *time.Duration
	logs    []string
	idle    []string // checks that had nothing to judge by
}

// drop says that path i is none after all. Others still read it.
func (id *Identity) drop(i int) {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	if id.notes.dropped == nil {
		id.notes.dropped = map[int]bool{}
	}
	id.notes.dropped[i] = true
}

// left are the paths that no check has dropped.
func (id *Identity) left() [][]*x509.Certificate {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	if id.notes.dropped == nil {
		return id.chains
	}
	var left [][]*x509.Certificate
	for i, path := range id.chains {
		if !id.notes.dropped[i] {
			left = append(left, path)
		}
	}
	return left
}

// stapled keeps how old the staple is that said that the leaf was not revoked.
func (id *Identity) stapled(age time.Duration) {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	id.notes.staple = &age
}

// StapleAge is how old the stapled OCSP response was that said that the leaf was not
// revoked, by its thisUpdate; nil where none counted.
func (id *Identity) StapleAge() *time.Duration {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	return id.notes.staple
}

// logged keeps the names of the logs whose SCTs count.
func (id *Identity) logged(logs []string) {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	id.notes.logs = logs
}

// Logs are the descriptions, from the verified list, of the logs of Certificate
// Transparency whose SCTs of the leaf count, whether or not they are enough.
func (id *Identity) Logs() []string {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	return id.notes.logs
}

// idled notes that the check of that name has let pass what it could not judge.
func (id *Identity) idled(check string) {
	id.notes.mu.Lock()
	defer id.notes.mu.Unlock()
	id.notes.idle = append(id.notes.idle, check)
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
