// Package spiffe is who we are and whom we trust by word of a SPIFFE agent, over
// the Workload API of its socket. Both change while we run: a [Workload] is a
// credential.Source and gives an authenticator, and each handshake gets what is
// true then.
package spiffe
