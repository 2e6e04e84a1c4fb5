package dane

import (
	"errors"
	"fmt"
)

// State is what DNSSEC says of an answer.
type State uint8

const (
	Failed   State = iota // there was no answer: nothing is known
	Bogus                 // there was one, and its signatures are wrong, or missing where there have to be some
	Insecure              // the zone is not signed; by a resolver's word also where it validates nothing
	Secure
)

func (s State) String() string {
	switch s {
	case Bogus:
		return "bogus"
	case Insecure:
		return "insecure"
	case Secure:
		return "secure"
	}
	return "failed"
}

// Error is a look-up without a result. Its State is Failed or Bogus.
type Error struct {
	State State
	Name  string // what was looked up
	Type  string
	Err   error
}

func (e *Error) Error() string {
	if e.State == Bogus {
		return fmt.Sprintf("the answer for %s %s does not hold (DNSSEC): %s", e.Name, e.Type, e.Err)
	}
	return fmt.Sprintf("looking up %s %s: %s", e.Name, e.Type, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// bogus marks what DNSSEC refutes.
type bogus struct{ error }

func (b bogus) Unwrap() error { return b.error }

func bogusf(format string, args ...any) error { return bogus{fmt.Errorf(format, args...)} }

func failure(q question, err error) *Error {
	e := &Error{Failed, q.show(), q.typeName(), err}
	if _, is := errors.AsType[bogus](err); is {
		e.State = Bogus
	}
	return e
}
