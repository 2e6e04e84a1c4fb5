package transport

import "fmt"

// worded is an error for people: its text ends with the hint, and the system's
// own words, which say it again, are left to errors.Is.
type worded struct {
	text  string
	cause error
}

func inWords(cause error, format string, args ...any) error {
	return &worded{fmt.Sprintf(format, args...), cause}
}

func (w *worded) Error() string { return w.text }
func (w *worded) Unwrap() error { return w.cause }
