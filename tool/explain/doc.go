// Package explain says in plain words what a configuration amounts to: what each
// listener takes, which name goes where, who may pass, what a client gets that is
// not as it should be, what is unsafe, and what expires when. Where a name goes it
// asks of the very table that the proxy asks.
package explain
