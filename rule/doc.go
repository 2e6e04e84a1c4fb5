// Package rule is the language of `if`: an expression over what was verified of a
// peer and agreed on with it, that says whether it may pass; or over what is known
// before any of that, that says whether a route takes it.
//
//	r, err := rule.Parse(`any(dns, like(#, "*.ops.example")) and within(address, "10.0.0.0/8")`)
//	ok, err := r.Holds(subject)
//
//	c, err := rule.ParseChoice(`sni == "a.example" and "h2" in alpn`)
//	ok, err := c.Holds(arrival)
//
// The language is that of github.com/expr-lang/expr, less all that could read a
// clock, a file or the network, and less all that could make much work or memory
// out of what a stranger sends: names are bounded in number and size, no more than
// two loops stand in each other, and nothing is built in them.
package rule
