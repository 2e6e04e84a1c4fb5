// Package admin is where the process is looked at and told from outside: a window
// for anybody, read only, with what Prometheus asks for, and the control socket for
// who runs it, which does what the Controller can. Both speak HTTP/1.1 in clear,
// bounded in all that a stranger could make long or many.
package admin
