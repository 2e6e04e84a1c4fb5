// Package observe tells what happened: one flow record a connection, as text
// for people or JSON for machines. doc/log.md lists its fields and reasons.
//
// What strangers send, such as server names and protocols, is escaped by slog's
// handlers and cut to a bound here.
package observe
