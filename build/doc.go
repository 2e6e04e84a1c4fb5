// Package build turns the typed tree of a file into running objects. It is the
// only room that knows every kind of thing, with one readable switch a kind. It
// fails whole, and binds sockets last.
package build
